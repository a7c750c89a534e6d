"""Who is let in, and who must go: plain values and integer clocks."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.places import judge, longest_idle
from backpackd.core.peer_facts import ProcessId

ONE = ProcessId(1, 1)
TWO = ProcessId(2, 2)
THREE = ProcessId(3, 3)
PER_TREE, TOTAL = 3, 5


@dataclass
class Open:
    name: str
    tree: ProcessId
    calls: int
    active_at: float
    stands: bool = False
    busy: bool = field(init=False)

    def __post_init__(self) -> None:
        self.busy = self.calls > 0


@dataclass
class Judged:
    refusal: str | None = None
    evict: str | None = None


def judged(tree: ProcessId, trees: dict[ProcessId, list[Open]]) -> Judged:
    verdict = judge(tree, trees, per_tree=PER_TREE, total=TOTAL)
    return Judged(verdict.refusal, verdict.evict.name if verdict.evict else None)


def by_tree(rows: Iterable[Open]) -> dict[ProcessId, list[Open]]:
    trees: dict[ProcessId, list[Open]] = {}
    for row in rows:
        trees.setdefault(row.tree, []).append(row)
    return trees


def held(*rows: tuple[str, ProcessId, int, int]) -> dict[ProcessId, list[Open]]:
    return by_tree(Open(*row) for row in rows)


def test_a_newcomer_below_every_limit_is_let_in_and_nobody_goes() -> None:
    assert judged(ONE, held(("a", ONE, 0, 1))) == Judged()


def test_a_tree_at_its_limit_loses_its_own_longest_idle_connection() -> None:
    open_ = held(("a", ONE, 0, 5), ("b", ONE, 0, 2), ("c", ONE, 1, 1), ("d", TWO, 0, 0))
    assert judged(ONE, open_) == Judged(evict="b")


def test_a_tree_at_its_limit_with_calls_on_every_connection_is_refused() -> None:
    open_ = held(("a", ONE, 1, 5), ("b", ONE, 1, 2), ("c", ONE, 1, 1), ("d", TWO, 0, 0))
    assert judged(ONE, open_).refusal == "connections of one process tree"


def test_a_full_door_takes_the_longest_idle_connection_of_the_busiest_tree() -> None:
    open_ = held(
        ("a", ONE, 0, 9), ("b", ONE, 0, 7), ("c", ONE, 0, 8), ("d", TWO, 0, 0), ("e", TWO, 0, 1)
    )
    assert judged(THREE, open_) == Judged(evict="b")


def test_a_full_door_passes_over_calls_in_progress_while_another_tree_has_idle_ones() -> None:
    open_ = held(
        ("a", ONE, 1, 0), ("b", ONE, 1, 0), ("c", ONE, 1, 0), ("d", TWO, 0, 9), ("e", TWO, 1, 1)
    )
    assert judged(THREE, open_) == Judged(evict="d")


def test_a_flood_of_calls_that_wait_keeps_no_other_tree_out() -> None:
    open_ = held(
        ("a", ONE, 1, 4), ("b", ONE, 1, 3), ("c", ONE, 1, 5), ("d", TWO, 1, 0), ("e", TWO, 1, 1)
    )
    assert judged(THREE, open_) == Judged(evict="b")


def test_the_only_connection_of_a_tree_is_not_taken_in_the_middle_of_a_call() -> None:
    trees = [ProcessId(n, n) for n in range(5)]
    open_ = by_tree(Open(str(n), tree, 1, n) for n, tree in enumerate(trees))
    assert judged(ProcessId(9, 9), open_).refusal == "connections in total"


def test_the_busiest_tree_gets_no_more_at_the_cost_of_others() -> None:
    open_ = held(
        ("a", ONE, 1, 0), ("b", ONE, 1, 0), ("c", TWO, 0, 0), ("d", TWO, 0, 0), ("e", THREE, 0, 0)
    )
    assert judged(ONE, open_).refusal == "connections in total"


def test_nothing_is_idle_where_every_connection_has_a_call() -> None:
    assert longest_idle(held(("a", ONE, 1, 0), ("b", TWO, 2, 0))) is None


_TREES = st.sampled_from([ONE, TWO, THREE, ProcessId(4, 4)])
_STEPS = st.lists(st.tuples(_TREES, st.integers(0, 1)), max_size=60)


@given(_STEPS)
def test_no_sequence_of_newcomers_exceeds_a_limit(steps: list[tuple[ProcessId, int]]) -> None:
    now: dict[str, Open] = {}
    for at, (tree, calls) in enumerate(steps):
        verdict = judged(tree, by_tree(now.values()))
        if verdict.refusal:
            assert verdict.evict is None
            continue
        if verdict.evict:
            del now[verdict.evict]
        now[str(at)] = Open(str(at), tree, calls, at)
        assert len(now) <= TOTAL
        assert sum(one.tree == tree for one in now.values()) <= PER_TREE


@given(_STEPS)
def test_a_tree_without_connections_gets_in_whatever_two_trees_did(
    steps: list[tuple[ProcessId, int]],
) -> None:
    now: dict[str, Open] = {}
    for at, (tree, calls) in enumerate(steps):
        if tree not in (ONE, TWO):
            continue
        verdict = judged(tree, by_tree(now.values()))
        if verdict.evict:
            del now[verdict.evict]
        if not verdict.refusal:
            now[str(at)] = Open(str(at), tree, calls, at)
    assert judged(THREE, by_tree(now.values())).refusal is None


def test_a_call_that_stands_open_does_not_keep_its_connection_from_making_way() -> None:
    trees = [ProcessId(pid, 1) for pid in range(10, 15)]
    open_ = by_tree(Open(f"{tree.pid}", tree, 0, tree.pid, stands=True) for tree in trees)
    assert judged(ONE, open_) == Judged(evict="10")


def test_of_one_tree_the_connection_where_nothing_stands_open_goes_first() -> None:
    rows = [Open("a", ONE, 0, 1, stands=True), Open("b", ONE, 0, 2), Open("c", ONE, 0, 3)]
    assert judged(ONE, by_tree(rows)) == Judged(evict="b")
