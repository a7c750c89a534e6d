"""The door: lets connections in, knows who is behind each, and closes them in time.

It accepts, asks the kernel who connected, holds that process, and relays to the gRPC server behind
it under a one-time name. It decides nothing about calls. Whoever is not let in gets the end of the
stream and a line in the log; nobody is made to wait.

A connection lives no longer than the process that opened it: a child that inherited it gets no
further under its dead parent's name.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence, ValuesView
from dataclasses import dataclass

from backpackd.adapters.door.admission import Limits as CallLimits
from backpackd.adapters.door.budget import Budget
from backpackd.adapters.door.credentials import ReadCredentials, credentials_reader
from backpackd.adapters.door.inner import Inner
from backpackd.adapters.door.lanes import Lane, Lanes
from backpackd.adapters.door.limits import Limits, judge, longest_idle
from backpackd.adapters.door.listener import Listener
from backpackd.adapters.door.opening import Opening, OpeningError
from backpackd.adapters.door.reception import Newcomer, Outcome, Reception, name_of
from backpackd.adapters.door.refusals import EVERY_SECONDS, Refusals
from backpackd.adapters.door.relay import Relay
from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.ports import Clock, Connection, Peer, PinnedProcess

_LOG = logging.getLogger(__name__)

MARK_BYTES = 32
"""How many random bytes a connection's mark has."""

_UNREAD = "a connection: it does not read what it was sent"


def _nothing(_: int) -> None:
    """Do nothing."""


class _RefusedError(Exception):
    """A connection is not let in; the message says which limit stands in the way."""


@dataclass(slots=True)
class _Entry:
    """One open connection; implements `limits.Held`."""

    connection: Connection
    relay: Relay
    lane: Lane
    deadline: asyncio.TimerHandle

    @property
    def name(self) -> str:
        return self.connection.name

    @property
    def calls(self) -> int:
        # Those that wait at the door are in progress for their callers, and not yet for the server.
        return self.connection.calls - self.lane.stands + self.lane.waits

    @property
    def stands(self) -> bool:
        return self.lane.stands > 0

    @property
    def idle_since(self) -> float:
        return self.relay.active_at


class Door:
    """The connections that are open. Implements `ports.Connections`.

    Everything runs in one event loop; nothing here is safe to call from another thread.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        inner: Inner,
        *,
        uid: int,
        pin: Callable[[int, int], PinnedProcess],
        tree_of: Callable[[Peer], ProcessId],
        clock: Clock,
        limits: Limits | None = None,
        call_limits: CallLimits | None = None,
        budget: Budget | None = None,
        authorized: Callable[[Connection], bool] = lambda _: False,
        log: logging.Logger = _LOG,
        credentials: ReadCredentials | None = None,
        on_foreign: Callable[[int], None] = _nothing,
    ) -> None:
        """Take the listeners over; nothing is accepted before `start`.

        Args:
            listeners: closed when accepting stops.
            inner: the way to the gRPC server.
            uid: the only uid that is let in.
            pin: takes a pid and its pidfd (-1 on macOS) over and holds the process.
            tree_of: names the root of a peer's process tree; may raise ProcessGoneError.
            clock: the boot clock says how long a connection has been idle.
            limits: of connections; None: the defaults.
            call_limits: of calls in progress; None: the defaults.
            budget: for the bytes of unfinished requests; None: one with the defaults.
            authorized: tells whether a connection has operator authority, and with it no budget.
            log: where refusals go.
            credentials: None: this platform's.
            on_foreign: told the uid of every connection of another user that was refused.
        """
        self._reception = Reception(
            listeners,
            uid=uid,
            credentials=credentials or credentials_reader(),
            pin=pin,
            send_on=self._let_in,
            refuse=self._refuse,
            make_room=self._make_room,
            crowded=lambda: self._lanes.admission.waiting,
            on_foreign=on_foreign,
        )
        self._inner = inner
        self._tree_of = tree_of
        self._clock = clock
        self._limits = limits or Limits()
        self._lanes = Lanes(
            clock, call_limits, budget=budget, authorized=authorized, refuse=self._refuse
        )
        self._log = log
        self._refusals = Refusals(log)
        self._flush: asyncio.TimerHandle | None = None
        self._entries: dict[str, _Entry] = {}
        self._trees: dict[ProcessId, dict[str, _Entry]] = {}
        self._emptied = asyncio.Event()

    async def start(self) -> None:
        """Begin to accept."""
        self._reception.start()

    def find(self, name: str) -> Connection | None:
        """Look an open connection up by the name that the server sees."""
        entry = self._entries.get(name)
        return entry.connection if entry else None

    def arrived(self, mark: str) -> None:
        """Say that the server has taken up a request with a connection's mark, be it closed by now.

        Until then the request keeps its place: what waits in the server cannot be overtaken.
        """
        self._lanes.arrived(mark)

    def connections(self) -> tuple[Connection, ...]:
        """List the connections that are open, in the order in which they came."""
        return tuple(entry.connection for entry in self._entries.values())

    def drop_unread(self) -> None:
        """Close the connections whose peers have not taken what they were sent.

        For a lock: what was handed to a stalled peer before must not reach it after.
        """
        for name in [name for name, entry in self._entries.items() if entry.relay.unread]:
            self._refuse(_UNREAD)
            self._close(name)

    def stop_accepting(self) -> None:
        """Close the listeners now. Connections that are open go on. Twice is harmless."""
        self._reception.stop()

    async def close(self, grace: float = 5.0) -> None:
        """Flush what is relayed and close every connection.

        For after the gRPC server has stopped. If it has not, it is told that no peer sends more.

        Args:
            grace: seconds after which what a peer does not take is dropped.
        """
        self.stop_accepting()
        for entry in list(self._entries.values()):
            entry.relay.finish()
        if self._entries:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace)
        for name in list(self._entries):
            self._close(name)
        if self._flush:
            self._flush.cancel()
            self._flush = None
        self._lanes.close()
        self._refusals.flush(float("inf"))

    def _let_in(self, newcomer: Newcomer) -> Outcome:
        """Open a connection or refuse it."""
        crowded = False
        tree: ProcessId | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(newcomer.turn_away)
            try:
                tree = self._tree_of(newcomer.peer)
                crowded = self._make_way(tree)
                self._open(newcomer, tree, undo)
            except ProcessGoneError:
                self._refuse("a connection of a process that has ended")
            except _RefusedError as error:
                self._refuse(f"a connection: {error}")
                return Outcome(tree, crowded=True)
            except OSError as error:
                self._refuse(f"a connection: {name_of(error)}")
                return Outcome(tree, crowded, error)
        return Outcome(tree, crowded)

    def _make_way(self, tree: ProcessId) -> bool:
        """Have another connection make way for one of a tree, and tell whether that was needed."""
        verdict = judge(tree, self._by_tree(), self._limits)
        if verdict.refusal:
            raise _RefusedError(f"too many {verdict.refusal}")
        if verdict.evict:
            self._close(verdict.evict)
        return verdict.evict is not None

    def _open(self, newcomer: Newcomer, tree: ProcessId, undo: contextlib.ExitStack) -> None:
        sock, peer = newcomer.sock, newcomer.peer
        inner, name = self._inner.connect()
        undo.callback(inner.close)
        relay = Relay(sock, inner, clock=self._clock.boot, on_close=lambda: self._close(name))
        connection = Connection(name, peer, tree, secrets.token_hex(MARK_BYTES))
        peer.process.on_exit(lambda: self._close(name))
        self._register(connection, relay)
        undo.pop_all()
        undo.callback(self._close, name)
        relay.start()
        undo.pop_all()

    def _register(self, connection: Connection, relay: Relay) -> None:
        """Enter a connection in the table, its first request bounded in time and in bytes."""
        lane = self._lanes.open(connection, relay)
        name = connection.name
        opening = Opening(self._limits.first_request_bytes)
        deadline = asyncio.get_running_loop().call_later(
            self._limits.first_request_seconds, self._too_late, name
        )

        def gate(data: bytes) -> bytes | None:
            try:
                opening.feed(data)
            except OpeningError as error:
                self._refuse(f"a connection: {error}")
                return None
            if opening.started:
                deadline.cancel()
                relay.gate = lane.from_peer
            return lane.from_peer(data)

        relay.gate = gate
        relay.watch = lane.from_server
        relay.on_stall = lambda: self._refuse(_UNREAD)
        connection.close = lambda: self._close(name)
        entry = _Entry(connection, relay, lane, deadline)
        self._entries[name] = entry
        self._trees.setdefault(connection.tree, {})[name] = entry
        self._emptied.clear()

    def _too_late(self, name: str) -> None:
        self._refuse("a connection: no request in time")
        self._close(name)

    def _close(self, name: str) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        tree = self._trees[entry.connection.tree]
        del tree[name]
        if not tree:
            del self._trees[entry.connection.tree]
        entry.deadline.cancel()
        entry.relay.close()
        entry.lane.close()
        for callback in entry.connection.on_close:
            try:
                callback()
            except Exception as error:  # noqa: BLE001  # the others still have to hear of it
                self._log.error(  # its class only: its text may come from outside
                    "a callback for a closed connection failed: %s", type(error).__name__
                )
        entry.connection.peer.process.close()
        if not self._entries:
            self._emptied.set()

    def _by_tree(self) -> dict[ProcessId, ValuesView[_Entry]]:
        return {tree: entries.values() for tree, entries in self._trees.items()}

    def _make_room(self) -> None:
        victim = longest_idle(self._by_tree())
        if victim:
            self._close(victim)

    def _refuse(self, what: str) -> None:
        self._refusals.note(what, self._clock.boot())
        self._flush_later()

    def _flush_later(self) -> None:
        if self._flush is None and self._refusals.pending:
            self._flush = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self._refusals.flush(self._clock.boot())
        self._flush_later()
