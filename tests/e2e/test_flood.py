"""A flood of calls by many processes does not keep another process tree from locking."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backpack_proto.v1 import vault_pb2
from daemons import Client, RunningDaemon

PROCESSES = 20
CONNECTIONS = 5
BOUND_SECONDS = 2.0
LOG_BYTES = 20_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trees are of /proc")

# Every connection sends requests by the hundred and takes the answers without looking. It ends
# with its standard input.
FLOODER = r"""
import os, selectors, socket, sys

def frame(kind, flags, stream, payload):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload

def field(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"),
          (b":path", b"/backpack.v1.Vault/Status"), (b"te", b"trailers"),
          (b"content-type", b"application/grpc")]
block = b"".join(field(*one) for one in fields)
start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
window = frame(8, 0, 0, (2**30).to_bytes(4, "big"))

def connect():
    end = socket.socket(socket.AF_UNIX)
    end.connect(sys.argv[1])
    requests = b"".join(
        frame(1, 4, stream, block) + frame(0, 1, stream, bytes(5)) for stream in range(1, 199, 2)
    )
    end.sendall(start + window + requests)
    end.setblocking(False)
    watch.register(end, selectors.EVENT_READ)

watch = selectors.DefaultSelector()
watch.register(0, selectors.EVENT_READ)
for _ in range(int(sys.argv[2])):
    connect()
os.write(1, b"up\n")
while True:
    for key, _ in watch.select():
        if key.fd == 0:
            sys.exit()
        try:
            data = key.fileobj.recv(65536)
        except OSError:
            data = b""
        # The answer to its last request holds a stream's end: begin anew on another connection.
        if not data or (197).to_bytes(4, "big") in data:
            watch.unregister(key.fileobj)
            key.fileobj.close()
            try:
                connect()
            except OSError:
                sys.exit()
"""


@contextmanager
def flood(daemon: RunningDaemon) -> Iterator[None]:
    """Flood the daemon from a process tree of its own."""
    # The outer shell ends at once, so the inner one is nobody's child here and the root of a tree.
    inner = 'for i in $(seq "$1"); do "$2" -c "$3" "$4" "$5" <&3 & done; wait'
    outer = 'exec 3<&0; sh -c "$0" flood "$@" &'
    arguments = [str(PROCESSES), sys.executable, FLOODER, str(daemon.socket), str(CONNECTIONS)]
    with subprocess.Popen(
        ["sh", "-c", outer, inner, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(PROCESSES):
                assert process.stdout.readline() == b"up\n"
            yield
        finally:
            process.communicate(b"")


def test_another_tree_locks_in_the_middle_of_a_flood_and_the_log_stays_short(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client()
    client.init()
    with flood(daemon):
        # The slowest of several is what counts.
        for _ in range(5):
            start = time.monotonic()
            client.lock()
            assert time.monotonic() - start < BOUND_SECONDS
        newcomer = Client(daemon.socket)
        start = time.monotonic()
        assert newcomer.status().state == vault_pb2.VAULT_STATE_LOCKED
        assert time.monotonic() - start < BOUND_SECONDS
        newcomer.close()
    assert len(daemon.log_text()) < LOG_BYTES
