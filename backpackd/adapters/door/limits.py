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

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Held:
    """One connection that is open.

    Attributes:
        name: what the verdict calls it by.
        tree: the process tree that it counts for.
        calls: how many calls are in progress on it.
        idle_since: when bytes last went through it, on any clock.
    """

    name: str
    tree: ProcessId
    calls: int
    idle_since: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a newcomer.

    Attributes:
        refusal: which limit stands in the way; None when it is let in.
        evict: the name of the connection to close first, if any.
    """

    refusal: str | None = None
    evict: str | None = None


def judge(tree: ProcessId, held: Sequence[Held], limits: Limits) -> Verdict:
    """Decide whether a connection of `tree` is let in beside those that are `held`.

    Args:
        tree: the process tree that the newcomer counts for.
        held: every connection that is open.
        limits: what is allowed.

    Returns:
        A refusal, or an admission with at most one connection to close for it.
    """
    counts = Counter(one.tree for one in held)
    own = counts[tree]
    if own >= limits.per_tree:
        victim = longest_idle([one for one in held if one.tree == tree])
        return Verdict(evict=victim) if victim else Verdict("connections of one process tree")
    if len(held) < limits.total:
        return Verdict()
    # A tree with no more than the newcomer's has no part to give up: two trees would evict each
    # other for ever. Its own idle ones are the newcomer's to trade in.
    larger = [one for one in held if one.tree == tree or counts[one.tree] > own]
    victim = longest_idle(larger)
    if victim is None:
        much_larger = [one for one in held if counts[one.tree] > own + 1]
        victim = _of_busiest_tree(much_larger)
    return Verdict(evict=victim) if victim else Verdict("connections in total")


def longest_idle(held: Sequence[Held]) -> str | None:
    """Name the connection to close first: of the busiest tree, the one idle for longest.

    Args:
        held: those that may be closed; one with a call in progress is passed over, but counts
            for how busy its tree is.

    Returns:
        Its name; None when every one has a call in progress.
    """
    counts = Counter(one.tree for one in held)
    return _first_to_go([one for one in held if not one.calls], counts)


def _of_busiest_tree(held: Sequence[Held]) -> str | None:
    return _first_to_go(held, Counter(one.tree for one in held))


def _first_to_go(held: Sequence[Held], counts: Counter[ProcessId]) -> str | None:
    if not held:
        return None
    return min(held, key=lambda one: (-counts[one.tree], one.idle_since)).name
