"""Keeps other processes of the user out of this one.

Everything that takes a passphrase goes through here first: the command line before it asks, the
Python API before it connects. The daemon refuses a passphrase from a process that has not done so.
"""

import ctypes
import os
import resource
import sys

from backpack_client.failures import Failure

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PT_DENY_ATTACH = 31

_denied: list[int] = []
"""On macOS, which cannot be asked: the pid of the process that has refused debuggers."""


def make_undumpable() -> None:
    """Keep other processes of the user and core files away from this process's memory.

    What another process opened before, it can read on: a descriptor of `/proc/PID/mem` is checked
    when it is opened and never again (proc_pid_mem(5)). So call it before anything else is done.

    Raises:
        Failure: the system refused, so nothing secret is to be read.
    """
    try:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    except (OSError, ValueError):
        # ValueError is what Python makes of EPERM here.
        raise _refused("the system refuses to turn core files off") from None
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        result = libc.ptrace(_PT_DENY_ATTACH, 0, None, 0)
        _denied[:] = [os.getpid()]
    else:
        result = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if result != 0:
        raise _refused(os.strerror(ctypes.get_errno()).lower())


def _refused(why: str) -> Failure:
    return Failure(
        f"cannot keep other programs out of this process: {why}",
        reason="not-protected",
        hint="a sandbox forbids it: allow prctl and setrlimit there, or run the command outside",
    )


def is_undumpable() -> bool:
    """Tell whether other processes of the user are kept out of this one now."""
    if sys.platform == "darwin":
        return _denied == [os.getpid()]
    result: int = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    return result != 1
