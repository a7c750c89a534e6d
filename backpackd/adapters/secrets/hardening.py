"""Closes the process to other processes, and reports which protections are in force.

These measures keep the user's own other processes out. They do not restrict root. `exec` undoes
them, so a helper process hardens itself.
"""

import errno
import os
import resource
import sys
from pathlib import Path
from typing import Final

from backpackd.adapters.refusal import why
from backpackd.adapters.secrets.closed_interpreter import started_closed
from backpackd.adapters.secrets.scrubbing import scrubbed
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.system.libc import check, libc
from backpackd.core.errors import HomeError
from backpackd.core.protections import Protection

# prctl(2)
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
# ptrace(2) of macOS
_PT_DENY_ATTACH: Final = 31


def harden() -> None:
    """Make this process undumpable, without core files, without new privileges, umask 077.

    The check for a tracer comes after the process is closed to new ones, so none slips in between.

    Raises:
        HomeError: the process is being traced, or the system refused one of these.
    """
    os.umask(0o077)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
            check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        elif sys.platform == "darwin":
            # Ends the process when a debugger is attached already.
            check(libc.ptrace(_PT_DENY_ATTACH, 0, None, 0), "ptrace")
        tracer = _tracer()
    except FileNotFoundError as error:
        raise HomeError("/proc cannot be read: mount it, then start again") from error
    except (OSError, ValueError) as error:
        raise HomeError(
            f"cannot close the daemon's memory to other processes ({error}): "
            "a sandbox or a service manager's filter forbids it"
        ) from error
    if tracer:
        raise HomeError(
            f"process {tracer} is tracing the daemon and could read every key: "
            "start it without a debugger, strace or the like"
        )


def protections(arena: Arena, processes_degraded: str) -> list[Protection]:
    """Find out which protections are in force, from the state of the process.

    Args:
        arena: holds the master key.
        processes_degraded: what weakens attestation, as `ports.Processes.degraded` says it.

    Returns:
        One finding for each protection, always in the same order.
    """
    return [
        _secret_memory(arena),
        _scrubbing(),
        _undumpable(),
        _core_dumps(),
        Protection(
            "attestation",
            not processes_degraded,
            processes_degraded or "callers are pinned by the kernel",
        ),
    ]


def _secret_memory(arena: Arena) -> Protection:
    if arena.kind == "memfd_secret":
        return Protection("secret-memory", True, "memfd_secret: unreadable even to root")
    detail = "mlock: kept out of swap, but readable to root; memfd_secret "
    if arena.refused in (errno.EPERM, errno.EACCES):
        detail += "is forbidden by a sandbox"
    else:
        detail += "needs Linux 6.5, or 5.14 with secretmem.enable=1"
    return Protection("secret-memory", False, detail)


def _scrubbing() -> Protection:
    try:
        on = scrubbed()
    except OSError as error:
        return Protection("scrubbing", False, f"could not be found out: {why(error)}")
    if on:
        return Protection("scrubbing", True, "freed memory is overwritten")
    return Protection(
        "scrubbing",
        False,
        "freed memory keeps its contents: this C library cannot overwrite it, "
        "or the daemon was not started by its own command",
    )


def _dumpable() -> bool:
    dumpable = True
    if sys.platform == "linux":
        dumpable = check(libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0), "prctl") != 0
    return dumpable


def _undumpable() -> Protection:
    if not _dumpable():
        # Root's other processes can read everything in any case.
        if sys.platform == "linux" and os.geteuid() != 0 and not started_closed():
            return Protection(
                "undumpable",
                False,
                "memory is closed to processes of the same user, but only since after the start: "
                "one that opened it before reads on",
            )
        return Protection("undumpable", True, "memory is closed to processes of the same user")
    if sys.platform == "darwin":
        detail = "debuggers are refused, but this system has no way to tell"
    else:
        detail = "processes of the same user can read its memory"
    return Protection("undumpable", False, detail)


def _core_dumps() -> Protection:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard != 0:
        return Protection("core-dumps", False, "a crash may write the daemon's memory to disk")
    if sys.platform == "linux" and _dumpable():
        # A core handler that is a program gets the dump regardless of the limit, core(5).
        return Protection("core-dumps", False, "none on disk, but a core handler may get one")
    return Protection("core-dumps", True, "a crash leaves no copy of the daemon's memory")


def _tracer() -> int:
    """Return the pid of the process that traces this one, 0 for none, proc_pid_status(5)."""
    tracer = 0
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_bytes().splitlines()
        fields = dict(line.partition(b":")[::2] for line in lines)
        tracer = int(fields.get(b"TracerPid", b"unknown"))
    return tracer
