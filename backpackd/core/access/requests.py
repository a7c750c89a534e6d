"""Requests that wait for a person.

Invariants:

1. Calls of one process tree for the same keys, or for some of them, are one request.
2. One tree has few requests at a time, including those of the trees around it. With its own
   terminal, an agent's tool becomes another tree. It still counts for the trees around it, and for
   the limit of everything below one outermost process. A full table gives way where it is fullest:
   a flood pushes out its own requests first.
3. A program that leaves its tree at every request, by forking twice, is a flood of many trees. It
is
   counted by what it does not leave that way: its login session or systemd unit, and within it the
   orphans, which have no terminal program above them. In a full table the largest crowd gives up
   its newest request for a newcomer of a smaller crowd.
4. Sources, crowds and trees are shown in turns, each with its oldest first.

Times are seconds on the boot clock and come in as arguments.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import Answer, PeerFacts, ProcessFacts, ProcessId

MOST_OF_TREE = 8
MOST_OF_CHAIN = 32
"""Of all trees below one outermost process, such as a terminal program."""
MOST = 256
FEW = 32
"""This many requests of one source or crowd are not a flood."""
LIFE = 600.0
"""Seconds that a request stays without a call that waits for it."""
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without letters and digits that look alike."""
CODE_LENGTH = 4


@dataclass(slots=True, eq=False)
class Request:
    """One request to a person.

    Attributes:
        code: `CODE_LENGTH` characters of `CODE_ALPHABET`.
        facts: the caller when it first asked, as attested, with the programs that its chain last
            ran.
        names: the keys.
        reason: the caller's words, a claim.
        commands: command lines of the chain by pid, claims.
        asked_at: boot-clock seconds.
        until: boot-clock seconds at which it ends without waiting calls.
        waiting: how many calls wait.
        revision: counts what the chain has been found to run.
        looked_at: boot-clock seconds at which that was last read.
    """

    code: str
    facts: PeerFacts
    names: tuple[str, ...]
    reason: str
    commands: dict[int, str]
    asked_at: float
    until: float
    waiting: int = 0
    revision: int = 1
    looked_at: float = float("-inf")

    @property
    def tree(self) -> ProcessId:
        """The root of the process tree that asks."""
        return self.facts.root.id

    @property
    def origin(self) -> ProcessId:
        """The tree that counts for limits, whatever root the caller proposes."""
        return self.facts.origin.id

    def differs(self, facts: PeerFacts, commands: dict[int, str]) -> bool:
        """Return whether the chain runs something else than what was shown of this request.

        A command line is a claim. It counts all the same: an interpreter that runs another script
        is the same file, and a claim may refuse an approval, though never allow one. A process that
        has ended is no change: it runs nothing any more, and most askers end before the answer.
        """
        # Root's services write what they do into their command lines, and nobody asks about them.
        own = {process.id for process in facts.chain[: facts.outermost + 1]}
        return any(
            now.image.answer is not Answer.ENDED
            and (
                _running(before) != _running(now)
                or (now.id in own and self.commands.get(now.id.pid) != commands.get(now.id.pid))
            )
            for before, now in zip(self.facts.chain, facts.chain, strict=True)
        )

    def change(self, facts: PeerFacts, commands: dict[int, str]) -> None:
        """Take in what the chain runs now; another revision where it differs."""
        if self.differs(facts, commands):
            self.revision += 1
        ended = {each.id.pid for each in facts.chain if each.image.answer is Answer.ENDED}
        # A process that has reused the pid of an ended one says nothing about it.
        live = {pid: command for pid, command in commands.items() if pid not in ended}
        self.facts, self.commands = facts, {**self.commands, **live}

    @property
    def source(self) -> tuple[str, ProcessId | str | None]:
        """The session or unit that the caller comes from.

        A session that a process of another uid began, such as the ssh server or `login`, counts by
        its first process: an orphan goes to a manager, and so can never come to be in it. All else
        counts by the unit of its outermost process, which is inherited, and together where there
        are no units.
        """
        chain, top = self.facts.chain, self.facts.outermost
        outermost = chain[top]
        if not outermost.manager and top + 1 < len(chain) and not chain[top + 1].manager:
            return "session", outermost.id
        return "unit", outermost.unit

    @property
    def crowd(self) -> tuple[object, ProcessId | None]:
        """Of its source: all under the same terminal program, or all orphans together."""
        outermost = self.facts.chain[self.facts.outermost].id
        return self.source, None if outermost == self.origin else outermost

    @property
    def possible_roots(self) -> tuple[ProcessFacts, ...]:
        """The processes of the chain that consent may be given to.

        What starts the programs of everybody may not: managers, and processes of another uid, such
        as cron or the ssh server, wherever in the chain they stand.
        """
        facts = self.facts
        own = facts.chain[: facts.outermost + 1]
        return tuple(process for process in own if not process.manager and process.uid == facts.uid)


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

    def check_room(self, facts: PeerFacts) -> None:
        """Raise unless a caller may make one more request.

        Requests of every tree that the caller is in count. Otherwise each terminal that an agent
        opens would be a tree with requests of its own.

        Raises:
            LimitError: its tree, one around it or its outermost process has too many already.
        """
        chain = {process.id for process in facts.chain}
        outermost = facts.chain[facts.outermost].id
        others = self._requests.values()
        around = sum(other.origin in chain for other in others)
        below = sum(other.facts.chain[other.facts.outermost].id == outermost for other in others)
        if around >= MOST_OF_TREE or below >= MOST_OF_CHAIN:
            raise LimitError(
                f"{MOST_OF_TREE} requests of this process tree wait for approval already: have "
                "them answered first",
                reason="too-many-requests",
            )

    def add(self, request: Request) -> list[Request]:
        """Add a request, and return the requests that gave way to it.

        Raises:
            LimitError: this tree has too many requests already, or all have.
        """
        self.check_room(request.facts)
        self._requests[request.code] = request
        if len(self._requests) <= MOST:
            return []
        crowd = self._fullest(request)
        counts = Counter(other.origin for other in crowd)

        def rank(other: Request) -> tuple[int, bool, float]:
            idle = not other.waiting and other is not request
            return counts[other.origin], idle, other.asked_at

        # Of those alike the last, which is the newcomer if it is one of them.
        last = max(reversed(crowd), key=rank)
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
        """Remove the requests that are over."""
        return self._end(request for request in self._requests.values() if over(request))

    def end_tree(self, tree: ProcessId) -> list[Request]:
        """Remove the requests of a tree whose root has ended."""
        return self.end(lambda request: request.tree == tree)

    def end_all(self) -> list[Request]:
        """Remove every request."""
        return self._end(self._requests.values())

    def expire(self, now: float) -> tuple[list[Request], float | None]:
        """Remove requests that nobody has waited for in a while.

        Returns:
            What ended, and the boot-clock time at which to look again; None: not.
        """
        due = [r for r in self._requests.values() if not r.waiting and r.until <= now]
        ended = self._end(due)
        coming = [r.until for r in self._requests.values() if not r.waiting]
        return ended, min(coming, default=None)

    def shown(self) -> list[Request]:
        """Return the requests in the order for a person: the oldest of each tree first.

        Before that, in turns, the oldest of each source and of each crowd.
        """
        requests = sorted(self._requests.values(), key=lambda request: request.asked_at)
        requests = _in_turns(requests, lambda request: request.origin)
        requests = _in_turns(requests, lambda request: request.crowd)
        return _in_turns(requests, lambda request: request.source)

    def trees(self) -> set[ProcessId]:
        """Return the roots of the trees that ask."""
        return {request.tree for request in self._requests.values()}

    def _fullest(self, newcomer: Request) -> list[Request]:
        """Return the requests of which one has to give way: of the fullest source and crowd.

        Of those alike the newcomer's own: nobody who asked before is pushed out by a crowd as large
        as its own. A few are no flood, and then trees count: otherwise many small crowds, which
        cost an attacker more, could thin out those that ask under one terminal program.
        """
        requests = list(self._requests.values())
        for group_of in (lambda request: request.source, lambda request: request.crowd):
            largest = _most(requests, newcomer, group_of)
            if len(largest) <= FEW:
                break
            requests = largest
        return requests

    def _end(self, requests: Iterable[Request]) -> list[Request]:
        ended = list(requests)
        for request in ended:
            del self._requests[request.code]
        return ended


def _running(process: ProcessFacts) -> tuple[object, ...]:
    return process.executable, process.image, process.uid, process.unit


def _most(
    requests: list[Request], newcomer: Request, group_of: Callable[[Request], Hashable]
) -> list[Request]:
    """Return the requests of the largest group: of those alike the newcomer's, else the newest."""
    groups: dict[Hashable, list[Request]] = {}
    for request in requests:
        groups.setdefault(group_of(request), []).append(request)
    return max(
        groups.values(), key=lambda group: (len(group), newcomer in group, group[-1].asked_at)
    )


def _in_turns(requests: list[Request], group_of: Callable[[Request], Hashable]) -> list[Request]:
    """Order requests so that the first of each group comes first, then the second of each."""
    seen: Counter[Hashable] = Counter()
    turns: list[tuple[int, int, Request]] = []
    for place, request in enumerate(requests):
        group = group_of(request)
        turns.append((seen[group], place, request))
        seen[group] += 1
    return [request for _, _, request in sorted(turns, key=lambda turn: turn[:2])]
