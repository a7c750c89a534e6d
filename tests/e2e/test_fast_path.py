"""The client's own reader of HTTP/2 and the real daemon: one call is enough, whatever comes."""

import os
import subprocess
import sys

import pytest

from backpack_proto.v1 import leases_pb2, policy_pb2
from daemons import RunningDaemon


def command(daemon: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client, and have the interpreter name every module that it loads."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "backpack_client", *arguments],
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def said(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("import time:"))


def test_a_get_makes_one_lease_and_needs_no_grpc(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    done = command(daemon, "get", "K")
    assert (done.returncode, done.stdout) == (0, "v\n"), done.stderr
    assert not {"grpc", "google", "click"} & loaded(done)
    (handout,) = operator.leases.ListHandouts(leases_pb2.ListHandoutsRequest())
    assert [entry.names for entry in handout.handouts] == [["K"]]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (("get", "K", "--wait", "1s"), 6, "backpack-client approve"),
        (("get", "K", "--wait", "0"), 6, "backpack-client approve"),
        (("get", "MISSING"), 4, "MISSING"),
        (("get", "DENIED"), 5, "a rule of the policy"),
        (("panic",), 0, ""),
        (("lock",), 0, ""),
    ],
)
def test_no_answer_of_the_daemon_is_beyond_the_fast_path(
    daemon: RunningDaemon, arguments: tuple[str, ...], exit_code: int, told: str
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("MISSING")
    operator.set_policy(deny=[policy_pb2.DenyRule(patterns=["DENIED"])])
    done = command(daemon, *arguments)
    assert done.returncode == exit_code, done.stderr
    assert told in said(done)
    assert "grpc" not in loaded(done)


def test_neither_a_missing_nor_a_locked_vault_is_beyond_the_fast_path(
    daemon: RunningDaemon,
) -> None:
    missing = command(daemon, "get", "K")
    operator = daemon.operator()
    operator.lock()
    locked = command(daemon, "get", "K")
    assert "init" in said(missing)
    assert "unlock" in said(locked)
    assert "grpc" not in loaded(missing) | loaded(locked)
