"""A place for work that takes tens of milliseconds: one piece at a time, beside the event loop.

Opening a large lock, or one of version 1, would hold up everybody else's calls, `panic` among them.
One process tree has one piece in the line at a time, so that none waits for another's hundred.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from backpackd.application.callers.lines import Lines
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId

MOST_WAITING = 16
"""Pieces of one process tree that may wait for each other."""

_Result = TypeVar("_Result")


class Worker:
    """One thread, and a line before it."""

    def __init__(self) -> None:
        # Made with the first piece, and ended with the process: what runs there waits for nothing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="locks")
        self._lines = Lines(MOST_WAITING, _too_many)

    async def do(self, tree: ProcessId, work: Callable[[], _Result]) -> _Result:
        """Do a piece of work for a process tree, and return what it returns.

        Raises:
            LimitError: too many of this tree are waiting.
        """
        async with self._lines.turn(tree):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Wait for what is under way and end the thread."""
        self._thread.shutdown(cancel_futures=True)


def _too_many() -> LimitError:
    return LimitError(
        "too many agent locks of this process tree are being opened: try again", retry_after=1
    )
