"""An allocator that overwrites freed memory, and a clean environment.

Python cannot wipe `bytes`, and protobuf and OpenSSL keep copies of data that passes through them.
The C library's allocator can overwrite every freed buffer, but only if this is set before the
process starts. So the daemon executes itself once more, as the first thing it does.

The same step drops the environment of the process that started the daemon. Otherwise a daemon that
`init` starts from an agent's shell would keep that shell's API keys readable as long as it runs,
and `PYTHON*` and `LD_*` variables would change what libraries load and log.

One variable is a secret that is meant for the daemon: `AGENT_MASTER_KEY` unlocks the vault. It goes
through a pipe into the new process, whose environment never has it.

A look at freed memory tells whether scrubbing works, never a variable.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from backpackd.adapters.secrets.closed_interpreter import unreadable_copy
from backpackd.adapters.system.libc import libc
from backpackd.core.errors import HomeError

# Variables that the daemon, the standard library or the session bus need.
_KEPT: Final = frozenset(
    {
        "BACKPACK_HOME",
        "BACKPACK_PROFILE",
        "BACKPACK_SOCKET",
        "CREDENTIALS_DIRECTORY",
        "DBUS_SESSION_BUS_ADDRESS",
        "HOME",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LANG",
        "LANGUAGE",
        # Not all of `LC_*`: ssh passes names of that form on, so people carry credentials in them.
        "LC_ADDRESS",
        "LC_ALL",
        "LC_COLLATE",
        "LC_CTYPE",
        "LC_IDENTIFICATION",
        "LC_MEASUREMENT",
        "LC_MESSAGES",
        "LC_MONETARY",
        "LC_NAME",
        "LC_NUMERIC",
        "LC_PAPER",
        "LC_TELEPHONE",
        "LC_TIME",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LOGNAME",
        "NOTIFY_SOCKET",
        "PATH",
        "SHELL",
        "SYSTEMD_EXEC_PID",
        "TMPDIR",
        "TZ",
        "USER",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_SESSION_ID",
        "XDG_STATE_HOME",
        "XPC_SERVICE_NAME",
    }
)

KEY_VARIABLE: Final = "AGENT_MASTER_KEY"
_KEY_DESCRIPTOR: Final = "BACKPACK_KEY_DESCRIPTOR"
MOST_KEY: Final = 4096
"""Bytes that a pipe takes without a reader (PIPE_BUF of Linux); no key is longer."""

# glibc overwrites freed memory with this byte; any byte except 0 works. Its per-thread cache takes
# freed blocks before they are overwritten, so it is off. Python's own allocator keeps freed
# objects to itself, so it is off as well.
_SCRUB: Final[Mapping[str, str]] = (
    {"PYTHONMALLOC": "malloc", "MallocScribble": "1"}
    if sys.platform == "darwin"
    else {
        "PYTHONMALLOC": "malloc",
        "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
    }
)

# Holds the pid of a process that has executed itself again. The pid stays the same, so only that
# process recognizes it. It only prevents a second time. If somebody forges it, the daemon reports
# that it is not scrubbed.
_MARKER: Final = "BACKPACK_EXECUTED_ANEW"

_PATTERN: Final = b"what was freed, "
_SIZES: Final = (32, 64, 256, 480, 1024)
# Several, since the process may use one or two again before they are looked at.
_PROBES: Final = 16


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Take the listed variables from an environment, and nothing else.

    Args:
        environ: any environment.

    Returns:
        The kept variables, unchanged.
    """
    return {name: value for name, value in environ.items() if name in _KEPT}


def ensure_scrubbed(arguments: Sequence[str]) -> None:
    """Execute this process again as `python -m backpackd`, with scrubbing and a clean environment.

    It must be the first thing that the daemon does: nothing secret may have been read, and no
    thread started. Pid and inherited descriptors stay, so what a service manager passed
    (`LISTEN_PID`, `LISTEN_FDS`, `WATCHDOG_PID`) holds. At most once per process: in the new
    process this returns, even if the C library cannot scrub. `scrubbed` reports the result.

    Args:
        arguments: the daemon's command line, without its name.

    Raises:
        HomeError: the interpreter could not be executed.
    """
    kept = clean_environment(os.environ)
    pid = str(os.getpid())
    if os.environ.get(_MARKER) == pid:
        if _KEY_DESCRIPTOR in os.environ:
            kept[_KEY_DESCRIPTOR] = os.environ[_KEY_DESCRIPTOR]
        # Again in this process, for what a start-up hook of Python may have set, or a forger.
        for name in set(os.environ) - set(kept):
            del os.environ[name]
        # For child processes: while reading its variable, glibc cuts it up in place.
        os.environ.update(_SCRUB)
        return
    interpreter = sys.executable or ""  # None where Python does not know its own path
    flags = ["-P", "-s"] if sys.flags.no_user_site else ["-P"]
    try:
        os.execve(  # noqa: S606 - no shell is the point
            unreadable_copy(interpreter),
            [interpreter, *flags, "-m", "backpackd", *arguments],
            {**kept, **_SCRUB, _MARKER: pid, **_handed_over()},
        )
    except (OSError, ValueError) as error:
        raise HomeError(
            "cannot start the daemon again with scrubbed memory: "
            "the Python interpreter it runs on could not be executed; was it replaced?"
        ) from error


def executed_anew() -> bool:
    """Return whether this process has been through `ensure_scrubbed`, or says that it has."""
    return os.environ.get(_MARKER) == str(os.getpid())


def _handed_over() -> dict[str, str]:
    """Put the key of the environment into a pipe that the new process inherits."""
    key = os.environb.get(KEY_VARIABLE.encode())
    if not key or len(key) > MOST_KEY:
        return {}
    reader, writer = os.pipe()
    os.write(writer, key)
    os.close(writer)
    os.set_inheritable(reader, True)
    return {_KEY_DESCRIPTOR: str(reader)}


def take_key() -> bytes | None:
    """Return, once, the key from the environment that the daemon was started with.

    The caller uses it at once and drops it.
    """
    number = os.environ.pop(_KEY_DESCRIPTOR, "")
    if not number.isdecimal():
        return None
    try:
        with os.fdopen(int(number), "rb") as reader:
            return reader.read(MOST_KEY) or None
    except OSError:
        # Not our descriptor: somebody forged the variable, and gets a locked vault.
        return None


@cache
def scrubbed() -> bool:
    """Return whether freed memory is overwritten, by freeing some and looking at it.

    Both Python's objects and the C library's blocks are tried, in several sizes. A process cannot
    change its allocator later, so the first finding stands.

    Returns:
        True only when nothing of what was freed is left.

    Raises:
        OSError: it could not be found out, because descriptors ran out.
    """
    reader, writer = os.pipe()
    try:
        return not any(
            _PATTERN in _peek(address, size, reader, writer)
            for addresses, size in _freed()
            for address in addresses
        )
    finally:
        os.close(reader)
        os.close(writer)


def _freed() -> Iterator[tuple[list[int], int]]:
    """Yield the addresses of blocks that held the pattern, were freed and not used again."""
    for size in _SIZES:
        objects = [_PATTERN * (size // len(_PATTERN)) for _ in range(_PROBES)]
        addresses = [id(each) for each in objects]
        objects.clear()
        yield addresses, size + bytes.__basicsize__
        addresses = [libc.malloc(size) for _ in range(_PROBES)]
        for address in addresses:
            ctypes.memmove(address, _PATTERN * (size // len(_PATTERN)), size)
        for address in addresses:
            libc.free(address)
        yield addresses, size


def _peek(address: int, size: int, reader: int, writer: int) -> bytes:
    """Read memory that may not be there any more: the kernel says EFAULT where a read would crash.

    What is gone holds nothing, so it counts as overwritten.
    """
    copied = libc.write(writer, address, size)
    return os.read(reader, copied) if copied > 0 else b""
