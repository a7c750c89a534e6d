"""The Python API for agents: `Agent` and `AsyncAgent`, an agent's personality and its memory.

    with Backpack() as backpack, backpack.agent() as agent:
        prompt = agent.personality["system_prompt"]
        agent.memory["runs"] = agent.memory.get("runs", 0) + 1

The memory is saved at the end of the block, through the daemon and into the lock file. Several
agents may save at once: none overwrites what another has saved. Nothing here prompts or prints.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

from backpack_client.agent_model import LockInfo, OpenedLock, SavedMemory
from backpack_client.calls import agents as agent_calls
from backpack_client.calls.call import Call
from backpack_client.failures import Failure
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LOCK_VARIABLE, LockFile
from backpack_client.handles.agent_memory import MOST_ATTEMPTS, RETRIED, HeldMemory

Change = Callable[[dict[str, Any]], None]
"""Changes a memory in place."""


class _Held:
    """Shared by an agent and an asyncio agent: the lock file and its content."""

    def __init__(self, lock: str | None) -> None:
        self._named = lock
        self._memory = HeldMemory()
        self._file: LockFile | None = None
        self._opened: OpenedLock | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._file.path if self._file else 'no lock yet'}>"

    @property
    def path(self) -> str:
        """The path of its lock."""
        return self._lock_file().path

    @property
    def info(self) -> LockInfo:
        """Facts about its lock, from the last time that it was read."""
        return self._lock().info

    @property
    def personality(self) -> Mapping[str, Any]:
        """Its settings: read-only."""
        return MappingProxyType(dict(self._lock().personality))

    @property
    def memory(self) -> dict[str, Any]:
        """What it remembers: an ordinary dict of values that JSON can write.

        Everybody who can open the lock can write it, so treat it as untrusted input.
        """
        self._lock()
        return self._memory.current

    def _lock(self) -> OpenedLock:
        if self._opened is None:
            raise Failure(
                "the agent is not open yet", reason="agent-not-open", hint="open it: async with"
            )
        return self._opened

    def _lock_file(self) -> LockFile:
        self._lock()
        assert self._file is not None
        return self._file

    def _read(self) -> tuple[LockFile, Call[OpenedLock]]:
        path = self._file.path if self._file else _path_of(self._named)
        seen = lockfiles.read(path)
        return seen, agent_calls.open_lock(seen.data, path=seen.path)

    def _take(self, seen: LockFile, opened: OpenedLock, *, join: bool) -> None:
        held = self._memory
        (held.rebase if join else held.take)(opened.memory, opened.info.memory_hash)
        self._file, self._opened = seen, opened

    def _saving(self) -> Call[SavedMemory]:
        seen = self._lock_file()
        return agent_calls.update_memory(
            seen.data, self._memory.saving(), expected=self._memory.hash, path=seen.path
        )

    def _noting(self) -> Call[OpenedLock]:
        """Have the daemon remember the written version, so that it finds older ones."""
        seen = self._lock_file()
        return agent_calls.open_lock(seen.data, path=seen.path)

    def _store(self, saved: SavedMemory) -> None:
        self._file = lockfiles.replace(self._lock_file(), saved.data)
        self._memory.saved(saved.memory_hash)


class Agent(_Held):
    """An agent's lock, opened.

    Leaving the `with` block saves the memory, unless an exception ends the block. One thread at a
    time may use it.

    Every method raises Failure. If somebody else has made the lock, the reason is `unknown-author`
    until the operator has accepted that author.
    """

    def __init__(self, invoke: Callable[[Call[Any]], Any], lock: str | None) -> None:
        super().__init__(lock)
        self._invoke = invoke
        self._open(join=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.save()

    def reload(self) -> None:
        """Read the lock again, and drop unsaved changes."""
        self._open(join=False)

    def save(self) -> None:
        """Save the memory, if it was changed.

        Entries that another program has saved in the meantime stay: memories are merged by the
        names of their entries.

        Raises:
            Failure: both changed the same entry (`memory-conflict`), or the file cannot be written.
                Nothing is saved.
        """
        for _ in range(MOST_ATTEMPTS):
            if not self._memory.changed:
                return
            try:
                self._store(self._invoke(self._saving()))
            except Failure as failure:
                if failure.reason not in RETRIED:
                    raise
                self._open(join=True)
            else:
                self._note()
                return
        raise too_busy()

    def update(self, change: Change) -> None:
        """Change the memory as it is in the file now, and save it.

        Args:
            change: gets the memory and changes it in place. If another program saved first, it is
                called again with the newer memory, so it must do nothing else. Use this for
                counters and lists that several agents write.
        """
        self.save()
        for _ in range(MOST_ATTEMPTS):
            self._open(join=False)
            change(self.memory)
            if not self._memory.changed:
                return
            try:
                self._store(self._invoke(self._saving()))
            except Failure as failure:
                if failure.reason not in RETRIED:
                    raise
            else:
                self._note()
                return
        raise too_busy()

    def _note(self) -> None:
        # The file is written and stays. If this fails, the daemon sees it at the next opening.
        with contextlib.suppress(Failure):
            self._invoke(self._noting())

    def _open(self, *, join: bool) -> None:
        seen, call = self._read()
        self._take(seen, self._invoke(call), join=join)


class AsyncAgent(_Held):
    """The same as `Agent`, method for method, for asyncio: `async with backpack.agent() as agent`.

    One task at a time may use it.
    """

    def __init__(self, invoke: Callable[[Call[Any]], Any], lock: str | None) -> None:
        super().__init__(lock)
        self._invoke = invoke

    async def __aenter__(self) -> Self:
        await self.reload()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.save()

    async def reload(self) -> None:
        """Read the lock, and drop unsaved changes."""
        await self._open(join=False)

    async def save(self) -> None:
        """Save the memory, if it was changed; see `Agent.save`."""
        for _ in range(MOST_ATTEMPTS):
            if not self._memory.changed:
                return
            try:
                await self._keep(await self._invoke(self._saving()))
            except Failure as failure:
                if failure.reason not in RETRIED:
                    raise
                await self._open(join=True)
            else:
                await self._note()
                return
        raise too_busy()

    async def update(self, change: Change) -> None:
        """Change the memory as it is in the file now, and save it; see `Agent.update`."""
        await self.save()
        for _ in range(MOST_ATTEMPTS):
            await self._open(join=False)
            change(self.memory)
            if not self._memory.changed:
                return
            try:
                await self._keep(await self._invoke(self._saving()))
            except Failure as failure:
                if failure.reason not in RETRIED:
                    raise
            else:
                await self._note()
                return
        raise too_busy()

    async def _open(self, *, join: bool) -> None:
        # In a thread: the file may be on a slow file system.
        seen, call = await asyncio.to_thread(self._read)
        self._take(seen, await self._invoke(call), join=join)

    async def _note(self) -> None:
        with contextlib.suppress(Failure):
            await self._invoke(self._noting())

    async def _keep(self, saved: SavedMemory) -> None:
        seen = self._lock_file()
        self._file = await asyncio.to_thread(lockfiles.replace, seen, saved.data)
        self._memory.saved(saved.memory_hash)


def too_busy() -> Failure:
    """Make the failure for a save that another program always preceded."""
    return Failure(
        "other programs keep saving the memory",
        reason="lock-busy",
        hint="nothing was overwritten: try again",
    )


def _path_of(named: str | None) -> str:
    named = named or os.environ.get(LOCK_VARIABLE) or None
    return lockfiles.find() if named is None else lockfiles.absolute(named)
