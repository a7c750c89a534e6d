"""The command operate: many commands for one passphrase, on one connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import Backpack
from backpack_client.cli import operate
from backpack_client.cli.main import _HOMES, _OUTSIDE
from backpack_client.cli.session import Session
from backpack_proto.v1 import grants_pb2, keys_pb2, leases_pb2, vault_pb2
from command_line import PASSPHRASE, Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse, status
from pseudo_terminal import Terminal

MARK = "marker-of-a-value"
PROMPT = operate.PROMPT.encode()
AT_ONCE = """
import sys
from backpack_client.cli import operate
from backpack_client.cli.main import main
operate.IDLE_SECONDS = 0.05
sys.exit(main(["operate"]))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Status"] = lambda _: status(authorized_until_ms=1)
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        running.answers["ListKeys"] = lambda _: []
        running.answers["PutKeys"] = lambda request: keys_pb2.PutKeysResponse(
            created=len(request.keys)
        )
        running.answers["DeleteKeys"] = lambda _: keys_pb2.DeleteKeysResponse(deleted=1)
        running.answers["ListGrants"] = lambda _: grants_pb2.ListGrantsResponse()
        running.answers["ListLeases"] = lambda _: leases_pb2.ListLeasesResponse()
        yield running


def called(fake: FakeDaemon) -> list[str]:
    return [name for name, _ in fake.seen if name != "Status"]


@pytest.fixture
def keyboard(fake: FakeDaemon) -> Iterator[Terminal]:
    """Open the prompt on a terminal, the passphrase typed."""
    arguments = ["-m", "backpack_client", "--socket", fake.path, "operate"]
    with Terminal(arguments, screen_in=True, screen_out=True) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE.encode() + b"\n")
        terminal.expect(PROMPT)
        yield terminal


def test_commands_from_standard_input_need_one_passphrase(run: Run, fake: FakeDaemon) -> None:
    script = b"# a comment's quote\n\nlist --all\nbackpack-client delete K\nexit\nlock"
    ran = run("operate", "PASS", stdin=script)
    assert (ran.code, ran.out) == (0, "")
    assert called(fake) == ["Authorize", "ListKeys", "DeleteKeys"]
    assert "1 key deleted" in ran.err


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"delete K", 4),
        (b"nonsense", 2),
        (b"grant 'K", 2),
        (b"run -- true", 2),
        (b"put K --value-file -", 2),
        (b"list --all PASS", 2),
    ],
)
def test_the_first_command_that_fails_ends_a_script_with_its_exit_code(
    run: Run, fake: FakeDaemon, line: bytes, code: int
) -> None:
    fake.answers["DeleteKeys"] = refuse("NOT_FOUND", "no-such-key")
    ran = run("operate", "PASS", stdin=line + b"\ngrants --all\n")
    assert ran.code == code
    assert "ListGrants" not in called(fake)
    assert ran.err.startswith("backpack-client: ") or "note:" in ran.err


@pytest.mark.parametrize("command", sorted(_OUTSIDE))
def test_what_needs_a_process_of_its_own_is_refused(
    run: Run, fake: FakeDaemon, command: str
) -> None:
    ran = run("operate", "PASS", stdin=f"{command} K\n".encode())
    assert (ran.code, "run it outside of operate" in ran.err) == (2, True)
    assert called(fake) == ["Authorize"]


@pytest.mark.parametrize("line", [b"list --all --passphrase-file p", b"--socket /x list"])
def test_neither_passphrase_nor_daemon_change_within(
    run: Run, fake: FakeDaemon, line: bytes
) -> None:
    ran = run("operate", "PASS", stdin=line)
    assert (ran.code, "operate" in ran.err) == (2, True)
    assert called(fake) == ["Authorize"]


def test_the_passphrase_does_not_come_where_the_commands_come_from(
    run: Run, fake: FakeDaemon
) -> None:
    assert run("operate", "--passphrase-file", "-", stdin=b"x\nlist\n").code == 2
    assert fake.seen == []


def test_a_script_ends_when_authority_does(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Status"] = lambda _: (
        status() if "ListKeys" in called(fake) else status(authorized_until_ms=1)
    )
    ran = run("operate", "PASS", stdin=b"list --all\ngrants --all\n")
    assert (ran.code, "authority has ended" in ran.err) == (5, True)
    assert called(fake) == ["Authorize", "ListKeys"]


def test_it_ends_when_the_vault_is_locked(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Lock"] = lambda _: vault_pb2.LockResponse()
    fake.answers["Status"] = lambda _: (
        status(state=vault_pb2.VAULT_STATE_LOCKED)
        if "Lock" in called(fake)
        else status(authorized_until_ms=1)
    )
    ran = run("operate", "PASS", stdin=b"lock\nlist --all\n")
    assert (ran.code, "operator authority has ended" in ran.err) == (0, True)
    assert called(fake) == ["Authorize", "Lock"]


def test_a_prompt_carries_out_commands_until_it_is_left(
    fake: FakeDaemon, keyboard: Terminal
) -> None:
    keyboard.type(b"list --all\n")
    keyboard.expect(PROMPT)
    keyboard.type(b"nonsense\n")
    keyboard.expect(PROMPT)
    keyboard.type(b"grants --all\n")
    keyboard.expect(PROMPT)
    keyboard.type(b"\x04")
    code, output = keyboard.end()
    assert code == 0
    assert b"no such command: nonsense" in output
    assert called(fake) == ["Authorize", "ListKeys", "ListGrants"]


def test_ctrl_c_drops_the_line_and_not_the_prompt(fake: FakeDaemon, keyboard: Terminal) -> None:
    keyboard.type(b"delete K")
    keyboard.expect(b"delete K")
    keyboard.type(b"\x03")
    keyboard.expect(PROMPT)
    keyboard.type(b"exit\n")
    assert keyboard.end()[0] == 0
    assert called(fake) == ["Authorize"]


def test_tab_completes_and_the_arrow_keys_bring_back_what_was_understood(
    fake: FakeDaemon, keyboard: Terminal
) -> None:
    pytest.importorskip("readline", reason="this Python was built without readline")
    keyboard.type(b"gran\t")
    keyboard.expect(b"grant")
    keyboard.type(b"s --al\t")
    keyboard.expect(b"--all ")
    keyboard.type(b"\n")
    keyboard.expect(PROMPT)
    keyboard.type(f"put K={MARK}\n".encode())
    keyboard.expect(PROMPT)
    keyboard.type(b"\x1b[A")
    keyboard.expect(b"grants --all")
    assert MARK.encode() not in keyboard.shown
    keyboard.type(b"\n")
    keyboard.expect(PROMPT)
    keyboard.type(b"exit\n")
    assert keyboard.end()[0] == 0
    assert called(fake) == ["Authorize", "ListGrants", "ListGrants"]


def test_values_are_asked_for_as_on_the_command_line(fake: FakeDaemon, keyboard: Terminal) -> None:
    keyboard.type(b"put A B\n")
    for name in (b"A", b"B"):
        keyboard.expect(b"value of " + name + b": ")
        keyboard.type(MARK.encode() + name + b"\n")
    keyboard.expect(PROMPT)
    assert MARK.encode() not in keyboard.shown
    keyboard.type(b"exit\n")
    assert keyboard.end()[0] == 0
    (sent,) = fake.requests("PutKeys")
    assert [(key.name, key.value) for key in sent.keys] == [
        (name, f"{MARK}{name}".encode()) for name in "AB"
    ]


def test_the_passphrase_is_asked_for_again_when_authority_has_ended(
    fake: FakeDaemon, keyboard: Terminal
) -> None:
    fake.answers["Status"] = lambda _: (
        status(authorized_until_ms=1) if called(fake).count("Authorize") > 1 else status()
    )
    keyboard.type(b"list --all\n")
    keyboard.expect(b"passphrase: ")
    keyboard.type(PASSPHRASE.encode() + b"\n")
    keyboard.expect(PROMPT)
    keyboard.type(b"exit\n")
    assert keyboard.end()[0] == 0
    assert called(fake) == ["Authorize", "Authorize", "ListKeys"]


def test_a_prompt_that_nobody_uses_is_left(fake: FakeDaemon) -> None:
    with Terminal(["-c", AT_ONCE], screen_in=True, screen_out=True) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE.encode() + b"\n")
        code, output = terminal.end()
    assert (code, b"operator authority is given up" in output) == (0, True)
    assert called(fake) == ["Authorize"]


def test_completion_offers_commands_options_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a file.env").touch()
    session = Session({}, None)
    with session.share(Backpack("/nowhere")):
        assert set(operate.completions(session, "", "")) >= {"put ", "audit "}
        assert "run " not in operate.completions(session, "", "")
    assert len(operate.completions(session, "", "")) == len(_HOMES)
    assert operate.completions(session, "audit ", "ver") == ["verify "]
    assert operate.completions(session, "audit show ", "--foll") == ["--follow "]
    assert operate.completions(session, "import ", "a") == ["'a file.env'"]
    assert operate.completions(session, "grant 'K ", "") == []
