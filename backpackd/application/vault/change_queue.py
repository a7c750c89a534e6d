"""Changes of a vault, one after the other, each as a task of its own.

A caller that goes away in the middle cannot leave memory and store telling different stories.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager


class ChangeQueue:
    """Runs the changes of one vault."""

    def __init__(self) -> None:
        self._running = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, change: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run a change after those before it, to its end, whatever becomes of the caller."""

        async def in_turn() -> None:
            async with self._running:
                await change()

        task = asyncio.create_task(in_turn())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        # Waiting does not cancel what is waited for.
        await asyncio.wait([task])
        try:
            task.result()
        finally:
            # An error holds this frame, the frame the task, and the task the error: values in the
            # error's other frames would stay in memory until the collector comes round.
            del task

    @asynccontextmanager
    async def held_off(self) -> AsyncIterator[None]:
        """Let no change run inside of the block."""
        async with self._running:
            yield

    async def settle(self) -> None:
        """Wait for changes that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Asked for, so that asyncio does not log its text when the caller has gone away.
            task.exception()
