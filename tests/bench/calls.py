"""Calls on an open connection, beside empty grpcio calls, durable SQLite inserts and `keyring`."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from backpack_proto.v1 import leases_pb2
from bench import peers
from bench.timing import in_turn, milliseconds, ratio
from daemons import RunningDaemon

_RUNS = 400
_CONNECTIONS = 16
_SECONDS = 3.0
_HEALTH = "/grpc.health.v1.Health/Check"
_KEYRING = """
import sys, time
import keyring.backends.SecretService

backend = keyring.backends.SecretService.Keyring()
assert backend.get_password("bench", "k") == "v"
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    backend.get_password("bench", "k")
    print(time.perf_counter() - start)
"""
Line = tuple[str, str, str]

# A server without a door, an attestation or a store: what grpcio itself costs.
_EMPTY_SERVER = """
import asyncio, sys, grpc

async def empty(request, context):
    return b""

async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(empty)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("e.E", {"M": handler})])
    server.add_insecure_port("unix:" + sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


def measure(place: Path) -> list[Line]:
    """Measure an empty call, a warm `GetKeys`, and how many a second with 16 connections."""
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock")
    daemon.start()
    try:
        operator = daemon.operator()
        operator.put("K", b"v" * 50)
        operator.grant("K")
        with _empty_server(place / "empty.sock") as empty_at:
            return [
                *_idle(daemon, empty_at),
                *_warm(daemon, empty_at, place),
                *_loaded(daemon, empty_at),
            ]
    finally:
        daemon.close()


def _idle(daemon: RunningDaemon, empty_at: str) -> list[Line]:
    times = in_turn(_empty(f"unix:{daemon.socket}", _HEALTH), _empty(empty_at), _RUNS)
    return [
        ("empty call / empty call on a bare grpc.aio server", ratio(*times), "<= 1.15 x"),
        ("  each", milliseconds(times[0]), milliseconds(times[1])),
    ]


def _warm(daemon: RunningDaemon, empty_at: str, place: Path) -> list[Line]:
    client = daemon.client()
    empty, insert = _empty(empty_at), _durable_insert(place / "insert.db")
    get, both = in_turn(lambda: client.get("K", ttl=5), lambda: (empty(), insert()), _RUNS)
    lines = [
        ("warm GetKeys / (empty call + durable insert), p50", ratio(get, both), "<= 1.5 x"),
        ("  each", milliseconds(get), milliseconds(both)),
    ]
    with peers.secret_service(place) as environ:
        what = "warm GetKeys / keyring.get_password on Secret Service, p50"
        if environ is None:
            return [*lines, (what, "not here", "<= 0.1 x")]
        command = [sys.executable, "-c", _KEYRING, str(_RUNS)]
        done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
        keyring = [float(line) for line in done.stdout.split()]
        return [
            *lines,
            (what, ratio(get, keyring), "<= 0.1 x"),
            ("  each", milliseconds(get), milliseconds(keyring)),
        ]


def _loaded(daemon: RunningDaemon, empty_at: str) -> list[Line]:
    request = leases_pb2.GetKeysRequest(names=["K"], ttl_seconds=1).SerializeToString()
    ours = _rate(f"unix:{daemon.socket}", "/backpack.v1.Leases/GetKeys", request)
    theirs = _rate(empty_at, "/e.E/M", b"")
    what = f"leases a second / empty calls, {_CONNECTIONS} connections"
    return [
        (what, f"{ours / theirs:.2f} x", ">= 0.5 x"),
        ("  each", f"{ours:.0f}", f"{theirs:.0f}"),
    ]


def _rate(target: str, method: str, request: bytes) -> float:
    stop = time.perf_counter() + _SECONDS
    counts = [0] * _CONNECTIONS

    def work(place: int) -> None:
        call = _call(target, method)
        while time.perf_counter() < stop:
            call(request)
            counts[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(_CONNECTIONS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / _SECONDS


def _empty(target: str, method: str = "/e.E/M") -> Callable[[], object]:
    call = _call(target, method)
    return lambda: call(b"")


def _call(target: str, method: str) -> Any:
    channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
    return channel.unary_unary(method)


def _durable_insert(path: Path) -> Callable[[], object]:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE t (entry BLOB)")
    return lambda: database.execute("INSERT INTO t VALUES (?)", (bytes(200),))


@contextmanager
def _empty_server(path: Path) -> Iterator[str]:
    command = [sys.executable, "-c", _EMPTY_SERVER, str(path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield f"unix:{path}"
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
