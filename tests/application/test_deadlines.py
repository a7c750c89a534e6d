"""One alarm, set to the earliest of all deadlines."""

from backpackd.application.deadlines import Deadlines
from fakes import FakeClock, FakeTimer


def joined(*coming: float | None) -> tuple[Deadlines, FakeTimer, list[float]]:
    """Return deadlines with sources that answer these, their timer, and when they were asked."""
    timer, asked = FakeTimer(), list[float]()
    deadlines = Deadlines(FakeClock())
    deadlines.attach(timer)
    for deadline in coming:

        def source(now: float, deadline: float | None = deadline) -> float | None:
            asked.append(now)
            return deadline

        deadlines.add(source)
    return deadlines, timer, asked


def test_the_alarm_is_set_to_the_earliest_deadline() -> None:
    deadlines, timer, _ = joined(1300, None, 1200)
    deadlines.review()
    assert timer.deadline == 1200


def test_without_a_deadline_there_is_no_alarm() -> None:
    deadlines, timer, _ = joined(None)
    timer.deadline = 5
    deadlines.review()
    assert timer.deadline is None


def test_every_source_is_told_the_time_on_the_boot_clock() -> None:
    deadlines, _, asked = joined(None, None)
    deadlines.review()
    assert set(asked) == {1000}


def test_what_one_source_ends_is_known_to_the_deadline_of_another() -> None:
    timer, left = FakeTimer(), {1200.0}
    deadlines = Deadlines(FakeClock())
    deadlines.attach(timer)
    deadlines.add(lambda _: min(left, default=None))

    def ending(_: float) -> None:
        left.clear()

    deadlines.add(ending)
    deadlines.review()
    assert timer.deadline is None


def test_without_an_alarm_what_is_due_still_ends() -> None:
    asked: list[float] = []
    deadlines = Deadlines(FakeClock())
    deadlines.add(asked.append)
    deadlines.review()
    assert asked


def counting(*coming: float) -> tuple[Deadlines, FakeClock, list[float | None]]:
    """Return deadlines that answer the first of these now, and what their timer was set to."""
    clock, was_set, left = FakeClock(), list[float | None](), list(coming)

    class Counting(FakeTimer):
        def set(self, deadline: float | None) -> None:
            was_set.append(deadline)

    deadlines = Deadlines(clock)
    deadlines.attach(Counting())
    deadlines.add(lambda _: left[0] if len(left) == 1 else left.pop(0))
    return deadlines, clock, was_set


def test_an_alarm_that_stands_is_not_set_again() -> None:
    deadlines, _, was_set = counting(1200)
    deadlines.review()
    deadlines.review()
    assert was_set == [1200]


def test_an_alarm_that_has_rung_is_set_again_though_the_deadline_is_the_same() -> None:
    deadlines, clock, was_set = counting(1200)
    deadlines.review()
    clock.seconds = 1200
    deadlines.review()
    assert was_set == [1200, 1200]


def test_an_earlier_deadline_sets_the_alarm_anew() -> None:
    # Each review asks twice.
    deadlines, _, was_set = counting(1200, 1200, 1100)
    deadlines.review()
    deadlines.review()
    assert was_set == [1200, 1100]
