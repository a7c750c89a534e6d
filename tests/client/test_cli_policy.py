"""The commands policy, panic, watch and the waiting get, against a daemon of cardboard."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import leases_pb2, policy_pb2, vault_pb2
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse

ASK, ALLOW = policy_pb2.POLICY_DEFAULT_ASK, policy_pb2.POLICY_DEFAULT_ALLOW
GRANTED = policy_pb2.POLICY_LISTING_GRANTED


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        rules = policy_pb2.PolicyRules(
            default=ASK,
            listing=GRANTED,
            deny=[policy_pb2.DenyRule(patterns=["PROD_*"])],
            max_ttl_seconds=3600,
        )
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        running.answers["GetPolicy"] = lambda _: policy_pb2.GetPolicyResponse(
            sealed=rules, in_force=rules
        )
        running.answers["SetPolicy"] = lambda _: policy_pb2.SetPolicyResponse()
        yield running


def test_the_policy_as_json_and_as_text(run: Run, fake: FakeDaemon) -> None:
    document = json.loads(run("policy", "show", "--json", "PASS").out)
    assert document["in_force"] == document["sealed"]
    assert document["sealed"] == {
        "default": "ask",
        "list": "granted",
        "max_ttl_seconds": 3600,
        "deny": [{"patterns": ["PROD_*"], "selector": ""}],
    }
    assert "denied     PROD_*  to everybody" in run("policy", "show", "PASS").out


def test_only_what_was_named_is_changed(run: Run, fake: FakeDaemon) -> None:
    assert run("policy", "set", "--max-ttl", "5m", "--deny", "K=uid:7", "PASS").code == 0
    (sent,) = fake.requests("SetPolicy")
    assert (sent.policy.default, sent.policy.listing) == (ASK, GRANTED)
    assert sent.policy.max_ttl_seconds == 300
    assert [(list(rule.patterns), rule.selector) for rule in sent.policy.deny] == [
        (["PROD_*"], ""),
        (["K"], "uid:7"),
    ]


def test_rules_are_dropped_only_when_told(run: Run, fake: FakeDaemon) -> None:
    assert run("policy", "set", "--no-deny", "PASS").code == 0
    assert list(fake.requests("SetPolicy")[0].policy.deny) == []


def test_allow_says_what_it_means(run: Run, fake: FakeDaemon) -> None:
    ran = run("policy", "set", "--default", "allow", "PASS")
    assert fake.requests("SetPolicy")[0].policy.default == ALLOW
    assert "every process of yours may lease every key" in ran.err


@pytest.mark.parametrize("options", [[], ["--default", "maybe"], ["--max-ttl", "soon"]])
def test_a_mistake_in_the_options_comes_before_the_passphrase(
    run: Run, fake: FakeDaemon, options: list[str]
) -> None:
    assert run("policy", "set", *options, "PASS").code == 2
    assert fake.seen == []


def test_panic_needs_no_passphrase_and_says_how_to_go_on(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Panic"] = lambda _: vault_pb2.PanicResponse(leases_ended=2, requests_ended=1)
    ran = run("panic")
    assert ran.code == 0
    assert "2 leases and 1 request ended" in ran.err
    assert "backpack-client panic --report" in ran.err
    assert [name for name, _ in fake.seen] == ["Panic"]


def test_the_report_says_what_was_revealed_to_whom(run: Run, fake: FakeDaemon) -> None:
    entry = leases_pb2.HandoutEntry(
        at_ms=1000, names=["K"], pid=66, executable="/bin/a", root_pid=65, lease_id="lease-1"
    )
    fake.answers["ListHandouts"] = lambda _: [leases_pb2.ListHandoutsResponse(handouts=[entry])]
    ran = run("panic", "--report", "PASS")
    assert "66 /bin/a" in ran.out
    assert "65 (program unknown)" in ran.out
    assert json.loads(run("panic", "--report", "--json", "PASS").out)["revealed"][0]["pid"] == 66


def test_the_watch_writes_a_line_for_each_event(run: Run, fake: FakeDaemon) -> None:
    kind = leases_pb2.WatchLeasesResponse

    def answer(_: object) -> list[leases_pb2.WatchLeasesResponse]:
        return [
            kind(kind=kind.KIND_LIVE, lease=lease()),
            kind(kind=kind.KIND_ENDED, lease=lease(), reason="revoked"),
        ]

    fake.answers["WatchLeases"] = answer
    lines = [json.loads(line) for line in run("watch", "--json").out.splitlines()]
    assert [(line["kind"], line["reason"]) for line in lines] == [
        ("live", ""),
        ("ended", "revoked"),
    ]
    assert lines[0]["lease"]["id"] == "lease-1"
    assert "ended    lease-1  K  tree:66  (revoked)" in run("watch").out


@pytest.mark.parametrize("extra", [(), ("--reason", "why", "--")], ids=["fast", "full"])
def test_a_get_that_waits_says_so_on_standard_error_only(
    fake: FakeDaemon, extra: tuple[str, ...]
) -> None:
    fake.code, fake.answers["GetKeys"] = "K7QF", handout({"K": b"v"})
    done = subprocess.run(
        [sys.executable, "-m", "backpack_client", "get", *extra, "K"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "v\n")
    assert done.stderr == (
        "waiting for approval: in another terminal, run: backpack-client approve K7QF\n"
    )
    assert fake.requests("GetKeys")[0].wait_seconds == 60


@pytest.mark.parametrize("extra", [(), ("--reason", "why", "--")], ids=["fast", "full"])
@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("DEADLINE_EXCEEDED", "waiting-for-approval", 6),
        ("PERMISSION_DENIED", "refused-by-operator", 5),
    ],
)
def test_how_a_wait_ends_decides_the_exit_code(
    fake: FakeDaemon, extra: tuple[str, ...], status: str, reason: str, code: int
) -> None:
    fake.answers["GetKeys"] = refuse(status, reason, request_code="K7QF")
    done = subprocess.run(
        [sys.executable, "-m", "backpack_client", "get", "--wait=0", *extra, "K"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert ("backpack-client approve K7QF" in done.stderr) == (code == 6)
    assert fake.requests("GetKeys")[0].wait_seconds == 0
