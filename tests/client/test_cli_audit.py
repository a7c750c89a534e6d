"""The commands audit show, blame, verify and head, against a daemon of cardboard."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_client.calls.audit import show as show_call
from backpack_client.cli.audit.audit_view import line, what_for
from backpack_client.console import styled
from backpack_client.console.line_folding import width
from backpack_proto.v1 import audit_pb2, vault_pb2
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse, status

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


def test_an_entry_is_one_line_with_claims_in_quotes(run: Run, fake: FakeDaemon) -> None:
    shows(
        fake,
        entry(actor=audit_pb2.AuditActor(pid=66, executable="/bin/tool", root_pid=65)),
        entry(8, "denied", count=40, actor=None, reason="no-grant", details={"code": "K7QF"}),
        entry(9, names=[f"KEY_{number}" for number in range(9)]),
    )
    first, second, third = run("audit", "show", "PASS").out.splitlines()
    assert re.fullmatch(r'[-0-9]{10} [:0-9]{8}  allowed +K +tool\[66\] of \?\[65\] +"why"', first)
    assert re.search(r'denied x40 +K +the daemon +no-grant "why" code=K7QF$', second)
    assert "KEY_0 KEY_1 KEY_2 KEY_3 KEY_4 KEY_5 KEY_6 KEY_7 KEY_8" in third, "a pipe is not cut"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"names": ["A_RATHER_LONG_KEY_NAME"] * 20},
        {"claimed_reason": "x" * 300},
        {"claimed_reason": "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 99},
        {"actor": audit_pb2.AuditActor(pid=2**31, executable="/" + "e" * 99, root_pid=7)},
        {"event": "passphrase-changed", "count": 4_000_000_000},
    ],
)
@pytest.mark.parametrize("columns", [80, 100])
def test_no_entry_is_wider_than_the_terminal(changes: dict[str, Any], columns: int) -> None:
    told = show_call().read(audit_pb2.ShowAuditResponse(entries=[entry(**changes)]))[0]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        styled.print_styled(
            line(told, what_for(told), columns), styled.Look(columns, colours=False)
        )
    (printed,) = out.getvalue().splitlines()
    assert width(printed) <= columns
    if columns == 100:
        assert ("..." in printed) == (changes != {} and "event" not in changes)


def test_what_comes_from_outside_is_escaped_in_every_column(run: Run, fake: FakeDaemon) -> None:
    evil = "\x1b[2Ja\nb\u202e"
    actor = audit_pb2.AuditActor(pid=66, executable=f"/bin/{evil}", claimed_command=evil, unit=evil)
    shows(fake, entry(names=[evil], claimed_reason=evil, actor=actor, details={evil: evil}))
    for long in ([], ["--long"]):
        out = run("audit", "show", *long, "PASS").out
        assert out.count("\\x1b[2Ja\\x0ab\\u202e") >= 3
        assert not {"\x1b", "\u202e"} & set(out)
        assert len(out.splitlines()) == (1 if not long else len(out.split("\n")) - 1)


def test_long_shows_everything_about_an_entry(run: Run, fake: FakeDaemon) -> None:
    shows(fake, entry(), audit_pb2.AuditEntry(number=8, event="damaged"))
    out = run("audit", "show", "--long", "PASS").out
    facts = ["entry 7  allowed", "66 /bin/tool", "65 (program unknown)", '"tool --fast"', "lease-1"]
    assert [fact for fact in [*facts, "grant-1", '"why"', "1000"] if fact not in out] == []
    assert "entry 8  damaged: it cannot be read" in out


def follows(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, *rounds: list[audit_pb2.AuditEntry]
) -> None:
    """Answer with one list of entries after the other; authority ends with the last."""
    monkeypatch.setattr("backpack_client.cli.audit.audit._EVERY", 0.0)
    log: list[audit_pb2.AuditEntry] = []
    left = list(rounds)

    def state(_: object) -> vault_pb2.StatusResponse:
        # The first question comes before the passphrase, the others before each look.
        if fake.requests("ShowAudit"):
            if not left:
                return status()
            log.extend(left.pop(0))
        return status(authorized_until_ms=1)

    fake.answers["Status"] = state
    fake.answers["GetAuditHead"] = lambda _: audit_pb2.GetAuditHeadResponse(
        head=f"{log[-1].number}-{'ab' * 32}" if log else ""
    )
    fake.answers["ShowAudit"] = lambda request: [
        audit_pb2.ShowAuditResponse(entries=log[-request.newest :] if request.newest else log)
    ]
    log.extend(left.pop(0))


def test_follow_shows_each_entry_once_until_authority_ends(
    run: Run, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [entry(number) for number in range(1, 21)]
    # The clock is put back in between, and a checkpoint that is shown by nobody takes a number.
    late = entry(23, at_ms=1_600_000_000_000)
    follows(fake, monkeypatch, old, [], [entry(21), late], [entry(24)])
    ran = run("audit", "show", "--follow", "--json", "PASS")
    numbers = [json.loads(each)["number"] for each in ran.out.splitlines()]
    assert numbers == [*range(11, 21), 21, 23, 24]
    assert ran.code == 5
    assert "operator authority has ended" in ran.err
    assert len(fake.requests("ShowAudit")) == 3, "where nothing is new, the log is not read"


def test_follow_begins_with_what_was_asked_for(
    run: Run, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked, begins in ((["--newest", "3"], 3), (["--since", "2h"], 0), ([], 10)):
        fake.seen.clear()
        follows(fake, monkeypatch, [entry(number) for number in range(1, 21)])
        run("audit", "show", "--follow", *asked, "PASS")
        assert fake.requests("ShowAudit")[0].newest == begins


@pytest.mark.parametrize(
    "options", [("--json", "--long"), ("--follow", "--until", "2h")], ids=" ".join
)
def test_options_that_contradict_each_other_are_refused(
    run: Run, fake: FakeDaemon, options: tuple[str, ...]
) -> None:
    assert run("audit", "show", *options, "PASS").code == 2
    assert fake.seen == []


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
    assert "why" in ran.out
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
