"""Files of processes that are kept: what was read once is read again, and of the same process."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backpackd.adapters.processes import procfs
from backpackd.adapters.processes.linux import LinuxProcesses, open_process
from backpackd.core.peer_facts import PeerFacts, ProcessFacts
from descriptors import descriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

NOBODY = 65534

# Runs the line of code that it is sent and says so, again and again.
OBEDIENT = """
import ctypes, os, sys
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Child:
    """A process that does what it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OBEDIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        assert self._answer() == "ready"

    def run(self, code: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(code + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    yield made
    made.end()


@pytest.fixture
def processes() -> Iterator[LinuxProcesses]:
    with closing(LinuxProcesses()) as made:
        yield made


def attest(processes: LinuxProcesses, pid: int) -> PeerFacts:
    with closing(open_process(pid)) as process:
        return processes.attest(process, os.geteuid(), 0)


def again(processes: LinuxProcesses, child: Child, code: str) -> tuple[ProcessFacts, ProcessFacts]:
    """Attest a process before and after it has run some code."""
    before = attest(processes, child.pid).process
    child.run(code)
    return before, attest(processes, child.pid).process


def test_what_has_not_changed_is_told_again_without_opening_anything(
    processes: LinuxProcesses, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = attest(processes, child.pid)

    def opened(_: int) -> procfs.ProcessFiles:
        raise AssertionError

    monkeypatch.setattr(procfs.ProcessFiles, "open", opened)
    assert attest(processes, child.pid) == before


def test_a_session_of_its_own_is_noticed(processes: LinuxProcesses, child: Child) -> None:
    before, after = again(processes, child, "os.setsid()")
    assert before.session != child.pid
    assert after.session == child.pid


def test_a_controlling_terminal_is_noticed(processes: LinuxProcesses, child: Child) -> None:
    code = "os.setsid(); import fcntl, pty; end = pty.openpty()[1]; fcntl.ioctl(end, 0x540E, 0)"
    before, after = again(processes, child, code)
    assert after.terminal != 0
    assert after.terminal != before.terminal


def test_another_user_is_noticed(processes: LinuxProcesses, child: Child) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    before, after = again(processes, child, f"os.setresuid({NOBODY}, {NOBODY}, 0)")
    assert (before.uid, after.uid) == (0, NOBODY)


def test_another_name_is_noticed(processes: LinuxProcesses, child: Child) -> None:
    _, after = again(processes, child, "ctypes.CDLL(None).prctl(15, b'renamed', 0, 0, 0)")
    assert after.name == "renamed"


def test_an_executable_that_was_deleted_is_noticed(
    processes: LinuxProcesses, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o700)
    running = subprocess.Popen([program, "1000"])
    try:
        while attest(processes, running.pid).process.executable != str(program):
            os.sched_yield()
        program.unlink()
        assert attest(processes, running.pid).process.executable is None
    finally:
        running.kill()
        running.wait()


def test_another_unit_is_noticed(
    processes: LinuxProcesses, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = attest(processes, child.pid).process
    assert before.unit != "other.service"
    monkeypatch.setattr(procfs, "parse_unit", lambda _: "other.service")
    assert attest(processes, child.pid).process.unit == "other.service"


def test_an_ancestor_that_changes_is_noticed(processes: LinuxProcesses, child: Child) -> None:
    before = attest(processes, child.pid).chain[1]
    assert ctypes.CDLL(None).prctl(15, b"renamed", 0, 0, 0) == 0
    try:
        assert attest(processes, child.pid).chain[1].name == "renamed"
    finally:
        Path("/proc/self/comm").write_text(before.name)


def test_the_files_of_no_more_than_so_many_processes_are_kept(
    processes: LinuxProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_most_kept", 4)
    children = [Child() for _ in range(8)]
    try:
        before = descriptors()
        first = [attest(processes, child.pid) for child in children]
        assert len(descriptors() - before) <= 3 * 4
        assert [attest(processes, child.pid) for child in children] == first
    finally:
        for child in children:
            child.end()


@pytest.mark.parametrize(("limit", "kept"), [(64, 4), (1024, 32), (1_048_576, 256), (-1, 256)])
def test_how_many_are_kept_depends_on_the_descriptors_there_are(
    monkeypatch: pytest.MonkeyPatch, limit: int, kept: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert LinuxProcesses()._most_kept == kept


def test_files_that_were_given_back_are_opened_anew(
    processes: LinuxProcesses, child: Child
) -> None:
    before = attest(processes, child.pid)
    processes.close()
    assert attest(processes, child.pid) == before


def test_a_failure_to_open_leaves_no_descriptor_behind(
    processes: LinuxProcesses, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()

    def refused(_: ProcessFacts) -> int:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(processes, "_unique_number", refused)
    with pytest.raises(OSError, match="too many"):
        attest(processes, child.pid)
    assert descriptors() <= before
