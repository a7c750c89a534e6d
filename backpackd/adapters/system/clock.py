"""The clocks, and one alarm on the clock that goes on while the machine sleeps.

asyncio's own clock stops in suspend: a lease of 15 minutes would outlive a night. Nothing here
knows what a deadline means. Code that acts on a deadline checks it again at use.
"""

import asyncio
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Final

from backpackd.adapters.system.libc import Itimerspec, Timespec, check, libc
from backpackd.ports import Timer

# On macOS CLOCK_MONOTONIC goes on in suspend (clock_gettime(3) there), but `time.monotonic` does
# not. On Linux it stops, and CLOCK_BOOTTIME goes on (clock_gettime(2)).
if sys.platform == "linux":
    _BOOT: Final = time.CLOCK_BOOTTIME
else:
    _BOOT: Final = time.CLOCK_MONOTONIC

# timerfd_create(2)
_TFD_TIMER_ABSTIME: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_CLOCK_BOOTTIME: Final = 7

# Later than any machine stays up (68 years), and within a `time_t` of 32 bits.
_LATEST: Final = 2**31 - 1
_RECHECK_SECONDS: Final = 30.0


class SystemClock:
    """Implements `ports.Clock`."""

    def boot(self) -> float:
        """Return the seconds since boot, suspend included."""
        return time.clock_gettime(_BOOT)

    def wall(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()


class BootTimer:
    """Implements `ports.Timer` with a timerfd: no wake-up before the deadline, none lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Make a timer that never rings until it is set.

        Args:
            loop: calls `callback`, with nothing under way in between.
            callback: called at every ring. Its exceptions go to the loop's exception handler, and
                the timer goes on.
        """
        self._loop = loop
        self._callback = callback
        self._fd = check(
            libc.timerfd_create(_CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC), "timerfd_create"
        )
        loop.add_reader(self._fd, self._ring)

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (seconds on the boot clock), at once if it has passed; None: never.

        A later call replaces an earlier one, also one that is due and has not rung yet.
        """
        if self._fd < 0:
            return
        value = Timespec(0, 0)
        if deadline is not None:
            # Upwards, so that it does not ring just before; and never to 0, which disarms.
            due = math.ceil(min(max(deadline, 1e-9), _LATEST) * 1e9)
            value = Timespec(*divmod(due, 1_000_000_000))
        spec = Itimerspec(Timespec(0, 0), value)
        check(
            libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None),
            "timerfd_settime",
        )

    def close(self) -> None:
        """Never ring again. Closing twice is harmless."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set again between becoming due and now
        self._callback()


class RecheckingTimer:
    """Implements `ports.Timer` where there is no timerfd: at most 30 s late after a suspend."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[], None],
        boot: Callable[[], float],
    ) -> None:
        """Make a timer that never rings until it is set.

        Args:
            loop: calls `callback`.
            callback: called at every ring.
            boot: reads the boot clock, in seconds.
        """
        self._loop = loop
        self._callback = callback
        self._boot = boot
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (seconds on the boot clock), at once if it has passed; None: never."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if deadline is not None and not self._closed:
            wait = min(max(deadline - self._boot(), 0.0), _RECHECK_SECONDS)
            self._handle = self._loop.call_later(wait, self._check, deadline)

    def close(self) -> None:
        """Never ring again. Closing twice is harmless."""
        self._closed = True
        self.set(None)

    def _check(self, deadline: float) -> None:
        self._handle = None
        if self._boot() < deadline:
            self.set(deadline)
        else:
            self._callback()


def boot_timer(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Timer:
    """Make the timer that this platform has.

    Args:
        loop: calls `callback`.
        callback: called at every ring.

    Returns:
        A timer that never rings until it is set.
    """
    timer: Timer
    if sys.platform == "linux":
        timer = BootTimer(loop, callback)
    else:
        timer = RecheckingTimer(loop, callback, SystemClock().boot)
    return timer
