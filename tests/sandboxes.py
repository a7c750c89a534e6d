"""Sandboxes for tests: system calls that the kernel refuses, and namespaces of mounts and users.

A refusal is real: a seccomp filter (seccomp(2)) that the program inherits, as a container's profile
or a service manager's `SystemCallFilter=` is one. A traced daemon does not start, so strace cannot
do it.
"""

import ctypes
import os
import platform
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence

import pytest

Refused = Mapping[str, int]
"""Names of system calls and the error of each; `socket:1` is `socket` with 1 as first argument."""

# asm/unistd.h of the two architectures.
_X86_64 = {
    "bind": 49, "clone3": 435, "connect": 42, "epoll_ctl": 233, "eventfd2": 290, "fcntl": 72,
    "flock": 73, "getsockopt": 55, "ioctl": 16, "listen": 50, "madvise": 28, "memfd_create": 319,
    "memfd_secret": 447, "mkdirat": 258, "mkdir": 83, "pidfd_open": 434, "pipe2": 293, "prctl": 157,
    "prlimit64": 302, "recvfrom": 45, "sendto": 44, "socket": 41, "socketpair": 53,
    "timerfd_create": 283, "unlinkat": 263, "unlink": 87,
}  # fmt: skip
_AARCH64 = {
    "bind": 200, "clone3": 435, "connect": 203, "epoll_ctl": 21, "eventfd2": 19, "fcntl": 25,
    "flock": 32, "getsockopt": 209, "ioctl": 29, "listen": 201, "madvise": 233, "memfd_create": 279,
    "memfd_secret": 447, "mkdirat": 34, "pidfd_open": 434, "pipe2": 59, "prctl": 167,
    "prlimit64": 261, "recvfrom": 207, "sendto": 206, "socket": 198, "socketpair": 199,
    "timerfd_create": 85, "unlinkat": 35,
}  # fmt: skip
_NUMBERS = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), {})

# linux/seccomp.h, linux/bpf_common.h, prctl(2)
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refusing(refused: Refused) -> Callable[[], None]:
    """Return what makes a process, and all that it executes, be refused system calls.

    Args:
        refused: which, and with what error; one that this architecture does not have is left out.

    Returns:
        A function for `preexec_fn`.
    """
    if not _NUMBERS:
        pytest.skip(f"has no numbers of system calls for {platform.machine()}")
    code = b"".join(
        _refusal(name, error) for name, error in refused.items() if _call(name) in _NUMBERS
    )
    code += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)

    def refuse() -> None:
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
            _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0
        ):
            raise OSError(ctypes.get_errno(), "seccomp")

    return refuse


def _call(name: str) -> str:
    return name.partition(":")[0]


def _refusal(name: str, error: int) -> bytes:
    """Write the part of a filter that is about one call: BPF, eight bytes for each instruction."""
    argument = name.partition(":")[2]
    answer = struct.pack("=HBBI", _RETURN, 0, 0, _ERRNO | error)
    asked = b""
    if argument:
        asked = struct.pack("=HBBI", _LOAD, 0, 0, _FIRST_ARGUMENT_AT)
        asked += struct.pack("=HBBI", _EQUAL, 0, 1, int(argument))
    body = asked + answer
    number = _NUMBERS[_call(name)]
    return (
        struct.pack("=HBBI", _LOAD, 0, 0, _NUMBER_AT)
        + struct.pack("=HBBI", _EQUAL, 0, len(body) // 8, number)
        + body
    )


def unshared(*namespaces: str) -> Sequence[str]:
    """Return a command that executes the next words in namespaces of their own, as their root.

    Args:
        namespaces: options of unshare(1), such as `--mount` or `--user`.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, from util-linux")
    users = () if os.geteuid() == 0 and "--user" not in namespaces else ("--user",)
    root = ("--map-root-user",) if users else ()
    others = [each for each in namespaces if each != "--user"]
    return (unshare, *users, *root, *others)
