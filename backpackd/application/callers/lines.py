"""Queues in which the calls of one process tree wait for each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId


class Lines:
    """A queue for each process tree: one call at a time, and a limited number in total.

    Args:
        most: the most calls of one tree, including the one whose turn it is.
        too_many: creates the error for one more call.
    """

    def __init__(self, most: int, too_many: Callable[[], LimitError]) -> None:
        self._most = most
        self._too_many = too_many
        self._lines: dict[ProcessId, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, tree: ProcessId) -> AsyncIterator[None]:
        """Wait for the turn of a call. The turn lasts as long as the block.

        Raises:
            LimitError: too many calls of this tree are waiting.
        """
        turn, waiting = self._lines.get(tree, (asyncio.Lock(), 0))
        if waiting >= self._most:
            raise self._too_many()
        self._lines[tree] = (turn, waiting + 1)
        try:
            async with turn:
                yield
        finally:
            turn, waiting = self._lines.pop(tree)
            if waiting > 1:
                self._lines[tree] = (turn, waiting - 1)
