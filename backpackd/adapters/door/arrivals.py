"""Those who have connected and were not let in yet, and whose turn it is.

Policy only: plain values in, verdicts out. It holds no socket and reads no clock.

The kernel hands connections out in the order in which they came, so whoever connects quickly enough
stands in front of everybody else. To take one from the kernel costs little; to find out which
process tree it is of, and to open it, costs many times that. So they are taken quickly and wait
here, in a line for each group, and the group that was served longest ago goes first: a flood is in
its own way only.

A group that was not served for `LONG_AGO` turns counts as served that many turns before it came.
Groups that are new count so as well: else a flood of ever new ones would keep one that is known
waiting for good. Among equals, whoever came first goes first.

What a group is, is a guess of whoever asks, made before anything was read of the process. It
decides about the order and about who of too many is turned away, never about who is let in.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Limits:
    """How many wait.

    Attributes:
        per_group: of one group.
        total: of everybody.
    """

    per_group: int = 1024
    total: int = 2048


LONG_AGO = 256
"""Turns after which it does not matter any more when a group was served."""

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Group(Generic[_T]):
    """The line of one group.

    Attributes:
        line: those who wait, each with the turn at which it came.
        served: the turn at which the group was served last.
        rests: until when it is not, on the caller's clock.
    """

    line: deque[tuple[int, _T]] = field(default_factory=deque)
    served: int = 0
    rests: float = float("-inf")

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among the groups: the lowest goes first."""
        came = self.line[0][0]
        return max(self.served, came - LONG_AGO), came


class Arrivals(Generic[_T]):
    """The lines."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._groups: OrderedDict[Hashable, _Group[_T]] = OrderedDict()
        self._waiting: dict[Hashable, _Group[_T]] = {}
        self._count = 0
        self._turn = LONG_AGO

    def __len__(self) -> int:
        return self._count

    def full(self, id: Hashable) -> bool:  # noqa: A002  # as elsewhere
        """Tell whether `add` would have no room for a newcomer of a group."""
        group = self._groups.get(id)
        own = len(group.line) if group else 0
        if own >= self._limits.per_group:
            return True
        return self._count >= self._limits.total and len(self._longest()[1].line) <= own + 1

    def add(self, id: Hashable, one: _T) -> _T | None:  # noqa: A002  # as elsewhere
        """Put a newcomer at the end of its group's line. Not for a group that is `full`.

        Returns:
            The last one of the longest line, when there is no room for both; None otherwise.
        """
        gone = None
        if self._count >= self._limits.total:
            longest_id, longest = self._longest()
            gone = longest.line.pop()[1]
            self._left(longest_id, longest)
        group = self._group(id)
        group.line.append((self._turn, one))
        self._waiting[id] = group
        self._count += 1
        return gone

    def take(self, now: float) -> tuple[Hashable, _T] | None:
        """Take the one out whose turn it is.

        Args:
            now: seconds on a clock that does not go back.

        Returns:
            Its group, and the one; None when nobody waits whose group does not rest.
        """
        ready = (item for item in self._waiting.items() if item[1].rests <= now)
        found = min(ready, key=lambda item: item[1].rank, default=None)
        if found is None:
            return None
        id, group = found  # noqa: A001  # as elsewhere
        _, one = group.line.popleft()
        self._left(id, group)
        return id, one

    def serve(self, *ids: Hashable) -> None:
        """Say that groups have had a turn."""
        self._turn += 1
        for id in ids:  # noqa: A001  # as elsewhere
            self._group(id).served = self._turn
            self._groups.move_to_end(id)

    def rest(self, id: Hashable, until: float) -> None:  # noqa: A002  # as elsewhere
        """Give a group no turn before a time on the clock of `take`."""
        self._group(id).rests = until

    def next_at(self) -> float:
        """Tell when `take` has somebody: a time that may have passed; infinity: nobody waits."""
        return min((group.rests for group in self._waiting.values()), default=float("inf"))

    def clear(self) -> list[_T]:
        """Take everybody out."""
        everybody = [one for group in self._waiting.values() for _, one in group.line]
        self._waiting.clear()
        self._groups.clear()
        self._count = 0
        return everybody

    def _longest(self) -> tuple[Hashable, _Group[_T]]:
        return max(self._waiting.items(), key=lambda item: len(item[1].line))

    def _left(self, id: Hashable, group: _Group[_T]) -> None:  # noqa: A002  # as elsewhere
        self._count -= 1
        if not group.line:
            del self._waiting[id]

    def _group(self, id: Hashable) -> _Group[_T]:  # noqa: A002  # as elsewhere
        group = self._groups.get(id)
        if group is None:
            # As many more as count: who is not among them was served too long ago to matter.
            if len(self._groups) >= self._limits.total + 2 * LONG_AGO:
                del self._groups[next(one for one in self._groups if one not in self._waiting)]
            group = self._groups[id] = _Group()
        return group
