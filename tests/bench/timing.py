"""Times two things in turn."""

import statistics
import time
from collections.abc import Callable


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], runs: int
) -> tuple[list[float], list[float]]:
    """Time two calls, A B A B, after one of each that does not count; seconds."""
    ours()
    theirs()
    pairs = [(once(ours), once(theirs)) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def once(call: Callable[[], object]) -> float:
    """Time one call; seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the ratio of two medians as text."""
    return f"{statistics.median(ours) / statistics.median(theirs):.2f} x"


def milliseconds(times: list[float]) -> str:
    """Return a median as text."""
    return f"{statistics.median(times) * 1000:.2f} ms"
