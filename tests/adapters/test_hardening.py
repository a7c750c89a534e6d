"""What a hardened process refuses, on the real kernel, and that its state is what is reported."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backpackd.adapters.secrets import hardening
from backpackd.adapters.secrets.hardening import protections
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.core.protections import Protection

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc")

# As root the test would read anything: both sides become an ordinary user first. That makes a
# process undumpable, which is what is to be shown, so it is undone before.
BEGIN = """
import ctypes, os, resource, sys
from backpackd.adapters.secrets import hardening
from backpackd.core.errors import HomeError
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    hardening.libc.prctl(4, 1, 0, 0, 0)
"""
HARDEN_AND_WAIT = """
hardening.harden()
print("ready", flush=True)
sys.stdin.read()
"""
WAIT = """
print("ready", flush=True)
sys.stdin.read()
"""
READ = """
try:
    os.close(os.open(sys.argv[1], os.O_RDONLY))
except PermissionError:
    print("refused")
else:
    print("open")
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return done.stdout.strip()


@contextmanager
def target(code: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate(b"")


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena()
    yield made
    made.close()


def report(code: str) -> dict[str, bool]:
    """Return what a process that ran `code` reports of itself."""
    script = (
        "from backpackd.adapters.secrets.secret_memory import Arena\n"
        f"{BEGIN}{code}\n"
        "for each in hardening.protections(Arena(), ''):\n"
        "    print(each.name, int(each.on))\n"
    )
    return {name: on == "1" for name, on in (line.split() for line in run(script).splitlines())}


@pytest.mark.parametrize("file", ["mem", "environ", "maps", "auxv"])
def test_a_process_of_the_same_user_cannot_read_a_hardened_one(file: str) -> None:
    with target(HARDEN_AND_WAIT) as pid:
        assert run(BEGIN + READ, f"/proc/{pid}/{file}") == "refused"


def test_a_process_that_is_not_hardened_can_be_read_which_shows_that_the_test_above_looks() -> None:
    with target(WAIT) as pid:
        assert run(BEGIN + READ, f"/proc/{pid}/environ") == "open"


def test_a_process_of_the_same_user_cannot_attach_to_a_hardened_one() -> None:
    attach = "print(hardening.libc.ptrace(16, int(sys.argv[1]), None, None), ctypes.get_errno())"
    with target(HARDEN_AND_WAIT) as pid:
        assert run(BEGIN + attach, str(pid)) == "-1 1"


def test_a_traced_process_refuses_to_start() -> None:
    traced = """
hardening.libc.ptrace(0, 0, None, None)
try:
    hardening.harden()
except HomeError as error:
    print(error)
"""
    refusal = run(BEGIN + traced)
    assert f"process {os.getpid()} is tracing" in refusal
    assert "debugger" in refusal


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    crash = "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\nhardening.harden()\nos.abort()"
    limits = "hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os\nos.chdir({str(tmp_path)!r})\n{BEGIN}{limits}{crash}"],
        os.environ,
    )
    _, status = os.waitpid(process, 0)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert not list(tmp_path.iterdir())


def test_no_privileges_can_be_gained_any_more() -> None:
    state = run(BEGIN + "hardening.harden()\nprint(open('/proc/self/status').read())")
    assert "NoNewPrivs:\t1" in state


def test_new_files_are_for_the_user_alone(tmp_path: Path) -> None:
    run(
        "from backpackd.adapters.secrets.hardening import harden\nharden()\nopen('new', 'w')",
        cwd=tmp_path,
    )
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_the_core_limit_cannot_be_raised_again() -> None:
    hard = run(BEGIN + "hardening.harden()\nprint(resource.getrlimit(resource.RLIMIT_CORE))")
    assert hard == "(0, 0)"


def test_a_hardened_process_reports_so() -> None:
    found = report("hardening.started_closed = lambda: True\nhardening.harden()")
    assert found["undumpable"]
    assert found["core-dumps"]


def test_a_process_that_was_open_when_it_started_reports_so() -> None:
    assert not report("hardening.harden()")["undumpable"]


def test_a_process_that_was_made_dumpable_again_reports_so() -> None:
    found = report("hardening.harden()\nhardening.libc.prctl(4, 1, 0, 0, 0)")
    assert not found["undumpable"]
    assert not found["core-dumps"]


def test_a_process_that_is_not_scrubbed_reports_so() -> None:
    assert not report("")["scrubbing"]


def test_a_refused_measure_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = """
class Filtered:
    def prctl(self, *_):
        ctypes.set_errno(1)
        return -1
hardening.libc = Filtered()
try:
    hardening.harden()
except HomeError as error:
    print(error)
"""
    assert "cannot close the daemon's memory" in run(BEGIN + refused)


def by_name(found: list[Protection], name: str) -> Protection:
    return next(each for each in found if each.name == name)


def test_every_protection_is_named_once_and_in_order(arena: Arena) -> None:
    assert [each.name for each in protections(arena, "")] == [
        "secret-memory",
        "scrubbing",
        "undumpable",
        "core-dumps",
        "attestation",
    ]


def test_locked_memory_is_not_reported_as_secret_memory(arena: Arena) -> None:
    arena.kind = "mlock"
    found = by_name(protections(arena, ""), "secret-memory")
    assert not found.on
    assert "readable to root" in found.detail


def test_weakened_attestation_is_reported_in_its_own_words(arena: Arena) -> None:
    found = by_name(protections(arena, "no pidfd"), "attestation")
    assert found == Protection("attestation", False, "no pidfd")


def test_what_cannot_be_found_out_counts_as_off(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors() -> bool:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(hardening, "scrubbed", no_descriptors)
    assert not by_name(protections(arena, ""), "scrubbing").on
