"""Starting and stopping real daemons. Each test stops what it started, by its pid."""

import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import Backpack, Failure
from backpack_client.cli import daemon_control
from backpack_client.failures import of_system
from daemons import RunningDaemon
from fake_daemon import fake_daemon, status
from odd_files import ODD

PATIENCE = 30.0


@pytest.fixture
def daemon_at(tmp_path: Path) -> Iterator[daemon_control.Daemon]:
    found = daemon_control.find(os.environ)
    yield found
    if daemon_control.runs(found):
        daemon_control.stop(found)


def pid_of(daemon: daemon_control.Daemon) -> int:
    with Backpack(daemon.socket) as backpack:
        return backpack.status().daemon_pid


def instead_of_daemons(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> "list[subprocess.Popen[bytes]]":
    """Let other programs be started where daemons would be; returns those that were."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(_command: object, **options: object) -> "subprocess.Popen[bytes]":
        started.append(real([sys.executable, "-c", code], **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


def test_a_daemon_is_started_answers_and_is_stopped(daemon_at: daemon_control.Daemon) -> None:
    assert not daemon_control.runs(daemon_at)
    said = daemon_control.start(daemon_at)
    pid = pid_of(daemon_at)
    assert f"pid {pid}" in said
    watching = os.pidfd_open(pid)
    daemon_control.stop(daemon_at)
    assert not daemon_control.runs(daemon_at)
    ended, _, _ = select.select([watching], (), (), 0)
    os.close(watching)
    assert ended, "stop returned before the exit"


def test_a_started_daemon_stands_apart_from_its_starter(daemon_at: daemon_control.Daemon) -> None:
    daemon_control.start(daemon_at)
    process = Path("/proc", str(pid_of(daemon_at)))
    assert os.getsid(pid_of(daemon_at)) == pid_of(daemon_at)
    assert str((process / "cwd").readlink()) == "/"
    assert str((process / "fd" / "0").readlink()) == "/dev/null"


def test_the_log_and_the_home_are_private_from_creation(daemon_at: daemon_control.Daemon) -> None:
    before = os.umask(0)
    try:
        daemon_control.start(daemon_at)
    finally:
        os.umask(before)
    home = Path(daemon_at.home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / daemon_control.LOG_NAME).stat().st_mode) == 0o600


def test_a_daemon_gets_few_variables() -> None:
    environ = {
        "HOME": "/h",
        "PATH": "/bin",
        "XDG_RUNTIME_DIR": "/r",
        "BACKPACK_HOME": "/b",
        "LD_PRELOAD": "/evil.so",
        "PYTHONPATH": "/evil",
        "OPENAI_API_KEY": "v",
        "NOTIFY_SOCKET": "/n",
        "GRPC_TRACE": "all",
        "BACKPACK_API_KEY": "v",
        "XDG_TOKEN": "v",
    }
    assert set(daemon_control.clean_environment(environ)) == {
        "HOME",
        "PATH",
        "XDG_RUNTIME_DIR",
        "BACKPACK_HOME",
    }


def test_a_daemon_that_cannot_start_is_told_with_its_own_words(
    daemon_at: daemon_control.Daemon, daemon: RunningDaemon
) -> None:
    # A second daemon on the same home, at another socket.
    other = daemon_control.find(os.environ, daemon_at.socket + ".other")
    with pytest.raises(Failure) as caught:
        daemon_control.start(other)
    assert caught.value.reason == "not-started"
    assert str(daemon.pid) in caught.value.hint or "lock" in caught.value.hint.lower()


@pytest.mark.parametrize("place", ["open", "open/missing/deep"])
def test_no_daemon_is_started_where_no_client_would_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    started = instead_of_daemons(monkeypatch, "")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Failure, match="written by others") as caught:
        daemon_control.start(daemon_control.find(os.environ, str(tmp_path / place / "s.sock")))
    assert caught.value.reason == "socket-not-trusted"
    assert started == []


def test_a_home_that_cannot_be_used_names_both_variables(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = daemon_control.find({"BACKPACK_HOME": str(tmp_path / "file")}, str(tmp_path / "s"))
    with pytest.raises(Failure) as caught:
        daemon_control.start(found)
    assert "BACKPACK_HOME" in caught.value.hint
    assert "BACKPACK_SOCKET" in caught.value.hint


def test_only_what_this_start_logged_is_shown(
    daemon_at: daemon_control.Daemon, daemon: RunningDaemon
) -> None:
    log = Path(daemon_at.home, daemon_control.LOG_NAME)
    log.write_text("an older line\n")
    other = daemon_control.find(os.environ, daemon_at.socket + ".other")
    with pytest.raises(Failure) as caught:
        daemon_control.start(other)
    assert "an older line" not in caught.value.hint


def test_a_daemon_that_another_one_started_meanwhile_is_as_good(
    daemon_at: daemon_control.Daemon, daemon: RunningDaemon
) -> None:
    assert daemon_control.start(daemon_at) == "it was starting already"


def test_a_daemon_that_never_gets_ready_is_stopped(
    daemon_at: daemon_control.Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = instead_of_daemons(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(daemon_control, "START_SECONDS", 0.1)
    with pytest.raises(Failure, match="not ready"):
        daemon_control.start(daemon_at)
    assert started[0].wait(PATIENCE) == -signal.SIGTERM


def test_a_daemon_gets_no_other_variables_when_it_is_started(
    daemon_at: daemon_control.Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "v")
    instead_of_daemons(monkeypatch, "import os; print(sorted(os.environ))")
    with pytest.raises(Failure) as caught:
        daemon_control.start(daemon_control.find(os.environ))
    assert "NOTIFY_SOCKET" in caught.value.hint
    assert "OPENAI_API_KEY" not in caught.value.hint


def test_a_log_that_is_a_link_is_not_written_to(
    daemon_at: daemon_control.Daemon, tmp_path: Path
) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("")
    (home / daemon_control.LOG_NAME).symlink_to(victim)
    with pytest.raises(Failure) as caught:
        daemon_control.start(daemon_at)
    assert caught.value.reason == "home-not-usable"
    assert victim.read_text() == ""


def test_a_log_with_a_second_name_is_not_written_to(
    daemon_at: daemon_control.Daemon, tmp_path: Path
) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    victim = tmp_path / "victim"
    victim.write_text("")
    (home / daemon_control.LOG_NAME).hardlink_to(victim)
    with pytest.raises(Failure, match="not a file of yours"):
        daemon_control.start(daemon_at)
    assert victim.read_text() == ""


@pytest.mark.parametrize("kind", ["a FIFO", "a symbolic link", "a dangling link", "a socket"])
def test_a_log_that_is_exchanged_meanwhile_neither_holds_up_nor_is_shown(
    daemon_at: daemon_control.Daemon, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    log = Path(daemon_at.home, daemon_control.LOG_NAME)
    real = daemon_control._open_log

    def exchanged(home: str) -> int:
        descriptor = real(home)
        log.write_text("not to be shown\n")
        ODD[kind](log)
        return descriptor

    monkeypatch.setattr(daemon_control, "_open_log", exchanged)
    instead_of_daemons(monkeypatch, "print('said')")
    with pytest.raises(Failure) as caught:
        daemon_control.start(daemon_at)
    assert "its log" in caught.value.hint
    assert "not to be shown" not in caught.value.hint


def test_a_log_that_others_can_read_is_made_private(daemon_at: daemon_control.Daemon) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    log = home / daemon_control.LOG_NAME
    log.write_text("")
    log.chmod(0o666)
    daemon_control.start(daemon_at)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_that_is_no_file_is_refused(daemon_at: daemon_control.Daemon) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    os.mkfifo(home / daemon_control.LOG_NAME)
    reader = os.open(home / daemon_control.LOG_NAME, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Failure, match="not a file of yours"):
            daemon_control.start(daemon_at)
    finally:
        os.close(reader)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_log_of_another_user_is_refused(daemon_at: daemon_control.Daemon) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    log = home / daemon_control.LOG_NAME
    log.write_text("")
    os.chown(log, 65534, 65534)
    with pytest.raises(Failure, match="not a file of yours"):
        daemon_control.start(daemon_at)
    assert log.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_home_of_another_user_is_refused(daemon_at: daemon_control.Daemon) -> None:
    home = Path(daemon_at.home)
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    with pytest.raises(Failure, match="65534"):
        daemon_control.start(daemon_at)


def test_stopping_none_is_a_failure_that_says_so(daemon_at: daemon_control.Daemon) -> None:
    with pytest.raises(Failure) as caught:
        daemon_control.stop(daemon_at)
    assert caught.value.reason == "no-daemon"


def test_a_process_that_only_claims_another_pid_is_not_signalled(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with fake_daemon(tmp_path) as fake:
            fake.answers["Status"] = lambda _: status(daemon_pid=victim.pid)
            with pytest.raises(Failure) as caught:
                daemon_control.stop(daemon_control.find(os.environ, fake.path))
        assert caught.value.reason == "not-ours"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait(PATIENCE)


def test_a_supervised_daemon_is_left_to_its_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_control, "_managed", lambda _: False)
    with fake_daemon(tmp_path) as fake:
        fake.answers["Status"] = lambda _: status(daemon_pid=os.getpid(), supervised=True)
        with pytest.raises(Failure) as caught:
            daemon_control.stop(daemon_control.find(os.environ, fake.path))
    assert caught.value.reason == "supervised"


FAKE_SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *show*) echo "Listen={socket} (Stream)"; echo "LoadState={state}" ;;
  *) exit {code} ;;
esac
"""


def systemctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, state: str = "loaded", code: int = 0
) -> tuple[daemon_control.Daemon, Path]:
    monkeypatch.delenv("BACKPACK_HOME")
    found = daemon_control.find(os.environ)
    log = tmp_path / "systemctl.log"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(FAKE_SYSTEMCTL.format(log=log, socket=found.socket, state=state, code=code))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return daemon_control.find(os.environ), log


def test_where_the_unit_is_installed_the_service_manager_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, log = systemctl(tmp_path, monkeypatch)
    assert "service manager" in daemon_control.start(found)
    assert "start backpackd.socket" in log.read_text().splitlines()[-1]


def test_a_service_manager_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = systemctl(tmp_path, monkeypatch, code=1)
    with pytest.raises(Failure) as caught:
        daemon_control.start(found)
    assert caught.value.reason == "service-manager"


@pytest.mark.parametrize("change", ["home", "profile", "socket", "state"])
def test_a_unit_for_another_daemon_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    state = "not-found" if change == "state" else "loaded"
    found, _ = systemctl(tmp_path, monkeypatch, state=state)
    if change == "home":
        monkeypatch.setenv("BACKPACK_HOME", str(tmp_path / "home"))
    if change == "profile":
        monkeypatch.setenv("BACKPACK_PROFILE", "staging")
    path = found.socket + ".other" if change == "socket" else found.socket
    assert not daemon_control._managed(daemon_control.find(os.environ, path))


def test_a_listener_that_does_not_speak_the_protocol_is_not_stopped(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = daemon_control._PinnedListener(str(path))
        assert process.pid == os.getpid()
        assert not process.wait(0.0)
        process.close()


@pytest.fixture
def no_place(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Refuse temporary directories everywhere but in a home; returns the errors to answer with."""
    errors = [errno.EROFS]

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "no usable temporary directory found")

    real = tempfile.TemporaryDirectory

    def made(*, prefix: str, dir: str) -> object:  # noqa: A002 - tempfile's word
        if dir in ("/tmp", "/none"):
            raise OSError(errors[0], os.strerror(errors[0]))
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", made)
    return errors


@pytest.mark.usefixtures("no_place")
def test_a_start_without_a_place_for_temporary_files_takes_the_home(tmp_path: Path) -> None:
    # A short path, as that of a home usually is.
    home = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with daemon_control._private_directory(f"/proc/self/fd/{home}"):
            (made,) = tmp_path.iterdir()
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(home)


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (errno.EROFS, "no-temporary-directory", "read-only file system"),
        (errno.ENOSPC, "no-temporary-directory", "no space left"),
        (errno.EPERM, "refused", "operation not permitted"),
    ],
)
def test_a_start_that_finds_no_place_at_all_says_why(
    no_place: list[int], error: int, reason: str, said: str
) -> None:
    no_place[:] = [error]
    try:
        daemon_control._private_directory("/none")
    except OSError as refused:
        failure = of_system(refused)
    except Failure as told:
        failure = told
    assert failure.reason == reason
    assert said in failure.message
    assert ("TMPDIR" in failure.hint) is (reason == "no-temporary-directory")
