"""The agent commands on a terminal: what they ask, and what the answers come to."""

import json
from pathlib import Path

import pytest

from backpack_client import Backpack
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from cheap_vaults import make_cheap
from daemons import PASSPHRASE, RunningDaemon
from pseudo_terminal import Terminal

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

CLIENT = ["-m", "backpack_client"]
INIT = [*CLIENT, "agent", "init"]
PROMPT = b"system prompt [You are a helpful AI assistant.]: "


@pytest.fixture
def place(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, empty, of somebody with a vault."""
    daemon.operator()
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_the_wizard_makes_a_lock_of_the_answers(place: Path) -> None:
    with Terminal(INIT, screen_in=True) as terminal:
        terminal.expect(PROMPT)
        terminal.type(b"be brief\n")
        terminal.expect(b"tone [professional]: ")
        terminal.type(b"\n")
        for names in (b"K, 1-wrong\n", b"K, OTHER K\n"):
            terminal.expect(b"keys that it needs, such as OPENAI_API_KEY: ")
            terminal.type(names)
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE + b"\n")
        code, told = terminal.end()
    assert code == 0, told
    # It is asked again, and what was typed is not repeated: it may be a value.
    assert b"not a key name" in told
    assert b"not a key name: 1-wrong" not in told
    with Backpack() as backpack:
        agent = backpack.agent(str(place / "agent.lock"))
    assert dict(agent.personality) == {"system_prompt": "be brief", "tone": "professional"}
    assert [each.name for each in agent.info.credentials] == ["K", "OTHER"]


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_ctrl_d_in_the_wizard_cancels(place: Path, answered: int) -> None:
    with Terminal(INIT, screen_in=True) as terminal:
        for asked in (PROMPT, b"tone [professional]: ", b"OPENAI_API_KEY: ")[:answered]:
            terminal.expect(asked)
            terminal.type(b"\n")
        terminal.expect(b": ")
        terminal.type(b"\x04")
        code, told = terminal.end()
    assert (code, b"nothing was changed" in told) == (1, True)
    assert not (place / "agent.lock").exists()


def test_a_lock_of_an_unknown_author_is_shown_to_who_types_the_passphrase(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cheap(tmp_path / "home-of-bob")
    bob = RunningDaemon(tmp_path / "home-of-bob", tmp_path / "run" / "bob.sock")
    bob.start()
    try:
        bob.operator()
        with Backpack(str(bob.socket)) as backpack:
            line = backpack.identity().text
        with Backpack() as backpack:
            backpack.authorize(PASSPHRASE)
            made = backpack.call(agent_calls.create_lock({"tone": "dry"}, {}))
            shared = backpack.call(agent_calls.add_recipient(made.data, line))
        lockfiles.create(str(place / "agent.lock"), shared.data)
        monkeypatch.setenv("BACKPACK_SOCKET", str(bob.socket))
        with Terminal([*CLIENT, "agent", "show", "--json"], screen_in=True) as terminal:
            terminal.expect(b"passphrase: ")
            terminal.type(PASSPHRASE + b"\n")
            code, told = terminal.end()
    finally:
        bob.close()
    note, _, shown = told.partition(b"{")
    assert (code, b"whom this vault does not know" in note) == (0, True), told
    assert json.loads(b"{" + shown)["warnings"] == ["unknown-author"]
