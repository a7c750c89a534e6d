"""The alarm on the boot clock: when it rings, when not, and that trouble does not silence it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from backpackd.adapters.system.clock import BootTimer, RecheckingTimer, SystemClock, boot_timer
from backpackd.ports import Timer

# A bound on what would otherwise hang, not a measurement.
HANG = 30.0

timerfd = pytest.mark.skipif(sys.platform != "linux", reason="timerfd")


class Bell:
    """Counts its rings, and does what it is told at each."""

    def __init__(self) -> None:
        self.rings = 0
        self.rung_at: list[float] = []
        self.then: Callable[[], None] = lambda: None
        self._rung: asyncio.Queue[None] = asyncio.Queue()

    def __call__(self) -> None:
        self.rings += 1
        self.rung_at.append(SystemClock().boot())
        self._rung.put_nowait(None)
        self.then()

    async def wait(self) -> None:
        await asyncio.wait_for(self._rung.get(), HANG)


class SleepyLoop:
    """Takes note of what is to be called later, and calls it when a test says so."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.calls: list[tuple[Callable[[float], None], float]] = []

    def call_later(self, wait: float, call: Callable[[float], None], deadline: float) -> Any:
        self.waits.append(wait)
        entry = (call, deadline)
        self.calls.append(entry)
        return type("Handle", (), {"cancel": lambda _: self.calls.remove(entry)})()

    def wake(self) -> None:
        call, deadline = self.calls.pop()
        call(deadline)


class Rechecked:
    """A timer without timerfd, on integers for clocks."""

    def __init__(self) -> None:
        self.now = 100
        self.rings = 0
        self.loop = SleepyLoop()
        self.timer = RecheckingTimer(
            cast("asyncio.AbstractEventLoop", self.loop), self._ring, lambda: float(self.now)
        )

    def _ring(self) -> None:
        self.rings += 1


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
async def timer(bell: Bell) -> AsyncIterator[Timer]:
    made = boot_timer(asyncio.get_running_loop(), bell)
    yield made
    made.close()


async def let_pass_what_is_due() -> None:
    """Return when another timer, set to be due now, has rung."""
    other = Bell()
    made = boot_timer(asyncio.get_running_loop(), other)
    made.set(0.0)
    await other.wait()
    await asyncio.sleep(0)
    made.close()


def test_the_boot_clock_is_not_behind_the_monotonic_one() -> None:
    assert SystemClock().boot() >= time.clock_gettime(time.CLOCK_MONOTONIC) - HANG


def test_the_wall_clock_is_that_of_the_machine() -> None:
    assert abs(SystemClock().wall() - time.time()) < HANG


async def test_it_rings_at_its_deadline_and_not_before(bell: Bell, timer: Timer) -> None:
    deadline = SystemClock().boot() + 0.05
    timer.set(deadline)
    await bell.wait()
    assert bell.rung_at[0] >= deadline


@pytest.mark.parametrize("deadline", [0, 0.0, 1e-12, -1.0, -1e18, float("-inf"), 1.0])
async def test_a_deadline_that_has_passed_rings_at_once(
    bell: Bell, timer: Timer, deadline: float
) -> None:
    timer.set(deadline)
    await bell.wait()


@pytest.mark.parametrize("deadline", [1e9, 1e18, 1e300, float("inf")])
async def test_a_deadline_beyond_any_uptime_does_not_ring(
    bell: Bell, timer: Timer, deadline: float
) -> None:
    timer.set(deadline)
    await let_pass_what_is_due()
    assert bell.rings == 0


async def test_it_rings_once_for_one_deadline(bell: Bell, timer: Timer) -> None:
    timer.set(0.0)
    await bell.wait()
    await let_pass_what_is_due()
    assert bell.rings == 1


async def test_a_later_deadline_replaces_one_that_is_due(bell: Bell, timer: Timer) -> None:
    timer.set(0.0)
    timer.set(SystemClock().boot() + 3600)
    await let_pass_what_is_due()
    assert bell.rings == 0


async def test_an_earlier_deadline_replaces_a_later_one(bell: Bell, timer: Timer) -> None:
    timer.set(SystemClock().boot() + 3600)
    timer.set(0.0)
    await bell.wait()


async def test_none_disarms(bell: Bell, timer: Timer) -> None:
    timer.set(0.0)
    timer.set(None)
    await let_pass_what_is_due()
    assert bell.rings == 0


async def test_it_can_be_set_anew_while_it_rings(bell: Bell, timer: Timer) -> None:
    bell.then = lambda: timer.set(0.0) if bell.rings == 1 else None
    timer.set(0.0)
    await bell.wait()
    await bell.wait()
    assert bell.rings == 2


@pytest.mark.parametrize("trouble", [RuntimeError, BlockingIOError])
async def test_a_callback_that_raises_is_reported_and_the_timer_works_on(
    bell: Bell, timer: Timer, trouble: type[Exception]
) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(context["exception"])
    )

    def fail() -> None:
        raise trouble

    bell.then = fail
    timer.set(0.0)
    await bell.wait()
    await let_pass_what_is_due()
    assert [type(each) for each in reported] == [trouble]
    bell.then = lambda: None
    timer.set(0.0)
    await bell.wait()


async def test_a_closed_timer_never_rings(bell: Bell, timer: Timer) -> None:
    timer.set(0.0)
    timer.close()
    timer.close()
    timer.set(0.0)
    await let_pass_what_is_due()
    assert bell.rings == 0


async def test_it_can_be_closed_while_it_rings(bell: Bell, timer: Timer) -> None:
    bell.then = timer.close
    timer.set(0.0)
    await bell.wait()


@timerfd
async def test_the_kernel_keeps_it_on_the_clock_that_counts_suspend(bell: Bell) -> None:
    made = BootTimer(asyncio.get_running_loop(), bell)
    with open(f"/proc/self/fdinfo/{made._fd}") as facts:  # noqa: ASYNC230, PTH123 - not a disk
        assert "clockid: 7" in facts.read()
    made.close()


@timerfd
async def test_a_wake_up_for_a_deadline_that_was_replaced_meanwhile_does_not_ring(
    bell: Bell,
) -> None:
    made = BootTimer(asyncio.get_running_loop(), bell)
    made.set(SystemClock().boot() + 3600)
    made._ring()
    assert bell.rings == 0
    made.close()


def test_without_a_timerfd_a_long_wait_is_looked_at_again_and_again() -> None:
    rechecked = Rechecked()
    rechecked.timer.set(1000.0)
    rechecked.loop.wake()
    assert rechecked.loop.waits == [30.0, 30.0]
    assert rechecked.rings == 0


def test_without_a_timerfd_a_deadline_slept_through_rings_at_the_next_look() -> None:
    rechecked = Rechecked()
    rechecked.timer.set(1000.0)
    rechecked.now = 5000
    rechecked.loop.wake()
    assert rechecked.rings == 1


def test_without_a_timerfd_the_last_wait_is_as_long_as_what_is_left() -> None:
    rechecked = Rechecked()
    rechecked.timer.set(107.0)
    assert rechecked.loop.waits == [7.0]


def test_without_a_timerfd_only_the_last_deadline_counts() -> None:
    rechecked = Rechecked()
    rechecked.timer.set(107.0)
    rechecked.timer.set(90.0)
    assert len(rechecked.loop.calls) == 1
    assert rechecked.loop.waits[-1] == 0.0


def test_without_a_timerfd_a_closed_timer_never_rings() -> None:
    rechecked = Rechecked()
    rechecked.timer.set(107.0)
    rechecked.timer.close()
    rechecked.timer.set(90.0)
    assert not rechecked.loop.calls
