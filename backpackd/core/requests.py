"""Requests that wait for a person, and what a person's answers left: consents and refusals.

Invariants:

1. Calls of one process tree for the same keys, or for some of them, are one request.
2. One tree has few requests at a time, and a full table gives way where it is fullest: a flood
   pushes out its own requests first.
3. A consent is a grant to the root of a tree that is in memory only. It ends with that root, with
   a revocation, and when the vault is locked.
4. A revocation also sets aside, for that tree and those keys, standing grants and whatever was
   consented to before it: a person is asked again.

Times are seconds on the boot clock and come in as arguments.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from backpackd.core.errors import LimitError
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.core.grants import Grant

MOST_OF_TREE = 8
MOST = 256
LIFE = 600.0
"""Seconds that a request stays without a call that waits for it."""
MOST_REMEMBERED = 4096
"""Refusals and revocations that are remembered, each."""
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
            LimitError: this tree has too many requests already.
        """
        self.check_room(request.origin)
        self._requests[request.code] = request
        if len(self._requests) <= MOST:
            return []
        counts = Counter(other.origin for other in self._requests.values())
        fullest = max(self._requests.values(), key=lambda other: counts[other.origin])
        del self._requests[fullest.code]
        return [fullest]

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


class Answers:
    """What people's answers left behind, for `core.decision`. In memory only."""

    def __init__(self) -> None:
        self._consents: dict[str, Grant] = {}
        # When each consent was given and each pair withdrawn, counted in answers.
        self._given: dict[str, int] = {}
        self._answers = 0
        # Dicts for their order: the oldest is forgotten first.
        self._refused: dict[tuple[ProcessId, str], int] = {}
        self._withdrawn: dict[tuple[ProcessId, str], int] = {}

    def consent(self, grant: Grant, tree: ProcessId) -> None:
        """Remember a consent.

        Args:
            grant: to the root that the person chose.
            tree: the root of the tree that asked; what it was refused of these keys is forgotten.
        """
        self._consents[grant.id] = grant
        self._given[grant.id] = self._count()
        for root, name in list(self._refused):
            if root in {grant.selector.process, tree} and grant.covers(name):
                del self._refused[root, name]

    def consents(self) -> list[Grant]:
        """Return the consents in force."""
        return list(self._consents.values())

    def use(self, grant_id: str) -> bool:
        """Spend one use of a consent; False when it has ended or has none left."""
        consent = self._consents.get(grant_id)
        if consent is None or consent.uses_left == 0:
            return False
        self._consents[grant_id] = consent.used()
        return True

    def refuse(self, tree: ProcessId, names: Iterable[str]) -> None:
        """Remember that a person refused keys to a tree: it is not asked again."""
        _remember(self._refused, tree, names, self._count())

    def refused(self, tree: ProcessId, names: Iterable[str]) -> bool:
        """Tell whether one of these keys was refused to this tree."""
        return any((tree, name) in self._refused for name in names)

    def withdraw(
        self, tree: ProcessId, names: Collection[str], rested_on: Collection[str]
    ) -> list[Grant]:
        """Set aside what lets a tree have keys.

        Consents to another process of the tree's chain than its root are set aside for this tree
        like standing grants, and stay for others, unless what was revoked rested on them.

        Args:
            tree: its root.
            names: the keys.
            rested_on: ids of the grants and consents that what was revoked rested on.

        Returns:
            The consents that ended.
        """
        _remember(self._withdrawn, tree, names, self._count())
        return self.end_consents(
            lambda consent: (
                consent.id in rested_on
                or (consent.selector.process == tree and any(map(consent.covers, names)))
            )
        )

    def withdrawn(self, tree: ProcessId, name: str, *, since: str = "") -> bool:
        """Tell whether a key was revoked from a tree, so that what it had before is set aside.

        Args:
            tree: its root.
            name: the key.
            since: the id of a consent: only a revocation after that one counts.
        """
        return self._withdrawn.get((tree, name), -1) > self._given.get(since, -1)

    def end_consents(self, over: Callable[[Grant], bool]) -> list[Grant]:
        """End the consents that are over, and return them."""
        ended = [consent for consent in self._consents.values() if over(consent)]
        for consent in ended:
            del self._consents[consent.id]
            del self._given[consent.id]
        return ended

    def trees(self) -> set[ProcessId]:
        """Return the roots of the trees about which a refusal or a revocation is remembered."""
        return {tree for tree, _ in self._refused} | {tree for tree, _ in self._withdrawn}

    def end_tree(self, tree: ProcessId) -> list[Grant]:
        """Forget everything about a tree whose root has ended; return its consents."""
        for remembered in (self._refused, self._withdrawn):
            for key in [key for key in remembered if key[0] == tree]:
                del remembered[key]
        return self.end_consents(lambda consent: consent.selector.process == tree)

    def clear(self) -> None:
        """Forget everything."""
        self._consents.clear()
        self._given.clear()
        self._refused.clear()
        self._withdrawn.clear()

    def _count(self) -> int:
        self._answers += 1
        return self._answers


def _remember(
    remembered: dict[tuple[ProcessId, str], int],
    tree: ProcessId,
    names: Iterable[str],
    count: int,
) -> None:
    for name in names:
        remembered.pop((tree, name), None)
        remembered[tree, name] = count
    while len(remembered) > MOST_REMEMBERED:
        del remembered[next(iter(remembered))]
