"""Panic: open to everybody, ends everything, and leaves a report of what was revealed."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import Client, RunningDaemon, failure
from floods import flood, knocking

LOCKED = ("FAILED_PRECONDITION", "locked")
FLOODING = 200
KNOCKING = 50
HANGS_SECONDS = 60
LOG_BYTES = 20_000


def handouts(operator: Client) -> list[leases_pb2.HandoutEntry]:
    batches = operator.leases.ListHandouts(leases_pb2.ListHandoutsRequest())
    return [entry for batch in batches for entry in batch.handouts]


def panic(client: Client) -> vault_pb2.PanicResponse:
    response: vault_pb2.PanicResponse = client.vault.Panic(vault_pb2.PanicRequest())
    return response


@pytest.mark.usefixtures("cheap_vault", "quick_start")
def test_panic_ends_everything_and_refuses_what_comes(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    operator.get("K")
    operator.get("K")
    failure(lambda: operator.get("L"))
    stranger = daemon.client()
    answer = panic(stranger)
    assert (answer.leases_ended, answer.requests_ended) == (2, 1)
    assert stranger.status().state == vault_pb2.VAULT_STATE_LOCKED
    assert failure(lambda: operator.get("K")) == LOCKED
    assert failure(operator.list) == LOCKED
    assert panic(stranger).leases_ended == 0


def test_panic_without_a_vault_ends_nothing(daemon: RunningDaemon) -> None:
    stranger = daemon.client()
    answer = panic(stranger)
    assert (answer.leases_ended, answer.requests_ended) == (0, 0)
    assert stranger.status().state == vault_pb2.VAULT_STATE_UNINITIALIZED


@pytest.mark.usefixtures("cheap_vault", "quick_start")
def test_a_panic_wakes_those_who_wait_for_a_person(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    waiting = daemon.client()
    told: list[tuple[str, str]] = []
    call = threading.Thread(target=lambda: told.append(failure(lambda: waiting.get("K", wait=60))))
    call.start()
    while len(operator.pending()) == 0:
        time.sleep(0.01)
    panic(daemon.client())
    call.join(30)
    assert told == [LOCKED]


@pytest.mark.usefixtures("cheap_vault", "quick_start")
def test_after_a_panic_the_operator_sees_what_was_revealed_to_whom(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.put("L", b"w")
    operator.grant("*")
    first, second = operator.get("K"), operator.get("L", "K")
    panic(daemon.client())
    operator.unlock()
    assert failure(lambda: handouts(operator)) == ("UNAUTHENTICATED", "not-authorized")
    operator.authorize()
    found = handouts(operator)
    assert [list(entry.names) for entry in found] == [["K"], ["L", "K"]]
    assert [entry.lease_id for entry in found] == [first.lease.id, second.lease.id]
    assert {entry.root_pid for entry in found} == {operator.status().tree_pid}
    assert all(entry.executable.startswith("/") for entry in found)


@pytest.mark.usefixtures("cheap_vault", "quick_start")
@pytest.mark.skipif(sys.platform != "linux", reason="trees are of /proc")
@pytest.mark.timeout(300)
def test_panic_is_answered_while_two_hundred_processes_flood_the_socket(
    daemon: RunningDaemon,
) -> None:
    # How quickly is in the benchmark; the bound here is against hangs.
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    operator.get("K")
    request = vault_pb2.PanicRequest()
    with flood(daemon, processes=FLOODING, connections=5):
        # More connections than may be open, so the tree that floods is at its limit all the time.
        newcomer = daemon.client()
        assert newcomer.vault.Panic(request, timeout=HANGS_SECONDS).leases_ended == 1
        operator.vault.Panic(request, timeout=HANGS_SECONDS)
        assert operator.status().state == vault_pb2.VAULT_STATE_LOCKED
    assert len(daemon.log_text()) < LOG_BYTES


@pytest.mark.usefixtures("cheap_vault", "quick_start")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["panic", "lock"])
def test_a_command_gets_through_while_others_keep_the_queue_of_new_connections_full(
    daemon: RunningDaemon, command: str
) -> None:
    operator = daemon.operator()
    with knocking(daemon, processes=KNOCKING):
        # Else it would show nothing.
        assert is_full(daemon)
        done = subprocess.run(
            [sys.executable, "-m", "backpack_client", "--socket", str(daemon.socket), command],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert operator.status().state == vault_pb2.VAULT_STATE_LOCKED


def is_full(daemon: RunningDaemon) -> bool:
    """Tell whether there is soon a moment at which the kernel takes no further connection."""
    until = time.monotonic() + HANGS_SECONDS
    while time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as end:
            end.setblocking(False)
            try:
                end.connect(str(daemon.socket))
            except BlockingIOError:
                return True
    return False
