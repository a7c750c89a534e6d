"""A flood of calls by many processes does not keep another process tree from locking."""

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import Client, RunningDaemon
from floods import chattering, flood

PROCESSES = 20
CONNECTIONS = 5
MOST_ANSWERS = 500
"""That the flood may get while another tree waits for one. It waits for some ten thousand."""
HANGS_SECONDS = 60.0
LOG_BYTES = 20_000

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="trees are of /proc"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]


def test_another_tree_locks_in_the_middle_of_a_flood_and_the_log_stays_short(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client()
    client.unlock()
    with flood(daemon, processes=PROCESSES, connections=CONNECTIONS) as flooding:
        for _ in range(5):
            assert flooding.during(client.lock) < MOST_ANSWERS
        newcomer = Client(daemon.socket)
        assert flooding.during(newcomer.status) < MOST_ANSWERS
        assert newcomer.status().state == vault_pb2.VAULT_STATE_LOCKED
        newcomer.close()
        flooding.goes_on()
    assert len(daemon.log_text()) < LOG_BYTES


SETTINGS, DATA, UNKNOWN = (4, 0), (0, 1), (0xF1, 0)


@pytest.mark.parametrize("frame", [SETTINGS, DATA, UNKNOWN], ids=["settings", "data", "unknown"])
def test_frames_that_carry_nothing_keep_nobody_waiting(
    daemon: RunningDaemon, frame: tuple[int, int]
) -> None:
    client = daemon.client()
    client.unlock()
    kind, stream = frame
    with chattering(daemon, connections=60, kind=kind, stream=stream) as flooding:
        for _ in range(5):
            client.vault.Lock(vault_pb2.LockRequest(), timeout=HANGS_SECONDS)
        while "too many frames" not in daemon.log_text():
            client.vault.Lock(vault_pb2.LockRequest(), timeout=HANGS_SECONDS)
        flooding.goes_on()
    assert len(daemon.log_text()) < LOG_BYTES


def test_a_library_that_makes_many_calls_sends_no_frames_too_many(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", bytes(60_000))
    operator.grant("K")
    client = daemon.client()
    client.value("K")
    watch = operator.leases.WatchLeases(leases_pb2.WatchLeasesRequest(all=True), timeout=100)
    assert next(watch).kind == leases_pb2.WatchLeasesResponse.KIND_LIVE
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: client.value("K"), range(1000)))
    kinds = [event.kind for event in islice(watch, 1000)]
    assert kinds == [leases_pb2.WatchLeasesResponse.KIND_ISSUED] * 1000
    assert "refused" not in daemon.log_text()
