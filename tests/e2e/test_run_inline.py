"""`run` asks in its own terminal only where a person typed it at a shell's prompt and looks on."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from daemons import PASSPHRASE, Client, RunningDaemon
from shell_terminal import PROMPT, ShellTerminal

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

RUN = f"{sys.executable} -m backpack_client run --key K"
ASKED = b"passphrase to approve it: "
SHOWN = b"waiting for approval: in another terminal, run: backpack-client approve "


@pytest.fixture
def operator(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> Client:
    operator = daemon.operator()
    operator.put("K", b"sk-value")
    monkeypatch.delenv("K", raising=False)
    return operator


def test_at_a_prompt_it_shows_the_facts_takes_the_passphrase_and_goes_on(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.type(
            f"{RUN} --reason tidying -- sh -c 'echo [$K]'\n".replace("$K", '"$K"').encode()
        )
        facts = terminal.expect(ASKED)
        assert not terminal.echoes()
        (request,) = operator.pending()
        root = request.chain[0].pid
        assert f"{root} (root) ".encode() in facts
        assert b"claims  to need it for: tidying" in facts
        assert f"process {root} and its descendants".encode() in facts
        terminal.type(PASSPHRASE + b"\n")
        assert b"[sk-value]" in terminal.expect(PROMPT)
        assert PASSPHRASE not in terminal.transcript
    assert operator.pending() == []


def test_a_wrong_passphrase_is_asked_for_again_and_never_runs_anything(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.enter(f"{RUN} -- echo ran", ASKED)
        for _ in range(2):
            terminal.type(b"not the passphrase\n")
            terminal.expect(ASKED)
        terminal.type(b"not the passphrase\n")
        terminal.expect(PROMPT)
        assert b"code 8" in terminal.enter("echo code $?")
        assert b"ran\r\n" not in terminal.transcript.replace(b"echo ran\r\n", b"")


def test_ctrl_c_at_the_prompt_ends_it_with_the_terminal_as_it_was(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.enter(f"{RUN} -- echo ran", ASKED)
        terminal.type(b"\x03")
        terminal.expect(PROMPT)
        assert terminal.echoes()
        assert b"code 130" in terminal.enter("echo code $?")


def answer(terminal: ShellTerminal, operator: Client) -> None:
    """Approve what waits in the terminal from another one, and let it end."""
    terminal.expect(SHOWN)
    (request,) = operator.pending()
    operator.approve(request.code)
    terminal.expect(b"it ran\r\n")
    assert ASKED not in terminal.transcript


def test_below_a_script_it_shows_a_code_and_waits(operator: Client, tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(f"{RUN} -- echo it ran\ntrue\n")
    with ShellTerminal(os.environ) as terminal:
        terminal.type(f"sh {script}\n".encode())
        answer(terminal, operator)


def test_in_the_background_it_shows_a_code_and_waits(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.type(f"{RUN} -- echo it ran &\n".encode())
        answer(terminal, operator)


def test_who_says_how_long_to_wait_is_not_asked_here(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.type(f"{RUN} --wait 60s -- echo it ran\n".encode())
        answer(terminal, operator)


def test_an_answer_in_another_terminal_will_do(operator: Client) -> None:
    with ShellTerminal(os.environ) as terminal:
        terminal.enter(f"{RUN} -- echo it ran", ASKED)
        (request,) = operator.pending()
        operator.approve(request.code)
        terminal.type(PASSPHRASE + b"\n")
        terminal.expect(b"it ran\r\n")
