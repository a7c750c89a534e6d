"""Asks the kernel who is at the other end of an accepted connection.

One port, `ReadCredentials`, has an implementation for Linux and one for macOS. Nothing here reads
what the process runs; attestation does. A foreign uid is refused, whatever the modes of the socket
and its directory are.

Linux 6.5 and newer give a descriptor of the process that connected (`SO_PEERPIDFD`). Older kernels
give only its pid, which is opened and then checked: a process that started after the accept cannot
be the one that connected. One gap remains there: a process connects, leaves the connection to a
child, exits, and its pid is reused *before* the daemon accepts. The user's own processes can
stretch that moment by stopping the daemon, and the kernel keeps no time of the connection.
"""

import errno
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from backpackd.core.errors import HomeError, ProcessGoneError

SO_PEERPIDFD = 77
"""asm-generic/socket.h; the same number on every architecture that Backpack is built for."""

_UCRED = struct.Struct("=iII")
_INT = struct.Struct("=i")

_NO_PROCESS = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})
"""Errors for a number that is not (or no longer) a process, or is a thread (pidfd_open(2))."""

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_LOCAL_PEERTOKEN = 6
_XUCRED = struct.Struct("=IIh2x16I")
_XUCRED_VERSION = 0
_XUCRED_GROUPS = 16
_AUDIT_TOKEN = struct.Struct("=8I")


class ForeignUserError(Exception):
    """The peer runs under another uid.

    Attributes:
        uid: which.
    """

    def __init__(self, uid: int) -> None:
        super().__init__(f"the peer has uid {uid}")
        self.uid = uid


@dataclass(frozen=True, slots=True)
class Credentials:
    """The kernel's facts about a peer.

    Attributes:
        uid: effective uid at connect.
        gid: effective gid at connect.
        pid: the process that connected, in the daemon's pid namespace.
        pidfd: a descriptor of that process, the receiver's to close; -1 on macOS.
        version: tells apart processes that had the same pid (macOS); 0 on Linux.
    """

    uid: int
    gid: int
    pid: int
    pidfd: int
    version: int = 0


ReadCredentials = Callable[[socket.socket, int], Credentials]
"""Reads an accepted socket's peer and compares it with the uid that may connect.

It raises ForeignUserError for another uid, ProcessGoneError for a process that has ended or is not
in this pid namespace, and OSError if the kernel does not answer.
"""


def peer_pid(sock: socket.socket) -> int:
    """Ask only for the pid of the process at the other end.

    A pid may come to mean another process: use it to count and to compare, not to identify.

    Raises:
        OSError: the kernel does not answer.
    """
    if sys.platform == "darwin":
        return sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[0])


def peer_ids(sock: socket.socket) -> tuple[int, int]:
    """Ask for a peer's pid, which serves as `peer_pid` does, and for its effective uid.

    Raises:
        OSError: the kernel does not answer.
    """
    if sys.platform == "darwin":
        uid, _ = parse_xucred(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
        return peer_pid(sock), uid
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def credentials_reader(platform: str = sys.platform) -> ReadCredentials:
    """Choose the implementation for a platform.

    Raises:
        HomeError: there is none.
    """
    if platform == "linux":
        return linux_credentials
    if platform == "darwin":
        return darwin_credentials
    raise HomeError(f"backpackd runs on Linux and macOS, and this is {platform}")


def linux_credentials(sock: socket.socket, uid: int) -> Credentials:
    """Read a peer on Linux (unix(7)): `SO_PEERCRED`, and its pidfd.

    Args:
        sock: an accepted Unix socket.
        uid: the only uid that may connect.

    Raises:
        ForeignUserError: the peer has another uid.
        ProcessGoneError: it has ended, or is outside of this pid namespace.
        OSError: the kernel does not answer, for example because descriptors ran out.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, peer_uid, gid = _UCRED.unpack(raw)
    if peer_uid != uid:
        raise ForeignUserError(peer_uid)
    if pid <= 0:
        raise ProcessGoneError
    pidfd = _peer_pidfd(sock, pid)
    try:
        _check_pidfd(pidfd, pid)
    except BaseException:
        os.close(pidfd)
        raise
    return Credentials(peer_uid, gid, pid, pidfd)


def _peer_pidfd(sock: socket.socket, pid: int) -> int:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return pidfd_by_number(pid, time.clock_gettime(time.CLOCK_BOOTTIME))
        if error.errno in _NO_PROCESS:
            raise ProcessGoneError from None
        raise
    return int(_INT.unpack(raw)[0])


def pidfd_by_number(pid: int, accepted_at: float) -> int:
    """Open a process by its number, for kernels older than Linux 6.5.

    Args:
        pid: the number that the kernel gave for the connection.
        accepted_at: a moment after the accept, in seconds on the boot clock.

    Returns:
        Its pidfd, the caller's to close.

    Raises:
        ProcessGoneError: there is no such process, or the one that has the number now started
            after that moment.
        OSError: out of descriptors.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NO_PROCESS:
            raise ProcessGoneError from None
        raise
    try:
        _check_start(pidfd, pid, accepted_at)
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def _check_start(pidfd: int, pid: int, accepted_at: float) -> None:
    # Read by pid, then the descriptor shows that it lives: so the pid was its own in between.
    start = _start_ticks(pid)
    if _exited(pidfd) or start > int(accepted_at * os.sysconf("SC_CLK_TCK")):
        raise ProcessGoneError


def _start_ticks(pid: int) -> int:
    """Read when a process started, in clock ticks since boot (proc_pid_stat(5), field 22)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123  # one read
            stat = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError from None
    # The process chooses the name in parentheses; it may hold any byte, also parentheses.
    return int(stat.rpartition(b")")[2].split()[19])


def _check_pidfd(pidfd: int, pid: int) -> None:
    """Refuse the pidfd of a process that has ended: the kernel hands those out as well."""
    if _exited(pidfd) or _pid_of(pidfd) != pid:
        raise ProcessGoneError


def _exited(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _pid_of(pidfd: int) -> int:
    """Read which process a pidfd means: -1 for one that is gone, 0 outside of this namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb", buffering=0) as file:  # noqa: PTH123  # one read
        for line in file.read(4096).splitlines():
            name, _, value = line.partition(b":")
            if name == b"Pid":
                return int(value)
    return -1


def darwin_credentials(sock: socket.socket, uid: int) -> Credentials:
    """Read a peer on macOS (unix(4)): `LOCAL_PEERCRED` and `LOCAL_PEERTOKEN`.

    The token's pid version tells one bearer of a pid from the next; there are no pidfds.

    Args:
        sock: an accepted Unix socket.
        uid: the only uid that may connect.

    Raises:
        ForeignUserError: the peer has another uid.
        ProcessGoneError: it has ended.
        OSError: the kernel does not answer.
    """
    peer_uid, gid = parse_xucred(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size))
    if peer_uid != uid:
        raise ForeignUserError(peer_uid)
    try:
        token = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERTOKEN, _AUDIT_TOKEN.size)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EINVAL, errno.ESRCH):
            raise ProcessGoneError from None
        raise
    token_uid, pid, version = parse_audit_token(token)
    if token_uid != uid:
        # The token is from now, the credentials from the connect: the peer has changed its uid.
        raise ForeignUserError(token_uid)
    if pid <= 0:
        raise ProcessGoneError
    return Credentials(peer_uid, gid, pid, -1, version)


def parse_xucred(raw: bytes) -> tuple[int, int]:
    """Read a `struct xucred` (sys/ucred.h).

    Returns:
        The effective uid and gid.

    Raises:
        OSError: it is not of the known form.
    """
    if len(raw) != _XUCRED.size:
        raise OSError(errno.EPROTO, "peer credentials of another size")
    version, uid, groups, *gids = _XUCRED.unpack(raw)
    if version != _XUCRED_VERSION or not 1 <= groups <= _XUCRED_GROUPS:
        raise OSError(errno.EPROTO, "peer credentials of another version")
    return uid, gids[0]


def parse_audit_token(raw: bytes) -> tuple[int, int, int]:
    """Read an `audit_token_t` (bsm/audit.h; the order of fields is that of libbsm).

    Returns:
        The effective uid, the pid, and the pid's version.

    Raises:
        OSError: it is not of the known form.
    """
    if len(raw) != _AUDIT_TOKEN.size:
        raise OSError(errno.EPROTO, "an audit token of another size")
    _, uid, _, _, _, pid, _, version = _AUDIT_TOKEN.unpack(raw)
    return uid, pid, version
