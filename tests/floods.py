"""Floods a daemon with calls, or connections, of many real processes of one process tree."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from daemons import RunningDaemon

# Each process counts in a file of its own, which the test reads meanwhile.
COUNTING = r"""
import mmap, os, sys

counting = os.open(f"{sys.argv[-1]}/{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(counting, 8)
counts, total = mmap.mmap(counting, 8), 0

def count(more):
    global total
    total += more
    counts[:] = total.to_bytes(8, "big")
"""

# Every connection sends requests by the hundred and takes the answers without looking; or one, and
# hangs up at the daemon's first word. It ends with its standard input.
FLOODER = (
    COUNTING
    + r"""
import selectors, socket

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
        watch.register(end, selectors.EVENT_READ, bytearray())
        return
    sys.exit("never let in")

watch = selectors.DefaultSelector()
watch.register(0, selectors.EVENT_READ)
for _ in range(int(sys.argv[2])):
    connect()
os.write(1, b"up\n")

def ended(frames):
    # Take the frames that are whole, and return which streams they end.
    found = []
    while len(frames) >= 9 and len(frames) >= (end := 9 + int.from_bytes(frames[:3], "big")):
        if frames[3] == 1 and frames[4] & 1:
            found.append(int.from_bytes(frames[5:9], "big"))
        del frames[:end]
    return found

while True:
    for key, _ in watch.select():
        if key.fd == 0:
            sys.exit()
        try:
            data = key.fileobj.recv(65536)
        except OSError:
            data = b""
        key.data.extend(data)
        answered = ended(key.data)
        count(len(answered))
        # Its last request is answered: begin again on another connection.
        if not data or hangs_up or 197 in answered:
            watch.unregister(key.fileobj)
            key.fileobj.close()
            try:
                connect()
            except OSError:
                sys.exit()
"""
)


# Connects and closes, without a word.
KNOCKER = (
    COUNTING
    + r"""
import select, socket

os.write(1, b"up\n")
while not select.select([0], [], [], 0)[0]:
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(sys.argv[1])
    except OSError:
        pass
    end.close()
    count(1)
"""
)


# On each of its connections, one request, and then frames that carry nothing without end.
CHATTERER = (
    COUNTING
    + r"""
import select, socket

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
                sent = end.send(nothing[at:])
                ends[number][1] = (at + sent) % len(nothing)
                count(sent // 9)
        except BlockingIOError:
            continue
        except OSError:
            poll.unregister(number)
            del ends[number]
            end.close()
            connect()
"""
)


class Flood:
    """A flood that goes on."""

    def __init__(self, counts: Path) -> None:
        self._counts = counts

    @property
    def done(self) -> int:
        """How many answers it got, connections it made, or frames it got rid of."""
        return sum(int.from_bytes(path.read_bytes(), "big") for path in self._counts.iterdir())

    def during(self, call: Callable[[], object]) -> int:
        """Make a call and return how much the flood got done until it was answered.

        That is no measure of time, so it does not depend on how busy the machine is.
        """
        before = self.done
        call()
        return self.done - before

    def goes_on(self) -> None:
        """Wait until the flood gets something done; that it never does is the test's timeout."""
        before = self.done
        while self.done == before:
            continue


@contextmanager
def flood(
    daemon: RunningDaemon, *, processes: int, connections: int, hang_up: bool = False
) -> Iterator[Flood]:
    """Flood a daemon from a process tree of its own, with so many connections of each process.

    With `hang_up` each connection makes one request and does not wait for its answer.
    """
    arguments = [str(daemon.socket), str(connections), str(int(hang_up))]
    with _running(processes, FLOODER, *arguments) as flooding:
        yield flooding


@contextmanager
def knocking(daemon: RunningDaemon, *, processes: int) -> Iterator[Flood]:
    """Keep a daemon's queue of new connections full, from a process tree of its own."""
    with _running(processes, KNOCKER, str(daemon.socket)) as flooding:
        yield flooding


@contextmanager
def chattering(
    daemon: RunningDaemon, *, connections: int, kind: int, stream: int
) -> Iterator[Flood]:
    """Send a daemon empty frames of a kind, as many as it takes, from a process tree of its own."""
    arguments = [str(daemon.socket), str(connections), str(kind), str(stream)]
    with _running(1, CHATTERER, *arguments) as flooding:
        yield flooding


@contextmanager
def _running(processes: int, program: str, *arguments: str) -> Iterator[Flood]:
    """Run a program, which says that it is up, as so many processes of one tree."""
    # The outer shell ends at once, so the inner one is nobody's child here and the root of a tree.
    inner = 'n=$1; shift; for i in $(seq "$n"); do "$@" <&3 & done; wait'
    outer = 'exec 3<&0; sh -c "$0" flood "$@" &'
    with (
        tempfile.TemporaryDirectory() as counts,
        subprocess.Popen(
            ["sh", "-c", outer, inner, str(processes), sys.executable, "-c", program,
             *arguments, counts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            for _ in range(processes):
                assert process.stdout.readline() == b"up\n"
            yield Flood(Path(counts))
        finally:
            process.communicate(b"")
