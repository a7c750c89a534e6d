"""Parses what Linux's /proc says about one process.

Every reading here is by number: it says nothing about whose number that is by the time it returns.
`linux` proves that. Whatever a process can choose (its name, above all) may hold any bytes.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

# Longer than any line that proc_pid_stat(5) can come to: 52 numbers and a name of 64 bytes.
_STAT_BYTES = 4096
# Twelve controllers of version 1 and the one path of version 2, each at most PATH_MAX.
_CGROUP_BYTES = 64 * 1024

# Where parent, session, terminal and start time stand among the fields after the name, and how many
# fields there are at least.
_PARENT, _SESSION, _TERMINAL, _START, _FIELDS = 1, 3, 4, 19, 20

# systemd.unit(5): the characters of a unit's name, and its two kinds that hold processes.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.(?:service|scope)")
_USER_MANAGER = re.compile(r"user@\d+\.service")


class Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process.

    Attributes:
        name: what the process calls itself, in whatever bytes.
        parent: its parent's pid; 0 for none in this namespace.
        session: its session id.
        terminal: its controlling terminal's device number; 0 for none.
        start: clock ticks between boot and its start.
    """

    name: bytes
    parent: int
    session: int
    terminal: int
    start: int


def parse_stat(line: bytes, pid: int) -> Stat:
    """Parse the one line of /proc/PID/stat.

    Args:
        line: all of the file.
        pid: whose file it is; the line must say so, too.

    Raises:
        ProcessLookupError: the line is not of this process, or is that of a process being reaped,
            which has no session any more.
    """
    fields = _fields(line, pid)
    parent, session, start = fields[_PARENT], fields[_SESSION], fields[_START]
    terminal = fields[_TERMINAL]
    if not (
        parent.isdigit()
        and session.isdigit()
        and start.isdigit()
        and terminal.removeprefix(b"-").isdigit()
    ):
        raise ProcessLookupError
    name = line[line.index(b"(") + 1 : line.rindex(b")")]
    return Stat(name, int(parent), int(session), int(terminal), int(start))


def _fields(line: bytes, pid: int) -> list[bytes]:
    """Split what follows the name.

    The name is the process's own choice and may hold `) R 1 1 1` or a newline, to pose as the
    fields that follow. These hold no parenthesis, so only the last one can close the name.
    """
    opening = b"%d (" % pid
    closing = line.rfind(b") ")
    if not line.startswith(opening) or closing < len(opening) or not line.endswith(b"\n"):
        raise ProcessLookupError
    fields = line[closing + 2 :].split()
    if len(fields) < _FIELDS:
        raise ProcessLookupError
    return fields


# Few units, asked for with every request.
@lru_cache(maxsize=64)
def parse_unit(cgroups: bytes) -> str | None:
    r"""Name the systemd unit in the text of /proc/PID/cgroup; None outside of one.

    The unit is the one that the service manager made, as systemd itself counts: the first
    component below the slices, and where that is a user's service manager, the first below its
    slices in turn. What lies deeper was made by the unit, not by a manager: a service that names a
    cgroup of its own `backup.service` stays what it is.

    Only the line of the unified hierarchy counts (`0::`): the others can be arranged by whoever may
    mount them.

    Args:
        cgroups: all of the file.

    Returns:
        The name as `systemctl` shows it, `\x2d` included, such as `backup.service` or
        `session-3.scope`.
    """
    paths = [line[3:] for line in cgroups.split(b"\n") if line.startswith(b"0::/")]
    if len(paths) != 1 or paths[0].endswith(b" (deleted)"):
        return None
    parts = paths[0].decode("utf-8", "replace").split("/")[1:]
    unit = None
    for part in parts:
        if part.endswith(".slice"):
            continue
        # A leading underscore is systemd's escape for names that the kernel keeps for itself.
        name = part.removeprefix("_")
        if not _UNIT.fullmatch(name):
            return unit
        managed_by_user = unit is None and _USER_MANAGER.fullmatch(name) is not None
        unit = name
        if not managed_by_user:
            return unit
    return unit


@dataclass(frozen=True, slots=True)
class StatFile:
    """An open /proc/PID/stat, which can be read again.

    The kernel ties the open file to the process, not to its number: once the process is reaped,
    reading fails, whoever has the number by then.

    Attributes:
        pid: the process id.
        fd: the open file.
    """

    pid: int
    fd: int

    @classmethod
    def open(cls, pid: int) -> Self:
        """Open the file.

        Raises:
            OSError: there is no such process, or it is hidden from this one.
        """
        return cls(pid, os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC))

    def read(self) -> Stat:
        """Read the file anew.

        Raises:
            OSError: the process has been reaped.
        """
        return parse_stat(os.pread(self.fd, _STAT_BYTES, 0), self.pid)

    def parent(self) -> int:
        """Read the parent's pid anew.

        Raises:
            OSError: the process has been reaped.
        """
        return self.read().parent

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def read_uid(pid: int) -> int:
    """Read the effective uid of a process.

    Of all that is in /proc, the directory alone belongs to that uid even where the process is
    undumpable; its files belong to root then (proc(5)).

    Raises:
        OSError: there is no such process, or it is hidden from this one.
    """
    return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 - pathlib costs more than the call


def read_executable(pid: int) -> str | None:
    """Read the path of what a process runs; None when the kernel does not tell.

    A path that no longer names the file (` (deleted)` at its end, an unreachable mount) or that is
    not UTF-8 counts as unknown: it could match what it is not.
    """
    try:
        path = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - pathlib costs more than the call
        path.encode("utf-8")
    except (OSError, UnicodeEncodeError):
        return None
    return None if path.endswith(" (deleted)") or not path.startswith("/") else path


def read_unit(pid: int) -> str | None:
    """Read the systemd unit that a process runs in; None outside of one."""
    try:
        fd = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        cgroups = os.read(fd, _CGROUP_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    return parse_unit(cgroups) if cgroups.endswith(b"\n") else None
