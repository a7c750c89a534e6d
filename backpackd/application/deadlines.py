"""One alarm for everything that ends by itself.

Each source ends what is due and returns when it is next needed. The timer is set to the earliest of
these times. Nothing polls. Nothing relies on the alarm alone: deadlines are also checked at use.
"""

from collections.abc import Callable

from backpackd.ports import Clock, Timer

Source = Callable[[float], float | None]
"""Takes boot-clock seconds, ends what is due, returns when it is next needed; None: never."""


class Deadlines:
    """Runs the sources when the earliest of their deadlines comes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sources: list[Source] = []
        self._timer: Timer | None = None
        self._alarm: float | None = None

    def attach(self, timer: Timer) -> None:
        """Start to use the alarm, which calls `review`."""
        self._timer = timer

    def add(self, source: Source) -> None:
        """Add a source permanently."""
        self._sources.append(source)

    def review(self) -> None:
        """End what is due and set the alarm anew; called by the alarm and after every change."""
        now = self._clock.boot()
        # A source may end something of another one, so the next deadlines are asked for last.
        for source in self._sources:
            source(now)
        coming = [deadline for source in self._sources if (deadline := source(now)) is not None]
        self._set(min(coming, default=None), now)

    def _set(self, deadline: float | None, now: float) -> None:
        # Most changes do not move the next deadline. An alarm whose time has come is set again in
        # any case: it may have rung already, and it rings only once.
        if deadline is not None and deadline == self._alarm and deadline > now:
            return
        if self._timer is not None:
            self._timer.set(deadline)
            self._alarm = deadline
