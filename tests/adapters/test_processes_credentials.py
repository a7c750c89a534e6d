"""Who is at the other end, as the kernel tells it."""

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.processes import credentials as module
from backpackd.adapters.processes.credentials import (
    ForeignUserError,
    credentials_reader,
    darwin_credentials,
    linux_credentials,
    parse_audit_token,
    parse_xucred,
    pidfd_by_number,
)
from backpackd.core.errors import HomeError, ProcessGoneError
from descriptors import descriptors

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
UID = os.geteuid()

CONNECT = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
if sys.argv[2] == "fork" and os.fork():
    os._exit(0)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
"""


class Kernel:
    """A socket whose options are what a test says."""

    def __init__(self, **options: bytes | int) -> None:
        self._options = options

    def getsockopt(self, level: int, option: int, _size: int) -> bytes:
        answer = self._options[f"_{level}_{option}"]
        if isinstance(answer, int):
            raise OSError(answer, "from the test")
        return answer


def kernel(**options: bytes | int) -> socket.socket:
    return Kernel(**options)  # type: ignore[return-value]


def linux_kernel(pid: int, pidfd: int | bytes, uid: int = UID) -> socket.socket:
    return kernel(_1_17=struct.pack("=iII", pid, uid, 5), _1_77=pidfd)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


def child(listening: socket.socket, how: str = "stay") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", CONNECT, listening.getsockname(), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@linux_only
def test_a_peer_is_told_with_a_descriptor_of_its_own_process(listening: socket.socket) -> None:
    process = child(listening)
    with listening.accept()[0] as sock:
        told = linux_credentials(sock, UID)
    assert (told.uid, told.gid, told.pid) == (UID, os.getegid(), process.pid)
    assert not os.get_inheritable(told.pidfd)
    assert not module._exited(told.pidfd)
    process.communicate("\n")
    assert module._exited(told.pidfd)
    os.close(told.pidfd)


@linux_only
def test_another_uid_is_refused_by_its_number(listening: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listening.getsockname())
        with listening.accept()[0] as sock, pytest.raises(ForeignUserError) as caught:
            linux_credentials(sock, UID + 1)
    assert caught.value.uid == UID


@linux_only
def test_root_is_another_uid_to_everybody_else() -> None:
    with pytest.raises(ForeignUserError):
        linux_credentials(linux_kernel(1, 0, uid=0), 1000)


@linux_only
def test_pid_0_is_refused_and_its_descriptor_not_even_asked_for() -> None:
    with pytest.raises(ProcessGoneError):
        linux_credentials(kernel(_1_17=struct.pack("=iII", 0, UID, 5)), UID)


@linux_only
@pytest.mark.parametrize("reaped", [True, False])
def test_a_process_that_is_gone_is_refused_even_while_its_child_holds_on(
    listening: socket.socket, reaped: bool
) -> None:
    process = child(listening, "fork")
    if reaped:
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    before = descriptors()
    with listening.accept()[0] as sock, pytest.raises(ProcessGoneError):
        linux_credentials(sock, UID)
    assert descriptors() <= before
    process.communicate("\n")


@linux_only
def test_a_descriptor_of_another_process_than_the_number_says_is_refused() -> None:
    pidfd = os.pidfd_open(os.getpid())
    with pytest.raises(ProcessGoneError):
        linux_credentials(linux_kernel(1, struct.pack("=i", pidfd)), UID)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pidfd)


@linux_only
@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
def test_a_kernel_that_hands_out_no_descriptor_of_the_dead_means_that_it_is_gone(
    code: int,
) -> None:
    with pytest.raises(ProcessGoneError):
        linux_credentials(linux_kernel(os.getpid(), code), UID)


@linux_only
@pytest.mark.parametrize("code", [errno.EPERM, errno.EMFILE])
def test_a_kernel_that_refuses_is_not_worked_around(code: int) -> None:
    with pytest.raises(OSError, match="from the test"):
        linux_credentials(linux_kernel(os.getpid(), code), UID)


@linux_only
def test_on_an_older_kernel_the_process_is_opened_by_its_number() -> None:
    told = linux_credentials(linux_kernel(os.getpid(), errno.ENOPROTOOPT), UID)
    assert module._pid_of(told.pidfd) == os.getpid()
    os.close(told.pidfd)


@linux_only
def test_by_number_a_process_that_started_after_the_accept_is_refused() -> None:
    accepted_at = time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as later:
        with pytest.raises(ProcessGoneError):
            pidfd_by_number(later.pid, accepted_at)
        os.close(pidfd_by_number(later.pid, accepted_at + 120))


@linux_only
def test_by_number_a_process_that_is_gone_is_refused() -> None:
    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    with pytest.raises(ProcessGoneError):
        pidfd_by_number(process.pid, now)
    process.wait()
    with pytest.raises(ProcessGoneError):
        pidfd_by_number(process.pid, now)


@linux_only
def test_by_number_a_thread_is_not_taken_for_a_process() -> None:
    ready, done = threading.Event(), threading.Event()
    number: list[int] = []

    def run() -> None:
        number.append(threading.get_native_id())
        ready.set()
        done.wait()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    with pytest.raises(ProcessGoneError):
        pidfd_by_number(number[0], time.clock_gettime(time.CLOCK_BOOTTIME))
    done.set()
    thread.join()


@linux_only
def test_the_start_time_is_read_past_a_name_that_looks_like_the_fields(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 2 (3"
    program.symlink_to("/bin/cat")
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        start = module._start_ticks(process.pid) / os.sysconf("SC_CLK_TCK")
        assert now - 60 < start <= now


# --- macOS, on the bytes that its kernel would give

XUCRED = struct.pack("=IIh2x16I", 0, 501, 3, 20, 12, 61, *[0] * 13)
TOKEN = struct.pack("=8I", 501, 501, 20, 502, 21, 4321, 100_003, 7)


def darwin_kernel(cred: bytes | int = XUCRED, token: bytes | int = TOKEN) -> socket.socket:
    return kernel(_0_1=cred, _0_6=token)


def test_xucred_gives_the_uid_and_the_first_group() -> None:
    assert parse_xucred(XUCRED) == (501, 20)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        XUCRED[:-1],
        XUCRED + b"\0",
        struct.pack("=IIh2x16I", 1, 501, 3, *[20] * 16),
        struct.pack("=IIh2x16I", 0, 501, 0, *[20] * 16),
        struct.pack("=IIh2x16I", 0, 501, 17, *[20] * 16),
        struct.pack("=IIh2x16I", 0, 501, -1, *[20] * 16),
    ],
)
def test_xucred_of_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(OSError, match="peer credentials"):
        parse_xucred(raw)


def test_the_audit_token_gives_effective_uid_pid_and_version() -> None:
    assert parse_audit_token(TOKEN) == (501, 4321, 7)


@pytest.mark.parametrize("raw", [b"", TOKEN[:-1], TOKEN + b"\0"])
def test_an_audit_token_of_another_size_is_refused(raw: bytes) -> None:
    with pytest.raises(OSError, match="audit token"):
        parse_audit_token(raw)


def test_on_macos_a_peer_is_told_with_the_version_of_its_pid() -> None:
    told = darwin_credentials(darwin_kernel(), 501)
    assert (told.uid, told.gid, told.pid, told.pidfd, told.version) == (501, 20, 4321, -1, 7)


def test_on_macos_another_uid_is_refused() -> None:
    with pytest.raises(ForeignUserError):
        darwin_credentials(darwin_kernel(), 502)


def test_on_macos_a_peer_that_changed_its_uid_since_is_refused() -> None:
    token = struct.pack("=8I", 501, 0, 20, 501, 20, 4321, 1, 7)
    with pytest.raises(ForeignUserError) as caught:
        darwin_credentials(darwin_kernel(token=token), 501)
    assert caught.value.uid == 0


@pytest.mark.parametrize("token", [struct.pack("=8I", 0, 501, *[0] * 6), errno.ENOTCONN])
def test_on_macos_a_peer_that_is_gone_is_refused(token: bytes | int) -> None:
    with pytest.raises(ProcessGoneError):
        darwin_credentials(darwin_kernel(token=token), 501)


def test_each_platform_has_its_reader_and_no_other_has_one() -> None:
    assert credentials_reader("linux") is linux_credentials
    assert credentials_reader("darwin") is darwin_credentials
    with pytest.raises(HomeError):
        credentials_reader("win32")
