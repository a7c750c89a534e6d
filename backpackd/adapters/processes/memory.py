"""Processes that exist only in a dictionary, for tests of what stands above the port."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backpackd.adapters.processes.holding import Holding
from backpackd.core.errors import ProcessGoneError
from backpackd.core.peer_facts import Answer, Image, PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import PinnedProcess


class MemoryProcess:
    """A pinned process of `MemoryProcesses`. Implements `ports.PinnedProcess`.

    Attributes:
        readable: whether its user's other processes can read it.
    """

    def __init__(
        self,
        table: dict[int, ProcessFacts],
        identity: ProcessId,
        signals: list[tuple[int, int]],
    ) -> None:
        self._table = table
        self._identity = identity
        self._signals = signals
        self.readable = False
        self._callbacks: list[Callable[[], None]] = []
        self._closed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._identity.pid

    @property
    def identity(self) -> ProcessId:
        """Which process it is."""
        return self._identity

    def alive(self) -> bool:
        """Return whether it still runs and is held."""
        facts = self._table.get(self.pid)
        return not self._closed and facts is not None and facts.id == self._identity

    def uid(self) -> int | None:
        """Tell as which user it runs now; None when it has ended."""
        return self._table[self.pid].uid if self.alive() else None

    def readable_by(self, uid: int) -> bool:
        """Tell what the test has set, of a process that runs as this user."""
        return not self.alive() or (self.readable and self._table[self.pid].uid == uid)

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the process has ended; at once if it has."""
        if self._closed:
            return
        if self.alive():
            self._callbacks.append(callback)
        else:
            callback()

    def signal(self, number: int) -> bool:
        """Note a signal for the test to see; False when the process has ended."""
        if not self.alive():
            return False
        self._signals.append((self.pid, number))
        return True

    def close(self) -> None:
        """Let go; callbacks no longer come. Closing twice is harmless."""
        self._closed = True
        self._callbacks.clear()

    def ended(self) -> None:
        """Call back everybody who asked to be told."""
        while self._callbacks:
            self._callbacks.pop(0)()


class MemoryProcesses(Holding):
    """A table of processes that a test changes as it likes. Implements `ports.Processes`.

    It begins with pid 1, the manager of everything.

    Attributes:
        signals: pid and number of every signal that was sent.
    """

    def __init__(self, *, boot_id: str = "boot-1", degraded: str = "") -> None:
        self._boot_id = boot_id
        self._degraded = degraded
        self._table: dict[int, ProcessFacts] = {}
        self._pinned: list[MemoryProcess] = []
        self._born = 0
        self.signals: list[tuple[int, int]] = []
        self.add(1, parent=0, uid=0, manager=True, name="init")

    def add(
        self,
        pid: int,
        *,
        parent: int = 1,
        uid: int = 1000,
        session: int = 0,
        terminal: int = 0,
        executable: str | None = None,
        unit: str | None = "",
        manager: bool = False,
        name: str = "",
    ) -> ProcessFacts:
        """Start a process, with a start time that no other one has.

        Its unit, where the test says nothing, is its parent's. A manager starts each in another.
        """
        if unit == "":
            above = self._table.get(parent)
            unit = f"{pid}.service" if above is None or above.manager else above.unit
        self._born += 1
        facts = ProcessFacts(
            id=ProcessId(pid, self._born, self._born),
            parent=parent,
            session=session,
            terminal=terminal,
            uid=uid,
            executable=executable,
            unit=unit,
            manager=manager,
            name=name,
            image=_image(executable),
        )
        self._table[pid] = facts
        return facts

    def kill(self, pid: int) -> None:
        """End a process: its children go to pid 1, and its callbacks come."""
        gone = self._table.pop(pid)
        for child in [facts for facts in self._table.values() if facts.parent == pid]:
            self.reparent(child.id.pid, 1)
        for process in [held for held in self._pinned if held.identity == gone.id]:
            self._pinned.remove(process)
            process.ended()

    def exec(
        self,
        pid: int,
        executable: str | None,
        *,
        image: Image | None = None,
        uid: int | None = None,
    ) -> None:
        """Let a process run another program: it stays the same process.

        Args:
            pid: which.
            executable: the program's path; None: it has none.
            image: what the kernel tells of it; None: what the path makes of it.
            uid: as which user it runs then, as a setuid program does; None: as before.
        """
        before = self._table[pid]
        self._table[pid] = replace(
            before,
            executable=executable,
            image=image or _image(executable),
            uid=before.uid if uid is None else uid,
        )

    def claim(self, pid: int, name: str) -> None:
        """Let a process say something else of itself."""
        self._table[pid] = replace(self._table[pid], name=name)

    def reparent(self, pid: int, parent: int) -> None:
        """Give a process another parent."""
        self.change(pid, parent=parent)

    def change(self, pid: int, **facts: Any) -> None:
        """Change facts of a process, which stays the same process."""
        self._table[pid] = replace(self._table[pid], **facts)

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read a peer and its ancestors.

        Raises:
            ProcessGoneError: the peer has ended.
        """
        if not process.alive():
            raise ProcessGoneError(f"process {process.pid} has ended")
        chain: list[ProcessFacts] = []
        pid = process.pid
        while pid in self._table:
            chain.append(self._table[pid])
            pid = chain[-1].parent
        return PeerFacts(uid, gid, tuple(chain))

    def pin(self, pid: int) -> tuple[MemoryProcess, ProcessId]:
        """See `ports.Processes`."""
        if pid not in self._table:
            raise ProcessGoneError(f"process {pid} is not running")
        process = MemoryProcess(self._table, self._table[pid].id, self.signals)
        self._pinned.append(process)
        return process, process.identity

    def digest(self, process: ProcessId, executable: str) -> str | None:
        """Hash the path of an executable in place of its bytes, which do not exist."""
        facts = self._table.get(process.pid)
        if facts is None or facts.id != process or facts.executable != executable:
            return None
        return hashlib.sha256(executable.encode()).hexdigest()

    def ended(self, process: ProcessId) -> bool:
        """See `ports.Processes`."""
        facts = self._table.get(process.pid)
        return facts is None or facts.id != process

    def claimed_commands(self, facts: PeerFacts) -> dict[int, str]:
        """See `ports.Processes`. What a process says of itself here is its name."""
        return {
            process.id.pid: self._table[process.id.pid].name
            for process in facts.chain
            if process.id.pid in self._table
        }

    def boot_id(self) -> str:
        """Name this boot."""
        return self._boot_id

    def degraded(self) -> str:
        """Say what the test said."""
        return self._degraded


def _image(executable: str | None) -> Image:
    """Make the image of a program out of its path."""
    if executable is None:
        return Image(Answer.HIDDEN)
    return Image(Answer.NAMED, 1, int.from_bytes(hashlib.sha256(executable.encode()).digest()[:4]))
