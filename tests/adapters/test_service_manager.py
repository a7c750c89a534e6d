"""What the service manager is told, and what is read of what it says."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.system.service_manager import (
    READY,
    WATCHDOG,
    notify,
    status,
    supervised,
    watchdog_interval,
)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a directory whose paths fit into a socket address."""
    with tempfile.TemporaryDirectory(prefix="bp") as path:
        yield Path(path)


@pytest.fixture
def manager(short_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(short_path / "n"))
        listening.settimeout(30)
        yield listening


def test_the_manager_is_told_at_a_path(manager: socket.socket) -> None:
    assert notify({"NOTIFY_SOCKET": manager.getsockname()}, READY, status("unlocked"))
    assert manager.recv(4096) == b"READY=1\nSTATUS=unlocked"


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="abstract names are Linux's")
def test_the_manager_is_told_at_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a free abstract name
        listening.settimeout(30)
        name = listening.getsockname().decode().replace("\0", "@", 1)
        assert notify({"NOTIFY_SOCKET": name}, WATCHDOG)
        assert listening.recv(4096) == b"WATCHDOG=1"


def test_without_a_manager_nobody_is_told() -> None:
    assert not notify({}, READY)


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:99", "/nonexistent/n", "/" + "x" * 200, "/a\0b"]
)
def test_a_manager_out_of_reach_harms_nothing(address: str) -> None:
    assert not notify({"NOTIFY_SOCKET": address}, READY)


def test_a_manager_that_does_not_read_holds_nothing_up(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname()}
    with caplog.at_level(logging.WARNING):
        for _ in range(100_000):
            if not notify(environ, WATCHDOG):
                break
    assert "could not be told" in caplog.text


def test_a_status_carries_no_second_assignment(manager: socket.socket) -> None:
    notify({"NOTIFY_SOCKET": manager.getsockname()}, status("fine\nMAINPID=1\r\0READY=1"))
    assert manager.recv(4096) == b"STATUS=fine MAINPID=1  READY=1"


def test_the_watchdog_wants_a_sign_of_life_in_half_of_its_time() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "7"}, 7) == 10.0


def test_a_watchdog_without_a_pid_means_whoever_reads_it() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "20000000"}, 7) == 10.0


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "8"}, 7) is None


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e6", " 1", "\u0661", "x", "9" * 30])
def test_a_watchdog_time_that_is_no_number_is_none(text: str) -> None:
    assert watchdog_interval({"WATCHDOG_USEC": text}, 7) is None


@pytest.mark.parametrize("text", ["", "-7", "7x", "\u0667"])
def test_a_watchdog_pid_that_is_no_number_is_nobodys(text: str) -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": text}, 7) is None


@pytest.mark.parametrize("name", ["SYSTEMD_EXEC_PID", "WATCHDOG_PID"])
def test_the_process_that_systemd_started_is_supervised(name: str) -> None:
    assert supervised({name: "7"}, 7)


@pytest.mark.parametrize("name", ["SYSTEMD_EXEC_PID", "WATCHDOG_PID"])
def test_a_child_of_what_systemd_started_is_not(name: str) -> None:
    assert not supervised({name: "7"}, 8)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/run/n"},
        {"INVOCATION_ID": "0123456789abcdef0123456789abcdef"},
        {"LISTEN_PID": "7", "LISTEN_FDS": "1"},
        {"XPC_SERVICE_NAME": "0"},
        {"XPC_SERVICE_NAME": "application.com.apple.Terminal"},
    ],
)
def test_what_a_shell_or_a_client_also_sets_is_no_supervision(environ: dict[str, str]) -> None:
    assert not supervised(environ, 7)


@pytest.mark.parametrize(("parent", "expected"), [(1, True), (400, False)])
def test_a_job_of_launchd_is_supervised_when_launchd_is_its_parent(
    monkeypatch: pytest.MonkeyPatch, parent: int, *, expected: bool
) -> None:
    monkeypatch.setattr(os, "getppid", lambda: parent)
    assert supervised({"XPC_SERVICE_NAME": "org.example.backpackd"}, 7) is expected
