"""What live leases cost: their memory, and how long it takes to end some of very many."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backpackd.adapters.processes.memory import MemoryProcesses
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.stores.memory import MemoryStore
from backpackd.application.access.leases import MOST_LEASES, MOST_OF_TREE, LiveLeases
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.deadlines import Deadlines
from backpackd.core.access.grants import LONGEST_TTL, Grant
from backpackd.core.access.selectors import Selector
from backpackd.core.peer_facts import ProcessId
from bench.timing import once
from fakes import FakeClock

_ENDED = 1000
_SHAPES = {"10 trees": MOST_OF_TREE, "20,000 trees": 5}
"""How many leases each tree holds."""
Line = tuple[str, str, str]


def measure(_: Path) -> list[Line]:
    """Measure a hundred thousand live leases, in processes with the daemon's own allocator."""
    lines: list[Line] = []
    environ = {**os.environ, "PYTHONMALLOC": "malloc"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    for shape in _SHAPES:
        done = subprocess.run(
            [sys.executable, __file__, shape],
            env=environ,
            check=True,
            capture_output=True,
            text=True,
        )
        for line in done.stdout.splitlines():
            what, found, target = line.split("\t")
            lines.append((what, found, target))
    return lines


class _Process:
    """One process that runs until it is told to end. Implements `ports.PinnedProcess`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.end: Callable[[], None] = lambda: None

    def alive(self) -> bool:
        return True

    def on_exit(self, callback: Callable[[], None]) -> None:
        self.end = callback

    def close(self) -> None:
        self.end = lambda: None


class _Running(MemoryProcesses):
    """As many processes as are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, _Process] = {}

    def pin(self, pid: int) -> tuple[Any, ProcessId]:
        self.held[pid] = _Process(pid)
        return self.held[pid], ProcessId(pid, pid, pid)


class _Held:
    """The live leases of one process, with whatever the daemon keeps of them."""

    def __init__(self, of_tree: int) -> None:
        self.processes = _Running()
        clock = FakeClock()
        audit_log = AuditLog(MemoryStore(), Arena(), self.processes, clock)
        self.live_leases = LiveLeases(
            ProcessWatches(self.processes), clock, Deadlines(clock), audit_log
        )
        self.of_tree = of_tree
        count = MOST_LEASES // of_tree
        self.roots = [ProcessId(pid, pid, pid) for pid in range(1000, 1000 + count)]

    def fill(self) -> None:
        """Issue all of them: one key of a hundred each, on one grant for each thousand."""
        selector = Selector("uid", "1000")
        for place in range(MOST_LEASES):
            grant = Grant(
                f"{place // _ENDED:016x}", ("*",), selector, LONGEST_TTL, None, None, 0, ""
            )
            self.live_leases.issue(
                self.roots[place // self.of_tree],
                (f"KEY_{place % 100}",),
                [grant],
                ttl=1 + place,
                longest=LONGEST_TTL,
                lease_id=f"{place:032x}",
            )


def _resident() -> int:
    """Return how many bytes this process has resident."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def _main(shape: str) -> None:
    """Measure one shape, in an event loop: what ends is noted in a task of the audit writer."""
    held = _Held(_SHAPES[shape])
    before = _resident()
    held.fill()
    each = (_resident() - before) / MOST_LEASES
    _print(f"{MOST_LEASES} live leases of {shape}, each", f"{each:.0f} bytes", "<= 1024 bytes")
    assert len(held.live_leases) == MOST_LEASES
    some = [lease.id for lease in held.live_leases.all()[-_ENDED:]]
    roots = [held.processes.held[root.pid] for root in held.roots[: _ENDED // held.of_tree]]

    def one_by_one() -> None:
        for lease_id in some:
            held.live_leases.end_id(lease_id, "revoked", by=None)

    def with_their_holders() -> None:
        for root in roots:
            root.end()

    _time(held, "of one key", lambda: held.live_leases.end_key("KEY_7", "revoked", by=None))
    _time(
        held, "of one grant", lambda: held.live_leases.end_grant(f"{3:016x}", "grant-gone", by=None)
    )
    _time(held, "one by one", one_by_one)
    if roots:
        _time(held, "as their holders end", with_their_holders)
    _time(held, "that are left, at once", lambda: held.live_leases.drop_all("panic", by=None))


def _time(held: _Held, what: str, end: Callable[[], object]) -> None:
    before = len(held.live_leases)
    seconds = once(end)
    _print(f"  ending {before - len(held.live_leases)} {what}", f"{seconds * 1000:.1f} ms", "")


def _print(what: str, found: str, target: str) -> None:
    sys.stdout.write(f"{what}\t{found}\t{target}\n")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
