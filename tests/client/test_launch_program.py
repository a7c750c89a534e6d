"""Finding a program and becoming it: exit codes and lookups as bash has them."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backpack_client import Failure
from backpack_client.launch import program

BECOME = (
    "import os, sys\n"
    "from backpack_client.failures import Failure\n"
    "from backpack_client.launch import program as becoming\n"
    "began = becoming.origin()\n"
    "try:\n"
    "    path = becoming.find(sys.argv[1], began.environ)\n"
    "    becoming.become(path, sys.argv[1:], began.environ, began)\n"
    "except Failure as failure:\n"
    "    sys.exit(failure.exit_code)\n"
)


def write(path: Path, content: bytes, mode: int = 0o755) -> None:
    path.write_bytes(content)
    path.chmod(mode)


MADE: dict[str, Callable[[Path], None]] = {
    "a script": lambda path: write(path, b"#!/bin/sh\nexit 5\n"),
    "a script without a first line": lambda path: write(path, b"exit 6\n"),
    "a script that looks at its arguments": lambda path: write(path, b'test "$0/$1" = "$0/a"\n'),
    "an empty file": lambda path: write(path, b""),
    "no program": lambda path: write(path, b"\0\1\2\n"),
    "not executable": lambda path: write(path, b"exit 0\n", 0o644),
    "a directory": lambda path: path.mkdir(),
    "not there": lambda _: None,
    "a missing interpreter": lambda path: write(path, b"#!/no/such/interpreter\n"),
    "a broken link": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("how", ["./thing", "thing", "thing/below"])
@pytest.mark.parametrize("what", MADE)
def test_the_exit_code_is_the_one_that_bash_gives(tmp_path: Path, what: str, how: str) -> None:
    MADE[what](tmp_path / "thing")
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    codes = [
        subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, timeout=60, check=False
        ).returncode
        for command in (
            [sys.executable, "-c", BECOME, how, "a"],
            ["bash", "-c", 'command "$@"', "bash", how, "a"],
        )
    ]
    assert codes[0] == codes[1]


def test_the_first_program_of_the_path_that_can_be_executed_is_taken(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("dir", "plain", "good", "later")]
    for place in places:
        place.mkdir()
    (places[0] / "tool").mkdir()
    write(places[1] / "tool", b"", 0o644)
    write(places[2] / "tool", b"")
    write(places[3] / "tool", b"")
    environ = {b"PATH": b":".join(map(os.fsencode, places))}
    assert program.find("tool", environ) == os.fsencode(places[2] / "tool")


def test_an_empty_part_of_the_path_means_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "tool", b"")
    monkeypatch.chdir(tmp_path)
    assert program.find("tool", {b"PATH": b"/nowhere:"}) == b"./tool"


@pytest.mark.parametrize("command", ["", "no-such-tool", "/no/such/tool"])
def test_what_is_not_there_ends_with_127(command: str) -> None:
    with pytest.raises(Failure) as caught:
        program.find(command, {b"PATH": b"/bin:/usr/bin"})
    assert caught.value.exit_code == 127


def test_a_pipe_is_not_executable_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o755)
    path = os.fsencode(tmp_path / "pipe")
    with pytest.raises(Failure) as caught:
        program.become(path, ["pipe"], {}, program.origin())
    assert caught.value.exit_code == 126


def test_what_python_sets_for_itself_is_not_handed_on() -> None:
    look = "from backpack_client.launch.program import origin; print(origin().environ)"
    done = subprocess.run(
        [sys.executable, "-c", f"import os; assert 'LC_CTYPE' in os.environ\n{look}"],
        env={"PATH": os.environ["PATH"], "LANG": "C"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert b"LC_CTYPE" not in done.stdout


def test_too_much_for_an_environment_says_what_helps() -> None:
    began = program.origin()
    with pytest.raises(Failure) as caught:
        program.become(b"/bin/true", ["true"], {b"K": b"x" * 2**24}, began)
    assert caught.value.exit_code == 126
    assert "--inject fd" in caught.value.hint


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGXFSZ])
def test_a_refused_program_leaves_the_process_as_it_was(number: signal.Signals) -> None:
    began = program.origin()
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    other = program.Origin(began.environ, (0 if limit[0] else limit[1], limit[1]))
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(Failure):
            program.become(b"/no/such/tool", ["tool"], {}, other)
        assert signal.getsignal(number) == signal.SIG_IGN
        assert resource.getrlimit(resource.RLIMIT_CORE) == limit
    finally:
        signal.signal(number, before)
