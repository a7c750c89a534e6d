"""Requests that are never finished, and what a daemon keeps of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backpackd.adapters.door.limits import CONNECTIONS, UNFINISHED
from daemons import RunningDaemon, failure

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.usefixtures("cheap_vault"),
]

TREES = 8
ROOM = 350 * 1024 * 1024
"""The budget of all, what 512 connections take by themselves, what was given up a moment ago, and
room to spare. Without the budget it is several times as much, and grows."""

# Each process is forked twice, so it is the root of a tree of its own. It sends until nothing is
# taken any more for a second, says how much went, and holds what is open until input ends.
SENDERS = r"""
import os, selectors, socket, sys, time
sys.path.insert(0, sys.argv[1])
from flooding import FRAME, START, begin, frame
path, trees, connections = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
STREAMS = 8
announced = b"\0" + (8 << 20).to_bytes(4, "big")

class Sender:
    # Sends as much as the windows allow (RFC 9113, section 6.9).

    def __init__(self):
        self.end = socket.socket(socket.AF_UNIX)
        self.end.connect(path)
        self.end.setblocking(False)
        opened = (begin(one) + frame(0, 0, one, announced) for one in range(1, 2 * STREAMS, 2))
        self.waiting, self.sent, self.got = START + b"".join(opened), 0, b""
        self.windows = {one: 65535 - 5 for one in range(1, 2 * STREAMS, 2)}
        self.window, self.initial = 65535 - 5 * STREAMS, 65535

    def take(self):
        got = self.end.recv(65536)
        if not got:
            raise ConnectionResetError
        self.got += got
        while len(self.got) >= 9 + (size := int.from_bytes(self.got[:3], "big")):
            kind, flags, stream = self.got[3], self.got[4], int.from_bytes(self.got[5:9], "big")
            payload, self.got = self.got[9:9 + size], self.got[9 + size:]
            if kind == 8 and not stream:
                self.window += int.from_bytes(payload, "big")
            elif kind == 8 and stream in self.windows:
                self.windows[stream] += int.from_bytes(payload, "big")
            elif kind == 3 or kind == 1 and flags & 1:
                self.windows.pop(stream, None)
            elif kind == 4 and not flags & 1:
                for place in range(0, size, 6):
                    if payload[place:place + 2] == b"\0\4":
                        new = int.from_bytes(payload[place + 2:place + 6], "big")
                        for one in self.windows:
                            self.windows[one] += new - self.initial
                        self.initial = new
                self.waiting += frame(4, 1, 0, b"")
            elif kind == 6 and not flags & 1:
                self.waiting += frame(6, 1, 0, payload)

    def go_on(self):
        try:
            self.take()
        except BlockingIOError:
            pass
        while True:
            if not self.waiting:
                stream = max(self.windows, key=self.windows.get, default=0)
                size = min(FRAME, self.window, self.windows.get(stream, 0))
                if size <= 0:
                    return False
                self.windows[stream] -= size
                self.window -= size
                self.waiting = frame(0, 0, stream, bytes(size))
            try:
                size = self.end.send(self.waiting)
            except BlockingIOError:
                return True
            self.waiting = self.waiting[size:]
            self.sent += size

def send():
    watched = selectors.DefaultSelector()
    senders = [Sender() for _ in range(connections)]
    for sender in senders:
        watched.register(sender.end, selectors.EVENT_READ | selectors.EVENT_WRITE, sender)
    while watched.get_map() and (ready := watched.select(timeout=10)):
        for key, _ in ready:
            try:
                # With no window, there is something to do only when the daemon has sent something.
                wanted = selectors.EVENT_WRITE if key.data.go_on() else 0
                watched.modify(key.fileobj, selectors.EVENT_READ | wanted, key.data)
            except OSError:
                watched.unregister(key.fileobj)
    os.write(1, b"%d\n" % sum(sender.sent for sender in senders))
    os.read(0, 1)
    os._exit(0)

for _ in range(trees):
    first = os.fork()
    if not first:
        parent = os.getpid()
        if not os.fork():
            while os.getppid() == parent:
                time.sleep(0.001)
            send()
        os._exit(0)
    os.waitpid(first, 0)
"""


def memory(pid: int, kind: str) -> int:
    """Read one line of a process's status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024


def test_memory_stays_bounded_under_a_door_full_of_requests_that_do_not_end(
    daemon: RunningDaemon,
) -> None:
    own = daemon.client()
    own.unlock()
    # What the passphrase took while it was stretched is not what this is about.
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
    before = memory(daemon.pid, "VmRSS")
    here = str(Path(__file__).parents[1])
    counts = [str(TREES), str(CONNECTIONS // TREES)]
    with subprocess.Popen(
        [sys.executable, "-c", SENDERS, here, str(daemon.socket), *counts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            sent = sum(int(process.stdout.readline()) for _ in range(TREES))
            most = memory(daemon.pid, "VmHWM") - before
            own.lock()
        finally:
            process.communicate(b"")
    assert sent > UNFINISHED
    assert most < ROOM


def test_a_large_request_without_authority_is_refused_by_status_and_the_connection_goes_on(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client()
    client.unlock()
    call: Any = client.channel.unary_unary("/backpack.v1.Keys/PutKeys")
    for _ in range(20):
        assert failure(lambda: call(bytes(7 * 1024 * 1024))) == ("RESOURCE_EXHAUSTED", "limit")
        client.status()
    assert failure(lambda: client.put("K", b"v")) == ("UNAUTHENTICATED", "not-authorized")


def test_a_request_of_a_megabyte_needs_no_authority_to_arrive(daemon: RunningDaemon) -> None:
    client = daemon.client()
    client.unlock()
    call: Any = client.channel.unary_unary("/backpack.v1.Agents/OpenLock")
    megabyte = b"\xff" * (1024 * 1024)
    assert failure(lambda: call(megabyte)) == ("INVALID_ARGUMENT", "malformed-request")


def test_with_authority_a_request_may_be_as_long_as_a_message_and_without_it_no_longer(
    daemon: RunningDaemon,
) -> None:
    operator = daemon.operator()
    call: Any = operator.channel.unary_unary("/backpack.v1.Keys/PutKeys")
    large = b"\xff" * (7 * 1024 * 1024)
    assert failure(lambda: call(large)) == ("INVALID_ARGUMENT", "malformed-request")
    operator.lock()
    assert failure(lambda: call(large)) == ("RESOURCE_EXHAUSTED", "limit")


def test_many_calls_one_after_the_other_are_not_added_up(daemon: RunningDaemon) -> None:
    client = daemon.client()
    client.unlock()
    call: Any = client.channel.unary_unary("/backpack.v1.Agents/OpenLock")
    for _ in range(10):
        assert failure(lambda: call(b"\xff" * (1 << 20)))[1] == "malformed-request"
