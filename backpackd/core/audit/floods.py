"""Counts equal refusals instead of repeating them, so that a flood does not fill the log.

The first refusal of a kind is recorded at once. Later ones within a window are counted, and
recorded as one event when the window ends.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from backpackd.core.audit.events import AuditEvent

WINDOW = 60.0
"""Seconds."""
MOST_KINDS = 256
"""Different refusals that are told apart at a time; what comes beyond is one more kind."""


@dataclass(slots=True)
class _Counted:
    until: float
    last: AuditEvent
    count: int = 0


class Floods:
    """The refusals of the last minute."""

    def __init__(self) -> None:
        self._counted: dict[Hashable, _Counted] = {}

    def note(self, event: AuditEvent, now: float) -> bool:
        """Return whether an event is to be recorded now; else it was counted.

        Args:
            event: a refusal.
            now: boot-clock seconds.
        """
        key = _key(event)
        if key not in self._counted and len(self._counted) >= MOST_KINDS:
            # Otherwise a caller that asks for another name each time would make every refusal a
            # first one.
            key = event.kind
        counted = self._counted.get(key)
        if counted is None:
            self._counted[key] = _Counted(now + WINDOW, event)
            return True
        counted.last = event
        counted.count += 1
        return False

    def expire(self, now: float) -> tuple[list[AuditEvent], float | None]:
        """Return what was counted in windows that have ended, and when the next one ends."""
        over = [key for key, counted in self._counted.items() if counted.until <= now]
        ended = [self._counted.pop(key) for key in over]
        told = [replace(each.last, count=each.count) for each in ended if each.count]
        return told, min((each.until for each in self._counted.values()), default=None)


def _key(event: AuditEvent) -> Hashable:
    who = event.who
    tree = (who.uid, who.root_pid, who.root_start) if who is not None else None
    return event.kind, event.reason, tree, event.names, tuple(event.details.items())
