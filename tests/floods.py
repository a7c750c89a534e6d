"""Floods a daemon with calls, or connections, of many real processes of one process tree."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from daemons import RunningDaemon

# Every connection sends requests by the hundred and takes the answers without looking; or one, and
# hangs up at the daemon's first word. It ends with its standard input.
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
hangs_up = sys.argv[3] == "1"
streams = range(1, 2 if hangs_up else 199, 2)
window = frame(8, 0, 0, (2**30).to_bytes(4, "big"))

def connect():
    requests = b"".join(
        frame(1, 4, stream, block) + frame(0, 1, stream, bytes(5)) for stream in streams
    )
    # A tree that holds all it may is turned away now and then, in the middle of this, too.
    for _ in range(1000):
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(sys.argv[1])
            end.sendall(start + window + requests)
        except (BrokenPipeError, ConnectionResetError):
            end.close()
            continue
        end.setblocking(False)
        watch.register(end, selectors.EVENT_READ)
        return
    sys.exit("never let in")

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
        if not data or hangs_up or (197).to_bytes(4, "big") in data:
            watch.unregister(key.fileobj)
            key.fileobj.close()
            try:
                connect()
            except OSError:
                sys.exit()
"""


# Connects and closes, without a word.
KNOCKER = r"""
import os, select, socket, sys

os.write(1, b"up\n")
while not select.select([0], [], [], 0)[0]:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(sys.argv[1])
    except OSError:
        pass
    end.close()
"""


# On each of its connections, one request, and then frames that carry nothing without end.
CHATTERER = r"""
import select, socket, sys, os

def frame(kind, flags, stream, payload):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload

# The least that is the beginning of a request: POST, http, /, localhost.
start = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
         + frame(1, 4, 1, bytes((0x83, 0x86, 0x84)) + b"\x01\x09localhost"))
nothing = frame(int(sys.argv[3]), 0, int(sys.argv[4]), b"") * 7281
ends = {}

def connect():
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(sys.argv[1])
        end.sendall(start)
    except OSError:
        pass
    end.setblocking(False)
    ends[end.fileno()] = [end, 0]
    poll.register(end, select.POLLIN | select.POLLOUT)

poll = select.poll()
poll.register(0, select.POLLIN)
for _ in range(int(sys.argv[2])):
    connect()
os.write(1, b"up\n")
while True:
    for number, event in poll.poll():
        if number == 0:
            sys.exit()
        end, at = ends[number]
        try:
            if event & select.POLLIN and not end.recv(65536):
                raise OSError
            if event & select.POLLOUT:
                ends[number][1] = (at + end.send(nothing[at:])) % len(nothing)
        except BlockingIOError:
            continue
        except OSError:
            poll.unregister(number)
            del ends[number]
            end.close()
            connect()
"""


@contextmanager
def flood(
    daemon: RunningDaemon, *, processes: int, connections: int, hang_up: bool = False
) -> Iterator[None]:
    """Flood a daemon from a process tree of its own, with so many connections of each process.

    With `hang_up` each connection makes one request and does not wait for its answer.
    """
    with _running(processes, FLOODER, str(daemon.socket), str(connections), str(int(hang_up))):
        yield


@contextmanager
def knocking(daemon: RunningDaemon, *, processes: int) -> Iterator[None]:
    """Keep a daemon's queue of new connections full, from a process tree of its own."""
    with _running(processes, KNOCKER, str(daemon.socket)):
        yield


@contextmanager
def chattering(
    daemon: RunningDaemon, *, connections: int, kind: int, stream: int
) -> Iterator[None]:
    """Send a daemon empty frames of a kind, as many as it takes, from a process tree of its own."""
    arguments = [str(daemon.socket), str(connections), str(kind), str(stream)]
    with _running(1, CHATTERER, *arguments):
        yield


@contextmanager
def _running(processes: int, program: str, *arguments: str) -> Iterator[None]:
    """Run a program, which says that it is up, as so many processes of one tree."""
    # The outer shell ends at once, so the inner one is nobody's child here and the root of a tree.
    inner = 'n=$1; shift; for i in $(seq "$n"); do "$@" <&3 & done; wait'
    outer = 'exec 3<&0; sh -c "$0" flood "$@" &'
    command = [str(processes), sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        ["sh", "-c", outer, inner, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            for _ in range(processes):
                assert process.stdout.readline() == b"up\n"
            yield
        finally:
            process.communicate(b"")
