"""Starts and stops the daemon: by the service manager if its unit is installed, otherwise detached.

A detached daemon starts in a new session, and its environment has only a few known variables. So
the shell that started it changes neither what it loads nor where it writes. Nothing here polls: the
daemon sends a message when it is ready, and the kernel reports its exit.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from backpack_client import address
from backpack_client.api import Backpack
from backpack_client.failures import Failure, is_forbidden, printable

START_SECONDS = 15.0
# Longer than the time that the daemon gives to calls in progress.
STOP_SECONDS = 20.0
LOG_NAME = "backpackd.log"
SOCKET_UNIT = "backpackd.socket"
SERVICE_UNIT = "backpackd.service"

# By their whole names: a credential may be called `XDG_...` or `BACKPACK_API_KEY`, too.
_PASSED = frozenset(
    """
    HOME PATH LANG TMPDIR TZ USER LOGNAME DBUS_SESSION_BUS_ADDRESS
    XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR XDG_SESSION_ID XDG_STATE_HOME
    BACKPACK_HOME BACKPACK_PROFILE BACKPACK_SOCKET
    """.split()  # noqa: SIM905 - words are read at a glance, in a list each would take a line
)
_SYSTEMCTL_SECONDS = 30.0
_LOG_LINES = 10
_LOG_TAIL = 16 * 1024
_DATAGRAM = 4096
# A length that fits into every socket address, see unix(7).
_SAFE_PATH = 90
# `/backpack-12345678/ready`, and some more.
_READY_BYTES = 26
# SOL_LOCAL and LOCAL_PEERPID of macOS's sys/un.h.
_SOL_LOCAL = 0
_LOCAL_PEERPID = 2


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon, and how to find it.

    Attributes:
        socket: absolute path of its socket.
        home: absolute path of its home.
        environ: the environment that named them.
    """

    socket: str
    home: str
    environ: Mapping[str, str]


def find(environ: Mapping[str, str], explicit: str | None = None) -> Daemon:
    """Return the daemon that the settings mean.

    Args:
        environ: the environment.
        explicit: a socket from the command line, which takes precedence.

    Raises:
        Failure: a usage failure: a variable has a wrong form.
    """
    return Daemon(address.socket_path(environ, explicit), address.home_path(environ), environ)


def runs(daemon: Daemon) -> bool:
    """Return whether a daemon listens at the socket.

    Raises:
        Failure: the listener there cannot be trusted.
    """
    try:
        address.connect(daemon.socket).close()
    except Failure as failure:
        if failure.reason == "no-daemon":
            return False
        raise
    return True


def start(daemon: Daemon) -> str:
    """Start the daemon, and return when it answers.

    Returns:
        How it was started, in a few words for a person.

    Raises:
        Failure: it did not start (the hint has its log), or it was not started because clients
        would
            refuse the place of its socket.
    """
    address.check_place(daemon.socket)
    if _managed(daemon):
        _systemctl("start", SOCKET_UNIT)
        return f"by the service manager ({SOCKET_UNIT})"
    pid = _start_detached(daemon)
    return f"pid {pid}, log in {Path(daemon.home, LOG_NAME)}" if pid else "it was starting already"


def stop(daemon: Daemon) -> None:
    """Stop the daemon, and return when it has ended.

    Raises:
        Failure: none runs (`no-daemon`), this user may not stop it, or it does not end.
    """
    with Backpack(daemon.socket) as backpack:
        if backpack.status().supervised:
            _stop_managed(daemon)
            return
    with _PinnedListener(daemon.socket) as process:
        # Asked after the process was pinned: since that very pid still answers, the pin holds the
        # daemon, and not another process that got the number of a daemon that had ended.
        with Backpack(daemon.socket) as backpack:
            answering = backpack.status().daemon_pid
        if answering != process.pid:
            raise Failure(
                "the process that listens is not the process that answers",
                reason="not-ours",
                hint="it may run in a container: stop it there",
            )
        process.terminate()
        if not process.wait(STOP_SECONDS):
            raise Failure(
                f"the daemon (pid {process.pid}) still runs {STOP_SECONDS:.0f} s after it was "
                "told to stop",
                reason="still-running",
                hint=f"see {Path(daemon.home, LOG_NAME)}; to end it: kill -KILL {process.pid}",
            )


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a daemon gets."""
    return {name: text for name, text in environ.items() if name in _PASSED}


class _PinnedListener:
    """The process that listens at a socket, pinned: its pid cannot come to mean another process."""

    def __init__(self, path: str) -> None:
        connection = socket.socket(fileno=address.connect(path).detach())
        try:
            self.pid, uid = _listener(connection)
        finally:
            connection.close()
        if uid != os.geteuid():
            raise Failure(
                f"the daemon belongs to uid {uid}",
                reason="not-ours",
                hint="only that user can stop it",
            )
        try:
            self._descriptor = _pin(self.pid)
        except OSError as error:
            raise Failure(
                f"the daemon (pid {self.pid}) is gone already: {_why(error)}", reason="gone"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def terminate(self) -> None:
        if sys.platform == "linux":
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)
        else:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._descriptor], (), (), seconds)
        return bool(ready)


def _listener(connection: socket.socket) -> tuple[int, int]:
    if sys.platform == "darwin":
        # address.connect has checked that it belongs to this user or root. Root's is supervised.
        return connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID), os.geteuid()
    # struct ucred of unix(7).
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    return pid, uid


def _pin(pid: int) -> int:
    if sys.platform == "darwin":
        queue = select.kqueue()
        queue.control(
            [select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)], 0
        )
        return os.dup(queue.fileno())
    return os.pidfd_open(pid)


def _managed(daemon: Daemon) -> bool:
    # The unit does not know these variables, so it would start another daemon.
    if daemon.environ.get("BACKPACK_HOME") or daemon.environ.get("BACKPACK_PROFILE"):
        return False
    if sys.platform != "linux" or shutil.which("systemctl") is None:
        return False
    shown = _run_systemctl("show", "--property=LoadState", "--property=Listen", SOCKET_UNIT)
    lines = shown.stdout.splitlines()
    return "LoadState=loaded" in lines and f"Listen={daemon.socket} (Stream)" in lines


def _stop_managed(daemon: Daemon) -> None:
    if not _managed(daemon):
        raise Failure(
            "a service manager runs the daemon, and it is not your systemd",
            reason="supervised",
            hint="stop it there",
        )
    _systemctl("stop", SOCKET_UNIT, SERVICE_UNIT)


def _systemctl(*arguments: str) -> None:
    done = _run_systemctl(*arguments)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it did not say why"]
        raise Failure(
            f"the service manager could not {arguments[0]} the daemon: {printable(said[0], 200)}",
            reason="service-manager",
            hint=f"see: systemctl --user status {SERVICE_UNIT}",
        )


def _run_systemctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["systemctl", "--user", "--no-pager", *arguments]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SYSTEMCTL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 1, "", "systemctl did not answer")


def _start_detached(daemon: Daemon) -> int | None:
    """Start it, wait until it is ready, and return its pid; None: another one started first."""
    log = _open_log(daemon.home)
    try:
        begins = os.fstat(log).st_size
        with _private_directory(daemon.home) as directory, _Readiness(directory) as readiness:
            child = subprocess.Popen(
                _command(daemon),
                env={**clean_environment(daemon.environ), "NOTIFY_SOCKET": readiness.address},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
            readiness.watch(child)
            outcome = readiness.wait(START_SECONDS)
    finally:
        os.close(log)
    if outcome == "ready":
        return child.pid
    if outcome == "exited" and runs(daemon):
        return None
    if outcome == "late":
        child.terminate()
    raise Failure(
        "the daemon did not start"
        if outcome == "exited"
        else f"the daemon was not ready within {START_SECONDS:.0f} s and was stopped",
        reason="not-started",
        hint=_tail(daemon.home, begins),
    )


def _command(daemon: Daemon) -> list[str]:
    # -P: a module in the current directory must not replace a module of the daemon.
    python = [sys.executable, "-P", "-m", "backpackd"]
    return [*python, "--home", daemon.home, "--socket", daemon.socket]


def _private_directory(home: str) -> "tempfile.TemporaryDirectory[str]":
    """Make a directory for one socket, where there is a place for one.

    mkdtemp makes it 0700: no other user can send a READY into it. A long TMPDIR does not fit into a
    socket address. The home, which is writable by now, serves where there is no place for temporary
    files, as in many a container.
    """
    places = ["/tmp", home]  # noqa: S108 - as above
    with contextlib.suppress(FileNotFoundError):
        places.insert(0, tempfile.gettempdir())
    why = "no path is short enough"
    for place in places:
        if len(os.fsencode(place)) + _READY_BYTES < _SAFE_PATH:
            try:
                return tempfile.TemporaryDirectory(prefix="backpack-", dir=place)
            except OSError as error:
                if is_forbidden(error):
                    raise
                why = _why(error)
    raise Failure(
        f"there is no directory for temporary files: {why}",
        reason="no-temporary-directory",
        hint="set TMPDIR to a directory that you can write to, with a short path",
    )


class _Readiness:
    """Waits for a child's READY=1 (sd_notify(3)) or its end, whichever comes first."""

    def __init__(self, directory: str) -> None:
        self.address = str(Path(directory, "ready"))
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ended, self._end = socket.socketpair()
        try:
            self._notices.bind(self.address)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The watching thread closes the other end.
        self._notices.close()
        self._ended.close()

    def watch(self, child: "subprocess.Popen[bytes]") -> None:
        # A thread, because macOS has no pidfd. If the child becomes a daemon, the thread ends with
        # us.
        threading.Thread(target=self._reap, args=(child,), daemon=True).start()

    def wait(self, patience: float) -> str:
        poller = select.poll()
        poller.register(self._notices, select.POLLIN)
        poller.register(self._ended, select.POLLIN)
        while events := poller.poll(patience * 1000):
            ready = {descriptor for descriptor, _ in events}
            if self._notices.fileno() in ready:
                notice = self._notices.recv(_DATAGRAM)
                if b"READY=1" in notice.split(b"\n"):
                    return "ready"
            elif self._ended.fileno() in ready:
                return "exited"
        return "late"

    def _reap(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        self._end.close()


def _open_log(home: str) -> int:
    try:
        _make_directory(Path(home))
        directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.fstat(directory).st_uid != os.geteuid():
                message, hint = address.whose(home, os.fstat(directory).st_uid)
                raise Failure(message, reason="home-not-ours", hint=hint)
            return _open_log_in(directory, home)
        finally:
            os.close(directory)
    except OSError as error:
        raise Failure(
            f"cannot keep a log in {printable(home, 256)}: {_why(error)}",
            reason="home-not-usable",
            hint="set BACKPACK_HOME to your own directory, and BACKPACK_SOCKET to a path in one",
        ) from None


def _open_log_in(directory: int, home: str) -> int:
    # O_NOFOLLOW: a planted link would choose the file that is written to.
    # O_NONBLOCK: a pipe without a reader would hold up the start.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    log = os.open(LOG_NAME, flags, 0o600, dir_fd=directory)
    try:
        _make_private(log, home)
    except BaseException:
        os.close(log)
        raise
    return log


def _make_private(log: int, home: str) -> None:
    status = os.fstat(log)
    # With a second name (hard link), the log would be written into another file as well.
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
        raise Failure(
            f"{LOG_NAME} in {printable(home, 256)} is not a file of yours",
            reason="home-not-usable",
            hint="see what it is, and move it away",
        )
    if status.st_mode & 0o077:
        # Made by another program, such as a shell's redirection.
        os.fchmod(log, 0o600)


def _make_directory(path: Path) -> None:
    """Make a directory and missing directories above it, each with mode 0700 from creation."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _tail(home: str, begins: int) -> str:
    path = Path(home, LOG_NAME)
    # As when it was opened to write: by now the path may name something else.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        return f"its log cannot be read: {printable(str(path), 256)}: {_why(error)}"
    with open(descriptor, "rb") as log:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return f"its log is no longer a file: {printable(str(path), 256)}"
        log.seek(max(begins, log.seek(0, os.SEEK_END) - _LOG_TAIL))
        lines = log.read().decode(errors="replace").splitlines()
    said = [printable(line, 300) for line in lines[-_LOG_LINES:] if line.strip()]
    return "\n".join([*said, f"its log: {printable(str(path), 256)}"])


def _why(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
