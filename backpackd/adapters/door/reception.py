"""Takes connections from the listeners, and sends them on to the door one after the other.

It asks the kernel who connected at the moment of the accept, refuses foreign users there and then,
and has the others wait for their turn (see `arrivals`). It knows nothing of process trees but what
the door tells it of those that it has looked at.

A newcomer's group is the tree that the very same process was found in last. Of a process that was
not seen before it is its process group: a shell makes one for each command, so what a person types
does not stand behind what runs in another job, or in the background, of the same shell.

A tree at its limit gets in only where one of its own makes way, and whoever makes way connects
again at once. So after such a trade, or a refusal, its line rests for a moment: else a tree of more
processes than connections keeps the daemon busy with nothing else.

Little is done in one turn of the event loop, so that the connections that are open get theirs. And
while requests wait at the door, one connection is opened at a time, with a pause before the next:
each costs several times what a call does, and those of a flood all end in the same moment.
"""

import asyncio
import errno
import os
import resource
import socket
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from backpackd.adapters.door.arrivals import Arrivals, Limits
from backpackd.adapters.door.credentials import ForeignUserError, ReadCredentials, peer_ids
from backpackd.adapters.door.listener import Listener
from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.ports import Peer, PinnedProcess

ACCEPTS_PER_TURN = 32
"""How many connections are taken from the kernel before the event loop does something else."""

OPENS_PER_TURN = 2
"""How many of those that wait are sent on."""

SPACE_SECONDS = 0.004
"""How long none is sent on after one was, while requests wait."""

REST_SECONDS = 0.02
"""How long a tree that is at a limit has no turn after it had one."""

PAUSE_SECONDS = 0.1
"""How long nothing is accepted after the system ran out of something."""

_REMEMBERED = 4096
"""Processes of which it is known in which tree they were."""

_TOO_MANY = "a connection: too many wait to be let in"

_DESCRIPTORS_FOR_ONE = 8
"""How many descriptors there have to be for each one that may wait: it takes two."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Newcomer:
    """An accepted connection. Whoever takes it on takes the socket and the held process.

    Attributes:
        sock: non-blocking.
        peer: who connected, held since the accept.
    """

    sock: socket.socket
    peer: Peer

    @property
    def gone(self) -> bool:
        """Whether it has hung up without a word."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def turn_away(self) -> None:
        """Close it."""
        self.sock.close()
        self.peer.process.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a newcomer.

    Attributes:
        tree: the process tree that it is of; None when that could not be told.
        crowded: whether a limit stood in its way, be it that another connection made way.
        failure: the error of the system that it failed with, if any.
    """

    tree: ProcessId | None = None
    crowded: bool = False
    failure: OSError | None = None


class Reception:
    """The listeners, and those who have connected and wait."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        uid: int,
        credentials: ReadCredentials,
        pin: Callable[[int, int], PinnedProcess],
        send_on: Callable[[Newcomer], Outcome],
        refuse: Callable[[str], None],
        make_room: Callable[[], None],
        crowded: Callable[[], bool],
        on_foreign: Callable[[int], None],
    ) -> None:
        """Take the listeners over; nothing is accepted before `start`.

        Args:
            listeners: closed by `stop`.
            uid: the only uid that is let in.
            credentials: reads who connected.
            pin: takes a pid and its pidfd (-1 on macOS) over and holds the process.
            send_on: opens or refuses a newcomer, and takes it over either way.
            refuse: told what was refused here and why.
            make_room: called when the system has run out of something.
            crowded: tells whether requests wait at the door.
            on_foreign: told the uid of every connection of another user.
        """
        self._listeners = list(listeners)
        self._uid = uid
        self._credentials = credentials
        self._pin = pin
        self._send_on = send_on
        self._refuse = refuse
        self._make_room = make_room
        self._crowded = crowded
        self._on_foreign = on_foreign
        self._arrivals: Arrivals[Newcomer] = Arrivals(_limits())
        self._trees: OrderedDict[int, ProcessId] = OrderedDict()
        self._not_before = 0.0
        self._turn: asyncio.Handle | None = None
        self._resume: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing is accepted because the system ran out of something."""
        return self._resume is not None

    def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Close the listeners and turn away those who wait. Twice is harmless."""
        for handle in (self._turn, self._resume):
            if handle:
                handle.cancel()
        self._turn = self._resume = None
        self._ignore_listeners()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for newcomer in self._arrivals.clear():
            newcomer.turn_away()

    def _ignore_listeners(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())

    def _accept(self, listener: Listener) -> None:
        """Take connections from the kernel until there is none, or enough for one turn."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock = listener.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._refuse(f"to accept: {name_of(error)}")
                self._pause()
                return
            if not self._admit(sock):
                return
        self._serve_later()

    def _admit(self, sock: socket.socket) -> bool:
        """Put a connection in line or refuse it. False: the system ran out of something."""
        try:
            pid, uid = peer_ids(sock)
            _check(uid, self._uid)
            group = self._group(pid)
            if self._arrivals.full(group):
                with sock:
                    self._refuse(_TOO_MANY)
                return True
            newcomer = self._meet(sock)
        except ForeignUserError as error:
            # Told before it is closed: whoever sees it closed finds it in the log.
            with sock:
                self._refuse(f"a connection of uid {error.uid}")
                self._on_foreign(error.uid)
        except ProcessGoneError:
            with sock:
                self._refuse("a connection of a process that has ended")
        except OSError as error:
            with sock:
                self._refuse(f"a connection: {name_of(error)}")
            return self._go_on_after(error)
        else:
            self._line_up(group, newcomer)
        return True

    def _group(self, pid: int) -> Hashable:
        """Guess with whom a process stands in line.

        Its number may have been another's in the meantime. Then it stands in the wrong line once.
        """
        tree = self._trees.get(pid)
        if tree is not None:
            return tree
        try:
            return os.getpgid(pid)
        except OSError:
            return None

    def _meet(self, sock: socket.socket) -> Newcomer:
        """Hold who connected now: its number may be another process's when its turn comes."""
        sock.setblocking(False)
        told = self._credentials(sock, self._uid)
        try:
            process = self._pin(told.pid, told.pidfd)
        except BaseException:
            if told.pidfd >= 0:
                os.close(told.pidfd)
            raise
        return Newcomer(
            sock, Peer(told.uid, told.gid, process, exposed=process.readable_by(told.uid))
        )

    def _serve_later(self) -> None:
        """See to it that those who wait get their turn."""
        if self._turn is not None or self._resume is not None or not self._arrivals:
            return
        loop = asyncio.get_running_loop()
        due = max(self._arrivals.next_at(), self._not_before)
        if due <= loop.time():
            self._turn = loop.call_soon(self._serve)
        else:
            self._turn = loop.call_at(due, self._serve)

    def _serve(self) -> None:
        """Send on those whose turn it is."""
        self._turn = None
        sent_on = 0
        try:
            for _ in range(ACCEPTS_PER_TURN):
                found = self._arrivals.take(asyncio.get_running_loop().time())
                if found is None:
                    break
                group, newcomer = found
                if newcomer.gone:
                    newcomer.turn_away()
                    continue
                if self._moved(group, newcomer):
                    continue
                outcome = self._send_on(newcomer)
                self._learn(newcomer.peer.process.pid, group, outcome)
                sent_on += 1
                if outcome.failure and not self._go_on_after(outcome.failure):
                    break
                if self._crowded():
                    self._not_before = asyncio.get_running_loop().time() + SPACE_SECONDS
                    break
                if sent_on == OPENS_PER_TURN:
                    break
        finally:
            self._serve_later()

    def _moved(self, group: Hashable, newcomer: Newcomer) -> bool:
        """Let one stand with its tree, where that became known while it waited elsewhere."""
        tree = self._trees.get(newcomer.peer.process.pid, group)
        if tree == group:
            return False
        self._line_up(tree, newcomer)
        return True

    def _line_up(self, group: Hashable, newcomer: Newcomer) -> None:
        last = newcomer if self._arrivals.full(group) else self._arrivals.add(group, newcomer)
        if last is not None:
            last.turn_away()
            self._refuse(_TOO_MANY)

    def _learn(self, pid: int, group: Hashable, outcome: Outcome) -> None:
        """Remember where a process belongs, and that its tree has had its turn."""
        tree = outcome.tree
        if tree is None:
            self._arrivals.serve(group)
            return
        self._trees[pid] = tree
        self._trees.move_to_end(pid)
        if len(self._trees) > _REMEMBERED:
            self._trees.popitem(last=False)
        self._arrivals.serve(group, tree)
        if outcome.crowded:
            self._arrivals.rest(tree, asyncio.get_running_loop().time() + REST_SECONDS)

    def _go_on_after(self, error: OSError) -> bool:
        if error.errno in _EXHAUSTED:
            self._pause()
            return False
        return True

    def _pause(self) -> None:
        """Accept nothing for a moment, and make room: the socket stays readable meanwhile."""
        self._make_room()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._resume is None and self._listeners:
            self._ignore_listeners()
            self._resume = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self.start()
        self._serve_later()


def _check(uid: int, own: int) -> None:
    if uid != own:
        raise ForeignUserError(uid)


def _limits() -> Limits:
    """Tell how many may wait, given how many descriptors there may be (getrlimit(2))."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    total = Limits().total
    if descriptors != resource.RLIM_INFINITY:
        total = min(total, descriptors // _DESCRIPTORS_FOR_ONE)
    return Limits(total // 2, total)


def name_of(error: OSError) -> str:
    """Name an error of the system without its text, which may hold a path."""
    return errno.errorcode.get(error.errno or 0, "an error without a number")
