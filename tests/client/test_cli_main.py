import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import address
from backpack_client.cli.main import commands, main
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse, status

MARK = "marker-of-a-value"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        yield running


COMMANDS = [
    "init",
    "unlock",
    "lock",
    "status",
    "passwd",
    "start",
    "stop",
    "put",
    "import",
    "list",
    "get",
    "delete",
    "grant",
    "grants",
    "ungrant",
    "requests",
    "approve",
    "deny",
    "policy",
    "leases",
    "revoke",
    "watch",
    "panic",
    "agent",
    "identity",
    "run",
    "slots",
    "add-slot",
    "remove-slot",
    "rotate",
    "recover",
    "export",
    "import-vault",
    "audit",
    "operate",
]


def test_the_commands_are_those_of_the_contract() -> None:
    assert sorted(commands.list_commands(commands.make_context("x", ["status"]))) == sorted(
        COMMANDS
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_without_a_daemon(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: backpack-client {command}")
    assert ran.err == ""


def test_help_loads_neither_grpc_nor_rich() -> None:
    code = (
        "import sys; from backpack_client.cli.main import main; code = main(['put', '--help']); "
        "print(code, sys.modules.keys() & {'grpc', 'rich'}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "0 set()\n"


def test_the_help_lists_every_command_once_under_what_it_is_for(run: Run) -> None:
    listed: dict[str, str] = {}
    title = ""
    for line in run("--help").out.splitlines():
        if line.endswith(":"):
            title = line
        elif line.startswith("  ") and (word := line.split()[0]) in COMMANDS:
            assert word not in listed
            assert len(line.split()) > 2, "each says what it does"
            listed[word] = title
    assert sorted(listed) == sorted(COMMANDS)
    assert listed["init"] == "Start here:"
    assert listed["put"] == "Keys:"
    assert listed["panic"] == "Stop it:"
    assert len(set(listed.values())) == 8


def test_no_command_shows_the_help_and_is_a_usage_error(run: Run) -> None:
    ran = run()
    assert (ran.code, ran.out) == (2, "")
    assert "Usage:" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["panic", "--passphrase-file", "x"],
        ["policy", "nonsense"],
        ["approve", "K7QF", "--once", "--tree"],
        ["requests", "--watch", "--json"],
        ["requests", "--watch"],
        ["put"],
        ["status", "--nonsense"],
        ["grant", "K"],
        ["grant", "K", "--to", "uid:0", "--uses", "0"],
        ["grant", "K", "--to", "uid:0", "--ttl", "soon"],
        ["get"],
        ["get", "A", "B"],
        ["get", "1A"],
        ["put", "1A"],
        ["put", "A", "1A"],
        ["put", "A", "A"],
        ["put", "A", "B", "--value-file", "x"],
        ["revoke"],
        ["revoke", "ID", "--all"],
        ["revoke", "--key", "a b"],
        ["revoke", "--tree", "0"],
        ["list", "--passphrase-file", "x"],
        ["put", "K", "--value-file", "-", "--passphrase-file", "-"],
        ["import", "-", "--passphrase-file", "-"],
        ["import", "f", "--replace", "--skip-existing"],
        ["passwd", "--passphrase-file", "-", "--new-passphrase-file", "-"],
    ],
)
def test_a_usage_error_is_exit_2_and_asks_no_daemon_for_anything(
    run: Run, fake: FakeDaemon, arguments: list[str]
) -> None:
    ran = run(*arguments, stdin=b"x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("backpack-client: ")
    assert [name for name, _ in fake.seen if name != "Status"] == []


def test_what_looks_like_a_passphrase_on_the_command_line_is_not_repeated(run: Run) -> None:
    ran = run("unlock", MARK)
    assert ran.code == 2
    assert MARK not in ran.err


@pytest.mark.parametrize(
    "command", ["put", "get", "get K --export", "delete", "revoke", "revoke --key", "run --key"]
)
def test_a_value_that_is_typed_in_place_of_a_name_is_not_repeated(
    run: Run, fake: FakeDaemon, command: str
) -> None:
    ending = ["--", "true"] if command.startswith("run") else []
    ran = run(*command.split(), f"OPENAI_API_KEY={MARK}", *ending, stdin=None)
    assert (ran.code, ran.out) == (2, "")
    assert MARK not in ran.err
    assert "OPENAI" not in ran.err
    assert "values are never given on the command line" in ran.err
    assert [name for name, _ in fake.seen if name != "Status"] == []


@pytest.mark.parametrize(
    "command", ["ungrant", "approve", "deny", "agent init --embed", "agent set --key", ""]
)
def test_a_value_that_is_typed_in_another_place_is_not_repeated(
    run: Run, fake: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*command.split(), f"{MARK}!=x", stdin=None)
    assert ran.code != 0
    assert MARK not in ran.err
    assert [name for name, _ in fake.seen if name != "Status"] == []


@pytest.mark.parametrize(
    "command",
    ["status", "lock", "passwd", "list", "get K", "leases", "revoke --all", "put K", "grants"],
)
def test_without_a_daemon_every_command_ends_with_7_and_says_how_to_start_one(
    run: Run, command: str
) -> None:
    ran = run(*command.split(), stdin=None)
    assert (ran.code, ran.out) == (7, "")
    assert "backpack-client start" in ran.err


@pytest.mark.parametrize(
    "typed",
    [
        "import ",
        "--socket ",
        "put K --value-file ",
        "unlock --passphrase-file ",
        "passwd --new-passphrase-file ",
    ],
)
def test_the_shell_completes_names_of_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], typed: str
) -> None:
    words = f"backpack-client {typed}"
    monkeypatch.setenv("_BACKPACK_CLIENT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert main([]) == 0
    assert capfd.readouterr().out == "file,\n"


def test_a_mistyped_command_is_met_with_those_that_look_like_it(run: Run) -> None:
    ran = run("unlok")
    assert ran.code == 2
    assert "did you mean unlock" in ran.err
    assert "did you mean" not in run("zzzz").err


@pytest.mark.parametrize("arguments", [["status", "--json"], ["status"], ["--help"], ["--version"]])
def test_output_that_has_no_room_is_a_short_failure(fake: FakeDaemon, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "backpack_client", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_but_init_and_unlock_starts_a_daemon(run: Run) -> None:
    for command in ("init", "unlock"):
        assert run(command, "--no-start").code == 7


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        ("FAILED_PRECONDITION", "locked", 3),
        ("FAILED_PRECONDITION", "uninitialized", 3),
        ("NOT_FOUND", "no-such-key", 4),
        ("PERMISSION_DENIED", "no-grant", 5),
        ("RESOURCE_EXHAUSTED", "limit", 1),
        ("UNAUTHENTICATED", "wrong-passphrase", 8),
    ],
)
def test_the_exit_code_follows_the_reason(
    run: Run, fake: FakeDaemon, code: str, reason: str, exit_code: int
) -> None:
    fake.answers["GetKeys"] = refuse(code, reason)
    ran = run("get", "K")
    assert (ran.code, ran.out) == (exit_code, "")


def test_what_the_daemon_says_is_escaped(run: Run, fake: FakeDaemon) -> None:
    fake.answers["ListLeases"] = refuse("INTERNAL", message="a\x1b[2Jb\nc")
    ran = run("leases")
    assert "\x1b" not in ran.err
    assert "\\x1b[2Jb\\x0ac" in ran.err


def test_the_socket_option_goes_before_the_environment(
    run: Run, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPACK_SOCKET", "/nonexistent/s.sock")
    assert run("--socket", fake.path, "status").code == 0


def test_another_version_of_the_daemon_is_said_on_standard_error(
    run: Run, fake: FakeDaemon
) -> None:
    fake.answers["Status"] = lambda _: status(daemon_version="99.0")
    ran = run("status", "--json")
    assert "99.0" in ran.err
    assert "note:" not in ran.out


def test_the_version_is_printed(run: Run) -> None:
    ran = run("--version")
    assert ran.code == 0
    assert ran.out.startswith("backpack-client ")


def test_an_interrupt_ends_with_130(
    run: Run, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backpack_client.api.Backpack.leases", interrupt)
    ran = run("leases")
    assert ran.code == 130
    assert "Traceback" not in ran.err


def test_a_reader_that_has_gone_away_is_met_quietly(fake: FakeDaemon) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "backpack_client", "status"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 1


def test_completion_for_a_shell_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_BACKPACK_CLIENT_COMPLETE", "zsh_source")
    assert main([]) == 0
    assert "compdef" in capfd.readouterr().out


def test_commands_are_completed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_BACKPACK_CLIENT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "backpack-client un")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    assert capfd.readouterr().out.split() == ["plain,unlock", "plain,ungrant"]


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (RuntimeError("can't start new thread"), 1, "let the sandbox allow clone and clone3"),
        (OSError(errno.EPERM, "x"), 1, "a sandbox forbids it"),
        (OSError(errno.ENOSYS, "x"), 1, "a sandbox forbids it"),
        (OSError(errno.EMFILE, "x"), 1, "ulimit -n"),
        (OSError(errno.ENOSPC, "x"), 1, "make room"),
    ],
)
def test_what_the_system_refuses_is_told_with_what_helps(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int, said: str
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(address, "connect", refused)
    done = run("start")
    assert (done.code, done.out) == (exit_code, "")
    assert said in done.err


def test_another_error_of_the_program_itself_is_not_taken_for_one_of_the_system(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(address, "connect", wrong)
    with pytest.raises(RuntimeError, match="something else"):
        run("start")
