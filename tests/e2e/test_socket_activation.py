"""The daemon behind a socket that systemd listens on, as `systemd/backpackd.socket` has it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from backpack_proto.v1 import vault_pb2

TIMEOUT_SECONDS = 60


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A socket at which systemd listens, and the process that becomes the daemon."""
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        pytest.skip("systemd-socket-activate is not installed: it is in the package systemd")
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    path = runtime / "backpackd.sock"
    environ = {"HOME": str(tmp_path), "BACKPACK_HOME": str(tmp_path / "home")}
    passed_on = [f"--setenv={name}={value}" for name, value in environ.items()]
    daemon = [sys.executable, "-m", "backpackd", "--socket", str(tmp_path / "own" / "own.sock")]
    with subprocess.Popen(
        [tool, f"--listen={path}", *passed_on, *daemon],
        stderr=subprocess.PIPE,
        text=True,
        env=environ | {"PATH": os.environ["PATH"]},
    ) as process:
        assert process.stderr is not None
        # "Listening on … as 3.": from here on a connection waits in the socket's queue.
        assert "Listening on" in process.stderr.readline()
        yield path, process
        process.kill()


def status(path: Path) -> vault_pb2.StatusResponse:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        call: Any = channel.unary_unary("/backpack.v1.Vault/Status")
        return vault_pb2.StatusResponse.FromString(call(b"", timeout=TIMEOUT_SECONDS))


def test_the_first_connection_starts_the_daemon_and_is_served(
    activated: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, process = activated
    # The same pid, though the daemon executes itself anew: LISTEN_PID still names it.
    assert status(path).daemon_pid == process.pid
    assert status(path).state == vault_pb2.VAULT_STATE_UNINITIALIZED


def test_a_daemon_with_a_passed_socket_makes_none_of_its_own(
    activated: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    status(activated[0])
    assert not (tmp_path / "own").exists()


def test_the_passed_socket_is_systemds_and_stays_when_the_daemon_stops(
    activated: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, process = activated
    status(path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_SECONDS) == 0
    assert path.is_socket()
