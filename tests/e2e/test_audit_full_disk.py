"""A disk without room: no log, no lease, and all as before once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_client import AuditClient
from cheap_vaults import make_cheap
from daemons import RunningDaemon, failure

FULL = ("RESOURCE_EXHAUSTED", "disk-full")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", path],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk and return what takes it up."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_every_call_that_writes_fails_and_nothing_acknowledged_is_lost(
    small_disk: Path, tmp_path: Path
) -> None:
    make_cheap(small_disk / "home")
    daemon = RunningDaemon(small_disk / "home", tmp_path / "run" / "s.sock")
    daemon.start()
    try:
        client = daemon.client()
        client.unlock()
        client.authorize()
        client.put("K", b"v")
        grant = client.grant("K")
        lease = client.get("K").lease.id
        ballast = fill(small_disk)
        # What is left in the log's last pages takes some entries more.
        while (found := failure_or_none(lambda: client.get("K"))) is None:
            pass
        assert found == FULL
        assert failure(lambda: client.put("L", b"v")) == FULL
        assert failure(lambda: client.delete("K")) == FULL
        assert failure(lambda: client.grant("L")) == FULL
        assert failure(lambda: client.ungrant(grant)) == FULL
        ballast.unlink()
        assert client.value("K") == b"v"
        client.put("L", b"w")
        assert sorted(client.list()) == ["K", "L"]
        audit = AuditClient(client)
        assert audit.verify().problem == ""
        assert lease in [entry.lease_id for entry in audit.show(events=["allowed"])]
        puts = [list(entry.names) for entry in audit.show(events=["put"])]
        # What failed is not said to have been done, and what was done twice is there once.
        assert puts == [["K"], ["L"]]
    finally:
        daemon.close()


def failure_or_none(call: object) -> tuple[str, str] | None:
    try:
        return failure(call)  # type: ignore[arg-type]
    except AssertionError:
        return None


def test_an_unlock_fails_whole_and_succeeds_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    make_cheap(small_disk / "home")
    daemon = RunningDaemon(small_disk / "home", tmp_path / "run" / "s.sock")
    daemon.start()
    try:
        client = daemon.client()
        ballast = fill(small_disk)
        assert failure(client.unlock) == FULL
        assert failure(client.list)[1] == "locked"
        ballast.unlink()
        client.unlock()
        client.authorize()
        client.put("K", b"v")
        assert AuditClient(client).verify().problem == ""
    finally:
        daemon.close()
