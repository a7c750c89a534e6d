"""The commands audit show, blame, verify and head, against a daemon of cardboard."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_proto.v1 import audit_pb2, vault_pb2
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse

HEAD = "12-" + "ab" * 32


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        yield running


def entry(number: int = 7, event: str = "allowed", **changes: Any) -> audit_pb2.AuditEntry:
    fields = {
        "number": number,
        "event": event,
        "at_ms": 1_700_000_000_000,
        "actor": audit_pb2.AuditActor(
            uid=1000, pid=66, executable="/bin/tool", root_pid=65, claimed_command="tool --fast"
        ),
        "names": ["K"],
        "lease_id": "lease-1",
        "grant_ids": ["grant-1"],
        "count": 1,
        "claimed_reason": "why",
    }
    return audit_pb2.AuditEntry(**{**fields, **changes})


def shows(fake: FakeDaemon, *entries: audit_pb2.AuditEntry) -> None:
    """Answer with one entry in each response."""
    fake.answers["ShowAudit"] = lambda _: [
        audit_pb2.ShowAuditResponse(entries=[each]) for each in entries
    ]


def verdicts(fake: FakeDaemon, **verdict: Any) -> None:
    fields = {"head": HEAD, "anchor": audit_pb2.AUDIT_ANCHOR_VAULT, "vouched_until": 12}
    found = audit_pb2.AuditVerdict(**{**fields, "signed_until": 10, **verdict})
    fake.answers["VerifyAudit"] = lambda _: [
        audit_pb2.VerifyAuditResponse(checked=6, total=12),
        audit_pb2.VerifyAuditResponse(checked=12, total=12, verdict=found),
    ]


def test_entries_are_shown_with_claims_in_quotes(run: Run, fake: FakeDaemon) -> None:
    shows(fake, entry(), entry(8, "denied", count=40, actor=None))
    lines = run("audit", "show", "PASS").out.splitlines()
    assert "allowed" in lines[1]
    assert '66 /bin/tool of tree:65 "tool --fast"' in lines[1]
    assert 'lease lease-1 grant grant-1 "why"' in lines[1]
    assert "denied x40" in lines[2]


def test_entries_as_json_are_one_object_a_line(run: Run, fake: FakeDaemon) -> None:
    shows(fake, entry(), entry(8, actor=None))
    first, second = map(json.loads, run("audit", "show", "--json", "PASS").out.splitlines())
    assert (first["number"], first["actor"]["pid"], first["names"]) == (7, 66, ["K"])
    assert second["actor"] is None


def test_filters_reach_the_daemon(run: Run, fake: FakeDaemon) -> None:
    shows(fake)
    filters = ["--key", "K", "--pid", "66", "--event", "allowed", "--event", "denied"]
    times = ["--since", "2023-01-01T00:00:00+00:00", "--until", "2h", "--newest", "5"]
    ran = run("audit", "show", *filters, *times, "PASS")
    assert (ran.code, ran.err.splitlines()[-1]) == (0, "no such entries")
    (sent,) = fake.requests("ShowAudit")
    assert (sent.key, sent.pid, list(sent.events)) == ("K", 66, ["allowed", "denied"])
    assert sent.since_ms == 1_672_531_200_000
    assert sent.until_ms > sent.since_ms
    assert sent.newest == 5


@pytest.mark.parametrize("option", [("--since", "soon"), ("--pid", "x"), ("--newest", "0")])
def test_a_mistake_in_a_filter_comes_before_the_passphrase(
    run: Run, fake: FakeDaemon, option: tuple[str, str]
) -> None:
    assert run("audit", "show", *option, "PASS").code == 2
    assert fake.seen == []


def test_blame_leaves_out_what_was_not_handed_out_after_all(run: Run, fake: FakeDaemon) -> None:
    shows(
        fake, entry(), entry(8, lease_id="lease-2"), entry(9, "not-handed-out", lease_id="lease-2")
    )
    ran = run("audit", "blame", "K", "PASS")
    assert "lease-1" in ran.out
    assert "lease-2" not in ran.out
    assert "grant-1" in ran.out
    (sent,) = fake.requests("ShowAudit")
    assert sent.key == "K"


def test_blame_of_a_key_that_nobody_got_says_so(run: Run, fake: FakeDaemon) -> None:
    shows(fake)
    assert "no process was handed this key" in run("audit", "blame", "K", "PASS").err


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("command", [("show", "--key", "K"), ("blame", "K")])
def test_an_answer_out_of_a_damaged_log_says_that_it_may_miss_something(
    run: Run, fake: FakeDaemon, command: tuple[str, ...], as_json: tuple[str, ...]
) -> None:
    lost = audit_pb2.AuditEntry(number=8, event="damaged")
    shows(fake, entry(), lost)
    ran = run("audit", *command, *as_json, "PASS")
    assert ran.code == 1
    assert "lease-1" in ran.out
    assert "entry 8 cannot be read" in " ".join(ran.err.split())
    assert "1970" not in ran.out
    shows(fake, lost, audit_pb2.AuditEntry(number=9, event="damaged"))
    ran = run("audit", *command, *as_json, "PASS")
    assert ran.code == 1
    told = " ".join(ran.err.split())
    assert "2 entries, the first of them 8 cannot be read" in told
    assert "no process was handed" not in told
    shows(fake, entry())
    ran = run("audit", *command, *as_json, "PASS")
    assert (ran.code, "DAMAGED" in ran.err) == (0, False)


@pytest.mark.parametrize(
    ("verdict", "code", "says"),
    [
        ({}, 0, "all 12 entries are vouched for"),
        ({"vouched_until": 9}, 9, "nothing vouches for entries after 9"),
        ({"vouched_until": 0, "anchor": audit_pb2.AUDIT_ANCHOR_FILE}, 9, "nothing vouches"),
        ({"bad_entry": 4, "problem": "was altered"}, 1, "BAD: entry 4 was altered"),
        ({"head": "", "vouched_until": 0}, 0, "no audit log yet"),
        (
            {
                "bad_entry": 3,
                "problem": "cut",
                "broken_entry": 3,
                "broken": "cut",
                "later_bad_entry": 8,
                "later_problem": "was altered",
            },
            1,
            "BAD: entry 3 cut\nBAD: entry 8 was altered\n",
        ),
        ({"broken_entry": 3, "broken": "cut"}, 0, "BREAK, known: entry 3 cut"),
    ],
)
def test_what_a_verification_found_decides_the_exit_code(
    run: Run, fake: FakeDaemon, verdict: dict[str, Any], code: int, says: str
) -> None:
    verdicts(fake, **verdict)
    ran = run("audit", "verify")
    assert ran.code == code
    assert says in ran.out
    # No passphrase is asked for.
    assert [name for name, _ in fake.seen] == ["VerifyAudit"]
    assert run("audit", "verify", "--json").code == code


def test_a_verification_says_what_it_relied_on(run: Run, fake: FakeDaemon) -> None:
    verdicts(fake)
    ran = run("audit", "verify", "--expect", HEAD)
    assert "relied on: the signing key that is sealed in the vault" in ran.out
    assert f"head: {HEAD}" in ran.out
    assert fake.requests("VerifyAudit")[0].expected_head == HEAD
    document = json.loads(run("audit", "verify", "--json").out)
    assert document["anchor"] == "vault"
    assert document["head"] == HEAD


def test_what_is_no_head_is_a_usage_failure(run: Run, fake: FakeDaemon) -> None:
    fake.answers["VerifyAudit"] = refuse("INVALID_ARGUMENT", "invalid-request", "no head")
    assert run("audit", "verify", "--expect", "x").code == 2


def test_the_head_is_one_line_on_standard_output(run: Run, fake: FakeDaemon) -> None:
    fake.answers["GetAuditHead"] = lambda _: audit_pb2.GetAuditHeadResponse(head=HEAD)
    assert run("audit", "head").out == HEAD + "\n"
    fake.answers["GetAuditHead"] = lambda _: audit_pb2.GetAuditHeadResponse()
    ran = run("audit", "head")
    assert (ran.out, "no audit log yet" in ran.err) == ("", True)
