"""Processes that a tree may have left behind: orphans, and processes beside its root.

Permission is for a tree. Prohibition is for every process below the root that was revoked, refused
or denied: whatever terminals, sessions and programs lie in between, that root stands in the chain.
An orphan has no such root in its chain any more. What a double fork does not change is the session,
and `setsid` does not change the unit. So an orphan of the same session or unit counts as possibly
left behind by the tree. It may be somebody else's: therefore it loses only what it has without a
question, and only while the root lives.

A process can also give its own parent a child (`CLONE_PARENT` in clone(2)). Such a child looks like
any other command that the parent, for example a shell, started. It is never older than the root. So
every younger child of the root's parent also counts as possibly left behind, with everything below
it.

The first process of a pid namespace takes the orphans of all of it, whatever program it is: also
the agent of a container. So what stands right below it may be an orphan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId


@dataclass(frozen=True, slots=True)
class Place:
    """Where the root of a tree ran.

    A terminal is not part of it: a terminal belongs to one session.

    Attributes:
        session: its session id; 0 where that is not known.
        unit: its systemd unit. None outside of one, which counts as one place for all such
            processes: otherwise `setsid` would be enough to leave it.
        top: the outermost process above the root that is no manager, no other user's and not pid 1:
            a terminal program, or the root itself. What runs below it is no orphan.
        parent: what stood right above the root; None for a service manager, below which orphans are
            told apart by session and unit, and where it is not known.
    """

    session: int
    unit: str | None
    top: ProcessId
    parent: ProcessId | None = None


def place_of(facts: PeerFacts, process: ProcessFacts) -> Place:
    """Return where a process of a chain runs."""
    at = facts.chain.index(process)
    above = facts.chain[at + 1 :][:1]
    parent = above[0].id if above and not above[0].manager else None
    top = facts.chain[max(at, _top_index(facts))].id
    return Place(process.session, process.unit, top, parent)


@dataclass(frozen=True, slots=True)
class Ancestry:
    """Facts about a tree that prohibitions need after its processes have gone.

    Attributes:
        chain: its root and all that stood above it.
        place: where its root ran.
        origin: the root of the tree around it that no process has chosen, where that is another
            one (see `PeerFacts.origin`), and where that ran.
    """

    chain: tuple[ProcessId, ...]
    place: Place
    origin: tuple[ProcessId, Place] | None = None

    @classmethod
    def of(cls, facts: PeerFacts, root: ProcessFacts) -> "Ancestry":
        """Take it from an attested caller, for a root in its chain."""
        above = facts.chain[facts.chain.index(root) :]
        around = facts.origin
        origin = None if around == root else (around.id, place_of(facts, around))
        return cls(tuple(process.id for process in above), place_of(facts, root), origin)


@dataclass(frozen=True, slots=True)
class Traces:
    """Facts about a caller that show which trees may have left it behind.

    Attributes:
        top: the outermost process of its chain that is no manager, no other user's and not pid 1.
        orphaned: whether that process has only a manager or pid 1 above it, or nothing that could
            be read.
        sessions: of its chain up to there.
        units: likewise.
        adopted: sessions of processes whose parent is in another session, though they lead none:
            their real parent has ended, and a subreaper that is no manager has taken them.
        children: the processes of its chain by what stands right above each.
    """

    top: ProcessId
    orphaned: bool
    sessions: frozenset[int]
    units: frozenset[str | None]
    adopted: frozenset[int] = field(default=frozenset())
    children: Mapping[ProcessId, ProcessId] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: PeerFacts) -> "Traces":
        """Take them from an attested caller."""
        end = _top_index(facts) + 1
        own, above = facts.chain[:end], facts.chain[end : end + 1]
        return cls(
            own[-1].id,
            # Who has come in from outside of the pid namespace has parent 0. An orphan never has.
            _takes_orphans(above[0]) if above else own[-1].parent > 0,
            frozenset(process.session for process in own) - {0},
            frozenset(process.unit for process in own),
            frozenset(_adopted(own)) - {0},
            {parent.id: child.id for child, parent in pairwise(facts.chain)},
        )

    def beside(self, root: ProcessId, place: Place) -> bool:
        """Return whether the caller is, or is below, a younger child of a root's parent."""
        child = self.children.get(place.parent) if place.parent is not None else None
        return child is not None and child != root and child.start >= root.start

    def may_be_left_by(self, root: ProcessId, place: Place) -> bool:
        """Return whether a tree that has its root there may have left the caller behind."""
        if place.session in self.adopted or self.beside(root, place):
            return True
        if not self.orphaned or self.top == place.top:
            return False
        return place.session in self.sessions or place.unit in self.units


def _top_index(facts: PeerFacts) -> int:
    top = facts.outermost
    return top - 1 if top > 0 and _takes_orphans(facts.chain[top]) else top


def _takes_orphans(process: ProcessFacts) -> bool:
    return process.manager or process.id.pid == 1


def _adopted(chain: tuple[ProcessFacts, ...]) -> Iterator[int]:
    for child, parent in pairwise(chain):
        if child.session not in (child.id.pid, parent.session):
            yield child.session
