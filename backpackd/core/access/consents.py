"""Consents, refusals and revocations: the results of people's answers.

Invariants:

1. A consent is a grant to the root of a tree that is in memory only. It ends with that root, with
   a revocation, and when the vault is locked.
2. A revocation also sets aside, for that tree and those keys, standing grants and whatever was
   consented to before it: a person is asked again.
3. A refusal or a revocation is about a root. It holds for every process below the root and for
   processes that its tree may have left behind (`core.access.orphans`). If a rule denied something
   to a tree, that also holds for what the tree may have left behind; processes below the root meet
   the rule itself.
4. A revocation holds until its tree ends. If there are too many, the oldest one then sets aside
   everything that was given before it, to any tree: never less than it did.
5. While the vault is locked, no name of a key is here. Only the trees of revocations remain, and
   from then on they hold for every key.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from backpackd.core.access.grants import Grant
from backpackd.core.access.orphans import Place, Traces
from backpackd.core.access.revocations import MOST_TREES, Revocations
from backpackd.core.access.selectors import Selector
from backpackd.core.peer_facts import PeerFacts, ProcessId

MOST_REMEMBERED = 4096
"""The most refusals that are remembered, and the most revocations."""

EVERY_KEY = "*"
"""Stands for every key in a revocation. No key has this name."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The keys that a caller gets only after a question, because a tree may have left it behind.

    Attributes:
        names: keys that were refused to such a tree or revoked from it, or `EVERY_KEY`.
        selectors: of the rules that denied something to such a tree.
        beside: roots that something was revoked from, and that may have made the caller, or a
            process above it, a child of their own parent; each with that parent.
    """

    names: frozenset[str]
    selectors: frozenset[Selector]
    beside: tuple[tuple[ProcessId, ProcessId], ...] = ()


class Consents:
    """The results of people's answers, for `core.access.decision`. In memory only."""

    def __init__(self) -> None:
        self._consents: dict[str, Grant] = {}
        # When each consent was given and each pair withdrawn, counted in answers.
        self._given: dict[str, int] = {}
        self._answers = 0
        self._refused = _Remembered()
        self._withdrawn = _Remembered()
        # Trees to which a rule denied something, with the rules' selectors. No names.
        self._denied: dict[ProcessId, tuple[Place, frozenset[Selector]]] = {}
        # The latest of the revocations that were too many to remember.
        self._overflowed = -1

    def consent(self, grant: Grant, tree: ProcessId) -> None:
        """Remember a consent.

        Args:
            grant: to the root that the person chose.
            tree: the root of the tree that asked; its refusals of these keys are forgotten.
        """
        self._consents[grant.id] = grant
        self._given[grant.id] = self._count()
        for root in {grant.selector.process or tree, tree}:
            for name in self._refused.of(root):
                if grant.covers(name):
                    self._refused.drop(root, name)

    def in_force(self) -> list[Grant]:
        """Return the consents in force."""
        return list(self._consents.values())

    def use(self, grant_id: str) -> bool:
        """Spend one use of a consent; return False if it has ended or has none left."""
        consent = self._consents.get(grant_id)
        if consent is None or consent.uses_left == 0:
            return False
        self._consents[grant_id] = consent.used()
        return True

    def refuse(self, tree: ProcessId, names: Iterable[str], *, place: Place | None = None) -> None:
        """Remember that a person refused keys to a tree: nobody is asked about it again.

        Args:
            tree: its root.
            names: the keys.
            place: where the root runs; None: not known.
        """
        self._refused.add(tree, names, self._count(), place)

    def refused(self, tree: ProcessId, names: Iterable[str]) -> bool:
        """Return whether one of these keys was refused to the tree that has this root."""
        return any(self._refused.number(tree, name) >= 0 for name in names)

    def refused_above(self, facts: PeerFacts, names: Collection[str]) -> bool:
        """Return whether one of these keys was refused to a tree that a caller is in."""
        return any(self.refused(process.id, names) for process in facts.chain)

    def refused_to(self, facts: PeerFacts, names: Collection[str]) -> bool:
        """Return whether one of these keys was refused above a caller, so that nobody is asked.

        Or it was refused to a tree that may have left the caller behind.
        """
        if self.refused_above(facts, names):
            return True
        return not self._refused.left_to(Traces.of(facts)).isdisjoint(names)

    def deny(self, tree: ProcessId, place: Place, selectors: frozenset[Selector]) -> None:
        """Remember that rules deny something to a tree.

        Args:
            tree: its root.
            place: where the root runs.
            selectors: of the rules that mean the tree.
        """
        self._denied.pop(tree, None)
        self._denied[tree] = place, selectors
        while len(self._denied) > MOST_REMEMBERED:
            del self._denied[next(iter(self._denied))]

    def suspended(self, facts: PeerFacts) -> Suspended:
        """Return what a caller does not have without a question though it is in no such tree."""
        if not (self._denied or self._refused.places or self._withdrawn.places):
            return Suspended(frozenset(), frozenset())
        traces = Traces.of(facts)
        denied = [
            which
            for tree, (place, which) in self._denied.items()
            if traces.may_be_left_by(tree, place)
        ]
        return Suspended(
            self._refused.left_to(traces) | self._withdrawn.left_to(traces),
            frozenset[Selector]().union(*denied),
            tuple(self._withdrawn.beside(traces)),
        )

    def withdraw(
        self,
        tree: ProcessId,
        names: Collection[str],
        rested_on: Collection[str],
        *,
        place: Place | None = None,
    ) -> list[Grant]:
        """Set aside the consents and grants that give keys to a tree.

        A consent to another process of the tree's chain than its root is set aside for this tree
        like a standing grant. It stays for others, unless the revoked lease rested on it.

        Args:
            tree: its root.
            names: the keys; `EVERY_KEY` for all of them.
            rested_on: ids of the grants and consents that the revoked lease rested on.
            place: where the root runs; None: not known.

        Returns:
            The consents that ended.
        """
        # Otherwise a process could have others' keys revoked until the daemon forgets, and then get
        # its own revoked keys back.
        overflowed = self._withdrawn.add(tree, names, self._count(), place)
        self._overflowed = max(self._overflowed, overflowed)
        return self.end_consents(
            lambda consent: (
                consent.id in rested_on
                or (consent.selector.process == tree and _covers_any(consent, names))
            )
        )

    @property
    def any_withdrawn(self) -> bool:
        """Whether anything was revoked from anybody, of what is remembered."""
        return self._overflowed >= 0 or bool(self._withdrawn.trees())

    def withdrawn(self, tree: ProcessId, name: str, *, since: str = "") -> bool:
        """Return whether a key was revoked from a tree, so that earlier grants are set aside.

        Args:
            tree: its root.
            name: the key.
            since: the id of a consent: only a revocation after that one counts.
        """
        latest = max(
            self._withdrawn.number(tree, name),
            self._withdrawn.number(tree, EVERY_KEY),
            self._overflowed,
        )
        return latest > self._given.get(since, -1)

    def end_consents(self, over: Callable[[Grant], bool]) -> list[Grant]:
        """End the consents that are over, and return them."""
        ended = [consent for consent in self._consents.values() if over(consent)]
        for consent in ended:
            del self._consents[consent.id]
            del self._given[consent.id]
        return ended

    def trees(self) -> set[ProcessId]:
        """Return the roots of trees with a refusal, a revocation or a denial."""
        return self._refused.trees() | self._withdrawn.trees() | self._denied.keys()

    def about(self, tree: ProcessId) -> bool:
        """Return whether a tree has a refusal, a revocation or a denial."""
        return tree in self._refused or tree in self._withdrawn or tree in self._denied

    def end_tree(self, tree: ProcessId) -> list[Grant]:
        """Forget everything about a tree whose root has ended; return its consents."""
        self._refused.drop_tree(tree)
        self._withdrawn.drop_tree(tree)
        self._denied.pop(tree, None)
        return self.end_consents(lambda consent: consent.selector.process == tree)

    def lock(self) -> None:
        """Forget everything except revoked and denied trees: the vault is locked.

        They stay, because every process of the user can lock the vault, and it may unlock itself or
        be unlocked by somebody else than the person who revoked.
        """
        self._consents.clear()
        self._given.clear()
        self._refused.clear()
        trees, places = self._withdrawn.trees(), dict(self._withdrawn.places)
        self._withdrawn.clear()
        for tree in trees:
            self._revoke_all(tree, places.get(tree))

    def revocations(self, boot_id: str) -> Revocations:
        """Return the revocations in force, in the form that is stored.

        Args:
            boot_id: of the running system.
        """
        trees = self._withdrawn.trees()
        if self._overflowed >= 0 or len(trees) > MOST_TREES:
            return Revocations(boot_id, everybody=True)
        if not trees:
            return Revocations()
        return Revocations(boot_id, frozenset(trees), places=dict(self._withdrawn.places))

    def restore(self, tree: ProcessId | None, *, place: Place | None = None) -> None:
        """Put a stored revocation in force again, for every key.

        Args:
            tree: its root; None: everybody.
            place: where the root runs; None: not known.
        """
        if tree is None:
            self._overflowed = max(self._overflowed, self._count())
        elif self._withdrawn.number(tree, EVERY_KEY) < 0:
            self._revoke_all(tree, place)

    def _revoke_all(self, tree: ProcessId, place: Place | None) -> None:
        overflowed = self._withdrawn.add(tree, (EVERY_KEY,), self._count(), place)
        self._overflowed = max(self._overflowed, overflowed)

    def _count(self) -> int:
        self._answers += 1
        return self._answers


def _covers_any(consent: Grant, names: Collection[str]) -> bool:
    return EVERY_KEY in names or any(map(consent.covers, names))


class _Remembered:
    """Numbers of trees and keys. If there are too many, the oldest is forgotten.

    Attributes:
        places: where the roots of the trees run, if known.
    """

    def __init__(self) -> None:
        # A dict for its order.
        self._numbers: dict[tuple[ProcessId, str], int] = {}
        self._names: dict[ProcessId, set[str]] = {}
        self.places: dict[ProcessId, Place] = {}

    def __contains__(self, tree: ProcessId) -> bool:
        return tree in self._names

    def add(self, tree: ProcessId, names: Iterable[str], number: int, place: Place | None) -> int:
        """Remember a number for these keys; return the latest forgotten number, or -1."""
        place = place or self.places.get(tree)
        for name in names:
            self.drop(tree, name)
            self._numbers[tree, name] = number
            self._names.setdefault(tree, set()).add(name)
        if place is not None and tree in self._names:
            self.places[tree] = place
        forgotten = -1
        while len(self._numbers) > MOST_REMEMBERED:
            oldest = next(iter(self._numbers))
            forgotten = max(forgotten, self._numbers[oldest])
            self.drop(*oldest)
        return forgotten

    def number(self, tree: ProcessId, name: str) -> int:
        """Return the number; -1 if there is none."""
        return self._numbers.get((tree, name), -1)

    def of(self, tree: ProcessId) -> list[str]:
        """Return the keys that have a number for a tree."""
        return list(self._names.get(tree, ()))

    def left_to(self, traces: Traces) -> frozenset[str]:
        """Return the keys that have a number for a tree that may have left a caller behind."""
        places = self.places.items()
        trees = [tree for tree, place in places if traces.may_be_left_by(tree, place)]
        return frozenset[str]().union(*(self._names[tree] for tree in trees))

    def beside(self, traces: Traces) -> Iterator[tuple[ProcessId, ProcessId]]:
        """Return the roots that a caller stands beside, each with the parent that both have."""
        for tree, place in self.places.items():
            if place.parent is not None and traces.beside(tree, place):
                yield tree, place.parent

    def trees(self) -> set[ProcessId]:
        """Return every tree."""
        return set(self._names)

    def drop(self, tree: ProcessId, name: str) -> None:
        """Forget one number."""
        if self._numbers.pop((tree, name), None) is not None:
            self._names[tree].discard(name)
            if not self._names[tree]:
                del self._names[tree]
                self.places.pop(tree, None)

    def drop_tree(self, tree: ProcessId) -> None:
        """Forget every number of a tree."""
        for name in self.of(tree):
            self.drop(tree, name)

    def clear(self) -> None:
        """Forget every number."""
        self._numbers.clear()
        self._names.clear()
        self.places.clear()
