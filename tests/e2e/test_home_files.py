"""Something else in the place of one of the home's files: at a start, and while a daemon runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import slots_pb2, slots_pb2_grpc
from daemons import PASSPHRASE, READY_SECONDS, Client, RunningDaemon, failure
from odd_files import ODD

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

READ = [
    "backpackd.lock",
    "backpackd.toml",
    "vault.db",
    "vault.db-wal",
    "vault.db-journal",
    "vault.db-shm",
    "vault.db.purge",
]
LEFTOVERS = ["vault.db.new", "vault.db.new-wal", "vault.db.aside", "vault.db.aside-journal"]


@pytest.fixture(scope="module")
def with_a_key(made_once: RunningDaemon) -> RunningDaemon:
    made_once.start()
    made_once.operator().put("K", b"v")
    assert made_once.terminate() == 0
    return made_once


@pytest.fixture
def stopped(with_a_key: RunningDaemon, tmp_path: Path) -> Iterator[RunningDaemon]:
    """Return a daemon that is not running, with a vault."""
    # Beside its home, tests put what they take out of it.
    running = with_a_key.copied(tmp_path / "stopped")
    yield running
    running.close()


def rotate(operator: Client) -> None:
    stub = slots_pb2_grpc.SlotsStub(operator.channel)
    for _ in stub.RotateMasterKey(slots_pb2.RotateMasterKeyRequest()):
        pass


def reload(daemon: RunningDaemon) -> str:
    """Have the configuration file read again, and return what the daemon logs of it."""
    before = len(daemon.log.read_bytes())
    os.kill(daemon.pid, signal.SIGHUP)
    until = time.monotonic() + READY_SECONDS
    while "configuration" not in (said := daemon.log.read_bytes()[before:].decode()):
        assert time.monotonic() < until, "the daemon says nothing about the signal"
        time.sleep(0.005)
    return said


@pytest.mark.executed
@pytest.mark.parametrize("kind", ["a FIFO", "a hard link"])
@pytest.mark.parametrize("name", READ)
def test_a_start_refuses_it_and_names_it(stopped: RunningDaemon, name: str, kind: str) -> None:
    ODD[kind](stopped.home / name)
    said = stopped.refused()
    assert name in said.replace("the vault file", "vault.db")
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
@pytest.mark.parametrize("name", LEFTOVERS)
def test_a_start_is_not_held_up_by_what_it_never_reads(
    stopped: RunningDaemon, name: str, kind: str
) -> None:
    ODD[kind](stopped.home / name)
    stopped.start()
    client = stopped.client()
    client.unlock()
    assert stopped.terminate() == 0


@pytest.mark.parametrize("kind", ODD)
def test_the_lock_beside_the_socket_is_a_file_too(stopped: RunningDaemon, kind: str) -> None:
    ODD[kind](Path(f"{stopped.socket}.lock"))
    assert f"{stopped.socket.name}'.lock" in stopped.refused()


@pytest.mark.parametrize(
    "kind", [kind for kind in ODD if kind not in {"a socket", "open to others"}]
)
def test_something_else_in_the_place_of_the_socket_is_refused(
    stopped: RunningDaemon, kind: str
) -> None:
    if kind == "a symbolic link":
        stopped.socket.touch()
    ODD[kind](stopped.socket)
    assert "exists and is not a socket" in stopped.refused()


@pytest.mark.parametrize("kind", ODD)
def test_a_rotation_is_refused_by_name_and_the_daemon_goes_on_and_ends(
    daemon: RunningDaemon, kind: str
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    ODD[kind](daemon.home / "vault.db.purge")
    assert failure(lambda: rotate(operator)) == ("UNAVAILABLE", "store-failed")
    assert operator.value("K") == b"v"
    operator.put("L", b"w")
    assert daemon.terminate() == 0


@pytest.mark.parametrize("name", [*READ[:1], *READ[2:-1], *LEFTOVERS])
def test_a_running_daemon_is_held_up_by_no_fifo(daemon: RunningDaemon, name: str) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    ODD["a FIFO"](daemon.home / name)
    rotate(operator)
    assert operator.value("K") == b"v"
    operator.lock()
    operator.unlock()
    assert daemon.terminate() == 0


@pytest.mark.parametrize("kind", ODD)
def test_a_configuration_that_is_no_plain_file_changes_nothing(
    daemon: RunningDaemon, kind: str
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    ODD[kind](daemon.home / "backpackd.toml")
    assert "backpackd.toml: " in reload(daemon)
    assert operator.value("K") == b"v"
    assert daemon.terminate() == 0


@pytest.mark.parametrize("kind", ["a FIFO", "a symbolic link", "a socket"])
@pytest.mark.parametrize("name", ["vault.db", "vault.db-wal"])
def test_a_check_of_the_vault_names_it_and_ends(
    stopped: RunningDaemon, tmp_path: Path, name: str, kind: str
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_bytes(PASSPHRASE)
    ODD[kind](stopped.home / name)
    done = subprocess.run(
        [sys.executable, "-m", "backpackd", "--home", str(stopped.home), "--check",
         "--passphrase-file", str(passphrase)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{name} is " in done.stderr


HELD_UP = """
import sys, threading
from pathlib import Path
from backpackd import daemon
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.settings import Settings
daemon._LAST_RESORT = 0.5
SqliteStore._close = lambda self: threading.Event().wait()
home = Path(sys.argv[2])
daemon.run(Settings(home, sys.argv[4], home / "backpackd.toml", grace=0.5))
"""
"""A daemon whose store never comes back, as on a dead mount."""


def test_a_store_that_never_comes_back_does_not_keep_sigterm_from_ending_the_daemon(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", HELD_UP]
    running = RunningDaemon(tmp_path / "held", tmp_path / "held.sock", command=command)
    running.start()
    try:
        running.client().status()
        assert running.terminate() == -signal.SIGALRM
    finally:
        running.close()
