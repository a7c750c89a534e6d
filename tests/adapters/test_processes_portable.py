"""What is particular to reading through psutil: what it guesses, and what it cannot know."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from backpackd.adapters.processes import portable
from backpackd.adapters.processes.portable import PortableProcesses
from backpackd.core.errors import ProcessGoneError
from backpackd.core.peer_facts import ProcessFacts

REPOSITORY = Path(__file__).resolve().parents[2]


class NeverReady:
    """Stands in for kqueue where no test waits for an end."""

    def __init__(self, _: int) -> None:
        self._fd = os.eventfd(0)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def own_facts() -> ProcessFacts:
    processes = PortableProcesses(NeverReady)
    process, _ = processes.pin(os.getpid())
    try:
        return processes.attest(process, os.geteuid(), os.getegid()).process
    finally:
        process.close()


def test_what_the_system_does_not_tell_is_not_guessed_from_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    implementation = type(psutil.Process()._proc)  # type: ignore[attr-defined]
    monkeypatch.setattr(implementation, "exe", lambda _: "")
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: ["/bin/sh"])
    assert psutil.Process().exe() == "/bin/sh"
    assert own_facts().executable is None


def test_an_executable_that_may_not_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> str:
        raise psutil.AccessDenied

    monkeypatch.setattr(type(psutil.Process()._proc), "exe", refuse)  # type: ignore[attr-defined]
    assert own_facts().executable is None


def test_a_pid_with_another_start_time_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    process, _ = PortableProcesses(NeverReady).pin(os.getpid())
    assert process.alive()
    start = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: start + 0.000_01)
    assert not process.alive()
    process.close()


def test_an_ancestor_that_ends_meanwhile_starts_the_walk_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    has_parent = portable._has_parent

    def once_not(*arguments: object) -> bool:
        calls.append(arguments)
        return len(calls) > 1 and has_parent(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(portable, "_has_parent", once_not)
    assert own_facts().id.pid == os.getpid()
    assert len(calls) > 1


def test_ancestors_that_keep_changing_end_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "_has_parent", lambda *_: False)
    with pytest.raises(ProcessGoneError):
        own_facts()


def test_a_file_at_the_path_of_an_executable_is_not_taken_for_what_runs() -> None:
    facts = own_facts()
    assert facts.executable is not None
    assert PortableProcesses(NeverReady).digest(facts.id, facts.executable) is None


def test_what_weakens_attestation_is_said() -> None:
    assert "start time" in PortableProcesses(NeverReady).degraded()


def test_linux_reads_processes_without_psutil() -> None:
    code = (
        "import sys\n"
        "import backpackd.adapters.processes.linux\n"
        "import backpackd.adapters.processes.portable\n"
        "assert 'psutil' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)
