"""A whole daemon, and those who come by another way than its door or as another user.

The neighbour is a process of the same user in a network namespace of its own, where it binds the
name of an operator's live connection. It also has a descriptor of the inner socket, which in
earnest only the moment of the daemon's start gives away; here root takes it out of the daemon.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backpack_proto.v1 import grants_pb2
from daemons import RunningDaemon

NOBODY = 65534

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user or elsewhere"),
]

# Says what becomes of a request that adds a grant: with grpcio over a bridge, and hand-made.
NEIGHBOUR = r"""
import socket, sys, tempfile, threading
import grpc
way, name, request = int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
METHOD = "/backpack.v1.Grants/AddGrant"

def inside():
    end = socket.socket(socket.AF_UNIX)
    end.bind("\0" + name)
    end.connect(f"/proc/self/fd/{way}")
    return end

def carry(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def with_grpcio(marks):
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as front:
        front.bind(place + "/s")
        front.listen()
        channel = grpc.insecure_channel("unix:" + place + "/s")
        metadata = [("backpack-door", mark) for mark in marks]
        call = channel.unary_unary(METHOD).future(request, metadata=metadata, timeout=20)
        with front.accept()[0] as outer, inside() as inner:
            workers = [threading.Thread(target=carry, args=ends)
                       for ends in ((outer, inner), (inner, outer))]
            for worker in workers:
                worker.start()
            error = call.exception()
            told = dict(error.trailing_metadata() or ()) if error else {}
            print("grpcio", told.get("backpack-reason", error), flush=True)
            channel.close()
            outer.shutdown(socket.SHUT_RDWR)
            for worker in workers:
                worker.join()

def frame(kind, flags, stream, payload):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload

def field(name, value):
    return b"\x10" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()

def by_hand(marks):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "x"),
              ("te", "trailers"), ("content-type", "application/grpc"),
              *(("backpack-door", mark) for mark in marks)]
    body = b"\0" + len(request).to_bytes(4, "big") + request
    with inside() as end:
        end.settimeout(20)
        end.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
                    + frame(1, 4, 1, b"".join(field(*one) for one in fields))
                    + frame(0, 1, 1, body))
        got = b""
        while b"grpc-status" not in got:
            got += end.recv(65536)
        print("by-hand", "peer-unknown" if b"peer-unknown" in got else got.hex(), flush=True)

for marks in ([], ["0" * 64], ["0" * 64, "1" * 64], [""]):
    with_grpcio(marks)
    by_hand(marks)
"""


def way_inside(daemon: RunningDaemon) -> int:
    """Take hold of the daemon's inner socket, as root can."""
    for link, target in open_files(daemon):
        if Path(target).name.startswith("inner.sock"):
            return os.open(link, os.O_PATH)
    raise AssertionError("the daemon holds no inner socket")


def open_files(daemon: RunningDaemon) -> Iterator[tuple[Path, str]]:
    """List what the daemon holds open, as root can."""
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        # It may close one while this goes on.
        with suppress(FileNotFoundError):
            yield link, str(link.readlink())


def live_names(daemon: RunningDaemon) -> set[str]:
    """List the names of the daemon's connections, which everybody can read."""
    fields = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    named = {one[7][1:]: one[6] for one in fields if len(one) == 8 and one[7].startswith("@")}
    held = {target for _, target in open_files(daemon)}
    return {
        name
        for name, inode in named.items()
        if name.startswith("backpack-") and f"socket:[{inode}]" in held
    }


def test_a_neighbour_with_the_inner_socket_and_an_operators_name_gets_nothing(
    daemon: RunningDaemon,
) -> None:
    operator = daemon.operator()
    names = sorted(live_names(daemon))
    way = way_inside(daemon)
    wish = grants_pb2.AddGrantRequest(patterns=["*"], selector=f"uid:{os.geteuid()}")
    command = ["unshare", "-n", sys.executable, "-c", NEIGHBOUR]
    told = []
    for name in names:
        neighbour = subprocess.run(
            [*command, str(way), name, wish.SerializeToString().hex()],
            pass_fds=[way],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        told += neighbour.stdout.splitlines()
    os.close(way)
    assert told == ["grpcio peer-unknown", "by-hand peer-unknown"] * 4 * len(names)
    assert names
    found = operator.grants.ListGrants(grants_pb2.ListGrantsRequest(all=True)).grants
    assert list(found) == []


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


def test_the_way_inside_is_the_one_that_the_door_takes(daemon: RunningDaemon) -> None:
    # Without this, the neighbour above might be refused for want of a way.
    way = way_inside(daemon)
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(f"/proc/self/fd/{way}")
        end.settimeout(20)
        assert len(end.recv(9)) == 9
    os.close(way)
