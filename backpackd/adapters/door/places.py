"""Which connection makes way for a new one when there is no room for both.

Policy only: plain values in, a verdict out. It holds no socket and reads no clock.

Two rules follow from one aim, that no process tree can keep another one out:

* A tree at its own limit loses its own longest-idle connection to the newcomer. An idle gRPC
  channel reconnects by itself, and a tree that forgot to close its connections heals that way.
  Refusing instead would let one runaway child lock out its siblings, `panic` typed in the same tree
  included. A call in progress is never given up for a connection of the same tree: then the
  newcomer is refused.
* A full door takes from the busiest tree. Idle connections go first. Where none is idle, a tree
  that would still hold as many as the newcomer's gives up a connection with a call in progress:
  otherwise a flood of calls that wait would keep `panic` out, which a flood of idle ones cannot.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from backpackd.adapters.door.limits import CONNECTIONS, CONNECTIONS_OF_TREE
from backpackd.core.peer_facts import ProcessId


class Held(Protocol):
    """One connection that is open."""

    @property
    def busy(self) -> bool:
        """Whether a call is in progress on it, those that stay open not counted."""
        ...

    @property
    def stands(self) -> bool:
        """Whether a call stays open on it."""
        ...

    active_at: float
    """When bytes last came in, on any clock."""


_Held = TypeVar("_Held", bound=Held)


@dataclass(frozen=True, slots=True)
class Verdict(Generic[_Held]):
    """What to do with a newcomer.

    Attributes:
        refusal: which limit stands in the way; None when it is let in.
        evict: the connection to close first, if any.
    """

    refusal: str | None = None
    evict: _Held | None = None


def judge(
    tree: ProcessId,
    trees: Mapping[ProcessId, Collection[_Held]],
    *,
    per_tree: int = CONNECTIONS_OF_TREE,
    total: int = CONNECTIONS,
) -> Verdict[_Held]:
    """Decide whether a connection of `tree` is let in beside those that are open.

    Args:
        tree: the process tree that the newcomer counts for.
        trees: every connection that is open, by the process tree that it counts for.
        per_tree: connections of one tree.
        total: connections of everybody.

    Returns:
        A refusal, or an admission with at most one connection to close for it.
    """
    siblings = trees.get(tree, ())
    own = len(siblings)
    if own >= per_tree:
        victim = _first_to_go([siblings], busy=False)
        return Verdict(evict=victim) if victim else Verdict("connections of one process tree")
    if sum(map(len, trees.values())) < total:
        return Verdict()
    # A tree with no more than the newcomer's has no part to give up: two trees would evict each
    # other for ever. Its own idle ones are the newcomer's to trade in.
    larger = [one for one in trees.values() if one is siblings or len(one) > own]
    victim = _first_to_go(larger, busy=False)
    if victim is None:
        much_larger = [one for one in larger if len(one) > own + 1]
        victim = _first_to_go(much_larger, busy=True)
    return Verdict(evict=victim) if victim else Verdict("connections in total")


def longest_idle(trees: Mapping[ProcessId, Collection[_Held]]) -> _Held | None:
    """Return the connection to close first: of the busiest tree, the one idle for longest.

    Returns:
        The connection; None when every one has a call in progress.
    """
    return _first_to_go(trees.values(), busy=False)


def _first_to_go(trees: Iterable[Collection[_Held]], *, busy: bool) -> _Held | None:
    candidates = [(tree, one) for tree in trees for one in tree if busy or not one.busy]
    found = min(
        candidates,
        key=lambda each: (-len(each[0]), each[1].stands, each[1].active_at),
        default=None,
    )
    return found[1] if found else None
