"""Requests that wait for a person.

Invariants:

1. Calls of one process tree for the same keys, or for some of them, are one request.
2. One tree has few requests at a time, and a full table gives way where it is fullest: a flood
   pushes out its own requests first. One by many trees pushes out nobody who asked before it and
   waits.

Times are seconds on the boot clock and come in as arguments.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backpackd.core.errors import LimitError
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId

MOST_OF_TREE = 8
MOST = 256
LIFE = 600.0
"""Seconds that a request stays without a call that waits for it."""
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without letters and digits that look alike."""
CODE_LENGTH = 4


@dataclass(slots=True, eq=False)
class Request:
    """One question to a person.

    Attributes:
        code: `CODE_LENGTH` characters of `CODE_ALPHABET`.
        facts: the caller when it first asked, as attested.
        names: the keys.
        reason: the caller's words, a claim.
        commands: what the processes of the chain say of themselves, claims, by pid.
        asked_at: boot-clock seconds.
        until: boot-clock seconds at which it ends without waiting calls.
        waiting: how many calls wait.
    """

    code: str
    facts: PeerFacts
    names: tuple[str, ...]
    reason: str
    commands: dict[int, str]
    asked_at: float
    until: float
    waiting: int = 0

    @property
    def tree(self) -> ProcessId:
        """The root of the process tree that asks."""
        return self.facts.root.id

    @property
    def origin(self) -> ProcessId:
        """The tree that counts where trees are held apart, whatever root the caller proposes."""
        return self.facts.origin.id

    @property
    def possible_roots(self) -> tuple[ProcessFacts, ...]:
        """The processes of the chain that consent may be given to.

        What starts the programs of everybody may not: managers, and processes of another uid at
        the top of the chain, such as cron or the ssh server.
        """
        chain = self.facts.chain
        top = len(chain)
        while top > 1 and (chain[top - 1].manager or chain[top - 1].uid != chain[0].uid):
            top -= 1
        return tuple(process for process in chain[:top] if not process.manager)


class RequestTable:
    """The pending requests."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def find(self, tree: ProcessId, names: Iterable[str]) -> Request | None:
        """Return the pending request of a tree that includes these keys."""
        wanted = set(names)
        for request in self._requests.values():
            if request.tree == tree and wanted <= set(request.names):
                return request
        return None

    def check_room(self, origin: ProcessId) -> None:
        """Return if a tree may have one more request.

        Raises:
            LimitError: it has too many already.
        """
        if sum(other.origin == origin for other in self._requests.values()) >= MOST_OF_TREE:
            raise LimitError(
                f"{MOST_OF_TREE} requests of this process tree wait for approval already: have "
                "them answered first",
                reason="too-many-requests",
            )

    def add(self, request: Request) -> list[Request]:
        """Add a request, and return those that had to give way to it.

        Raises:
            LimitError: this tree has too many requests already, or all have.
        """
        self.check_room(request.origin)
        self._requests[request.code] = request
        if len(self._requests) <= MOST:
            return []
        counts = Counter(other.origin for other in self._requests.values())

        def rank(other: Request) -> tuple[int, bool, float]:
            idle = not other.waiting and other is not request
            return counts[other.origin], idle, other.asked_at

        # Of those alike the last, which is the newcomer: who leaves a tree at every request, by
        # forking twice, is a flood of many trees.
        last = max(reversed(self._requests.values()), key=rank)
        del self._requests[last.code]
        if last is request:
            raise LimitError(
                "too many requests of others wait for approval: have them answered first",
                reason="too-many-requests",
            )
        return [last]

    def get(self, code: str) -> Request | None:
        """Return a pending request by its code, typed in either case."""
        return self._requests.get(code.strip().upper())

    def end(self, over: Callable[[Request], bool]) -> list[Request]:
        """Take out the requests that are over."""
        return self._end(request for request in self._requests.values() if over(request))

    def end_tree(self, tree: ProcessId) -> list[Request]:
        """Take out the requests of a tree whose root has ended."""
        return self.end(lambda request: request.tree == tree)

    def end_all(self) -> list[Request]:
        """Take out every request."""
        return self._end(self._requests.values())

    def expire(self, now: float) -> tuple[list[Request], float | None]:
        """Take out what nobody has waited for in a while.

        Returns:
            What ended, and the boot-clock time at which to look again; None: not.
        """
        due = [r for r in self._requests.values() if not r.waiting and r.until <= now]
        ended = self._end(due)
        coming = [r.until for r in self._requests.values() if not r.waiting]
        return ended, min(coming, default=None)

    def shown(self) -> list[Request]:
        """Return the requests as a person should see them: the oldest of each tree first."""
        seen: Counter[ProcessId] = Counter()
        ranked: list[tuple[int, float, Request]] = []
        for request in sorted(self._requests.values(), key=lambda request: request.asked_at):
            ranked.append((seen[request.origin], request.asked_at, request))
            seen[request.origin] += 1
        return [request for _, _, request in sorted(ranked, key=lambda item: item[:2])]

    def trees(self) -> set[ProcessId]:
        """Return the roots of the trees that ask."""
        return {request.tree for request in self._requests.values()}

    def _end(self, requests: Iterable[Request]) -> list[Request]:
        ended = list(requests)
        for request in ended:
            del self._requests[request.code]
        return ended
