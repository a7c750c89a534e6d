"""Whose request goes on, with integers for a clock."""

from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.admission import Admission, Limits, Place
from backpackd.core.facts import ProcessId

FLOOD, QUIET, OTHER = ProcessId(1, 0), ProcessId(2, 0), ProcessId(3, 0)
MARKS = count()
LIMITS = Limits(busy=4, busy_seconds=10, per_tree=8, total=20, few=2)


@dataclass(eq=False)
class Standing:
    mark: str = "lane"
    places: list[Place] = field(default_factory=list)

    def let_go(self, place: Place) -> None:
        self.places.append(place)


def lined_up(admission: Admission, tree: ProcessId, number: int, now: float = 0) -> list[Place]:
    """Let requests in that the server has not taken up."""
    places = [admission.begin(tree, f"mark {next(MARKS)}", now) for _ in range(number)]
    assert None not in places
    return [place for place in places if place is not None]


def begun(admission: Admission, tree: ProcessId, number: int, now: float = 0) -> list[Place]:
    """Let requests in that the server takes up at once."""
    places = lined_up(admission, tree, number, now)
    for place in places:
        admission.arrive(place.mark, now)
    return places


def test_a_flooding_tree_waits_and_a_tree_with_nothing_in_progress_does_not() -> None:
    admission = Admission(LIMITS)
    begun(admission, FLOOD, 4)
    assert admission.begin(FLOOD, "", 0) is None
    assert admission.begin(QUIET, "", 0) is not None
    assert admission.begin(QUIET, "", 0) is None


def test_newcomers_together_have_a_bound() -> None:
    admission = Admission(LIMITS)
    for pid in range(10, 18):
        begun(admission, ProcessId(pid, 0), 1)
    assert admission.begin(QUIET, "", 0) is None


def test_a_place_that_comes_free_goes_to_the_tree_with_the_fewest_busy_calls() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4)
    (own,) = begun(admission, QUIET, 1)
    flooding, quiet = Standing(), Standing()
    admission.stand(FLOOD, flooding)
    admission.stand(QUIET, quiet)
    assert admission.next(0) is None
    for place in places[:2]:
        admission.end(place)
    found = admission.next(0)
    assert found is not None
    assert found[0] is quiet
    assert own.open


def test_among_equals_the_tree_that_was_served_longest_ago_goes_first() -> None:
    admission = Admission(Limits(busy=1))
    (first,) = begun(admission, FLOOD, 1)
    admission.end(first)
    (second,) = begun(admission, QUIET, 1)
    admission.end(second)
    blocking = begun(admission, ProcessId(8, 0), 1) + begun(admission, ProcessId(9, 0), 1)
    lanes = {tree: Standing() for tree in (QUIET, FLOOD, OTHER)}
    for tree, lane in lanes.items():
        admission.stand(tree, lane)
    order = []
    while admission.waiting:
        admission.end(blocking.pop())
        found = admission.next(0)
        assert found is not None
        order.append(found[0])
        blocking.append(found[1])
    # The new one counts as served when it came: ever new ones keep nobody waiting.
    assert order == [lanes[FLOOD], lanes[QUIET], lanes[OTHER]]


def test_ever_new_trees_do_not_keep_one_that_is_known_waiting() -> None:
    admission = Admission(Limits(busy=1))
    (own,) = begun(admission, QUIET, 1)
    admission.end(own)
    blocking = [*begun(admission, FLOOD, 1), *begun(admission, OTHER, 1)]
    lane = Standing()
    admission.stand(QUIET, lane)
    for pid in range(10, 20):
        admission.stand(ProcessId(pid, 0), Standing())
    admission.end(blocking[0])
    found = admission.next(0)
    assert found is not None
    assert found[0] is lane


def test_nobody_overtakes_the_line_of_the_own_tree() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4)
    admission.stand(FLOOD, Standing())
    admission.end(places[0])
    assert admission.begin(FLOOD, "", 0) is None


def test_a_call_that_takes_long_is_taken_for_waiting() -> None:
    admission = Admission(LIMITS)
    begun(admission, FLOOD, 4, now=0)
    assert admission.begin(FLOOD, "", 9) is None
    assert admission.begin(FLOOD, "", 10) is not None


def test_a_call_that_says_that_it_waits_makes_room_at_once_and_counts_again_after() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4)
    admission.pause(places[0])
    admission.pause(places[0])
    begun(admission, FLOOD, 1)
    admission.resume(places[0], 5)
    assert admission.begin(FLOOD, "", 9) is None
    admission.end(places[0])
    admission.end(places[0])
    admission.resume(places[0], 9)
    assert admission.begin(FLOOD, "", 9) is None


def test_resuming_over_and_over_does_not_keep_others_from_growing_old() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4, now=0)
    for now in range(1, 12):
        admission.pause(places[0])
        admission.resume(places[0], now)
    assert begun(admission, FLOOD, 3, now=11)
    assert admission.begin(FLOOD, "", 11) is None


def test_taking_a_request_back_frees_its_place_no_sooner_than_time_does() -> None:
    admission = Admission(LIMITS)
    for place in begun(admission, FLOOD, 4):
        admission.reset(place)
    assert admission.begin(FLOOD, "", 9) is None
    assert begun(admission, FLOOD, 4, now=10)


def test_a_request_in_the_servers_line_keeps_its_place_until_it_is_taken_up() -> None:
    admission = Admission(LIMITS)
    first, *_ = lined_up(admission, FLOOD, 4, now=0)
    admission.arrive(first.mark, 9)
    assert admission.begin(FLOOD, "", 18) is None
    assert lined_up(admission, FLOOD, 4, now=19)
    assert admission.begin(FLOOD, "", 19) is None


def test_hanging_up_does_not_free_the_place_of_a_request_in_the_servers_line() -> None:
    admission = Admission(LIMITS)
    places = lined_up(admission, FLOOD, 4)
    for place in places:
        admission.leave_behind(place)
    assert admission.begin(FLOOD, "", 9) is None
    admission.arrive(places[1].mark, 9)
    assert [place.open for place in places] == [True, False, True, True]
    assert admission.begin(FLOOD, "", 9) is not None
    assert admission.begin(FLOOD, "", 9) is None


def test_hanging_up_frees_the_place_of_a_call_that_waits_at_once() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4)
    admission.pause(places[0])
    admission.leave_behind(places[0])
    assert not places[0].open
    admission.leave_behind(places[1])
    assert admission.begin(FLOOD, "", 9) is not None
    assert admission.begin(FLOOD, "", 9) is None


def test_trees_that_hang_up_on_the_server_share_half_of_the_places() -> None:
    admission = Admission(LIMITS)
    trees = [ProcessId(pid, 0) for pid in range(10, 30)]
    for tree in trees[:8]:
        admission.leave_behind(lined_up(admission, tree, 1)[0])
    # Not known as such, they took all places, once.
    assert admission.begin(QUIET, "", 9) is None
    admission.expire(10)
    for tree in trees[:4]:
        admission.leave_behind(lined_up(admission, tree, 1, now=10)[0])
    assert admission.begin(trees[4], "", 10) is None
    (own,) = begun(admission, QUIET, 1, now=10)
    # A request that is answered makes up for it.
    admission.expire(20)
    (place,) = begun(admission, trees[5], 1, now=20)
    admission.end(place)
    for tree in trees[:4]:
        admission.leave_behind(lined_up(admission, tree, 1, now=20)[0])
    assert admission.begin(trees[4], "", 20) is None
    assert admission.begin(trees[5], "", 20) is not None
    assert own.open


def test_new_trees_that_hang_up_do_not_keep_one_out_that_has_done_so_once() -> None:
    admission = Admission(LIMITS)
    admission.leave_behind(lined_up(admission, QUIET, 1)[0])
    admission.expire(10)
    for pid in range(10, 17):
        admission.leave_behind(lined_up(admission, ProcessId(pid, 0), 1, now=10)[0])
    assert admission.begin(QUIET, "", 10) is not None


def test_whoever_has_hung_up_is_let_in_while_there_are_few_of_those() -> None:
    admission = Admission(LIMITS)
    admission.leave_behind(lined_up(admission, QUIET, 1)[0])
    admission.expire(10)
    for pid in range(10, 17):
        begun(admission, ProcessId(pid, 0), 1, now=10)
    assert admission.begin(QUIET, "", 10) is not None


def test_what_was_let_in_long_before_one_that_is_taken_up_is_given_up() -> None:
    admission = Admission(LIMITS)
    left, open_ = lined_up(admission, FLOOD, 2, now=0)
    late, *_ = lined_up(admission, FLOOD, 2, now=1)
    admission.leave_behind(left)
    begun(admission, QUIET, 1, now=9)
    assert (left.open, open_.busy, late.busy) == (True, True, True)
    (other,) = lined_up(admission, OTHER, 1, now=10)
    admission.arrive(other.mark, 11)
    assert (left.open, open_.open, open_.busy, late.busy) == (False, True, False, True)


def test_one_that_was_given_up_too_soon_counts_again_when_it_is_taken_up() -> None:
    admission = Admission(LIMITS)
    places = lined_up(admission, FLOOD, 4, now=0)
    (probe,) = begun(admission, QUIET, 1, now=10)
    admission.end(probe)
    assert not any(place.busy for place in places)
    for place in places:
        admission.arrive(place.mark, 11)
    assert all(place.busy for place in places)
    assert admission.begin(FLOOD, "", 11) is None


def test_what_the_server_never_takes_up_is_given_up_when_it_has_taken_none_for_long() -> None:
    admission = Admission(LIMITS)
    for place in lined_up(admission, FLOOD, 4):
        admission.leave_behind(place)
    (other,) = lined_up(admission, OTHER, 1, now=5)
    admission.arrive(other.mark, 5)
    # It takes some: those are still in its line, as far as is known.
    assert admission.begin(FLOOD, "", 14) is None
    assert len(lined_up(admission, FLOOD, 3, now=15)) == 3


def test_those_of_one_mark_are_taken_up_in_their_order() -> None:
    admission = Admission(LIMITS)
    first, second = (admission.begin(FLOOD, "one", 0) for _ in range(2))
    assert first is not None
    assert second is not None
    admission.arrive("one", 0)
    assert (first.arrived, second.arrived) == (True, False)
    admission.end(first)
    admission.arrive("one", 0)
    assert second.arrived


def test_a_mark_that_nobody_has_frees_nothing() -> None:
    admission = Admission(LIMITS)
    lined_up(admission, FLOOD, 4)
    admission.arrive("", 5)
    assert admission.begin(FLOOD, "", 9) is None


def test_nothing_is_kept_of_trees_whose_requests_were_left_behind() -> None:
    admission = Admission(LIMITS)
    places = lined_up(admission, FLOOD, 4)
    for place in places:
        admission.leave_behind(place)
    for place in places:
        admission.arrive(place.mark, 0)
    admission.expire(0)
    assert admission._trees == {}
    assert admission._by_mark == {}
    assert not admission._line


def test_a_tree_has_so_many_open_calls_and_no_more_though_they_wait() -> None:
    admission = Admission(LIMITS)
    for _ in range(8):
        admission.pause(begun(admission, FLOOD, 1)[0])
    assert admission.begin(FLOOD, "", 0) is None
    assert admission.begin(QUIET, "", 0) is not None


def test_everybody_together_has_so_many_open_calls_and_each_tree_a_few_all_the_same() -> None:
    admission = Admission(LIMITS)
    for pid in range(10, 20):
        for _ in range(2):
            admission.pause(begun(admission, ProcessId(pid, 0), 1)[0])
    assert admission.begin(ProcessId(10, 0), "", 0) is None
    for _ in range(LIMITS.few):
        admission.pause(begun(admission, QUIET, 1)[0])
    assert admission.begin(QUIET, "", 0) is None


def test_a_lane_that_left_is_not_let_go_and_nothing_is_kept_of_it() -> None:
    admission = Admission(LIMITS)
    places = begun(admission, FLOOD, 4)
    lane = Standing()
    admission.stand(FLOOD, lane)
    admission.leave(FLOOD, lane)
    for place in places:
        admission.end(place)
    assert not admission.waiting
    assert admission.next(0) is None
    assert admission._trees == {}


def test_what_is_kept_of_trees_that_are_gone_is_bounded() -> None:
    admission = Admission(LIMITS)
    for pid in range(3000):
        admission.end(begun(admission, ProcessId(pid, 0), 1)[0])
    assert len(admission._idle) <= 1024


def test_calls_that_stand_open_take_up_nobodys_room() -> None:
    admission = Admission(Limits(busy=100, busy_seconds=10, per_tree=4, total=8))
    for pid in range(10, 30):
        begun(admission, ProcessId(pid, 0), 1)
        admission.add_standing(ProcessId(pid, 0))
    begun(admission, ProcessId(10, 0), 4)
    assert admission.begin(ProcessId(10, 0), "", 0) is None


def test_a_call_that_no_longer_stands_open_counts_again_and_leaves_nothing() -> None:
    admission = Admission(Limits(busy=100, busy_seconds=10, per_tree=1, total=8))
    (place,) = begun(admission, FLOOD, 1)
    admission.add_standing(FLOOD)
    (other,) = begun(admission, FLOOD, 1)
    admission.drop_standing(FLOOD)
    assert admission.begin(FLOOD, "", 0) is None
    admission.add_standing(FLOOD)
    admission.end(place)
    admission.end(other)
    admission.drop_standing(FLOOD)
    assert admission._trees == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "arrive", "end", "reset", "leave", "pause", "resume", "expire"]),
        st.integers(0, 5),
        st.integers(0, 40),
        st.integers(0, 6),
    ),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_the_counts_are_those_of_the_places(
    steps: list[tuple[str, int, int, int]],
) -> None:
    admission = Admission(Limits(busy=2, busy_seconds=10, total=8, few=2))
    places: list[Place] = []
    now = 0
    for step, tree, which, passed in steps:
        now += passed
        place = places[which % len(places)] if places else None
        if step == "begin":
            begins = admission.begin(ProcessId(tree, 0), f"mark {len(places)}", now)
            places += [begins] if begins else []
        elif step == "expire":
            admission.expire(now)
        elif place is None:
            continue
        elif step == "arrive":
            admission.arrive(place.mark, now)
        elif step == "resume":
            admission.resume(place, now)
        else:
            act = {"leave": "leave_behind"}.get(step, step)
            getattr(admission, act)(place)
        assert admission._busy == sum(place.busy for place in places)
        assert admission._doubted == sum(place.doubted for place in places)
        assert admission._open == sum(place.open for place in places)
        assert not any(place.doubted and not place.busy for place in places)
        assert not any(place.busy and not place.open for place in places)
        for known in admission._trees.values():
            own = [place for place in places if place.tree is known]
            assert known.busy == sum(place.busy for place in own)
            assert known.open == sum(place.open for place in own)
    for place in places:
        admission.end(place)
    admission.expire(now + 10)
    assert (admission._trees, admission._by_mark, admission._busy) == ({}, {}, 0)
