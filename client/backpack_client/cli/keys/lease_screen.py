"""The live screen of `leases --watch`: live leases, soonest end first, and those that just ended.

It does not know a terminal: events come in, lines go out. The remaining times come from the daemon
and count down on this machine's clock.
"""

import time
from collections import deque
from collections.abc import Callable

from backpack_client.cli.session import count, local_time
from backpack_client.console.screen import Line, columns
from backpack_client.durations import format_duration
from backpack_client.model import LeaseEvent, LeaseInfo

_ENDED_SHOWN = 5
_ROOM_FOR_ENDED = 4
_SHORT_ID = 8
_FEWEST_OF_KEYS = 8
_KEYS_OF_ENDED = 32
_HEADERS = ("ID", "KEYS", "HELD BY", "SINCE", "ENDS IN")
_Row = tuple[str, ...]


class LeaseScreen:
    """Shows the leases of a watch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live: dict[str, tuple[LeaseInfo, float]] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_SHOWN)

    def start_over(self) -> None:
        """Forget the live leases: a new watch sends all of them again."""
        self._live.clear()

    def told(self, news: LeaseEvent) -> None:
        """Take in an event."""
        lease = news.lease
        if news.kind == "ended":
            self._live.pop(lease.id, None)
            names = _cut(" ".join(lease.names), _KEYS_OF_ENDED)
            self._ended.appendleft(
                f"{lease.id[:_SHORT_ID]}  {names}  tree:{lease.holder_pid}  {news.reason}"
            )
        else:
            self._live[lease.id] = (lease, self._clock() + lease.remaining_seconds)

    def lines(self, width: int, height: int) -> list[str]:
        """Lay the screen out."""
        now = self._clock()
        live = sorted(self._live.values(), key=lambda each: each[1])
        rows = [
            (
                lease.id,
                " ".join(lease.names),
                f"tree:{lease.holder_pid}",
                local_time(lease.issued_at),
                format_duration(ends - now),
            )
            for lease, ends in live
        ]
        below = [Line("", ""), *[Line(each, "dim") for each in self._ended], Line("q quit", "dim")]
        if self._ended:
            below.insert(1, Line("ended", "bold"))
        room = max(1, height - len(below) - _ROOM_FOR_ENDED)
        table, widths = _fitted([_HEADERS, *rows[:room]], columns(width))
        lines: list[str] = [Line(f"{count(len(live), 'live lease')}", "bold"), Line("")]
        for row in table:
            padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
            lines.append(Line("  ".join(padded).rstrip(), "" if lines[2:] else "dim"))
        if len(rows) > room:
            lines.append(Line(f"and {len(rows) - room} more", "dim"))
        return [*lines, *below]

    def press(self, key: str) -> bool:
        """Act on a key; return True to end the screen."""
        return key in ("q", "Q")


def _fitted(rows: list[_Row], room: int) -> tuple[list[_Row], list[int]]:
    """Shorten ids, and then keys, until the ends of the leases are on the screen, too.

    The whole of both is in the plain listing.

    Returns:
        The rows, and how wide their columns are.
    """
    widths = _widths(rows)
    if _taken(widths) > room:
        rows = [(lease_id[:_SHORT_ID], *rest) for lease_id, *rest in rows]
        widths = _widths(rows)
    keys = max(_FEWEST_OF_KEYS, widths[1] - max(0, _taken(widths) - room))
    rows = [(lease_id, _cut(names, keys), *rest) for lease_id, names, *rest in rows]
    return rows, _widths(rows)


def _widths(rows: list[_Row]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _taken(widths: list[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
