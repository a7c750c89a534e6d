"""How many calls are in progress at once, and whose request goes on next when they are too many.

Policy only: plain values in, verdicts out. It holds no socket and reads no clock.

The daemon is one event loop, so what waits in front of a call is the work of all calls that were
let in before it. That is bounded by making requests wait at the door, where the trees can be told
apart, and not in the server, which takes them in their order:

* Anybody's request begins while fewer than `Limits.busy` calls are busy.
* A tree with no busy call may begin one beyond that, up to twice as many: a flood by some trees
  does not keep another one waiting.
* When a place comes free, the tree with the fewest busy calls goes first, and among those the one
  that was served longest ago. One that is new counts as served when it came: else ever new ones
  would keep one that is known waiting for good.

A request that was let in stands in the server's own line until the server takes it up, and there
nobody can overtake it. So until then it is busy, and nothing that its peer does changes that:
whoever asks and hangs up, again and again, would else fill that line with requests of which the
door knows nothing more. Some it never takes: their connection closed before it had read them. Those
are given up when it takes one that was let in `Limits.busy_seconds` later, since it takes them
nearly in their order, and when it has taken none for as long. So long each takes up a place for
nothing: a tree that has left one behind gets places out of a half only, which it shares with others
that did, until a request of it comes to an end.

From then on a call is busy to its end, but no longer than `Limits.busy_seconds` and not while it
says that it is waiting. What takes longer waits for something, a peer that does not read among
them, and places that are never given back would stop everybody. How many are open at all is
bounded as well, below what the server takes, and each tree always has a few.

Calls that stand open for as long as their callers like are not counted against anybody's room at
all: else one for each of many trees would take up every place for good. How many there may be is
for who serves them to say.

A call that its peer takes back keeps its place for those seconds: else to begin and reset requests
without end would cost nothing (CVE-2023-44487).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from backpackd.core.facts import ProcessId


@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls.

    Attributes:
        busy: calls that are worked on at once; twice as many with those of trees that have none.
        busy_seconds: for how long a call is taken to be worked on, and how long the server may take
            up nothing before it is taken to have lost what it was given first.
        per_tree: open calls of one process tree, standing ones not counted.
        total: open calls of everybody, likewise.
        few: open calls that a tree may have all the same when there are so many. One for each
            would not do: who waits for a person could not even ask what for.
    """

    busy: int = 16
    busy_seconds: float = 0.1
    per_tree: int = 128
    total: int = 512
    few: int = 8


_REMEMBERED = 1024
"""Trees of which it is known when they were served last, though nothing of theirs is open."""


class Lane(Protocol):
    """One connection whose requests may have to wait."""

    @property
    def mark(self) -> str:
        """What the connection's requests are known by when the server takes them up."""
        ...

    def let_go(self, place: "Place") -> None:
        """Let the request that has waited longest begin, in its place."""
        ...


@dataclass(slots=True, eq=False)
class _Tree:
    """One process tree with an open call or a request that waits."""

    id: ProcessId
    busy: int = 0
    open: int = 0
    standing: int = 0
    served: int = 0
    leaves: bool = False
    lanes: deque[Lane] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Place:
    """One call that was let in.

    Attributes:
        tree: the process tree that it counts for.
        mark: of the connection that it came on.
        since: when it was let in, or was worked on anew.
        busy: whether it is worked on, or in the server's line.
        open: whether it has not ended.
        arrived: whether the server has taken it up.
        reset: whether its peer has taken it back.
        left: whether the connection that it came on has closed before it arrived.
        doubted: whether it was given to a tree that leaves requests behind: there are only so many
            of those.
    """

    tree: _Tree
    mark: str
    since: float
    busy: bool = False
    open: bool = True
    arrived: bool = False
    reset: bool = False
    left: bool = False
    doubted: bool = False

    @property
    def lined_up(self) -> bool:
        """Whether it stands in the server's line, as far as is known."""
        return self.busy and not self.arrived


class Admission:
    """The calls that were let in, and the lanes with requests that wait."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._trees: dict[ProcessId, _Tree] = {}
        self._idle: dict[ProcessId, tuple[int, bool]] = {}
        self._line: deque[Place] = deque()
        self._by_mark: dict[str, deque[Place]] = {}
        self._arrived_at = float("-inf")
        self._recent: deque[tuple[float, Place]] = deque()
        self._busy = 0
        self._doubted = 0
        self._open = 0
        self._standing = 0
        self._turn = 0
        self._lanes = 0

    @property
    def waiting(self) -> bool:
        """True while a lane stands in line."""
        return self._lanes > 0

    @property
    def busy_seconds(self) -> float:
        """For how long a call is taken to be worked on."""
        return self._limits.busy_seconds

    def begin(self, id: ProcessId, mark: str, now: float) -> Place | None:  # noqa: A002  # as elsewhere
        """Let a request in if there is room and nobody of its tree stands in line before it.

        Args:
            id: the process tree that it counts for.
            mark: of its connection; those of one connection arrive in the order of their places.
            now: seconds on a clock that does not go back.

        Returns:
            Its place; None when it has to wait.
        """
        self.expire(now)
        tree = self._tree(id)
        if tree.lanes or not self._room(tree):
            self._forget(tree)
            return None
        return self._take(tree, mark, now)

    def stand(self, id: ProcessId, lane: Lane) -> None:  # noqa: A002  # as elsewhere
        """Put a lane at the end of its tree's line."""
        tree = self._tree(id)
        tree.lanes.append(lane)
        self._lanes += 1

    def leave(self, id: ProcessId, lane: Lane) -> None:  # noqa: A002  # as elsewhere
        """Take a lane out of the line. For one that stands in it."""
        tree = self._trees[id]
        tree.lanes.remove(lane)
        self._lanes -= 1
        self._forget(tree)

    def next(self, now: float) -> tuple[Lane, Place] | None:
        """Let in one request of those that wait, and take its lane out of the line.

        Returns:
            The lane and the call's place; None when there is no room or nobody waits.
        """
        if not self._lanes:
            return None
        self.expire(now)
        tree = min(
            (one for one in self._trees.values() if one.lanes and self._room(one)),
            key=lambda one: (one.busy, one.served),
            default=None,
        )
        if tree is None:
            return None
        lane = tree.lanes.popleft()
        self._lanes -= 1
        return lane, self._take(tree, lane.mark, now)

    def end(self, place: Place) -> None:
        """Give a place back. Twice is harmless."""
        self._rest(place)
        if place.open:
            place.open = False
            if not place.arrived:
                self._unmark(place)
            elif not (place.left or place.reset):
                place.tree.leaves = False
            place.tree.open -= 1
            self._open -= 1
            self._forget(place.tree)

    def arrive(self, mark: str, now: float) -> None:
        """Say that the server has taken up the next request with a mark. Harmless for none."""
        places = self._by_mark.get(mark)
        if not places:
            return
        place = places[0]
        self._unmark(place)
        place.arrived = True
        self._arrived_at = now
        while self._line:
            first = self._line[0]
            if first.lined_up and place.since - first.since < self._limits.busy_seconds:
                break
            self._give_up(self._line.popleft())
        if place.left:
            self.end(place)
        else:
            # It may have been given up before.
            self._rest(place)
            place.since = now
            self._work(place)

    def reset(self, place: Place) -> None:
        """Give a place back once its seconds are over: its peer took the request back."""
        if place.busy:
            place.reset = True
        else:
            self.end(place)

    def leave_behind(self, place: Place) -> None:
        """Give a place back as soon as it is off the server's line: its connection has closed."""
        if place.lined_up:
            place.left = place.tree.leaves = True
        else:
            self.reset(place)

    def pause(self, place: Place) -> None:
        """Say that a call waits for something. Twice is harmless."""
        self._rest(place)

    def resume(self, place: Place, now: float) -> None:
        """Say that a call is worked on again, room or not. For one that has not ended."""
        if place.open and not place.busy:
            place.since = now
            self._work(place)

    def add_standing(self, id: ProcessId) -> None:  # noqa: A002  # as elsewhere
        """Say that one open call of a tree stands open, and takes up no room."""
        self._tree(id).standing += 1
        self._standing += 1

    def drop_standing(self, id: ProcessId) -> None:  # noqa: A002  # as elsewhere
        """Take `add_standing` back once."""
        tree = self._trees[id]
        tree.standing -= 1
        self._standing -= 1
        self._forget(tree)

    def expire(self, now: float) -> None:
        """Take those calls for waiting that began too long ago to be worked on still."""
        while self._line:
            place = self._line[0]
            silent = now - max(place.since, self._arrived_at)
            if place.lined_up and silent < self._limits.busy_seconds:
                break
            self._line.popleft()
            self._give_up(place)
        recent = self._recent
        while recent:
            since, place = recent[0]
            if place.busy and place.since == since:
                if now - since < self._limits.busy_seconds:
                    return
                self._rest(place)
            recent.popleft()
            if place.reset:
                self.end(place)

    def _room(self, tree: _Tree) -> bool:
        limits = self._limits
        # A call may be gone from the connection a moment before whoever serves it has heard of it.
        own, everybodys = tree.open - tree.standing, self._open - self._standing
        if own >= (limits.per_tree if everybodys < limits.total else limits.few):
            return False
        if tree.leaves and self._doubted >= limits.busy:
            return False
        return self._busy < (limits.busy if tree.busy else 2 * limits.busy)

    def _take(self, tree: _Tree, mark: str, now: float) -> Place:
        self._turn += 1
        tree.served = self._turn
        tree.open += 1
        self._open += 1
        place = Place(tree, mark, now)
        self._count(place)
        if tree.leaves:
            place.doubted = True
            self._doubted += 1
        self._line.append(place)
        self._by_mark.setdefault(mark, deque()).append(place)
        return place

    def _work(self, place: Place) -> None:
        self._count(place)
        self._recent.append((place.since, place))

    def _count(self, place: Place) -> None:
        place.busy = True
        place.tree.busy += 1
        self._busy += 1

    def _give_up(self, place: Place) -> None:
        """Count a call no more that was not seen to be taken up. Harmless for one that was."""
        if place.arrived:
            return
        self._rest(place)
        if place.left or place.reset:
            self.end(place)

    def _unmark(self, place: Place) -> None:
        places = self._by_mark[place.mark]
        places.remove(place)
        if not places:
            del self._by_mark[place.mark]

    def _rest(self, place: Place) -> None:
        if place.busy:
            place.busy = False
            place.tree.busy -= 1
            self._busy -= 1
            if place.doubted:
                place.doubted = False
                self._doubted -= 1

    def _tree(self, id: ProcessId) -> _Tree:  # noqa: A002  # as elsewhere
        tree = self._trees.get(id)
        if tree is None:
            served, leaves = self._idle.pop(id, (self._turn, False))
            tree = self._trees[id] = _Tree(id, served=served, leaves=leaves)
        return tree

    def _forget(self, tree: _Tree) -> None:
        """Keep little of a tree with nothing here."""
        if not (tree.open or tree.lanes or tree.standing):
            del self._trees[tree.id]
            if len(self._idle) >= _REMEMBERED:
                del self._idle[next(iter(self._idle))]
            self._idle[tree.id] = (tree.served, tree.leaves)
