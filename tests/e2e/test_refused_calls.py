"""What a sandbox refuses is named, with what to do, and blamed on nothing else.

One row for each system call that client or daemon makes at start and that a sandbox, a limit or a
full disk may refuse: how the program ends, and what it says.
"""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpack_client.fastpath import get
from daemons import RunningDaemon
from sandboxes import refusing, unshared

FORBIDS = "this sandbox forbids Unix sockets"
FILTER = "a sandbox or a service manager's filter forbids it"
ALLOW = "allow them or hand keys over with run"

_API = """
from backpack_client import Backpack, Failure
try:
    with Backpack() as backpack:
        backpack.status()
except Failure as failure:
    raise SystemExit(f"{failure.message}; {failure.hint}") from None
"""
COMMANDS = {
    "get": ["-m", "backpack_client", "get", "K", "--wait", "0"],
    "status": ["-m", "backpack_client", "status"],
    "start": ["-m", "backpack_client", "start"],
    "list": ["-m", "backpack_client", "list", "--all", "--passphrase-file", "passphrase"],
    "run": ["-m", "backpack_client", "run", "--key", "K", "--inject", "fd", "--wait", "0", "true"],
    "api": ["-c", _API],
}


def copied(
    made_once: RunningDaemon, place: Path, preexec: Callable[[], None] | None = None
) -> RunningDaemon:
    """Return a daemon on a copy of the vault, with a socket in a directory that it has to make."""
    shutil.copytree(made_once.home, place / "home")
    return RunningDaemon(place / "home", place / "new" / "s", preexec=preexec)


def refusal(daemon: RunningDaemon) -> str:
    """Return what a daemon says that does not start, and leave none behind that does."""
    try:
        return daemon.refused()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def serving(
    made_once: RunningDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningDaemon]:
    """Return a daemon that runs for all of the module, with a key that this user may lease."""
    running = copied(made_once, tmp_path_factory.mktemp("serving"))
    running.start()
    operator = running.operator()
    operator.put("K", b"v")
    operator.grant("K")
    yield running
    running.close()


def run(
    daemon: RunningDaemon, command: str, preexec: Callable[[], None]
) -> "subprocess.CompletedProcess[str]":
    (daemon.home.parent / "passphrase").write_text("seven quiet otters\n")
    (daemon.home.parent / "passphrase").chmod(0o600)
    return subprocess.run(
        [sys.executable, *COMMANDS[command]],
        cwd=daemon.home.parent,
        env={
            **os.environ,
            "BACKPACK_HOME": str(daemon.home),
            "BACKPACK_SOCKET": str(daemon.socket),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # Nothing else runs in the test's process at this point.
        preexec_fn=preexec,
    )


# What is refused, with which error, the exit code, and what is said.
CLIENT = [
    *(
        (command, call, error, 7, (FORBIDS, ALLOW))
        for command in ("get", "status", "api")
        for call, error in (("socket:1", errno.EPERM), ("connect", errno.EPERM))
    ),
    *(
        ("get", call, error, 7, (FORBIDS, ALLOW))
        for call, error in (
            ("socket:1", errno.EAFNOSUPPORT),
            ("socket:1", errno.ENOSYS),
            ("socket:1", errno.EACCES),
            ("connect", errno.EACCES),
            ("connect", errno.ENOSYS),
            ("getsockopt", errno.EPERM),
            ("sendto", errno.EPERM),
        )
    ),
    ("run", "connect", errno.EPERM, 7, (FORBIDS, ALLOW)),
    ("list", "socket:1", errno.EPERM, 7, (FORBIDS, ALLOW)),
    ("start", "socket:1", errno.EPERM, 7, (FORBIDS, ALLOW)),
    ("get", "recvfrom", errno.EPERM, 7, (FORBIDS, ALLOW)),
    ("get", "socket:1", errno.EMFILE, 1, ("too many open files", "ulimit -n")),
    ("api", "socket:1", errno.EMFILE, 1, ("too many open files", "ulimit -n")),
    ("list", "prctl", errno.EPERM, 1, ("keep other programs out", "a sandbox forbids it")),
    ("list", "prlimit64", errno.EPERM, 1, ("turn core files off", "a sandbox forbids it")),
    ("run", "memfd_create", errno.EPERM, 1, ("file in memory", "--inject env")),
]


@pytest.mark.parametrize("row", CLIENT, ids=str)
def test_a_client_that_is_refused_a_call_says_so(
    serving: RunningDaemon, row: tuple[str, str, int, int, tuple[str, ...]]
) -> None:
    command, call, error, exit_code, said = row
    done = run(serving, command, refusing({call: error}))
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command == "api" else exit_code), done.stderr
    for words in said:
        assert words in done.stderr
    assert "backpack-client start" not in done.stderr
    assert done.stdout == ""


# Of each call that fails at start: the errors, and what is said; nothing: the daemon serves.
DAEMON = [
    *(
        ({call: errno.EPERM}, ("cannot use Unix sockets", FILTER))
        for call in ("socketpair", "getsockopt", "sendto", "epoll_ctl")
    ),
    ({"socket:1": errno.EAFNOSUPPORT}, ("cannot use Unix sockets", FILTER)),
    ({"socket:1": errno.EMFILE}, ("cannot use Unix sockets", "LimitNOFILE=")),
    ({"bind": errno.EROFS}, ("cannot bind", "read-only file system: mount it so")),
    ({"listen": errno.EPERM}, ("cannot listen", FILTER)),
    ({"flock": errno.EPERM}, ("the home", FILTER)),
    ({"mkdir": errno.EPERM, "mkdirat": errno.EPERM}, ("cannot make the directory", FILTER)),
    ({"mkdir": errno.ENOSPC, "mkdirat": errno.ENOSPC}, ("cannot make the directory", "make room")),
    ({"unlink": errno.EPERM, "unlinkat": errno.EPERM}, ("the vault file cannot be used", FILTER)),
    ({"prctl": errno.EPERM}, ("close the daemon's memory", "filter forbids it")),
    ({"prlimit64": errno.EPERM}, ("close the daemon's memory", "filter forbids it")),
    ({"madvise": errno.EPERM}, ("lock one page of memory", "let the sandbox allow mlock")),
    ({"pidfd_open": errno.ENOSYS}, ("the system refused what the daemon needs", FILTER)),
    ({"eventfd2": errno.EPERM}, ("the system refused what the daemon needs", FILTER)),
    ({"timerfd_create": errno.EPERM}, ("the system refused what the daemon needs", FILTER)),
    ({"clone3": errno.EPERM}, ("the system refused a thread", "TasksMax=")),
    (
        {"memfd_secret": errno.EPERM, "memfd_create": errno.ENOSYS, "pipe2": errno.EPERM},
        ("memfd_secret is forbidden by a sandbox", "could not be found out: operation not"),
    ),
]


@pytest.mark.parametrize(("refused", "said"), DAEMON, ids=str)
def test_a_daemon_that_is_refused_a_call_says_so(
    made_once: RunningDaemon, tmp_path: Path, refused: dict[str, int], said: tuple[str, ...]
) -> None:
    daemon = copied(made_once, tmp_path, refusing(refused))
    if "memfd_secret" in refused:
        daemon.start()
        daemon.close()
        told = daemon.log_text()
    else:
        told = refusal(daemon)
    assert not [word for word in ("Traceback", "Warning:", "Exception") if word in told], told
    for words in said:
        assert words in told


def test_a_daemon_that_may_open_too_few_files_does_not_start(
    made_once: RunningDaemon, tmp_path: Path
) -> None:
    daemon = copied(
        made_once, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    )
    assert "at least 64 are needed: raise the limit (ulimit -n" in refusal(daemon)


def test_a_daemon_without_proc_says_that_it_is_to_be_mounted(
    made_once: RunningDaemon, tmp_path: Path
) -> None:
    daemon = copied(made_once, tmp_path)
    script = 'mount -t tmpfs none /proc && exec "$@"'
    inside = [*unshared("--mount"), "sh", "-c", script, "sh", sys.executable, "-m", "backpackd"]
    hidden = RunningDaemon(daemon.home, daemon.socket, command=inside)
    assert "/proc cannot be read: mount it" in refusal(hidden)


def test_a_stopped_daemon_is_not_one_that_waits_for_approval(
    serving: RunningDaemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(get, "GRACE", 1)
    monkeypatch.setenv("BACKPACK_SOCKET", str(serving.socket))
    arguments = get.parse(["K", "--wait", "0"])
    assert arguments is not None
    os.kill(serving.pid, signal.SIGSTOP)
    try:
        assert get.run(arguments) == 7
    finally:
        os.kill(serving.pid, signal.SIGCONT)
    told = capfd.readouterr().err
    assert "the daemon did not answer in time" in told
    assert "kill -CONT" in told
    assert get.run(arguments) == 0
