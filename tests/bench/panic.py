"""How quickly `panic` is answered while two hundred processes of the user flood the socket."""

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.timing import once
from daemons import RunningDaemon
from flooding import START, begin, frame
from floods import chattering, flood

_PROCESSES = 200
_RUNS = 30
_HANGS_SECONDS = 60
_SETTLES_SECONDS = 2
_HEADERS, _SETTINGS, _PING = 1, 4, 6
_TO_ACKNOWLEDGE = frozenset({_SETTINGS, _PING})
Line = tuple[str, str, str]

_FLOODS: dict[str, Callable[[RunningDaemon], AbstractContextManager[object]]] = {
    f"{_PROCESSES} x 1": partial(flood, processes=_PROCESSES, connections=1),
    f"{_PROCESSES} x 5": partial(flood, processes=_PROCESSES, connections=5),
    f"{_PROCESSES} that hang up": partial(flood, processes=_PROCESSES, connections=1, hang_up=True),
    "120 connections of empty frames": partial(chattering, connections=120, kind=4, stream=0),
}


class _Caller:
    """One connection that asks for a panic, by hand: gRPC's threads would wait for processors."""

    def __init__(self, path: Path) -> None:
        self._end = socket.socket(socket.AF_UNIX)
        self._end.settimeout(_HANGS_SECONDS)
        self._end.connect(str(path))
        self._end.sendall(START)
        self._stream = -1

    def panic(self) -> None:
        self._stream += 2
        request = begin(self._stream, "/backpack.v1.Vault/Panic")
        self._end.sendall(request + frame(0, 1, self._stream, bytes(5)))
        while True:
            size, kind, flags, stream = self._head()
            payload = self._take(size)
            if kind in _TO_ACKNOWLEDGE and not flags & 1:
                self._end.sendall(frame(kind, 1, 0, payload if kind == _PING else b""))
            if stream == self._stream and kind == _HEADERS and flags & 1:
                return

    def close(self) -> None:
        self._end.close()

    def _head(self) -> tuple[int, int, int, int]:
        head = self._take(9)
        return int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            piece = self._end.recv(size - len(taken))
            if not piece:
                raise ConnectionResetError
            taken += piece
        return taken


@dataclass(frozen=True)
class _Call:
    """How long one call took, and for how long of it the daemon waited for a processor; seconds."""

    seconds: float
    waited: float

    @classmethod
    def of(cls, pid: int, call: Callable[[], object]) -> "_Call":
        _, before = _scheduled(pid)
        seconds = once(call)
        _, after = _scheduled(pid)
        return cls(seconds, after - before)


def measure(place: Path) -> list[Line]:
    """Measure a panic on an open and on a new connection of another process tree.

    Where that is allowed, this process goes before the flood for a processor, so that what is
    measured is the daemon: from the request, or the connect, to the answer. First the daemon has to
    share the processors with the flood; how long it waited for one stands below. Then it goes
    before the flood as well, and what is left is its own doing.
    """
    lines = _measure(place / "sharing", None, "sharing processors")
    return [*lines, *_measure(place / "before", _go_first, "before the flood")]


def _go_first() -> None:
    with suppress(PermissionError):
        os.nice(-20)


def _measure(place: Path, preexec: Callable[[], None] | None, how: str) -> list[Line]:
    place.mkdir()
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock", preexec=preexec)
    daemon.start()
    lines: list[Line] = []
    try:
        daemon.operator().lock()
        caller = _Caller(daemon.socket)
        caller.panic()
        for kind, flooding in _FLOODS.items():
            with flooding(daemon), _first_in_line():
                lines += _under_flood(daemon, caller, f"panic, {kind}, {how}")
        caller.close()
        return [*lines, ("  the log after it", f"{len(daemon.log_text())} bytes", "")]
    finally:
        daemon.close()


def _under_flood(daemon: RunningDaemon, caller: _Caller, what: str) -> list[Line]:
    def on_a_new_connection() -> None:
        newcomer = _Caller(daemon.socket)
        newcomer.panic()
        newcomer.close()

    # Until then it is the two hundred that begin, and not the flood, that the daemon competes with.
    time.sleep(_SETTLES_SECONDS)
    opened: list[_Call] = []
    fresh: list[_Call] = []
    before = _scheduled(daemon.pid)
    for _ in range(_RUNS):
        opened.append(_Call.of(daemon.pid, caller.panic))
        fresh.append(_Call.of(daemon.pid, on_a_new_connection))
        time.sleep(0.1)
    ran, waited = (
        after - began for began, after in zip(before, _scheduled(daemon.pid), strict=True)
    )
    return [
        *_lines(f"{what}: open connection", opened),
        *_lines(f"{what}: new connection", fresh),
        ("  the daemon ran, and waited for a processor", f"{ran:.1f} s", f"{waited:.1f} s"),
    ]


def _lines(what: str, calls: list[_Call]) -> list[Line]:
    slowest = max(calls, key=lambda call: call.seconds)
    median = statistics.median(call.seconds for call in calls) * 1000
    at_the_daemon = max(call.seconds - call.waited for call in calls) * 1000
    return [
        (what, f"{median:.0f}, {slowest.seconds * 1000:.0f} ms", "<= 100 ms"),
        ("  the slowest but for its waits for a processor", f"{at_the_daemon:.0f} ms", "<= 100 ms"),
    ]


@contextmanager
def _first_in_line() -> Iterator[None]:
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(PermissionError):
            os.sched_setscheduler(0, before, parameters)


def _scheduled(pid: int) -> tuple[float, float]:
    """Return for how many seconds a process's first thread has run, and waited to run."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9
