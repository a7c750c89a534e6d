"""Decides which connection gives way to a new one if there is no room for both.

Policy only: plain values in, a verdict out. It holds no socket and reads no clock.

Two rules follow from one aim, that no process tree can keep another one out:

* A tree at its own limit gives its longest-idle connection to the newcomer. An idle gRPC channel
  reconnects automatically, so a tree that forgot to close its connections recovers. If the newcomer
  were refused instead, one runaway child could lock out its siblings, and even `panic` typed in the
  same tree. A call in progress never gives way to a connection of the same tree: then the newcomer
  is refused.
* A full door takes from the busiest tree. Idle connections go first. If none is idle, a tree that
  would still hold as many as the newcomer's tree gives up a connection with a call in progress.
  Otherwise a flood of waiting calls would keep `panic` out, which a flood of idle ones cannot.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from backpackd.adapters.door.limits import CONNECTIONS, CONNECTIONS_OF_TREE
from backpackd.core.peer_facts import ProcessId


class Held(Protocol):
    """One open connection."""

    @property
    def busy(self) -> bool:
        """Whether a call is in progress on it, not counting calls that stay open."""
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
    """The verdict on a newcomer.

    Attributes:
        refusal: the limit that is reached; None if the newcomer is admitted.
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
    """Decide whether a new connection of `tree` is admitted besides the open ones.

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
    # A tree with no more connections than the newcomer's gives up none: otherwise two trees would
    # evict each other forever. The newcomer's tree can give up its own idle connections.
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
