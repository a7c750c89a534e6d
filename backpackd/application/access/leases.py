"""Live leases: what begins, extends and ends them, and who is told.

This decides nothing about who may have a lease. Every ending has a reason, and watchers are told at
the same moment.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.callers.watchers import Watchers
from backpackd.application.deadlines import Deadlines
from backpackd.core.access.consents import EVERY_KEY
from backpackd.core.access.grants import Grant
from backpackd.core.access.leases import DEFAULT_TTL, SHORTEST_TTL, Lease, LeaseTable
from backpackd.core.access.orphans import Ancestry, Place
from backpackd.core.errors import LeaseUnknownError, LimitError, PeerUnknownError
from backpackd.core.names import check_name
from backpackd.core.peer_facts import PeerFacts, ProcessId
from backpackd.ports import Clock, Connection

MOST_LEASES = 100_000
MOST_OF_TREE = 10_000
MOST_WATCHERS = 256
MOST_WATCHERS_OF_TREE = 16
_BACKLOG = 1024
_MOST_PAST = 256
"""Keys that are remembered of one tree; of one that had more, it is every key."""

OnEnd = Callable[[Lease, str, bool], None]
"""Is called when a lease has ended: the lease, the reason, and whether somebody decided it. A
command of a person is a decision; time or the end of a process is not."""


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """Something that happened to a lease.

    Attributes:
        kind: `issued`, `renewed` (the time of its end has changed) or `ended`.
        lease: the lease, as it was or is.
        reason: why it ended: `expired`, `revoked`, `rotated`, `given-back`, `holder-gone`,
            `grant-gone`, `denied`, `key-deleted`, `locked` or `panic`; otherwise empty.
    """

    kind: str
    lease: Lease
    reason: str = ""


class LeaseWatcher:
    """Receives events, and never blocks the sender.

    Attributes:
        lost: whether more events came than it could hold. Then its stream must end.
    """

    def __init__(self) -> None:
        self.lost = False
        self._events: asyncio.Queue[LeaseEvent | None] = asyncio.Queue(_BACKLOG)

    def put(self, event: LeaseEvent) -> None:
        """Add an event."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True

    def end(self) -> None:
        """Add no more events after those that wait."""
        try:
            self._events.put_nowait(None)
        except asyncio.QueueFull:
            self.lost = True

    async def next(self) -> LeaseEvent | None:
        """Wait for the next event; None after the last one, or if events were lost."""
        if self.lost:
            return None
        return await self._events.get()


class LiveLeases:
    """The live leases of one vault.

    Attributes:
        on_end: functions that are called, in order, at the moment when a lease has ended.
    """

    def __init__(
        self,
        process_watches: ProcessWatches,
        clock: Clock,
        deadlines: Deadlines,
        audit_log: AuditLog,
    ) -> None:
        self._audit_log = audit_log
        self._process_watches = process_watches
        self._clock = clock
        self._deadlines = deadlines
        self._table = LeaseTable()
        # The `tree:` grants that leases rest on: roots by the id of the grant, and ids by root.
        # The leases end with the roots.
        self._root_of: dict[str, ProcessId] = {}
        self._given_to: dict[ProcessId, set[str]] = {}
        # Keys that living trees were handed before, and keys in transit. A revocation includes
        # these trees, although they hold no lease.
        self._past: dict[ProcessId, set[str]] = {}
        self._under_way: dict[object, tuple[ProcessId, ProcessId, Collection[str]]] = {}
        # What roots inside of a tree were handed, and where that tree's own root ran. Such a root
        # may be each tool of an agent that calls itself what starts programs for people.
        self._inside: dict[ProcessId, tuple[Place, set[str]]] = {}
        # Of the trees that have or had leases: what was above them when they got one.
        self._ancestry: dict[ProcessId, Ancestry] = {}
        self._watchers: Watchers[LeaseWatcher] = Watchers(
            "leases", most=MOST_WATCHERS, of_tree=MOST_WATCHERS_OF_TREE
        )
        self.on_end: list[OnEnd] = []
        process_watches.add(self._needed, self._process_ended)

    def __len__(self) -> int:
        return len(self._table)

    def check_room(self, holder: ProcessId) -> None:
        """Raise unless a process tree may hold one more lease.

        Raises:
            LimitError: there are too many leases.
        """
        if len(self._table) >= MOST_LEASES or self._table.count_of(holder) >= MOST_OF_TREE:
            raise LimitError("too many live leases: give some back or let them end, then try again")

    def issue(
        self,
        holder: ProcessId,
        names: tuple[str, ...],
        grants: Sequence[Grant],
        *,
        ttl: int,
        longest: float,
        lease_id: str,
        ancestry: Ancestry | None = None,
    ) -> Lease:
        """Begin a lease, and watch its holder and the roots of its grants.

        Args:
            holder: the root of the caller's process tree.
            names: the keys.
            grants: the grants that it rests on.
            ttl: requested lifetime in seconds; 0 for the default.
            longest: the longest lifetime in seconds, with all renewals; more than 0.
            lease_id: fresh and random, 32 hexadecimal digits.
            ancestry: what is above the holder; None: nothing from which keys could be revoked.

        Raises:
            PeerUnknownError: the holder, or the root of a grant, has ended.
            LimitError: there are too many leases, or too many watched processes.
        """
        self.check_room(holder)
        roots = {g.id: g.selector.process for g in grants if g.selector.process is not None}
        needed = {holder, *roots.values()}
        origin = ancestry.origin if ancestry is not None else None
        try:
            for process in needed:
                self._process_watches.watch(process)
            if origin is not None:
                # Of one that has ended nothing can be revoked any more.
                with suppress(PeerUnknownError):
                    self._process_watches.watch(origin[0])
                    _add(self._inside.setdefault(origin[0], (origin[1], set()))[1], names)
        except BaseException:
            self._process_watches.let_go(needed)
            raise
        self._root_of.update(roots)
        for grant_id, root in roots.items():
            self._given_to.setdefault(root, set()).add(grant_id)
        lease = self._table.issue(
            lease_id=lease_id,
            names=names,
            holder=holder,
            grant_ids=tuple(grant.id for grant in grants),
            now=self._clock.boot(),
            ttl=max(ttl, SHORTEST_TTL) if ttl else DEFAULT_TTL,
            max_ttl=longest,
        )
        if ancestry is not None:
            # The first one stays: when a process in between ends, a later one would be shorter.
            self._ancestry.setdefault(holder, ancestry)
        self._tell("issued", lease)
        self._deadlines.review()
        return lease

    @contextmanager
    def handing_out(self, facts: PeerFacts, names: Collection[str]) -> Iterator[None]:
        """Say that keys are being handed to a caller meanwhile."""
        one = object()
        self._under_way[one] = (facts.root.id, facts.origin.id, names)
        try:
            yield
        finally:
            del self._under_way[one]

    def place_of(self, holder: ProcessId) -> Place | None:
        """Return where the root of a tree that has or had leases ran; None if unknown."""
        ancestry = self._ancestry.get(holder)
        if ancestry is not None:
            return ancestry.place
        return self._inside[holder][0] if holder in self._inside else None

    def origin_of(self, holder: ProcessId) -> ProcessId | None:
        """Name the origin of a tree that has or had leases; None: itself, or not known."""
        ancestry = self._ancestry.get(holder)
        return ancestry.origin[0] if ancestry is not None and ancestry.origin is not None else None

    def had(self, name: str | None = None) -> list[tuple[ProcessId, Collection[str]]]:
        """Return the trees that had keys without holding a lease on them, with these keys.

        Args:
            name: only trees that had this key; None: any key.
        """
        return _holding(
            name,
            [
                *((tree, names) for tree, _, names in self._under_way.values()),
                *self._past.items(),
            ],
        )

    def had_inside(self, name: str | None = None) -> list[tuple[ProcessId, Collection[str]]]:
        """Return the origins of trees that have or had keys, and which, also where they have ended.

        Args:
            name: of the key that matters; None: any.
        """
        return _holding(
            name,
            [
                *((origin, names) for _, origin, names in self._under_way.values()),
                *((origin, names) for origin, (_, names) in self._inside.items()),
            ],
        )

    def renew(self, holder: ProcessId, lease_id: str, *, ttl: int) -> Lease:
        """Extend a lease of a process tree from now.

        Args:
            holder: the root of the caller's process tree.
            lease_id: the lease.
            ttl: seconds; 0 for the time for which it was issued.

        Raises:
            LeaseUnknownError: it has ended, never existed, or belongs to another tree.
        """
        now = self._clock.boot()
        lease = self._table.get(lease_id, now=now)
        if lease is None or lease.holder != holder:
            raise LeaseUnknownError("no such lease: it has ended or is not yours; get keys again")
        renewed = self._table.renew(lease_id, now=now, ttl=max(ttl, SHORTEST_TTL) if ttl else None)
        assert renewed is not None
        self._tell("renewed", renewed)
        self._audit_log.renewed(renewed)
        self._deadlines.review()
        return renewed

    def keep(self, lease_id: str) -> Lease | None:
        """Extend a lease whose holder is alive; return None if the lease is over. For `Deadlines`.

        Unlike the other methods, this does not review the deadlines, because it is called by them.
        """
        lease = self._table.renew(lease_id, now=self._clock.boot(), ttl=None)
        if lease is not None:
            self._tell("renewed", lease)
            self._audit_log.renewed(lease)
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

    def names(self) -> set[str]:
        """Return the names of the keys that live leases hold."""
        return self._table.names()

    def rests_on(self, grant_id: str) -> bool:
        """Return whether a live lease rests on a grant."""
        return self._table.rests_on(grant_id)

    def end_id(self, lease_id: str, reason: str, *, by: Connection | None) -> list[Lease]:
        """End one lease; `by` says here and below whose doing it is, None that it is nobody's."""
        return self._ended(self._table.end(lease_id), reason, by)

    def end_key(self, name: str, reason: str, *, by: Connection | None) -> list[Lease]:
        """End every lease that holds a key.

        Raises:
            InvalidRequestError: not the name of a key.
        """
        return self._ended(self._table.end_key(check_name(name)), reason, by)

    def ancestors(self) -> set[ProcessId]:
        """Return the roots of the trees that have or had leases, and the processes above them."""
        return {process for found in self._ancestry.values() for process in found.chain}

    def end_below(
        self, processes: Collection[ProcessId], reason: str, *, by: Connection | None
    ) -> list[Lease]:
        """End every lease of the trees whose root is one of these or was started below one."""
        ended: list[Lease] = []
        for holder in self._table.holders():
            ancestry = self._ancestry.get(holder)
            chain = ancestry.chain if ancestry is not None else (holder,)
            if not set(chain).isdisjoint(processes):
                ended += self._table.end_holder(holder)
        return self._ended(ended, reason, by)

    def end_grant(self, grant_id: str, reason: str, *, by: Connection | None) -> list[Lease]:
        """End every lease that rests on a grant."""
        return self._ended(self._table.end_grant(grant_id), reason, by)

    def bound_grant(self, grant_id: str, left: float) -> None:
        """Make the leases that rest on a grant end within so many seconds from now."""
        until = self._clock.boot() + left
        self._bound((lease, until) for lease in self._table.on_grant(grant_id))

    def bound_all(self, longest: float) -> None:
        """Make all leases end within so many seconds after they were issued."""
        self._bound((lease, lease.issued_at + longest) for lease in self.all())

    def _bound(self, bounds: Iterable[tuple[Lease, float]]) -> None:
        for lease, until in bounds:
            if self._table.shorten(lease.id, until):
                self._tell("renewed", lease)
        self._deadlines.review()

    def end_all(self, reason: str, *, by: Connection | None) -> list[Lease]:
        """End every lease."""
        processes = self._table.holders() | self._given_to.keys()
        ended = self._table.end_all()
        self._root_of.clear()
        self._given_to.clear()
        for lease in ended:
            self._remember(lease)
            self._tell("ended", lease, reason)
            for on_end in self.on_end:
                on_end(lease, reason, True)
        self._audit_log.ended(ended, reason, by=by)
        self._process_watches.let_go(processes)
        self._deadlines.review()
        return ended

    def drop_all(self, reason: str, *, by: Connection | None) -> int:
        """End every lease and every watch: the vault is being locked; return how many leases."""
        ended = len(self.end_all(reason, by=by))
        trees = {*self._past, *self._inside}
        self._past.clear()
        self._inside.clear()
        self._ancestry.clear()
        self._process_watches.let_go(trees)
        for watcher in self._watchers:
            watcher.end()
        return ended

    def expire(self, now: float) -> float | None:
        """End the leases whose time is over. A source for `Deadlines`."""
        ended, coming = self._table.expire(now)
        self._forget(ended, "expired", None, decided=False)
        return coming

    def watch(self, holder: ProcessId | None) -> LeaseWatcher:
        """Begin to receive events, of one tree or of all.

        A watcher of all trees is the operator, whom the watches of others cannot keep out.

        Raises:
            LimitError: there are too many watches.
        """
        return self._watchers.add(holder, LeaseWatcher())

    def unwatch(self, watcher: LeaseWatcher) -> None:
        """Stop receiving events."""
        self._watchers.discard(watcher)

    def _ended(
        self, ended: list[Lease], reason: str, by: Connection | None, *, decided: bool = True
    ) -> list[Lease]:
        self._forget(ended, reason, by, decided=decided)
        self._deadlines.review()
        return ended

    def _forget(
        self, ended: Sequence[Lease], reason: str, by: Connection | None, *, decided: bool
    ) -> None:
        if not ended:
            return
        for lease in ended:
            if reason != "holder-gone":
                self._remember(lease)
            self._tell("ended", lease, reason)
            for on_end in self.on_end:
                on_end(lease, reason, decided)
        self._audit_log.ended(ended, reason, by=by)
        # Nothing here looks at what did not end: there may be a hundred thousand others.
        processes = {lease.holder for lease in ended}
        for grant_id in {grant_id for lease in ended for grant_id in lease.grant_ids}:
            if grant_id in self._root_of and not self._table.rests_on(grant_id):
                root = self._root_of.pop(grant_id)
                processes.add(root)
                self._given_to[root].discard(grant_id)
                if not self._given_to[root]:
                    del self._given_to[root]
        self._process_watches.let_go(processes)

    def _remember(self, lease: Lease) -> None:
        _add(self._past.setdefault(lease.holder, set()), lease.names)

    def _tell(self, kind: str, lease: Lease, reason: str = "") -> None:
        if not self._watchers:
            return
        for tree in (lease.holder, None):
            for watcher in self._watchers.of(tree):
                watcher.put(LeaseEvent(kind, lease, reason))
                if watcher.lost:
                    self.unwatch(watcher)

    def _needed(self, processes: Collection[ProcessId]) -> set[ProcessId]:
        return {
            process
            for process in processes
            if self._table.holds(process)
            or process in self._given_to
            or process in self._past
            or process in self._inside
        }

    def _process_ended(self, process: ProcessId) -> None:
        self._past.pop(process, None)
        self._inside.pop(process, None)
        self._ancestry.pop(process, None)
        self._ended(self._table.end_holder(process), "holder-gone", None, decided=False)
        for grant_id in list(self._given_to.get(process, ())):
            self._ended(self._table.end_grant(grant_id), "grant-gone", None, decided=False)


def _add(known: set[str], names: Collection[str]) -> None:
    known.update(names)
    if len(known) > _MOST_PAST:
        known.clear()
        known.add(EVERY_KEY)


def _holding(
    name: str | None, found: list[tuple[ProcessId, Collection[str]]]
) -> list[tuple[ProcessId, Collection[str]]]:
    if name is None:
        return found
    return [(tree, (name,)) for tree, names in found if name in names or EVERY_KEY in names]
