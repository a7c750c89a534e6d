"""Live leases: what begins, extends and ends them, and who is told.

It decides nothing about who may have a lease. Every ending has a reason, and watchers hear of it
in the same moment.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backpackd.application.deadlines import Deadlines
from backpackd.application.watching import Watching
from backpackd.core.errors import LeaseUnknownError, LimitError
from backpackd.core.facts import ProcessId
from backpackd.core.grants import Grant
from backpackd.core.leases import DEFAULT_TTL, SHORTEST_TTL, Lease, LeaseTable
from backpackd.core.names import check_name
from backpackd.ports import Clock

MOST_LEASES = 100_000
MOST_OF_TREE = 10_000
MOST_WATCHERS = 256
_BACKLOG = 1024

OnEnd = Callable[[Lease, str, bool], None]
"""Is told of a lease that has ended, why, and whether somebody decided so: a person, by a command,
and not time or the end of a process."""


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """Something that happened to a lease.

    Attributes:
        kind: `issued`, `renewed` or `ended`.
        lease: the lease, as it was or is.
        reason: why it ended: `expired`, `revoked`, `given-back`, `holder-gone`, `grant-gone`,
            `key-deleted`, `locked` or `panic`; empty otherwise.
    """

    kind: str
    lease: Lease
    reason: str = ""


class LeaseWatcher:
    """Receives events, for one tree or for all, and never holds anybody up.

    Attributes:
        holder: the root of the tree whose leases matter; None: every one.
        lost: True once more events came than it could hold: its stream must end.
    """

    def __init__(self, holder: ProcessId | None) -> None:
        self.holder = holder
        self.lost = False
        self._events: asyncio.Queue[LeaseEvent | None] = asyncio.Queue(_BACKLOG)

    def put(self, event: LeaseEvent) -> None:
        """Pass an event on, if it matters here."""
        if self.holder is not None and event.lease.holder != self.holder:
            return
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True

    def end(self) -> None:
        """Let no more events come after those that wait."""
        try:
            self._events.put_nowait(None)
        except asyncio.QueueFull:
            self.lost = True

    async def next(self) -> LeaseEvent | None:
        """Wait for the next event; None after the last, or when too many came to be told."""
        if self.lost:
            return None
        return await self._events.get()


class Leasing:
    """The live leases of one vault.

    Attributes:
        on_end: called, in order, in the moment in which a lease has ended.
    """

    def __init__(self, watching: Watching, clock: Clock, deadlines: Deadlines) -> None:
        self._watching = watching
        self._clock = clock
        self._deadlines = deadlines
        self._table = LeaseTable()
        # The roots of `tree:` grants that leases rest on: the leases end with them.
        self._grant_roots: dict[str, ProcessId] = {}
        self._watchers: set[LeaseWatcher] = set()
        self.on_end: list[OnEnd] = []
        watching.add(self._needed, self._process_ended)

    def __len__(self) -> int:
        return len(self._table)

    def check_room(self, holder: ProcessId) -> None:
        """Return if a process tree may hold one more lease.

        Raises:
            LimitError: it may not.
        """
        if len(self._table) >= MOST_LEASES or self._table.count_of(holder) >= MOST_OF_TREE:
            raise LimitError("too many live leases: give some back, or let them end, and try again")

    def issue(
        self,
        holder: ProcessId,
        names: tuple[str, ...],
        grants: Sequence[Grant],
        *,
        ttl: int,
        longest: float,
    ) -> Lease:
        """Begin a lease, with its holder and the roots of its grants watched.

        Args:
            holder: the root of the caller's process tree.
            names: the keys.
            grants: what it rests on.
            ttl: wished life in seconds; 0 for the default.
            longest: seconds that it may live with all renewals; more than 0.

        Raises:
            PeerUnknownError: the holder, or the root of a grant, has ended.
            LimitError: too many leases, or too many processes watched.
        """
        self.check_room(holder)
        roots = {g.id: g.selector.process for g in grants if g.selector.process is not None}
        try:
            for process in {holder, *roots.values()}:
                self._watching.watch(process)
        except BaseException:
            self._watching.let_go()
            raise
        self._grant_roots.update(roots)
        lease = self._table.issue(
            lease_id=secrets.token_hex(16),
            names=names,
            holder=holder,
            grant_ids=tuple(grant.id for grant in grants),
            now=self._clock.boot(),
            ttl=max(ttl, SHORTEST_TTL) if ttl else DEFAULT_TTL,
            max_ttl=longest,
        )
        self._tell(LeaseEvent("issued", lease))
        self._deadlines.review()
        return lease

    def renew(self, holder: ProcessId, lease_id: str, *, ttl: int) -> Lease:
        """Extend a lease of a process tree from now.

        Args:
            holder: the root of the caller's process tree.
            lease_id: which.
            ttl: seconds; 0 for as long as it was issued for.

        Raises:
            LeaseUnknownError: it has ended, never was, or is of another tree.
        """
        now = self._clock.boot()
        lease = self._table.get(lease_id, now=now)
        if lease is None or lease.holder != holder:
            raise LeaseUnknownError("no such lease: it has ended, or it is not yours; get anew")
        renewed = self._table.renew(lease_id, now=now, ttl=max(ttl, SHORTEST_TTL) if ttl else None)
        assert renewed is not None
        self._tell(LeaseEvent("renewed", renewed))
        self._deadlines.review()
        return renewed

    def keep(self, lease_id: str) -> Lease | None:
        """Extend a lease whose holder is seen living, see `LeaseTable.keep`; for `Deadlines`.

        Unlike everything else here it does not look at the deadlines: it is done while they are.
        """
        lease = self._table.keep(lease_id, now=self._clock.boot())
        if lease is not None:
            self._tell(LeaseEvent("renewed", lease))
        return lease

    def of(self, holder: ProcessId) -> list[Lease]:
        """Return the live leases of a process tree, oldest first."""
        return self._table.of_holder(holder, now=self._clock.boot())

    def all(self) -> list[Lease]:
        """Return every live lease, oldest first."""
        return self._table.live(now=self._clock.boot())

    def find(self, lease_id: str) -> Lease | None:
        """Return a live lease."""
        return self._table.get(lease_id, now=self._clock.boot())

    def grants_in_use(self) -> set[str]:
        """Return the ids of the grants that live leases rest on."""
        return self._table.grants()

    def end_id(self, lease_id: str, reason: str) -> list[Lease]:
        """End one lease."""
        return self._ended(self._table.end(lease_id), reason)

    def end_key(self, name: str, reason: str) -> list[Lease]:
        """End every lease that holds a key.

        Raises:
            InvalidRequestError: not the name of a key.
        """
        return self._ended(self._table.end_key(check_name(name)), reason)

    def end_tree(self, pid: int, reason: str) -> list[Lease]:
        """End every lease of the process trees whose root has this pid."""
        ended: list[Lease] = []
        for holder in self._table.holders():
            if holder.pid == pid:
                ended += self._table.end_holder(holder)
        return self._ended(ended, reason)

    def end_grant(self, grant_id: str, reason: str) -> list[Lease]:
        """End every lease that rests on a grant."""
        return self._ended(self._table.end_grant(grant_id), reason)

    def end_all(self, reason: str) -> list[Lease]:
        """End every lease."""
        return self._ended(self._table.end_all(), reason)

    def drop_all(self, reason: str) -> int:
        """End every lease and every watch: the vault is being locked; return how many leases."""
        ended = len(self.end_all(reason))
        for watcher in self._watchers:
            watcher.end()
        return ended

    def expire(self, now: float) -> float | None:
        """End the leases that are due; a source for `Deadlines`."""
        ended, coming = self._table.expire(now)
        self._forget(ended, "expired", decided=False)
        return coming

    def watch(self, holder: ProcessId | None) -> LeaseWatcher:
        """Begin to receive events, of one tree or of all.

        Raises:
            LimitError: too many watch already.
        """
        if len(self._watchers) >= MOST_WATCHERS:
            raise LimitError("too many watch the leases already: end some first")
        watcher = LeaseWatcher(holder)
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: LeaseWatcher) -> None:
        """Receive no more."""
        self._watchers.discard(watcher)

    def _ended(self, ended: list[Lease], reason: str, *, decided: bool = True) -> list[Lease]:
        self._forget(ended, reason, decided=decided)
        self._deadlines.review()
        return ended

    def _forget(self, ended: Sequence[Lease], reason: str, *, decided: bool) -> None:
        if not ended:
            return
        for lease in ended:
            self._tell(LeaseEvent("ended", lease, reason))
            for on_end in self.on_end:
                on_end(lease, reason, decided)
        in_use = self._table.grants()
        for grant_id in [known for known in self._grant_roots if known not in in_use]:
            del self._grant_roots[grant_id]
        self._watching.let_go()

    def _tell(self, event: LeaseEvent) -> None:
        for watcher in self._watchers:
            watcher.put(event)

    def _needed(self) -> set[ProcessId]:
        return self._table.holders() | set(self._grant_roots.values())

    def _process_ended(self, process: ProcessId) -> None:
        self._ended(self._table.end_holder(process), "holder-gone", decided=False)
        for grant_id, root in list(self._grant_roots.items()):
            if root == process:
                self._ended(self._table.end_grant(grant_id), "grant-gone", decided=False)
