"""From nothing to a leased key, on the real daemon."""

import random

import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import PASSPHRASE, RunningDaemon, failure

WAITING = ("DEADLINE_EXCEEDED", "waiting-for-approval")

on_a_vault = pytest.mark.usefixtures("cheap_vault", "quick_start")
"""For what says nothing about the way to a vault."""


def test_a_new_daemon_has_no_vault(daemon: RunningDaemon) -> None:
    client = daemon.client()
    assert client.status().state == vault_pb2.VAULT_STATE_UNINITIALIZED
    assert failure(lambda: client.get("K")) == ("FAILED_PRECONDITION", "uninitialized")


def test_a_granted_key_is_leased(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    assert daemon.client().value("K") == b"v"


def test_a_stored_key_survives_a_killed_daemon(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert failure(lambda: client.get("K")) == ("FAILED_PRECONDITION", "locked")
    client.unlock()
    assert client.value("K") == b"v"


@on_a_vault
def test_a_key_that_nobody_granted_waits_for_a_person(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    assert failure(lambda: operator.get("K")) == WAITING


@on_a_vault
def test_a_denial_does_not_tell_whether_the_key_exists(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("STORED", b"v")
    stored = failure(lambda: operator.get("STORED"))
    assert failure(lambda: operator.get("MISSING")) == stored


@on_a_vault
def test_a_missing_key_is_told_to_whom_it_is_granted(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.grant("K*")
    assert failure(lambda: operator.get("KEY")) == ("NOT_FOUND", "no-such-key")


@on_a_vault
def test_authority_belongs_to_one_connection(daemon: RunningDaemon) -> None:
    daemon.operator()
    other = daemon.client()
    assert failure(lambda: other.put("K", b"v")) == ("UNAUTHENTICATED", "not-authorized")
    assert failure(lambda: other.grant("K")) == ("UNAUTHENTICATED", "not-authorized")


def test_unlocking_is_not_authority(daemon: RunningDaemon) -> None:
    client = daemon.client()
    client.init()
    client.unlock()
    assert failure(lambda: client.put("K", b"v")) == ("UNAUTHENTICATED", "not-authorized")


@on_a_vault
def test_locking_ends_authority_and_leases(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    lease = operator.get("K").lease
    operator.lock()
    operator.unlock()
    assert failure(lambda: operator.put("L", b"v")) == ("UNAUTHENTICATED", "not-authorized")
    renewal = leases_pb2.RenewLeaseRequest(lease_id=lease.id)
    assert failure(lambda: operator.leases.RenewLease(renewal)) == ("NOT_FOUND", "no-such-lease")


@on_a_vault
@pytest.mark.parametrize(
    ("name", "value"),
    [("", b"v"), ("1K", b"v"), ("K" * 129, b"v"), ("K K", b"v"), ("K", b""), ("K", bytes(65537))],
)
def test_what_is_no_key_is_refused_and_changes_nothing(
    daemon: RunningDaemon, name: str, value: bytes
) -> None:
    operator = daemon.operator()
    assert failure(lambda: operator.put(name, value))[0] == "INVALID_ARGUMENT"
    assert operator.list() == []


@on_a_vault
def test_the_longest_value_comes_back_whole(daemon: RunningDaemon, chance: random.Random) -> None:
    value = chance.randbytes(65536)
    operator = daemon.operator()
    operator.put("K", value)
    operator.grant("K")
    assert operator.value("K") == value


def test_wrong_passphrases_are_delayed(daemon: RunningDaemon) -> None:
    client = daemon.client()
    client.init()
    client.lock()
    for _ in range(3):
        wrong = failure(lambda: client.unlock(b"not the passphrase"))
        assert wrong == ("UNAUTHENTICATED", "wrong-passphrase")
    assert failure(lambda: client.unlock(PASSPHRASE)) == ("RESOURCE_EXHAUSTED", "throttled")
