"""The daemon stops: it finishes what is under way, takes nothing new and leaves nothing."""

import os
import signal
import time

import psutil
import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import PASSPHRASE, READY_SECONDS, RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("cheap_vault")


def await_log(daemon: RunningDaemon, text: str) -> None:
    """Wait until the daemon has logged a text."""
    until = time.monotonic() + READY_SECONDS
    while text not in daemon.log_text():
        assert time.monotonic() < until, daemon.log_text()
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_under_way_are_finished_and_new_ones_refused(
    daemon: RunningDaemon, number: signal.Signals
) -> None:
    client = daemon.client()
    client.unlock()
    client.lock()
    request = vault_pb2.UnlockRequest(passphrase=PASSPHRASE)
    # They take their turns, each with a stretching of its own.
    unlocking = [client.vault.Unlock.future(request) for _ in range(4)]
    client.status()
    os.kill(daemon.pid, number)
    await_log(daemon, "stopping")
    if not unlocking[-1].done():
        assert failure(client.status)[0] == "UNAVAILABLE"
    for unlock in unlocking:
        unlock.result(READY_SECONDS)
    assert daemon.process is not None
    assert daemon.process.wait(READY_SECONDS) == 0
    daemon.process = None


def test_an_orderly_end_leaves_the_vault_and_nothing_else(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    process = psutil.Process(daemon.pid)
    children = process.children(recursive=True)
    assert daemon.terminate() == 0
    assert not daemon.socket.exists()
    assert {path.name for path in daemon.home.iterdir()} == {"backpackd.lock", "vault.db"}
    assert not any(child.is_running() for child in children)
    assert daemon.log_text().rstrip().endswith("stopped")


def test_a_vault_is_locked_again_after_a_restart(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    lease = operator.get("K").lease
    assert daemon.terminate() == 0
    daemon.start()
    client = daemon.client()
    assert client.status().state == vault_pb2.VAULT_STATE_LOCKED
    client.unlock()
    renewal = leases_pb2.RenewLeaseRequest(lease_id=lease.id)
    assert failure(lambda: client.leases.RenewLease(renewal)) == ("NOT_FOUND", "no-such-lease")


def test_idle_connections_do_not_hold_the_daemon_up(daemon: RunningDaemon) -> None:
    clients = [daemon.client() for _ in range(5)]
    for client in clients:
        client.status()
    assert daemon.terminate() == 0


def test_the_log_of_an_orderly_life_holds_no_traceback(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    operator.get("K")
    operator.lock()
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log_text()
    assert "ERROR" not in daemon.log_text()
