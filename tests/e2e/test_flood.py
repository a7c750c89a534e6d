"""A flood of calls by many processes does not keep another process tree from locking."""

import sys
import time

import pytest

from backpack_proto.v1 import vault_pb2
from daemons import Client, RunningDaemon
from floods import flood

PROCESSES = 20
CONNECTIONS = 5
BOUND_SECONDS = 10.0
LOG_BYTES = 20_000

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trees are of /proc")


def test_another_tree_locks_in_the_middle_of_a_flood_and_the_log_stays_short(
    daemon: RunningDaemon,
) -> None:
    client = daemon.client()
    client.init()
    with flood(daemon, processes=PROCESSES, connections=CONNECTIONS):
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
