from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots.throttle import FREE_TRIES, LONGEST_DELAY, Throttle

TREE, OTHER = ProcessId(10, 1), ProcessId(11, 1)
MOST_TREES = 1024


def test_the_first_mistakes_cost_no_delay() -> None:
    throttle = Throttle()
    assert [throttle.failed(TREE, 0.0) for _ in range(FREE_TRIES)] == [0.0] * FREE_TRIES


def test_the_delay_doubles_up_to_30_seconds() -> None:
    throttle = Throttle()
    delays = [throttle.failed(TREE, 0.0) for _ in range(FREE_TRIES + 8)][FREE_TRIES:]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_ten_thousand_mistakes_delay_no_longer_than_30_seconds() -> None:
    throttle = Throttle()
    assert max(throttle.failed(TREE, 0.0) for _ in range(10_000)) == LONGEST_DELAY


def test_a_tree_that_never_failed_may_try() -> None:
    assert Throttle().delay(TREE, 0.0) == 0.0


def test_the_delay_runs_down_and_ends() -> None:
    throttle = Throttle()
    for _ in range(FREE_TRIES + 3):
        throttle.failed(TREE, 100.0)
    assert [throttle.delay(TREE, now) for now in (100.0, 103.0, 104.0, 1e9)] == [4.0, 1.0, 0.0, 0.0]


def test_one_tree_does_not_delay_another() -> None:
    throttle = Throttle()
    for _ in range(20):
        throttle.failed(TREE, 0.0)
    assert throttle.delay(OTHER, 0.0) == 0.0


def test_a_process_with_a_recycled_pid_is_another_tree() -> None:
    throttle = Throttle()
    for _ in range(20):
        throttle.failed(TREE, 0.0)
    assert throttle.delay(ProcessId(TREE.pid, TREE.start + 1), 0.0) == 0.0


def test_waiting_alone_does_not_make_the_next_mistake_cheaper() -> None:
    throttle = Throttle()
    for _ in range(FREE_TRIES + 4):
        throttle.failed(TREE, 0.0)
    assert throttle.failed(TREE, 1e6) == 16.0


def test_a_right_passphrase_forgets_the_mistakes() -> None:
    throttle = Throttle()
    for _ in range(20):
        throttle.failed(TREE, 0.0)
    throttle.succeeded(TREE)
    assert throttle.delay(TREE, 0.0) == 0.0
    assert throttle.failed(TREE, 0.0) == 0.0


def test_a_right_passphrase_of_a_tree_that_never_failed_is_harmless() -> None:
    Throttle().succeeded(TREE)


def test_no_more_than_1024_trees_are_remembered() -> None:
    throttle = Throttle()
    for pid in range(1, 3 * MOST_TREES):
        throttle.failed(ProcessId(pid, 0), 0.0)
    assert len(throttle._records) == MOST_TREES


def test_a_delay_that_begins_anew_is_whole_again_and_no_longer() -> None:
    throttle = Throttle()
    for _ in range(FREE_TRIES + 2):
        throttle.failed(TREE, 0.0)
    assert throttle.restart(TREE, 1.5) == 2.0
    assert throttle.delay(TREE, 1.5) == 2.0
    throttle.succeeded(TREE)
    assert throttle.restart(TREE, 1.5) == 0.0


def test_new_trees_do_not_push_out_one_that_is_delayed() -> None:
    throttle = Throttle()
    for _ in range(FREE_TRIES + 1):
        throttle.failed(TREE, 0.0)
    for pid in range(100, 100 + 3 * MOST_TREES):
        throttle.failed(ProcessId(pid, 0), 0.0)
    assert throttle.delay(TREE, 0.0) == 1.0


def test_the_tree_that_just_failed_is_never_the_one_that_is_forgotten() -> None:
    throttle = Throttle()
    for pid in range(100, 100 + MOST_TREES):
        for _ in range(FREE_TRIES + 5):
            throttle.failed(ProcessId(pid, 0), 0.0)
    for _ in range(FREE_TRIES):
        throttle.failed(TREE, 0.0)
    assert throttle.failed(TREE, 0.0) == 1.0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([TREE, OTHER]), st.sampled_from(["fail", "succeed"]), st.floats(0, 1e9)
        )
    )
)
def test_a_delay_is_between_nothing_and_30_seconds(
    events: list[tuple[ProcessId, str, float]],
) -> None:
    throttle, now = Throttle(), 0.0
    for tree, event, later in events:
        now += later
        if event == "fail":
            assert 0.0 <= throttle.failed(tree, now) <= LONGEST_DELAY
        else:
            throttle.succeeded(tree)
        assert 0.0 <= throttle.delay(tree, now) <= LONGEST_DELAY + 1e-6
