"""A place for work that takes tens of milliseconds: one call at a time, outside the event loop.

To open a large lock, or one of version 1, would block all other calls, `panic` included. Only one
call of each process tree is in the queue at a time, so no tree waits for a hundred of another's.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from backpackd.application.callers.lines import Lines
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId

MOST_WAITING = 16
"""The most calls of one process tree that may wait for each other."""

_Result = TypeVar("_Result")


class Worker:
    """One thread, and a queue before it."""

    def __init__(self) -> None:
        # Started with the first call, and ended with the process: the calls wait for nothing.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="locks")
        self._lines = Lines(MOST_WAITING, _too_many)

    async def do(self, tree: ProcessId, work: Callable[[], _Result]) -> _Result:
        """Run a function for a process tree, and return its result.

        Raises:
            LimitError: too many calls of this tree are waiting.
        """
        async with self._lines.turn(tree):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Wait for the running call, and end the thread."""
        self._thread.shutdown(cancel_futures=True)


def _too_many() -> LimitError:
    return LimitError(
        "too many agent locks of this process tree are being opened: try again", retry_after=1
    )
