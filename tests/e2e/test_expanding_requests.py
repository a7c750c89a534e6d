"""Requests that cost little to send and much to serve: never expanded, never parsed."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from daemons import Client, RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("cheap_vault")

MIB = 1024 * 1024
REQUESTS = 32
ROOM = 32 * MIB
"""For 32 requests at once, of which one alone would take 8 MiB expanded, or 150 MiB parsed."""
NAMES = b"\x0a\x01A" * (19 * MIB // 10 // 3)
"""1.9 MiB of one-byte names."""


def memory(pid: int, kind: str) -> int:
    """Read one line of a process's status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024


class Peak:
    """How much memory a daemon took at most since this began."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._pid = daemon.pid
        Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
        self._before = memory(daemon.pid, "VmRSS")

    def taken(self) -> int:
        return memory(self._pid, "VmHWM") - self._before


def at_once(client: Client, path: str, raw: bytes, **options: Any) -> set[tuple[str, str]]:
    """Make many calls at once and return how they end."""
    call: Any = client.channel.unary_unary(path)
    with ThreadPoolExecutor(REQUESTS) as threads:
        ends = [threads.submit(failure, lambda: call(raw, **options)) for _ in range(REQUESTS)]
        return {end.result() for end in ends}


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("authorized", [False, True])
def test_a_compressed_request_is_refused_without_being_expanded(
    daemon: RunningDaemon, algorithm: grpc.Compression, authorized: bool
) -> None:
    client = daemon.operator() if authorized else daemon.client()
    if not authorized:
        client.unlock()
    large = bytes(8 * MIB - 64)
    assert len(gzip.compress(large)) < 9 * 1024
    peak = Peak(daemon)
    ends = at_once(client, "/backpack.v1.Keys/PutKeys", large, compression=algorithm)
    assert {status for status, _ in ends} == {"UNIMPLEMENTED"}
    assert peak.taken() < ROOM
    client.status()


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        pytest.param("Leases/GetKeys", NAMES, id="names"),
        pytest.param("Keys/DeleteKeys", NAMES, id="names to delete"),
        pytest.param("Keys/PutKeys", b"\x0a\x00" * (19 * MIB // 20), id="empty keys"),
        pytest.param("Policy/SetPolicy", b"\x0a\x02\x1a\x00" * (19 * MIB // 40), id="rules"),
        pytest.param("Vault/Panic", b"\x98\x06\x01" * (19 * MIB // 30), id="unknown fields"),
    ],
)
def test_a_flood_of_small_fields_costs_the_daemon_no_memory(
    daemon: RunningDaemon, path: str, raw: bytes
) -> None:
    """Each of the 32 is sent whole, and takes its own bytes for a moment, but is never parsed."""
    client = daemon.operator()
    # What one request takes while it arrives is not what this is about.
    failure(lambda: client.channel.unary_unary(f"/backpack.v1.{path}")(raw))
    peak = Peak(daemon)
    call: Any = client.channel.unary_unary(f"/backpack.v1.{path}")
    for _ in range(REQUESTS):
        assert failure(lambda: call(raw)) == ("RESOURCE_EXHAUSTED", "request-too-large")
    assert peak.taken() < ROOM
