"""The second start: what it drops, what it keeps, that it happens once, and what comes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backpackd.adapters.secrets.scrubbing import clean_environment

# Stands in for the interpreter, so that what is executed anew is PROBE and not the daemon.
SHEBANG = "#!{python} {probe}\n"
START = """
import os, sys
from backpackd.adapters.secrets import scrubbing
if {broken}:
    scrubbing._SCRUB = {{}}
sys.executable = {interpreter!r}
print(os.getpid(), flush=True)
scrubbing.ensure_scrubbed(sys.argv[1:])
"""
PROBE = """
import json, os, sys
from pathlib import Path
from backpackd.adapters.secrets import scrubbing
if {broken}:
    scrubbing._SCRUB = {{}}
scrubbing.ensure_scrubbed(["never", "again"])
print(json.dumps({{
    "arguments": sys.argv[2:],
    "pid": os.getpid(),
    "scrubbed": scrubbing.scrubbed(),
    "environ": dict(os.environ),
    "recorded": Path("/proc/self/environ").read_bytes().decode("latin-1"),
    "passed": os.path.exists("/proc/self/fd/3") and os.readlink("/proc/self/fd/3"),
}}))
"""
FOUND = "from backpackd.adapters.secrets.scrubbing import scrubbed; print(scrubbed())"

# musl has no such tunables.
glibc = pytest.mark.skipif(
    sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="tunables of glibc"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def second_start(
    tmp_path: Path, environ: dict[str, str], *arguments: str, broken: bool = False, fd: int = -1
) -> dict[str, Any]:
    """Execute a process anew and return what the second one finds, with the first one's pid."""
    probe, interpreter = tmp_path / "probe.py", tmp_path / "python"
    probe.write_text(PROBE.format(broken=broken))
    interpreter.write_text(SHEBANG.format(python=sys.executable, probe=probe))
    interpreter.chmod(0o700)
    script = START.format(broken=broken, interpreter=str(interpreter))
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=(lambda: os.dup2(fd, 3)) if fd >= 0 else None,
        pass_fds=(3,) if fd >= 0 else (),
    )
    first, second = done.stdout.splitlines()
    return {**json.loads(second), "first": int(first)}


def found(environ: dict[str, str]) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", FOUND], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout == "True\n"


@glibc
def test_the_second_start_overwrites_what_is_freed(tmp_path: Path) -> None:
    assert second_start(tmp_path, {})["scrubbed"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"PYTHONMALLOC": "malloc"},
        {"PYTHONMALLOC": "debug"},
        {"PYTHONMALLOC": "malloc_debug"},
        {"GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"},
        {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.perturb=165"},
        {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"},
    ],
)
def test_half_a_measure_is_not_taken_for_scrubbing(environ: dict[str, str]) -> None:
    assert not found(environ)


def test_a_forged_mark_does_not_make_the_daemon_believe_that_it_is_scrubbed() -> None:
    script = (
        "import os\n"
        "from backpackd.adapters.secrets import scrubbing\n"
        "os.environ[scrubbing._MARKER] = str(os.getpid())\n"
        "scrubbing.ensure_scrubbed([])\n"
        "print(scrubbing.scrubbed())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_forged_mark_does_not_let_a_variable_through() -> None:
    script = (
        "import os\n"
        "from backpackd.adapters.secrets import scrubbing\n"
        "os.environ[scrubbing._MARKER] = str(os.getpid())\n"
        "scrubbing.ensure_scrubbed([])\n"
        "print(sorted({'HOME', 'GRPC_TRACE', scrubbing._MARKER} & set(os.environ)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"GRPC_TRACE": "all", "HOME": "/"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['HOME']\n"


@linux
def test_a_mark_of_another_process_stops_nothing(tmp_path: Path) -> None:
    again = second_start(tmp_path, {"BACKPACK_EXECUTED_ANEW": "1"})
    assert again["pid"] == again["first"]


@linux
def test_it_is_executed_once_even_where_nothing_can_be_scrubbed(tmp_path: Path) -> None:
    again = second_start(tmp_path, {}, broken=True)
    assert not again["scrubbed"]


@linux
def test_the_pid_and_the_command_line_stay(tmp_path: Path) -> None:
    again = second_start(tmp_path, {}, "--home", "/a b", "--socket=\u00e9")
    assert again["pid"] == again["first"]
    assert again["arguments"] == ["-P", "-m", "backpackd", "--home", "/a b", "--socket=\u00e9"]


@linux
def test_a_passed_descriptor_stays_open(tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    with passed.open("w") as file:
        assert second_start(tmp_path, {}, fd=file.fileno())["passed"] == str(passed)


@linux
def test_nothing_of_the_starters_environment_is_left_even_as_the_kernel_records_it(
    tmp_path: Path,
) -> None:
    dirty = {
        "AGENT_MASTER_KEY": "hunter2-a",
        "OPENAI_API_KEY": "hunter2-b",
        "GRPC_VERBOSITY": "hunter2-c",
        "PYTHONWARNINGS": "ignore::hunter2.d",
        "BACKPACK_PASSPHRASE": "hunter2-e",
        "HOME_": "hunter2-f",
        "home": "hunter2-g",
    }
    again = second_start(tmp_path, {**dirty, "HOME": "/nowhere"})
    assert "hunter2" not in again["recorded"]
    assert not set(dirty) & set(again["environ"])


@linux
def test_what_the_daemon_and_the_service_manager_need_is_kept(tmp_path: Path) -> None:
    needed = {
        "BACKPACK_HOME": "/home/a/\udce9",
        "LC_ALL": "C.UTF-8",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "77",
        "NOTIFY_SOCKET": "@notify",
        "WATCHDOG_USEC": "20000000",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }
    assert second_start(tmp_path, needed)["environ"].items() >= needed.items()


@glibc
def test_a_child_process_of_the_daemon_is_scrubbed_as_well(tmp_path: Path) -> None:
    assert found(second_start(tmp_path, {})["environ"])


def test_cleaning_a_clean_environment_changes_nothing() -> None:
    once = clean_environment(
        {"HOME": "/", "LC_TIME": "C", "LC_TOKEN": "x", "LD_PRELOAD": "x", "": "y"}
    )
    assert once == {"HOME": "/", "LC_TIME": "C"}
    assert clean_environment(once) == once


def test_an_interpreter_that_is_gone_is_said_so() -> None:
    script = (
        "import sys\n"
        "from backpackd.adapters.secrets.scrubbing import ensure_scrubbed\n"
        "from backpackd.core.errors import HomeError\n"
        "for sys.executable in ('/nonexistent/python', '', None):\n"
        "    try:\n"
        "        ensure_scrubbed([])\n"
        "    except HomeError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("could not be executed") == 3
