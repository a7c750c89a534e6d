"""requests, approve and deny; the live screen on a real pseudo-terminal."""

import json
import os
import signal
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import requests_pb2, vault_pb2
from command_line import PASSPHRASE, Run, runner
from fake_daemon import FakeDaemon, RefusalError, fake_daemon, process, refuse, request
from pseudo_terminal import Terminal

PATIENCE = 30.0


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        running.answers["ListRequests"] = lambda _: requests_pb2.ListRequestsResponse(
            requests=[request()]
        )
        running.answers["ApproveRequest"] = lambda sent: requests_pb2.ApproveRequestResponse(
            root_pid=sent.root_pid
        )
        running.answers["DenyRequest"] = lambda _: requests_pb2.DenyRequestResponse()
        yield running


def test_requests_as_json_and_as_text(run: Run, fake: FakeDaemon) -> None:
    (document,) = json.loads(run("requests", "--json").out)["requests"]
    assert document["code"] == "K7QF"
    assert document["chain"][1] == {
        "pid": 65,
        "executable": "/bin/p65",
        "unit": "",
        "proposed_root": True,
        "in_tree": True,
        "may_be_root": True,
        "claimed_command": "agent --fast",
        "now": "",
    }
    assert "65 (root) /bin/p65  [claims: agent --fast]" in run("requests").out
    assert fake.requests("Authorize") == []


def test_every_request_needs_the_passphrase(run: Run, fake: FakeDaemon) -> None:
    assert run("requests", "--all", "PASS").code == 0
    assert fake.requests("Authorize")[0].passphrase == PASSPHRASE.encode()
    assert fake.requests("ListRequests")[0].all


@pytest.mark.parametrize(
    ("options", "once", "root"),
    [
        ([], False, 65),
        (["--tree"], False, 65),
        (["--tree", "64"], False, 64),
        (["--once"], True, 65),
    ],
)
def test_approving_sends_the_root_that_was_shown(
    run: Run, fake: FakeDaemon, options: list[str], *, once: bool, root: int
) -> None:
    ran = run("approve", "k7qf", *options, "--yes", "PASS")
    assert ran.code == 0
    assert f"{root} (root" in ran.err
    sent = fake.requests("ApproveRequest")[0]
    assert (sent.code, sent.once, sent.root_pid) == ("K7QF", once, root)


@pytest.mark.parametrize("pid", ["1", "4711"])
def test_a_root_that_was_not_offered_is_refused_before_it_is_sent(
    run: Run, fake: FakeDaemon, pid: str
) -> None:
    assert run("approve", "K7QF", "--tree", pid, "--yes", "PASS").code == 2
    assert fake.requests("ApproveRequest") == []


@pytest.mark.parametrize("command", ["approve", "deny"])
def test_without_a_terminal_nothing_is_answered_unless_told_so(
    run: Run, fake: FakeDaemon, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpack_client.console.terminal.confirm", lambda _: False)
    assert run(command, "K7QF", "PASS").code == 1
    assert {name for name, _ in fake.seen} == {"Status", "Authorize", "ListRequests"}


def test_the_facts_stand_on_the_screen_before_the_question_and_long_claims_are_folded(
    fake: FakeDaemon,
) -> None:
    liar = process(66, claimed_command="x" * 60 + " " * 40 + "*  `- 1 (root) /bin/trusted")
    fake.answers["ListRequests"] = lambda _: requests_pb2.ListRequestsResponse(
        requests=[request(chain=[liar, process(65, proposed_root=True, may_be_root=True)])]
    )
    # Standard error is the terminal here: what is folded is what a person sees.
    told = "import os, sys; os.dup2(9, 2); from backpack_client.cli.main import main; "
    with Terminal(["-c", told + "sys.exit(main(['approve', 'K7QF']))"]) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE.encode() + b"\n")
        terminal.expect(b"65 (root)")
        terminal.expect(b"\r\n    | ")
        terminal.expect(b"(root) /bin/trusted")
        terminal.expect(b"if approved: process 65")
        terminal.expect(b"approve? [y/N] ")
        terminal.type(b"n\n")
        assert terminal.end()[0] == 1
    assert fake.requests("ApproveRequest") == []


def test_denying_is_sent(run: Run, fake: FakeDaemon) -> None:
    assert run("deny", "K7QF", "--yes", "PASS").code == 0
    assert fake.requests("DenyRequest")[0].code == "K7QF"


def test_an_unknown_code_fails_and_nothing_is_sent(run: Run, fake: FakeDaemon) -> None:
    assert run("approve", "ZZZZ", "--yes", "PASS").code == 1
    assert run("approve", "no code", "--yes", "PASS").code == 2
    assert fake.requests("ApproveRequest") == []


def test_once_and_tree_exclude_each_other(run: Run, fake: FakeDaemon) -> None:
    assert run("approve", "K7QF", "--once", "--tree", "--yes").code == 2


def test_a_hostile_request_cannot_move_the_cursor_or_forge_a_line(
    run: Run, fake: FakeDaemon
) -> None:
    hostile = "x\x1b[2J\n65 (root)"
    chain = [process(66, executable=hostile, claimed_command=hostile, proposed_root=True)]
    asked = request(chain=chain, claimed_reason=hostile, names=[hostile])
    fake.answers["ListRequests"] = lambda _: requests_pb2.ListRequestsResponse(requests=[asked])
    for ran in (run("requests"), run("approve", "K7QF", "--yes", "PASS")):
        assert "\x1b" not in ran.out + ran.err
        assert "\n65 (root)" not in ran.out + ran.err


@pytest.mark.parametrize("command", [["requests", "--watch"], ["leases", "--watch"]])
def test_a_live_screen_needs_a_terminal(run: Run, fake: FakeDaemon, command: list[str]) -> None:
    ran = run(*command)
    assert ran.code == 2
    assert "needs a terminal" in ran.err
    assert fake.seen == []


class Answered:
    """Requests that go away when they are answered, told to whoever watches."""

    def __init__(self, fake: FakeDaemon) -> None:
        self.changed = threading.Event()
        self.pending = [request()]
        self.ended = False
        fake.answers["WatchRequests"] = self.watch
        fake.answers["ApproveRequest"] = self.approve

    def watch(self, _: object) -> Iterator[requests_pb2.WatchRequestsResponse]:
        while not self.ended:
            self.changed.clear()
            yield requests_pb2.WatchRequestsResponse(requests=self.pending)
            self.changed.wait(PATIENCE)

    def approve(
        self, sent: requests_pb2.ApproveRequestRequest
    ) -> requests_pb2.ApproveRequestResponse:
        self.pending = []
        self.changed.set()
        return requests_pb2.ApproveRequestResponse(root_pid=sent.root_pid)

    def end(self) -> None:
        self.ended = True
        self.changed.set()


@pytest.fixture
def answered(fake: FakeDaemon) -> Iterator[Answered]:
    answered = Answered(fake)
    yield answered
    answered.end()


def watching() -> Terminal:
    return Terminal(["-m", "backpack_client", "requests", "--watch"], screen_out=True)


def log_in(at: Terminal) -> None:
    at.expect(b"passphrase: ")
    at.type(PASSPHRASE.encode() + b"\n")
    at.expect(b"K7QF")
    at.expect(b"q quit")


def approve_on(at: Terminal) -> None:
    """Approve once the screen has been drawn again, a second later: it has to be looked at."""
    at.expect(b"q quit")
    at.type(b"a")


def given_back(at: Terminal) -> bool:
    modes = termios.tcgetattr(at.screen)[3]
    return bool(modes & termios.ECHO and modes & termios.ICANON)


def test_a_person_approves_with_one_key(fake: FakeDaemon, answered: Answered) -> None:
    with watching() as at:
        log_in(at)
        assert not given_back(at)
        approve_on(at)
        at.expect(b"K7QF approved for the tree of process 65")
        at.type(b"q")
        assert at.end()[0] == 0
        assert given_back(at)
    (sent,) = fake.requests("ApproveRequest")
    assert (sent.code, sent.once, sent.root_pid) == ("K7QF", False, 65)


@pytest.mark.parametrize("how", ["interrupt", "terminate", "lock"])
def test_the_terminal_is_given_back_however_it_ends(
    fake: FakeDaemon, answered: Answered, how: str
) -> None:
    with watching() as at:
        log_in(at)
        if how == "interrupt":
            at.type(b"\x03")
        elif how == "terminate":
            os.kill(at.pid, signal.SIGTERM)
        else:
            fake.answers["ApproveRequest"] = refuse("FAILED_PRECONDITION", "locked")
            approve_on(at)
        at.expect(b"\x1b[?1049l")
        code, _ = at.end()
        assert code == {"interrupt": 130, "terminate": 143, "lock": 3}[how]
        assert given_back(at)


def test_the_passphrase_is_asked_for_again_when_authority_has_ended(
    fake: FakeDaemon, answered: Answered
) -> None:
    first = threading.Event()
    watch = answered.watch

    def ending(sent: object) -> Iterator[requests_pb2.WatchRequestsResponse]:
        if first.is_set():
            yield from watch(sent)
            return
        first.set()
        yield requests_pb2.WatchRequestsResponse(requests=answered.pending)
        raise RefusalError("UNAUTHENTICATED", "not-authorized")

    fake.answers["WatchRequests"] = ending
    with watching() as at:
        at.expect(b"passphrase: ")
        at.type(PASSPHRASE.encode() + b"\n")
        at.expect(b"\x1b[?1049l")
        log_in(at)
        at.type(b"q")
        assert at.end()[0] == 0
    assert len(fake.requests("Authorize")) == 2


@pytest.mark.parametrize(
    ("now", "executable", "shown"),
    [
        ("hidden", "/bin/p66", "66 (hidden now) was /bin/p66"),
        ("ended", "/bin/p66", "66 (ended) was /bin/p66"),
        ("hidden", "", "66 (program unknown)"),
        ("unnamed", "", "66 (program without a path: deleted, or in memory only)"),
    ],
)
def test_what_is_not_known_to_run_now_is_not_shown_as_if_it_were(
    run: Run, fake: FakeDaemon, now: str, executable: str, shown: str
) -> None:
    asker = process(66, now=now, executable=executable)
    fake.answers["ListRequests"] = lambda _: requests_pb2.ListRequestsResponse(
        requests=[request(chain=[asker, process(65, proposed_root=True)])]
    )
    assert shown in run("approve", "K7QF", "--yes", "PASS").err
