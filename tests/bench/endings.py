"""How soon a watcher is told that a lease has ended, by everything that ends one."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import Client, RunningDaemon

_RUNS = 20
_LOCKINGS = 5
_HANGS_SECONDS = 240
_TARGET = "<= 100 ms"
_AGENT = ["--", "sh", "-c", "echo ready; read line"]
_ISSUED = leases_pb2.WatchLeasesResponse.KIND_ISSUED
_ENDED = leases_pb2.WatchLeasesResponse.KIND_ENDED
Line = tuple[str, str, str]


class _Watch:
    """A stream of what happens to leases."""

    def __init__(self, operator: Client) -> None:
        request = leases_pb2.WatchLeasesRequest(all=True)
        self._events: Any = operator.leases.WatchLeases(request, timeout=_HANGS_SECONDS)

    def wait(self, kind: int) -> Any:
        while (event := next(self._events)).kind != kind:
            continue
        return event.lease

    def close(self) -> None:
        self._events.cancel()


def measure(place: Path) -> list[Line]:
    """Measure from what ends a lease to the watcher: median and worst.

    An agent's end counts from the kill, or from the end of its input upon which it exits; a call
    from before it is sent; a deadline from the moment that the daemon had named.
    """
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock")
    daemon.start()
    try:
        operator = daemon.operator()
        operator.put("K", b"v")
        operator.grant("K")
        return [
            _line("the agent is killed", _agents(daemon, operator, _kill)),
            _line("the agent exits", _agents(daemon, operator, _let_exit)),
            _line("the deadline", _deadlines(operator)),
            _line("revoke", _revocations(daemon, operator)),
            _line("lock", _lockings(daemon, operator, Client.lock)),
            _line("panic", _lockings(daemon, operator, _panic)),
        ]
    finally:
        daemon.close()


def _line(what: str, times: list[float]) -> Line:
    found = f"{statistics.median(times) * 1000:.1f}, {max(times) * 1000:.1f} ms"
    return f"a lease ends, to the watcher: {what}", found, _TARGET


def _agents(
    daemon: RunningDaemon, operator: Client, end: Callable[["subprocess.Popen[bytes]"], object]
) -> list[float]:
    times = []
    with _watching(operator) as watch:
        for _ in range(_RUNS):
            with _agent(daemon) as process:
                watch.wait(_ISSUED)
                began = time.perf_counter()
                end(process)
                watch.wait(_ENDED)
                times.append(time.perf_counter() - began)
    return times


@contextmanager
def _agent(daemon: RunningDaemon) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "backpack_client", "run", "--key", "K", *_AGENT],
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
        cwd=daemon.socket.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process


def _kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)


def _let_exit(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()


def _deadlines(operator: Client) -> list[float]:
    times = []
    with _watching(operator) as watch:
        for _ in range(_RUNS):
            ends_ms = operator.get("K", ttl=1).lease.expires_at_ms
            watch.wait(_ENDED)
            times.append(max(0.0, time.time() - ends_ms / 1000))
    return times


def _revocations(daemon: RunningDaemon, operator: Client) -> list[float]:
    times, other = [], daemon.client()
    request = leases_pb2.RevokeLeasesRequest(all=True)
    with _watching(operator) as watch:
        for _ in range(_RUNS):
            _get_again(operator)
            began = time.perf_counter()
            other.leases.RevokeLeases(request)
            watch.wait(_ENDED)
            times.append(time.perf_counter() - began)
    return times


def _get_again(operator: Client) -> None:
    """Lease the key, also where it was revoked from this tree: then it takes a person."""
    try:
        operator.get("K")
    except grpc.RpcError:
        operator.approve(operator.pending()[0].code)
        operator.get("K")


def _lockings(
    daemon: RunningDaemon, operator: Client, end: Callable[[Client], object]
) -> list[float]:
    times, other = [], daemon.client()
    for _ in range(_LOCKINGS):
        with _watching(operator) as watch:
            _get_again(operator)
            began = time.perf_counter()
            end(other)
            watch.wait(_ENDED)
            times.append(time.perf_counter() - began)
        operator.unlock()
        operator.authorize()
    return times


def _panic(client: Client) -> None:
    client.vault.Panic(vault_pb2.PanicRequest())


@contextmanager
def _watching(operator: Client) -> Iterator[_Watch]:
    # Authority lasts for five minutes, and each of these measurements for less.
    operator.authorize()
    watch = _Watch(operator)
    try:
        yield watch
    finally:
        watch.close()
