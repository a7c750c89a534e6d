"""Everything that ends a lease, on a real daemon, with a watcher that is told why.

The bounds here are against hangs; how quickly it is meant to happen is in the benchmark. Each test
leaves the figure it saw in its report (`pytest -rP`).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from backpack_proto.v1 import leases_pb2, requests_pb2, vault_pb2
from daemons import Client, RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

HANGS_SECONDS = 30.0
ENDED = leases_pb2.WatchLeasesResponse.KIND_ENDED
WAITING = ("DEADLINE_EXCEEDED", "waiting-for-approval")
LOCKED = ("FAILED_PRECONDITION", "locked")

# A process that leaves the tree of whoever starts it, gets a key, says so, and waits to be killed.
HOLDER = """
import os, select, sys
if os.fork():
    os._exit(0)
os.setsid()
middle = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([middle], [], [])
import grpc
from backpack_proto.v1 import leases_pb2, leases_pb2_grpc
stub = leases_pb2_grpc.LeasesStub(grpc.insecure_channel("unix:" + sys.argv[1]))
stub.GetKeys(leases_pb2.GetKeysRequest(names=["K"]))
print(os.getpid(), flush=True)
sys.stdin.read()
"""


class Watch:
    """A stream of what happens to leases, read one by one."""

    def __init__(self, client: Client, *, everything: bool) -> None:
        request = leases_pb2.WatchLeasesRequest(all=everything)
        self.call: Any = client.leases.WatchLeases(request, timeout=60)
        self._events: Iterator[Any] = iter(self.call)

    def next(self) -> Any:
        return next(self._events)

    def ending(self) -> tuple[str, float]:
        """Wait for an ending and return its reason and when it came."""
        while (event := self.next()).kind != ENDED:
            continue
        return event.reason, time.monotonic()


def stocked(daemon: RunningDaemon) -> Client:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    return operator


def prompt(what: str, seconds: float) -> None:
    sys.stdout.write(f"{what}: {seconds * 1000:.1f} ms\n")
    assert seconds < HANGS_SECONDS


def revoke(client: Client) -> None:
    client.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(all=True))


def panic(client: Client) -> None:
    client.vault.Panic(vault_pb2.PanicRequest())


@pytest.mark.parametrize("everything", [False, True], ids=["own", "operator"])
@pytest.mark.parametrize(
    ("end", "reason"),
    [(revoke, "revoked"), (panic, "panic"), (Client.lock, "locked")],
)
def test_a_watcher_is_told_at_once_and_why(
    daemon: RunningDaemon, end: Callable[[Client], None], reason: str, everything: bool
) -> None:
    operator = stocked(daemon)
    operator.get("K")
    watch = Watch(operator, everything=everything)
    assert watch.next().kind == leases_pb2.WatchLeasesResponse.KIND_LIVE
    other = daemon.client()
    other.status()
    began = time.monotonic()
    end(other)
    found, ended = watch.ending()
    assert found == reason
    prompt(reason, ended - began)
    if reason != "revoked":
        assert failure(watch.next) == LOCKED


def test_a_lease_ends_at_its_deadline(daemon: RunningDaemon) -> None:
    operator = stocked(daemon)
    watch = Watch(operator, everything=True)
    before = time.monotonic()
    lease = operator.get("K", ttl=1).lease
    began = time.monotonic()
    reason, ended = watch.ending()
    assert reason == "expired"
    assert ended - before >= 1
    prompt("deadline", max(0.0, ended - began - 1))
    request = leases_pb2.RenewLeaseRequest(lease_id=lease.id)
    assert failure(lambda: operator.leases.RenewLease(request))[1] == "no-such-lease"


def test_a_lease_ends_with_its_holder_also_while_nobody_calls(daemon: RunningDaemon) -> None:
    operator = stocked(daemon)
    watch = Watch(operator, everything=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(daemon.socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        issued = watch.next()
        assert (issued.lease.holder_pid, issued.kind != ENDED) == (pid, True)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        reason, ended = watch.ending()
    assert reason == "holder-gone"
    prompt("SIGKILL of the holder", ended - began)


def test_a_get_straight_after_a_revocation_asks_also_under_a_standing_grant(
    daemon: RunningDaemon,
) -> None:
    operator = stocked(daemon)
    operator.get("K")
    revoke(daemon.client())
    assert failure(lambda: operator.get("K")) == WAITING
    operator.approve(operator.pending()[0].code)
    assert operator.value("K") == b"v"


def test_a_get_after_giving_back_needs_nobody(daemon: RunningDaemon) -> None:
    operator = stocked(daemon)
    lease = operator.get("K").lease
    operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(lease_id=lease.id, give_back=True))
    assert operator.value("K") == b"v"


def test_an_agent_that_gives_every_lease_back_can_be_revoked_from(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    assert failure(lambda: operator.get("K")) == WAITING
    operator.approve(operator.pending()[0].code)
    lease = operator.get("K").lease
    operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(lease_id=lease.id, give_back=True))
    operator.leases.RevokeLeases(
        leases_pb2.RevokeLeasesRequest(tree_pid=operator.status().tree_pid)
    )
    assert failure(lambda: operator.get("K")) == WAITING


def test_who_watches_requests_is_told_of_a_lock_where_nothing_was_pending(
    daemon: RunningDaemon,
) -> None:
    operator = stocked(daemon)
    for everything in (True, False):
        request = requests_pb2.WatchRequestsRequest(all=everything)
        watch = iter(operator.requests.WatchRequests(request, timeout=60))
        assert not next(watch).requests
        daemon.client().lock()
        assert failure(partial(next, watch)) == LOCKED
        operator.unlock()
        operator.authorize()
