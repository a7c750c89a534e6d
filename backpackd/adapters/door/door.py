"""The door: accepts connections, knows who is behind each, and closes them in time.

At accept, it asks the kernel who connected, refuses other users at once, and opens the other
connections in turns. A refused connection gets the end of the stream and a line in the log. The
door decides nothing about calls.

A connection lives no longer than the process that opened it: a child that inherited it cannot go on
under the name of a dead parent.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from backpackd.adapters.door.http2 import Connection, Shared
from backpackd.adapters.door.limits import ACCEPTS_PER_TURN, PAUSE_SECONDS, WAITING_OF_TREE
from backpackd.adapters.door.places import Verdict, judge, longest_idle
from backpackd.adapters.door.refusals import EVERY_SECONDS, Refusals
from backpackd.adapters.processes.credentials import (
    ForeignUserError,
    ReadCredentials,
    credentials_reader,
    peer_ids,
)
from backpackd.adapters.system.listener import Listener
from backpackd.core.errors import ProcessGoneError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Clock, FindMethod, Peer, PinnedProcess

_LOG = logging.getLogger(__name__)

_TREES_REMEMBERED = 4096
"""The most processes whose last known tree is remembered."""

_FLUSH_SECONDS = 5.0
"""How long a peer may take to read its remaining answers when the daemon stops."""

_LOOK_SECONDS = 0.01
"""How often to check whether everything is done when the daemon stops."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Door:
    """The connections that are open.

    Everything runs in one event loop; nothing here is safe to call from another thread.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        uid: int,
        pin: Callable[[int, int], PinnedProcess],
        tree_of: Callable[[Peer], ProcessId],
        find: FindMethod,
        clock: Clock,
        authorized: Callable[[Connection], bool] = lambda _: False,
        log: logging.Logger = _LOG,
        credentials: ReadCredentials | None = None,
        on_foreign: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take the listeners over; nothing is accepted before `start`.

        Args:
            listeners: closed when accepting stops.
            uid: the only uid that may connect.
            pin: takes a pid and its pidfd (-1 on macOS) over and holds the process.
            tree_of: names the root of a peer's process tree; may raise ProcessGoneError.
            find: looks up the method for a path.
            clock: the boot clock dates refusals.
            authorized: tells whether a connection has operator authority.
            log: gets refusals.
            credentials: None: this platform's.
            on_foreign: gets the uid of every refused connection of another user.
        """
        self._listeners = list(listeners)
        self._uid = uid
        self._credentials = credentials or credentials_reader()
        self._pin = pin
        self._tree_of = tree_of
        self._clock = clock
        self._log = log
        self._on_foreign = on_foreign
        self._refusals = Refusals(log)
        self._summing_up: asyncio.TimerHandle | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._shared = Shared(find, self._refuse, self._closed, authorized)
        self._trees: dict[ProcessId, dict[Connection, None]] = {}
        self._known: OrderedDict[int, ProcessId] = OrderedDict()

    def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)

    def connections(self) -> list[Connection]:
        """List the connections that are open."""
        return [one for tree in self._trees.values() for one in tree]

    def drop_unread(self) -> None:
        """Close the connections whose peers have not read all of their answers.

        For a lock: an answer from before the lock must not reach a stalled peer after it.
        """
        for connection in self.connections():
            if connection.unread:
                self._refuse("a connection: it does not read what it was sent")
                connection.close()

    def stop_accepting(self) -> None:
        """Close the listeners now. Open connections go on. Calling it twice is harmless."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self._ignore_listeners()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def drain(self, grace: float) -> None:
        """Refuse new calls, end calls that only stay open, and wait for the others.

        Args:
            grace: seconds to wait at most.
        """
        self.stop_accepting()
        self._shared.stopping = True
        for connection in self.connections():
            connection.drain()
        await self._wait_while(lambda connection: bool(connection.calls), grace)

    async def close(self) -> None:
        """Close every connection, each as soon as its peer has read its answers."""
        self.stop_accepting()
        self._shared.stopping = True
        await self._wait_while(lambda connection: connection.unread, _FLUSH_SECONDS)
        for connection in self.connections():
            connection.close()
        self._shared.turns.finish()
        if self._summing_up is not None:
            self._summing_up.cancel()
            self._summing_up = None
        self._refusals.flush(float("inf"))

    async def _wait_while(self, busy: Callable[[Connection], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(map(busy, self.connections())):  # noqa: ASYNC110 - it is once, at the end
                    await asyncio.sleep(_LOOK_SECONDS)

    # Accepting.

    def _ignore_listeners(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())

    def _accept(self, listener: Listener) -> None:
        """Accept connections until there is none, or enough for one turn."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._refuse(f"to accept: {name_of(error)}")
                self._pause()
                return
            if not self._admit(sock):
                return

    def _admit(self, sock: socket.socket) -> bool:
        """Queue a connection or refuse it. Return False if the system ran out of a resource."""
        try:
            sock.setblocking(False)
            if _hung_up(sock):
                sock.close()
                return True
            pid, uid = peer_ids(sock)
            if uid != self._uid:
                raise ForeignUserError(uid)  # noqa: TRY301  # one place for all refusals
            group = ("opening", self._tree_or_group(pid))
            if self._shared.turns.waiting(group) >= WAITING_OF_TREE:
                sock.close()
                self._refuse("a connection: too many wait to be let in")
                return True
            peer = self._meet(sock)
        except ForeignUserError as error:
            # Log before closing: a peer that sees the end finds the line in the log.
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
            self._shared.turns.take(group, lambda: self._let_in(sock, peer, group))
        return True

    def _tree_or_group(self, pid: int) -> Hashable:
        """Guess the tree of a process for queueing, before anything about it is read.

        It is the tree in which the process was last found. For a new process it is its process
        group: a shell makes one for each command. The pid may have been reused in the meantime;
        then the process waits in a wrong queue once.
        """
        tree = self._known.get(pid)
        if tree is not None:
            return tree
        try:
            return os.getpgid(pid)
        except OSError:
            return None

    def _meet(self, sock: socket.socket) -> Peer:
        """Pin the process now: its pid may be reused before its turn comes."""
        told = self._credentials(sock, self._uid)
        try:
            process = self._pin(told.pid, told.pidfd)
        except BaseException:
            if told.pidfd >= 0:
                os.close(told.pidfd)
            raise
        return Peer(told.uid, told.gid, process, exposed=process.readable_by(told.uid))

    # Opening and closing.

    def _let_in(self, sock: socket.socket, peer: Peer, line: Hashable) -> None:
        """Open a connection or refuse it.

        Args:
            sock: the socket, taken over.
            peer: who connected, taken over.
            line: in which it has waited.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(peer.process.close)
            undo.callback(sock.close)
            if _hung_up(sock) or self._shared.stopping:
                return
            try:
                tree = self._tree_of(peer)
            except ProcessGoneError:
                self._refuse("a connection of a process that has ended")
                return
            except OSError as error:
                self._refuse(f"a connection: {name_of(error)}")
                self._go_on_after(error)
                return
            self._known[peer.process.pid] = tree
            self._known.move_to_end(peer.process.pid)
            if len(self._known) > _TREES_REMEMBERED:
                self._known.popitem(last=False)
            verdict: Verdict[Connection] = judge(tree, self._trees)
            if verdict.refusal is not None or verdict.evict is not None:
                self._shared.turns.rest(line)
            if verdict.refusal is not None:
                self._refuse(f"a connection: too many {verdict.refusal}")
                return
            if verdict.evict is not None:
                verdict.evict.close()
            connection = Connection(sock, peer, tree, self._shared)
            self._trees.setdefault(tree, {})[connection] = None
            undo.pop_all()
            connection.start()

    def _closed(self, connection: Connection) -> None:
        tree = self._trees[connection.tree]
        del tree[connection]
        if not tree:
            del self._trees[connection.tree]
        for callback in connection.on_close:
            try:
                callback()
            except Exception as error:  # noqa: BLE001  # the other callbacks must still run
                self._log.error(  # its class only: its text may come from outside
                    "a callback for a closed connection failed: %s", type(error).__name__
                )
        connection.peer.process.close()

    # Handles a system that has run out of a resource.

    def _go_on_after(self, error: OSError) -> bool:
        if error.errno in _EXHAUSTED:
            self._pause()
            return False
        return True

    def _pause(self) -> None:
        """Accept nothing for a moment, and make room; the socket stays readable."""
        victim = longest_idle(self._trees)
        if victim is not None:
            victim.close()
        if self._resume is None and self._listeners:
            self._ignore_listeners()
            self._resume = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._accept_again)

    def _accept_again(self) -> None:
        self._resume = None
        self.start()

    def _refuse(self, what: str) -> None:
        self._refusals.note(what, self._clock.boot())
        self._sum_up_later()

    def _sum_up_later(self) -> None:
        if self._summing_up is None and self._refusals.pending:
            loop = asyncio.get_running_loop()
            self._summing_up = loop.call_later(EVERY_SECONDS, self._sum_up)

    def _sum_up(self) -> None:
        self._summing_up = None
        self._refusals.flush(self._clock.boot())
        self._sum_up_later()


def _hung_up(sock: socket.socket) -> bool:
    """Return whether a peer has closed its end without sending anything."""
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def name_of(error: OSError) -> str:
    """Name a system error without its text, which may hold a path."""
    return errno.errorcode.get(error.errno or 0, "an error without a number")
