"""The table of live leases. Only this table starts, extends and ends leases.

Invariants:

1. `expires_at <= max_expires_at`. Only `shorten` moves `max_expires_at`, to an earlier time.
2. A lease that has ended is in no index: it cannot be renewed, listed or found.
3. `expire(now)` ends everything that is due, and returns when it is next needed.

Times are seconds on the boot clock and come in as arguments. Leases are in memory only.
"""

import heapq
import re
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from backpackd.core.errors import InvalidRequestError
from backpackd.core.peer_facts import ProcessId

DEFAULT_TTL = 15 * 60
SHORTEST_TTL = 1
"""Seconds."""
_SLACK = 64
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def check_id(lease_id: str) -> str:
    """Return `lease_id` if it has the form of a lease's id.

    Raises:
        InvalidRequestError: it has another form.
    """
    if not _ID.fullmatch(lease_id):
        raise InvalidRequestError(
            "a lease is named by its id, 32 hexadecimal digits: see the list of leases"
        )
    return lease_id


@dataclass(slots=True, eq=False)
class Lease:
    """One expiring handout.

    Attributes:
        id: 32 hexadecimal digits.
        names: the keys that were handed out.
        holder: the root of the process tree that holds it.
        grant_ids: the grants it rests on.
        issued_at: boot-clock seconds.
        ttl: its life when it was issued, in seconds.
        expires_at: boot-clock seconds.
        max_expires_at: boot-clock seconds; no renewal goes past.
    """

    id: str
    names: tuple[str, ...]
    holder: ProcessId
    grant_ids: tuple[str, ...]
    issued_at: float
    ttl: float
    expires_at: float
    max_expires_at: float


class LeaseTable:
    """Live leases, by id, key, holder and grant, with a heap of deadlines.

    The heap holds (deadline, id). It may hold deadlines of leases that were renewed or have ended.
    These are skipped when they come up, and cleared when they are more than half of the heap.
    """

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._heap: list[tuple[float, str]] = []
        self._by_key: _Index[str] = _Index()
        self._by_holder: _Index[ProcessId] = _Index()
        self._by_grant: _Index[str] = _Index()

    def __len__(self) -> int:
        return len(self._leases)

    def issue(
        self,
        *,
        lease_id: str,
        names: tuple[str, ...],
        holder: ProcessId,
        grant_ids: tuple[str, ...],
        now: float,
        ttl: float,
        max_ttl: float,
    ) -> Lease:
        """Begin a lease.

        Args:
            lease_id: fresh and random; a guessable id would let another process renew the lease.
            names: the keys handed out.
            holder: the root of the caller's process tree.
            grant_ids: the grants that allow it.
            now: boot-clock seconds.
            ttl: wished life in seconds; cut to `max_ttl`.
            max_ttl: seconds that the lease may live with all renewals.
        """
        ttl = min(ttl, max_ttl)
        lease = Lease(lease_id, names, holder, grant_ids, now, ttl, now + ttl, now + max_ttl)
        self._leases[lease_id] = lease
        for name in names:
            self._by_key.add(name, lease_id)
        self._by_holder.add(holder, lease_id)
        for grant_id in grant_ids:
            self._by_grant.add(grant_id, lease_id)
        heapq.heappush(self._heap, (lease.expires_at, lease_id))
        self._tidy()
        return lease

    def renew(self, lease_id: str, *, now: float, ttl: float | None) -> Lease | None:
        """Let a lease live for `ttl` seconds from now, up to its maximum.

        Args:
            lease_id: which.
            now: boot-clock seconds.
            ttl: seconds; None for as long as it was issued for.

        Returns:
            The lease, or None when there is no such live lease.
        """
        lease = self.get(lease_id, now=now)
        if lease is None:
            return None
        wished = now + (lease.ttl if ttl is None else ttl)
        lease.expires_at = min(wished, lease.max_expires_at)
        heapq.heappush(self._heap, (lease.expires_at, lease_id))
        self._tidy()
        return lease

    def shorten(self, lease_id: str, until: float) -> Lease | None:
        """Limit the life of a lease, including all renewals.

        Args:
            lease_id: of a lease in the table.
            until: boot-clock seconds.

        Returns:
            The lease, if it now ends sooner than before; otherwise None.
        """
        lease = self._leases[lease_id]
        lease.max_expires_at = min(lease.max_expires_at, until)
        if lease.expires_at <= until:
            return None
        lease.expires_at = until
        heapq.heappush(self._heap, (until, lease_id))
        self._tidy()
        return lease

    def on_grant(self, grant_id: str) -> list[Lease]:
        """Return the leases that rest on a grant, due or not."""
        return [self._leases[lease_id] for lease_id in self._by_grant.of(grant_id)]

    def get(self, lease_id: str, *, now: float) -> Lease | None:
        """Return a lease that is live at this moment, whether or not the timer has rung."""
        lease = self._leases.get(lease_id)
        return lease if lease is not None and now < lease.expires_at else None

    def of_holder(self, holder: ProcessId, *, now: float) -> list[Lease]:
        """Return the live leases of a process tree, oldest first."""
        return self._live(self._by_holder.of(holder), now)

    def count_of(self, holder: ProcessId) -> int:
        """Return how many leases a process tree holds."""
        return len(self._by_holder.of(holder))

    def live(self, *, now: float) -> list[Lease]:
        """Return every live lease, oldest first."""
        return self._live(self._leases, now)

    def holds(self, holder: ProcessId) -> bool:
        """Return whether a process tree holds a lease."""
        return holder in self._by_holder

    def rests_on(self, grant_id: str) -> bool:
        """Return whether a lease rests on a grant."""
        return grant_id in self._by_grant

    def names(self) -> set[str]:
        """Return the names of the keys that leases hold."""
        return self._by_key.keys()

    def holders(self) -> set[ProcessId]:
        """Return the roots of the process trees that hold leases."""
        return self._by_holder.keys()

    def grants(self) -> set[str]:
        """Return the ids of the grants that leases rest on."""
        return self._by_grant.keys()

    def end(self, lease_id: str) -> list[Lease]:
        """End one lease and return it in a list, or an empty list when there is none."""
        return self._end([lease_id])

    def end_key(self, name: str) -> list[Lease]:
        """End every lease that holds a key and return them."""
        return self._end(self._by_key.of(name))

    def end_holder(self, holder: ProcessId) -> list[Lease]:
        """End every lease of a process tree and return them."""
        return self._end(self._by_holder.of(holder))

    def end_grant(self, grant_id: str) -> list[Lease]:
        """End every lease that rests on a grant and return them."""
        return self._end(self._by_grant.of(grant_id))

    def end_all(self) -> list[Lease]:
        """End every lease and return them.

        At once, not one by one: a panic must not take longer if there are more leases.
        """
        ended = list(self._leases.values())
        self._leases.clear()
        self._heap.clear()
        for index in (self._by_key, self._by_holder, self._by_grant):
            index.clear()
        return ended

    def expire(self, now: float) -> tuple[list[Lease], float | None]:
        """End what is due.

        Returns:
            The leases that ended, and the boot-clock time of the next deadline; None without one.
        """
        ended: list[Lease] = []
        while self._heap:
            deadline, lease_id = self._heap[0]
            lease = self._leases.get(lease_id)
            if lease is None or lease.expires_at != deadline:
                heapq.heappop(self._heap)
            elif deadline <= now:
                ended += self._end([lease_id])
            else:
                return ended, deadline
        return ended, None

    def _live(self, ids: Iterable[str], now: float) -> list[Lease]:
        leases = (self._leases[lease_id] for lease_id in ids)
        return sorted(
            (lease for lease in leases if now < lease.expires_at),
            key=lambda lease: (lease.issued_at, lease.id),
        )

    def _end(self, ids: Iterable[str]) -> list[Lease]:
        ended = []
        for lease_id in list(ids):
            lease = self._leases.pop(lease_id, None)
            if lease is None:
                continue
            ended.append(lease)
            for name in lease.names:
                self._by_key.drop(name, lease_id)
            self._by_holder.drop(lease.holder, lease_id)
            for grant_id in lease.grant_ids:
                self._by_grant.drop(grant_id, lease_id)
        self._tidy()
        return ended

    def _tidy(self) -> None:
        # At every change, including ends: otherwise a process that takes and gives back leases in
        # a loop would fill the memory with deadlines that are weeks away.
        if len(self._heap) > 2 * len(self._leases) + _SLACK:
            self._heap = [(lease.expires_at, lease.id) for lease in self._leases.values()]
            heapq.heapify(self._heap)


_Key = TypeVar("_Key", bound=Hashable)


class _Index(Generic[_Key]):
    """Finds leases by one of their attributes.

    Where only one lease has it, its id stands bare, and where several do, in a dict without values:
    a set of few takes twice to four times as much memory.
    """

    def __init__(self) -> None:
        self._ids: dict[_Key, str | dict[str, None]] = {}

    def __contains__(self, key: _Key) -> bool:
        return key in self._ids

    def keys(self) -> set[_Key]:
        """Return everything that some lease has."""
        return set(self._ids)

    def of(self, key: _Key) -> Collection[str]:
        """Return the ids of the leases that have this."""
        found = self._ids.get(key, ())
        return (found,) if isinstance(found, str) else found

    def clear(self) -> None:
        """Forget every lease."""
        self._ids.clear()

    def add(self, key: _Key, lease_id: str) -> None:
        """Note that a lease has this."""
        found = self._ids.setdefault(key, lease_id)
        if isinstance(found, dict):
            found[lease_id] = None
        elif found != lease_id:
            self._ids[key] = {found: None, lease_id: None}

    def drop(self, key: _Key, lease_id: str) -> None:
        """Note that a lease no longer has this."""
        found = self._ids.get(key)
        if isinstance(found, dict):
            found.pop(lease_id, None)
            if len(found) == 1:
                self._ids[key], _ = found.popitem()
        elif found == lease_id:
            del self._ids[key]
