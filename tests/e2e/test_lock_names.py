"""What a lock sets beside credentials: refused or asked for once, then set without a question."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from backpack_client import Backpack, Failure
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from daemons import PASSPHRASE, Client, RunningDaemon
from shell_terminal import PROMPT, ShellTerminal

CLIENT = [sys.executable, "-m", "backpack_client"]
PATIENCE = 120
VARIABLES = ("CMAKE_TOOLCHAIN_FILE", "VAULT_ADDR", "A_KEY", "LD_PRELOAD")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]


@pytest.fixture
def operator(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return an operator who has granted everything, in a directory of an agent."""
    operator = daemon.operator()
    operator.grant("*")
    (tmp_path / "agent").mkdir()
    monkeypatch.chdir(tmp_path / "agent")
    for name in (lockfiles.LOCK_VARIABLE, *VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return operator


@pytest.fixture
def passphrase_file(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(PASSPHRASE)
    return str(path)


def lock(**embedded: str) -> str:
    """Write a lock that embeds these values here, as one that somebody else has made would."""
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        values = {name: value.encode() for name, value in embedded.items()}
        made = backpack.call(agent_calls.create_lock({}, values))
    path = str(Path("agent.lock").absolute())
    lockfiles.create(path, made.data)
    return path


def add(path: str, **embedded: str) -> None:
    """Sign a new version that embeds these values, too."""
    seen = lockfiles.read(path)
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        values = {name: value.encode() for name, value in embedded.items()}
        changed = backpack.call(agent_calls.edit_lock(seen.data, put=values))
    lockfiles.replace(seen, changed.data)


def client(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CLIENT, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def agent(*options: str) -> "subprocess.CompletedProcess[str]":
    """Run an agent that prints the variables that these tests are about."""
    done = client("run", *options, "--", "env")
    done.stdout = "".join(
        line for line in done.stdout.splitlines(keepends=True) if line.startswith(VARIABLES)
    )
    return done


def test_run_refuses_until_it_is_accepted_and_then_never_asks_again(
    operator: Client, passphrase_file: str
) -> None:
    path = lock(CMAKE_TOOLCHAIN_FILE="./evil.cmake", A_KEY="a")
    refused = agent()
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "CMAKE_TOOLCHAIN_FILE" in refused.stderr
    assert "A_KEY" not in refused.stderr
    assert f"backpack-client agent trust --lock {path}" in refused.stderr
    assert operator.pending() == [], "nobody was asked for keys"
    told = ("--passphrase-file", passphrase_file)
    accepted = client("agent", "trust", "--name", "CMAKE_TOOLCHAIN_FILE", *told)
    assert accepted.returncode == 0, accepted.stderr
    for _ in range(2):
        done = agent()
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == ["A_KEY=a", "CMAKE_TOOLCHAIN_FILE=./evil.cmake"]
    listed = json.loads(client("agent", "trust", "--list", "--json", *told).stdout)
    assert [each["accepted_names"] for each in listed["locks"]] == [["CMAKE_TOOLCHAIN_FILE"]]


def test_a_version_with_another_name_is_refused_again_and_addresses_are_called_so(
    operator: Client, passphrase_file: str
) -> None:
    path = lock(CMAKE_TOOLCHAIN_FILE="x")
    told = ("--passphrase-file", passphrase_file)
    client("agent", "trust", "--name", "CMAKE_TOOLCHAIN_FILE", *told)
    add(path, VAULT_ADDR="https://example.org")
    refused = agent()
    assert refused.returncode == 5
    assert "VAULT_ADDR, an address that keys may be sent to" in refused.stderr
    assert "CMAKE_TOOLCHAIN_FILE" not in refused.stderr
    client("agent", "trust", "--name", "VAULT_ADDR", *told)
    done = agent()
    assert "VAULT_ADDR=https://example.org\n" in done.stdout
    assert "warning: the lock itself sets VAULT_ADDR" in done.stderr


@pytest.mark.parametrize("how", ["fd", "none"])
def test_it_is_refused_however_keys_are_handed_over(operator: Client, how: str) -> None:
    lock(CMAKE_TOOLCHAIN_FILE="x")
    assert agent("--inject", how).returncode == 5


def test_the_daemon_refuses_a_client_that_does_not_ask(operator: Client) -> None:
    path = lock(CMAKE_TOOLCHAIN_FILE="x")
    with Backpack() as backpack:
        for authorized in (False, True):
            if authorized:
                backpack.authorize(PASSPHRASE)
            with pytest.raises(Failure) as caught:
                backpack.get("CMAKE_TOOLCHAIN_FILE", lock=path)
            assert (caught.value.reason, caught.value.exit_code) == ("lock-names", 5)


def test_what_changes_how_programs_are_loaded_is_refused_whatever_was_accepted(
    operator: Client, passphrase_file: str
) -> None:
    lock(LD_PRELOAD="./evil.so")
    told = ("--passphrase-file", passphrase_file)
    assert client("agent", "trust", "--name", "LD_PRELOAD", *told).returncode == 0
    refused = agent()
    assert refused.returncode != 0
    assert "must not set LD_PRELOAD" in refused.stderr
    assert refused.stdout == ""


def test_what_is_set_already_needs_no_acceptance(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(CMAKE_TOOLCHAIN_FILE="./evil.cmake")
    monkeypatch.setenv("CMAKE_TOOLCHAIN_FILE", "mine")
    done = agent()
    assert (done.returncode, done.stdout) == (0, "CMAKE_TOOLCHAIN_FILE=mine\n")


def test_yes_accepts_no_name_that_nobody_has_seen(operator: Client, passphrase_file: str) -> None:
    lock(CMAKE_TOOLCHAIN_FILE="x")
    done = client("agent", "trust", "--yes", "--passphrase-file", passphrase_file)
    assert done.returncode == 0
    assert "not accepted, so run does not set it: CMAKE_TOOLCHAIN_FILE" in done.stderr
    assert agent().returncode == 5


def test_a_name_that_the_operator_embeds_is_accepted_by_that(
    operator: Client, passphrase_file: str, tmp_path: Path
) -> None:
    value = tmp_path / "value"
    value.write_text("https://example.org")
    told = ("--passphrase-file", passphrase_file)
    made = client("agent", "init", "--embed", f"VAULT_ADDR={value}", *told)
    assert made.returncode == 0, made.stderr
    assert "VAULT_ADDR=https://example.org" in agent().stdout
    changed = client("agent", "set", "--embed", f"CMAKE_TOOLCHAIN_FILE={value}", *told)
    assert changed.returncode == 0, changed.stderr
    assert agent().returncode == 0


def test_at_a_prompt_run_asks_once_and_goes_on(operator: Client) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    lock(CMAKE_TOOLCHAIN_FILE="x.cmake", VAULT_ADDR="https://example.org")
    # What lies in the agent's directory is not loaded by what takes the passphrase.
    Path("backpack_client").mkdir()
    Path("backpack_client/__init__.py").write_text("print('HOSTILE')\n")
    command = f"{sys.executable} -P -m backpack_client run -- sh -c 'echo [$CMAKE_TOOLCHAIN_FILE]'"
    with ShellTerminal(os.environ) as terminal:
        terminal.enter(command, b"passphrase: ")
        terminal.type(PASSPHRASE + b"\n")
        shown = terminal.expect(b"let this lock set them from now on? [y/N] ")
        assert b"CMAKE_TOOLCHAIN_FILE" in shown
        assert b"VAULT_ADDR  an address" in shown
        terminal.type(b"y\n")
        assert b"[x.cmake]" in terminal.expect(PROMPT)
        assert b"[x.cmake]" in terminal.enter(command)
        assert terminal.transcript.count(b"passphrase: ") == 1
        assert b"HOSTILE" not in terminal.transcript


def test_at_a_prompt_a_no_runs_nothing(operator: Client) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    lock(CMAKE_TOOLCHAIN_FILE="x.cmake")
    with ShellTerminal(os.environ) as terminal:
        terminal.enter(f"{sys.executable} -m backpack_client run -- echo it-'ran'", b"passphrase: ")
        terminal.type(PASSPHRASE + b"\n")
        terminal.expect(b"[y/N] ")
        terminal.type(b"n\n")
        terminal.expect(PROMPT)
        assert b"it-ran" not in terminal.transcript
        assert b"code 0" not in terminal.enter("echo code $?")
