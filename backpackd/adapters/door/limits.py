"""How many connections the door lets in, and who must go when it is full.

Policy only: plain values in, a verdict out. It holds no socket and reads no clock; what "idle
since" counts in is the caller's affair.

Two rules follow from one aim, that no process tree can keep another one out:

* A tree at its own limit loses its own longest-idle connection to the newcomer. Old and new
  connections of a tree are worth the same, an idle gRPC channel reconnects by itself, and a tree
  that forgot to close its connections heals that way. Refusing instead would let one runaway child
  lock out its siblings, `panic` typed in the same tree included. A call in progress is never given
  up for a connection of the same tree: then the newcomer is refused.
* A full door takes from the busiest tree. Idle connections go first. Where none is idle, a tree
  that would still hold as many as the newcomer's gives up a connection with a call in progress:
  else a flood of calls that wait would keep `panic` out, which a flood of idle ones cannot.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from backpackd.core.facts import ProcessId


@dataclass(frozen=True, slots=True)
class Limits:
    """What the door allows.

    Attributes:
        per_tree: connections of one process tree.
        total: connections of everybody.
        first_request_seconds: time from the accept to the first request.
        first_request_bytes: bytes before the first request, handshake included.
    """

    per_tree: int = 128
    total: int = 512
    first_request_seconds: float = 10.0
    first_request_bytes: int = 64 * 1024


class Held(Protocol):
    """One connection that is open."""

    @property
    def name(self) -> str:
        """What the verdict calls it by."""
        ...

    @property
    def calls(self) -> int:
        """How many calls are in progress on it, those that stand open not counted."""
        ...

    @property
    def stands(self) -> bool:
        """Whether a call stands open on it."""
        ...

    @property
    def idle_since(self) -> float:
        """When bytes last went through it, on any clock."""
        ...


Trees = Mapping[ProcessId, Collection[Held]]
"""Every connection that is open, by the process tree that it counts for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a newcomer.

    Attributes:
        refusal: which limit stands in the way; None when it is let in.
        evict: the name of the connection to close first, if any.
    """

    refusal: str | None = None
    evict: str | None = None


def judge(tree: ProcessId, trees: Trees, limits: Limits) -> Verdict:
    """Decide whether a connection of `tree` is let in beside those that are open.

    Args:
        tree: the process tree that the newcomer counts for.
        trees: what is open.
        limits: what is allowed.

    Returns:
        A refusal, or an admission with at most one connection to close for it.
    """
    siblings = trees.get(tree, ())
    own = len(siblings)
    if own >= limits.per_tree:
        victim = _first_to_go([siblings], with_calls=False)
        return Verdict(evict=victim) if victim else Verdict("connections of one process tree")
    if sum(map(len, trees.values())) < limits.total:
        return Verdict()
    # A tree with no more than the newcomer's has no part to give up: two trees would evict each
    # other for ever. Its own idle ones are the newcomer's to trade in.
    larger = [one for one in trees.values() if one is siblings or len(one) > own]
    victim = _first_to_go(larger, with_calls=False)
    if victim is None:
        much_larger = [one for one in larger if len(one) > own + 1]
        victim = _first_to_go(much_larger, with_calls=True)
    return Verdict(evict=victim) if victim else Verdict("connections in total")


def longest_idle(trees: Trees) -> str | None:
    """Name the connection to close first: of the busiest tree, the one idle for longest.

    Returns:
        Its name; None when every one has a call in progress.
    """
    return _first_to_go(trees.values(), with_calls=False)


def _first_to_go(trees: Iterable[Collection[Held]], *, with_calls: bool) -> str | None:
    candidates = (
        (-len(tree), one.stands, one.idle_since, one.name)
        for tree in trees
        for one in tree
        if with_calls or not one.calls
    )
    return min(candidates, default=(0, False, 0, None))[3]
