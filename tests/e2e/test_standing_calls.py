"""A door that is full of calls that stay open, one for each of many process trees."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backpack_proto.v1 import vault_pb2
from backpackd.adapters.door.limits import CONNECTIONS
from daemons import RunningDaemon

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="trees are of /proc"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

# Each process is forked twice, so it has no parent here and is the root of a tree of its own. It
# watches until standard input ends, and answers pings, as a real client would.
WATCHERS = r"""
import os, select, socket, sys, time

def frame(kind, flags, stream, payload):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload

def field(name, value):
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value

fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"),
          (b":path", b"/grpc.health.v1.Health/Watch"), (b"te", b"trailers"),
          (b"content-type", b"application/grpc")]
start = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
         + frame(1, 4, 1, b"".join(field(*one) for one in fields)) + frame(0, 1, 1, bytes(5)))

def watch():
    end = socket.socket(socket.AF_UNIX)
    end.connect(sys.argv[1])
    end.sendall(start)
    got = b""
    # The answer's only message says SERVING: a field of two bytes.
    while b"\0\0\0\0\2\x08\1" not in got:
        got += end.recv(65536) or sys.exit("closed")
    os.write(1, b"w")
    while True:
        ready, _, _ = select.select([0, end], [], [])
        if 0 in ready or not end.recv(65536):
            os._exit(0)

for _ in range(int(sys.argv[2])):
    first = os.fork()
    if not first:
        parent = os.getpid()
        if not os.fork():
            # A parent that ends while the chain is read makes the chain one that cannot be told.
            while os.getppid() == parent:
                time.sleep(0.001)
            watch()
        os._exit(0)
    os.waitpid(first, 0)
"""


@contextmanager
def watching(daemon: RunningDaemon, count: int) -> Iterator[None]:
    """Have so many process trees watch the daemon's health, each on a connection of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", WATCHERS, str(daemon.socket), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.read(count) == b"w" * count, daemon.log_text()
            yield
        finally:
            process.communicate(b"")


def test_another_tree_still_locks_and_panics(daemon: RunningDaemon) -> None:
    first = daemon.client()
    first.unlock()
    first.close()
    with watching(daemon, CONNECTIONS):
        newcomer = daemon.client()
        newcomer.lock()
        assert newcomer.status().state == vault_pb2.VAULT_STATE_LOCKED
        newcomer.vault.Panic(vault_pb2.PanicRequest())
