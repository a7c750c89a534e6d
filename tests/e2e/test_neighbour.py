"""A whole daemon, and those who come by another way than its door or as another user."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from daemons import RunningDaemon

NOBODY = 65534

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user or elsewhere"),
]


def sockets(daemon: RunningDaemon) -> set[str]:
    """Return the inodes of the sockets that a daemon holds, as root can."""
    held = set()
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        # It may close one while this goes on.
        with suppress(FileNotFoundError):
            held.add(str(link.readlink()))
    return {one[8:-1] for one in held if one.startswith("socket:[")}


def test_there_is_no_way_to_the_daemon_but_its_one_socket(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    assert operator.list() == []
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # What listens (SO_ACCEPTCON, 0x10000) or has a name, of what the daemon holds.
    ways = {
        fields[7] if len(fields) > 7 else ""
        for fields in rows
        if fields[6] in sockets(daemon) and (int(fields[3], 16) & 0x10000 or len(fields) > 7)
    }
    assert ways == {str(daemon.socket)}
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"):
        path = Path(f"/proc/{daemon.pid}/net/{table}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        assert not sockets(daemon) & {word for line in lines for word in line.split()}


@pytest.fixture
def open_daemon() -> Iterator[RunningDaemon]:
    """Return a daemon whose socket everybody can reach, by modes that its user should not set."""
    place = Path(tempfile.mkdtemp(prefix="backpack-"))  # other users have no way to tmp_path
    daemon = RunningDaemon(place / "home", place / "run" / "s")
    daemon.start()
    for path, mode in ((place, 0o755), (place / "run", 0o755), (daemon.socket, 0o666)):
        path.chmod(mode)
    try:
        yield daemon
    finally:
        daemon.close()
        shutil.rmtree(place)


# Becomes the other user late: the interpreter may lie where that user cannot read.
FOREIGNER = r"""
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
try:
    end.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    print("got", end.recv(100).hex())
except (BrokenPipeError, ConnectionResetError):
    print("got ")
"""


def test_a_foreign_uid_is_refused_whatever_the_modes_and_the_log_names_it(
    open_daemon: RunningDaemon,
) -> None:
    own = open_daemon.operator()
    foreigner = subprocess.run(
        [sys.executable, "-c", FOREIGNER, str(open_daemon.socket)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert foreigner.stdout == "got \n"
    assert f"refused a connection of uid {NOBODY}" in open_daemon.log_text()
    assert own.list() == []
