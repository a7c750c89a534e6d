"""Turns: decides which process tree is served next, if there is more work than one turn allows.

Policy and a little scheduling. It knows trees by any hashable name, holds no socket, and reads no
clock but the event loop's turns.

Reading from a connection, opening a new one and starting a request are jobs, and each job belongs
to a tree. In one turn of the event loop only a few jobs run, and no tree runs more than its share
while others wait. The tree that was served longest ago goes first, so a flood delays only itself. A
tree that was not served for `LONG_AGO` jobs counts as served that long ago, and so does a new tree.
Otherwise a flood of new trees would keep a known tree waiting forever.

A tree that has its full share of calls in progress runs no job until one of them ends. So the
daemon reads nothing that it could not serve.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from backpackd.adapters.door.limits import (
    CALLS_OF_TREE,
    JOBS_OF_TREE,
    JOBS_PER_TURN,
    REST_SECONDS,
)

LONG_AGO = 256
"""After this many jobs it no longer matters when a tree was served."""

_REMEMBERED = 4096
"""The most trees whose last service is remembered."""

Job = Callable[[], None]


@dataclass(slots=True, eq=False)
class _Line:
    """The jobs of one tree that wait, oldest first.

    Attributes:
        came: how many jobs had run when the first of them came.
    """

    came: int
    jobs: deque[Job] = field(default_factory=deque)


class Turns:
    """Runs jobs of process trees in turns."""

    def __init__(self) -> None:
        self._calls: Counter[Hashable] = Counter()
        self._lines: dict[Hashable, _Line] = {}
        self._served: dict[Hashable, int] = {}
        self._count = LONG_AGO
        self._ran: Counter[Hashable] = Counter()
        self._resting: set[Hashable] = set()
        self._left = JOBS_PER_TURN
        self._next: asyncio.Handle | None = None

    def waiting(self, tree: Hashable) -> int:
        """Return how many jobs of a tree wait."""
        line = self._lines.get(tree)
        return len(line.jobs) if line else 0

    def take(self, tree: Hashable, job: Job) -> bool:
        """Run a job now if it is its tree's turn; otherwise run it later.

        Returns:
            Whether it ran.
        """
        fair = not self._lines and self._left > 0 and self._ran[tree] < JOBS_OF_TREE
        if fair and self._may_run(tree):
            self._run(tree, job)
            return True
        line = self._lines.get(tree)
        if line is None:
            line = self._lines[tree] = _Line(self._count)
        line.jobs.append(job)
        self._go_on()
        return False

    def full(self, tree: Hashable) -> bool:
        """Return whether a tree has its share of calls in progress."""
        return self._calls[tree] >= CALLS_OF_TREE

    def begin_call(self, tree: Hashable) -> None:
        """Count a call of a tree that is in progress."""
        self._calls[tree] += 1

    def end_call(self, tree: Hashable) -> None:
        """Note that a call has ended, which may let the tree's jobs run again."""
        self._calls[tree] -= 1
        if not self._calls[tree]:
            del self._calls[tree]
        if tree in self._lines:
            self._go_on()

    def rest(self, tree: Hashable) -> None:
        """Run no job of a tree for a moment: it has had more than its share."""
        if tree not in self._resting:
            self._resting.add(tree)
            asyncio.get_running_loop().call_later(REST_SECONDS, self._rested, tree)

    def finish(self) -> None:
        """Run every waiting job, in any order: each finds that its connection is closed."""
        jobs = [job for line in self._lines.values() for job in line.jobs]
        self._lines.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for job in jobs:
            job()

    def _may_run(self, tree: Hashable) -> bool:
        return self._calls[tree] < CALLS_OF_TREE and tree not in self._resting

    def _rested(self, tree: Hashable) -> None:
        self._resting.discard(tree)
        if tree in self._lines:
            self._go_on()

    def _run(self, tree: Hashable, job: Job) -> None:
        self._count += 1
        self._left -= 1
        self._ran[tree] += 1
        # Moved to the end, so that the tree served longest ago is forgotten first.
        self._served.pop(tree, None)
        self._served[tree] = self._count
        if len(self._served) > _REMEMBERED:
            del self._served[next(iter(self._served))]
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)
        job()

    def _go_on(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Start another turn: run waiting jobs, as many as one turn allows."""
        self._next = None
        self._left = JOBS_PER_TURN
        self._ran.clear()
        while self._left > 0 and (tree := self._first()) is not None:
            line = self._lines[tree]
            job = line.jobs.popleft()
            if not line.jobs:
                del self._lines[tree]
            self._run(tree, job)

    def _first(self) -> Hashable | None:
        """Return the tree whose turn it is; None if no waiting tree may run."""
        ready = [tree for tree in self._lines if self._may_run(tree)]
        if len(ready) > 1:
            ready = [tree for tree in ready if self._ran[tree] < JOBS_OF_TREE] or ready
        return min(ready, key=self._rank, default=None)

    def _rank(self, tree: Hashable) -> tuple[int, int]:
        came = self._lines[tree].came
        return max(self._served.get(tree, 0), came - LONG_AGO), came
