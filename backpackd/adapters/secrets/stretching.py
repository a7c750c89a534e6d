"""Stretches passphrases with Argon2id (RFC 9106), one at a time and fairly.

Each run takes 64 MiB and a good part of a second on purpose. So the work runs in a thread, and
waiting trees take turns: a tree with a hundred guesses delays another tree's guess by one run only.

New trees can still fill the queue. A tree that has given a right passphrase before is admitted even
then, and goes ahead of waiting trees, but not twice in a row.
"""

import asyncio
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.sealing.sealing import KEY_SIZE
from backpackd.core.slots.slots import Argon2idParameters

MOST_WAITING = 4
"""For each process tree."""
MOST_TREES = 64
MOST_FAVORED = 64


class Argon2idStretcher:
    """Implements `ports.Stretcher`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2id")
        self._waiting: OrderedDict[ProcessId, deque[asyncio.Future[None]]] = OrderedDict()
        self._favored: OrderedDict[ProcessId, None] = OrderedDict()
        self._busy = False
        self._served: ProcessId | None = None

    async def stretch(
        self, passphrase: bytes, parameters: Argon2idParameters, tree: ProcessId
    ) -> bytes:
        """See `ports.Stretcher`."""
        await self._turn(tree)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, _argon2id, passphrase, parameters)
        # The turn ends with the work, also when the caller has gone away meanwhile: the thread
        # cannot be interrupted, and starting another beside it would break "one at a time".
        work.add_done_callback(lambda _: self._next())
        return await asyncio.shield(work)

    def favor(self, tree: ProcessId) -> None:
        """See `ports.Stretcher`."""
        self._favored[tree] = None
        self._favored.move_to_end(tree)
        if len(self._favored) > MOST_FAVORED:
            self._favored.popitem(last=False)

    def close(self) -> None:
        """Wait for the work in progress, and end the thread."""
        self._thread.shutdown()

    async def _turn(self, tree: ProcessId) -> None:
        if not self._busy:
            self._busy, self._served = True, tree
            return
        queue = self._waiting.get(tree)
        favored = tree in self._favored
        if queue is None and len(self._waiting) >= MOST_TREES and not favored:
            raise LimitError("too many passphrases are being checked: try again", retry_after=1)
        if queue is not None and len(queue) >= MOST_WAITING:
            raise LimitError(
                "too many passphrases of this process tree are being checked: try again",
                retry_after=1,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tree, deque()).append(turn)
        if queue is None and favored:
            self._waiting.move_to_end(tree, last=False)
        if self._served is not None and self._served in self._waiting:
            # The tree that is being served now goes behind all others.
            self._waiting.move_to_end(self._served)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(tree, turn)
            else:
                # It had just got the turn.
                self._next()
            raise

    def _leave(self, tree: ProcessId, turn: asyncio.Future[None]) -> None:
        """Remove a waiter that has gone away from the queue, so that it occupies no place."""
        queue = self._waiting.get(tree)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[tree]

    def _next(self) -> None:
        """Give the turn to the tree that has waited longest since its last one."""
        while self._waiting:
            tree = next(iter(self._waiting))
            queue = self._waiting.pop(tree)
            turn = queue.popleft()
            if queue:
                # To the end of the queue.
                self._waiting[tree] = queue
            if not turn.done():
                self._served = tree
                turn.set_result(None)
                return
        self._busy = False


def _argon2id(passphrase: bytes, parameters: Argon2idParameters) -> bytes:
    return Argon2id(
        salt=parameters.salt,
        length=KEY_SIZE,
        iterations=parameters.iterations,
        lanes=parameters.lanes,
        memory_cost=parameters.memory_kib,
    ).derive(passphrase)
