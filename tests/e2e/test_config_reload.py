"""The configuration file of a running daemon: it tightens, and whoever edits it gains nothing."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_proto.v1 import policy_pb2, policy_pb2_grpc, vault_pb2
from daemons import READY_SECONDS, Client, RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

WIDEST = """\
[policy]
default = "allow"
listing = "all"
max_ttl = "30d"
[lock]
idle = "4h"
longest = "24h"
"""
DENIES = '[[policy.deny]]\nkeys = ["K"]\n'

ASKED = ("DEADLINE_EXCEEDED", "waiting-for-approval")
DENIED = ("PERMISSION_DENIED", "denied-by-rule")


@pytest.fixture
def file(daemon: RunningDaemon) -> Path:
    return daemon.home / "backpackd.toml"


@pytest.fixture
def operator(daemon: RunningDaemon) -> Iterator[Client]:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.put("L", b"w")
    yield operator
    operator.close()


def reload(daemon: RunningDaemon) -> str:
    """Send SIGHUP and return the line that the daemon logs about it."""
    before = len(daemon.log.read_bytes())
    os.kill(daemon.pid, signal.SIGHUP)
    until = time.monotonic() + READY_SECONDS
    while "configuration" not in (said := daemon.log.read_bytes()[before:].decode()):
        assert time.monotonic() < until, "the daemon says nothing about the signal"
        time.sleep(0.005)
    return said


def in_force(operator: Client) -> policy_pb2.PolicyRules:
    stub: Any = policy_pb2_grpc.PolicyStub(operator.channel)
    response: policy_pb2.GetPolicyResponse = stub.GetPolicy(policy_pb2.GetPolicyRequest())
    return response.in_force


def test_an_agent_that_writes_the_widest_file_and_reloads_gains_nothing(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    agent = daemon.client()
    before = in_force(operator)
    file.write_text(WIDEST)
    assert "tightens 0 settings" in reload(daemon)
    assert failure(lambda: agent.get("K")) == ASKED
    assert agent.list(everything=False) == []
    assert in_force(operator) == before


@pytest.mark.executed
def test_an_agent_that_writes_the_widest_file_and_restarts_the_daemon_gains_nothing(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    before = in_force(operator)
    file.write_text(WIDEST)
    daemon.kill()
    daemon.start()
    agent = daemon.client()
    assert failure(lambda: agent.get("K")) == ("FAILED_PRECONDITION", "locked")
    again = daemon.client()
    again.unlock()
    assert failure(lambda: agent.get("K")) == ASKED
    again.authorize()
    assert in_force(again) == before


def test_a_rule_of_the_file_beats_a_standing_grant_until_the_file_is_gone(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    agent = daemon.client()
    operator.grant("*")
    assert agent.value("K") == b"v"
    file.write_text(DENIES)
    reload(daemon)
    assert failure(lambda: agent.get("K")) == DENIED
    assert agent.value("L") == b"w"
    file.unlink()
    reload(daemon)
    assert agent.value("K") == b"v"


def test_no_file_takes_a_sealed_rule_away(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    stub: Any = policy_pb2_grpc.PolicyStub(operator.channel)
    sealed = in_force(operator)
    sealed.deny.add(patterns=["K"])
    stub.SetPolicy(policy_pb2.SetPolicyRequest(policy=sealed))
    operator.grant("*")
    file.write_text(WIDEST + '[[policy.deny]]\nkeys = ["OTHER"]\n')
    reload(daemon)
    assert failure(lambda: daemon.client().get("K")) == DENIED


def test_a_broken_file_leaves_the_old_one_in_force_and_the_log_names_the_line(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    operator.grant("*")
    file.write_text(DENIES)
    reload(daemon)
    file.write_text("[policy]\ndefault = 'hunter2'\n")
    said = reload(daemon)
    assert "line 2" in said
    assert "stays as it was" in said
    assert "hunter2" not in said
    assert failure(lambda: daemon.client().get("K")) == DENIED


def test_a_longest_lease_of_the_file_holds_for_the_next_lease(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    operator.grant("*")
    file.write_text("[policy]\nmax_ttl = '1m'\n")
    reload(daemon)
    assert daemon.client().get("K", ttl=3600).lease.remaining_seconds <= 60


def test_a_shorter_idle_time_locks_a_vault_that_is_unlocked_already(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    file.write_text("[lock]\nidle = 1\n")
    reload(daemon)
    until = time.monotonic() + READY_SECONDS
    while "the vault is locked" not in daemon.log_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    assert failure(lambda: daemon.client().get("K")) == ("FAILED_PRECONDITION", "locked")


def test_a_named_file_that_vanishes_stays_in_force(tmp_path: Path) -> None:
    file = tmp_path / "named.toml"
    file.write_text(DENIES)
    home, path = tmp_path / "home", tmp_path / "run" / "backpackd.sock"
    command = [*RunningDaemon(home, path)._command, "--config", str(file)]
    daemon = RunningDaemon(home, path, command=command)
    daemon.start()
    try:
        operator = daemon.operator()
        operator.put("K", b"v")
        operator.grant("*")
        file.unlink()
        assert "no such file" in reload(daemon)
        assert failure(lambda: daemon.client().get("K")) == DENIED
        daemon.terminate()
        assert "no such file" in daemon.refused()
    finally:
        daemon.close()


@pytest.mark.executed
def test_a_daemon_does_not_start_with_a_broken_file(tmp_path: Path) -> None:
    home = tmp_path / "broken"
    home.mkdir(mode=0o700)
    (home / "backpackd.toml").write_text("[policy]\ndefalt = 'deny'\n")
    daemon = RunningDaemon(home, tmp_path / "run" / "backpackd.sock")
    assert "backpackd.toml: line 2: 'defalt' is unknown" in daemon.refused()


def test_stopping_a_daemon_that_nobody_supervises_warns_of_nothing(daemon: RunningDaemon) -> None:
    before = len(daemon.log.read_bytes())
    daemon.terminate()
    assert "WARNING" not in daemon.log.read_bytes()[before:].decode()


def test_however_many_signals_come_the_file_is_read_once_in_a_while(
    daemon: RunningDaemon, operator: Client, file: Path
) -> None:
    # Long enough that reading it for each of them would keep everybody waiting.
    file.write_text("".join(f"a{number}.b.c.d.e.f.g = 1\n" for number in range(1500)))
    client = daemon.client()
    for _ in range(200):
        os.kill(daemon.pid, signal.SIGHUP)
        client.vault.Status(vault_pb2.StatusRequest(), timeout=READY_SECONDS)
    assert daemon.log_text().count("configuration") < 50
    file.write_text(DENIES)
    os.kill(daemon.pid, signal.SIGHUP)
    until = time.monotonic() + READY_SECONDS
    while not in_force(operator).deny:
        assert time.monotonic() < until, "the last signal was lost"
        time.sleep(0.01)
