"""Terminals, services and jobs of one user have different variables, and mean one daemon."""

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client import stdio

from daemons import PASSPHRASE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class User:
    """A user with a home, a runtime directory and a passphrase in a file."""

    def __init__(self, place: Path) -> None:
        self.home, self.runtime, self.snap = place / "user", place / "runtime", place / "snap"
        for directory in (self.home, self.runtime, self.snap):
            directory.mkdir(0o700)
        self.passphrase = place / "passphrase"
        self.passphrase.write_bytes(PASSPHRASE)
        self.passphrase.chmod(0o600)

    def run(
        self, *arguments: str, no_runtime: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), **variables}
        if not no_runtime:
            environ["XDG_RUNTIME_DIR"] = str(self.runtime)
        return subprocess.run(
            [sys.executable, "-m", "backpack_client", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def done(self, *arguments: str, **how: str) -> str:
        found = self.run(*arguments, **how)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def told(self) -> tuple[str, str]:
        return "--passphrase-file", str(self.passphrase)

    def status(self, **how: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.done("status", "--json", **how))
        return found


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    made = User(tmp_path)
    yield made
    made.run("stop")
    made.run("stop", BACKPACK_HOME=str(made.snap / "other"), XDG_RUNTIME_DIR=str(made.snap))


def test_a_terminal_with_another_data_directory_finds_the_same_vault(user: User) -> None:
    user.done("init", *user.told())
    user.done("stop")
    snap = {"XDG_DATA_HOME": str(user.snap)}
    user.done("unlock", *user.told(), **snap)
    assert user.status()["home"] == user.status(**snap)["home"]
    assert user.status()["state"] == "unlocked"
    assert list(user.snap.iterdir()) == []
    again = user.run("init", *user.told(), **snap)
    assert again.returncode == 1
    assert "there is a vault already" in again.stderr


def test_a_vault_that_such_a_terminal_has_made_is_found_by_the_others(user: User) -> None:
    user.done("init", *user.told(), XDG_DATA_HOME=str(user.snap))
    assert (user.snap / "backpack" / "vault.db").exists()
    user.done("stop")
    user.done("unlock", *user.told())
    assert user.status()["home"] == str(user.snap / "backpack")
    assert not (user.home / ".local").exists()


@pytest.mark.parametrize("command", ["init", "unlock"])
def test_a_client_with_another_vault_of_its_own_is_told_both(user: User, command: str) -> None:
    other = user.snap / "other"
    variables = {"BACKPACK_HOME": str(other)}
    user.done("init", *user.told(), **variables)
    user.done("stop")
    user.done("init", *user.told())
    refused = user.run(command, *user.told(), **variables)
    assert refused.returncode == 1
    assert str(other) in refused.stderr
    assert str(user.home / ".local/share/backpack") in refused.stderr


def test_without_the_variable_of_the_runtime_directory_the_daemon_is_found(user: User) -> None:
    user.done("init", *user.told())
    cron = user.run("status", "--json", no_runtime="yes")
    assert cron.returncode == 0, cron.stderr
    assert json.loads(cron.stdout)["daemon_pid"] == user.status()["daemon_pid"]
    locked = user.run("lock", no_runtime="yes")
    assert locked.returncode == 0, locked.stderr
    assert user.status()["state"] == "locked"
    user.done("stop", BACKPACK_PROFILE="")


_MCP_SERVER = """
import os
from mcp.server.mcpserver import MCPServer

server = MCPServer("keys")

@server.tool()
def length() -> str:
    return str(len(os.environ["GITHUB_TOKEN"]))

server.run()
"""


async def test_an_mcp_server_behind_run_works_with_what_the_official_sdk_passes_on(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.done("init", *user.told())
    value = user.home / "value"
    value.write_text("v" * 40)
    user.done("put", "GITHUB_TOKEN", "--value-file", str(value), *user.told())
    user.done("grant", "GITHUB_TOKEN", "--to", f"uid:{os.getuid()}", *user.told())
    monkeypatch.setenv("HOME", str(user.home))
    assert "XDG_RUNTIME_DIR" not in stdio.DEFAULT_INHERITED_ENV_VARS
    run = ["-m", "backpack_client", "run", "--key", "GITHUB_TOKEN", "--"]
    server = StdioServerParameters(
        command=sys.executable, args=[*run, sys.executable, "-c", _MCP_SERVER]
    )
    with (user.home / "told").open("w") as errors:
        async with (
            stdio.stdio_client(server, errors) as (reads, writes),
            ClientSession(reads, writes) as session,
        ):
            await session.initialize()
            found = await session.call_tool("length", {})
    assert "'40'" in repr(found.content)


def test_a_daemon_whose_socket_disappears_locks_and_ends(user: User) -> None:
    user.done("init", *user.told())
    daemon = int(user.status()["daemon_pid"])
    pidfd = os.pidfd_open(daemon)
    shutil.rmtree(user.runtime)
    ready, _, _ = select.select([pidfd], (), (), 60)
    os.close(pidfd)
    assert ready, "an unlocked daemon is out of reach"
    assert user.run("status").returncode == 7
    assert user.run("panic").returncode == 7
    user.runtime.mkdir(0o700)
    user.done("start")
    assert user.status()["state"] == "locked"


def test_a_socket_that_is_moved_or_replaced_is_gone_as_well(user: User) -> None:
    user.done("init", *user.told())
    socket = Path(user.status()["socket"])
    pidfd = os.pidfd_open(int(user.status()["daemon_pid"]))
    (socket.parent / "other").touch()
    (socket.parent / "other").rename(socket)
    ready, _, _ = select.select([pidfd], (), (), 60)
    os.close(pidfd)
    assert ready
    socket.unlink()


def test_other_files_beside_the_socket_come_and_go(user: User) -> None:
    user.done("init", *user.told())
    socket = Path(user.status()["socket"])
    for number in range(20):
        (socket.parent / f"other-{number}").touch()
        (socket.parent / f"other-{number}").unlink()
    assert user.status()["state"] == "unlocked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("command", ["status", "init", "unlock", "get", "start", "panic"])
def test_root_with_the_variables_of_a_user_is_told_so_and_not_led_in_a_circle(
    user: User, command: str
) -> None:
    os.chown(user.home, 65534, 65534)
    os.chown(user.runtime, 65534, 65534)
    arguments = [command, "K"] if command == "get" else [command]
    refused = user.run(*arguments, *(user.told() if command in ("init", "unlock") else ()))
    assert refused.returncode == 7
    assert f"{user.runtime} belongs to nobody (uid 65534), not to you" in refused.stderr
    assert "you are root with the variables of nobody" in refused.stderr
    assert "backpack-client start" not in refused.stderr
    assert list(user.home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_somebody_else_is_named_with_its_owner(user: User) -> None:
    other = user.snap / "other"
    other.mkdir(0o700)
    os.chown(other, 65534, 65534)
    refused = user.run("init", *user.told(), BACKPACK_HOME=str(other))
    assert refused.returncode == 1
    assert f"{other} belongs to nobody (uid 65534), not to you" in refused.stderr


def test_a_home_and_a_runtime_directory_that_others_can_write_are_named_with_the_command(
    user: User,
) -> None:
    home = user.snap / "other"
    home.mkdir()
    home.chmod(0o775)
    refused = user.run("init", *user.told(), BACKPACK_HOME=str(home))
    assert refused.returncode == 1
    assert f"others can get into the home {home}: run chmod 700 on it" in refused.stderr
    user.runtime.chmod(0o775)
    refused = user.run("init", *user.told())
    assert refused.returncode == 7
    assert f"chmod go-w {user.runtime}" in refused.stderr
