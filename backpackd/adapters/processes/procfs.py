"""Reads and parses what Linux's /proc says about one process.

The files are opened by number: that says nothing about whose number it was. `linux` proves that.
Whatever a process can choose (its name, above all) may hold any bytes.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

from backpackd.core.peer_facts import Answer, Image

# Longer than any line that proc_pid_stat(5) can come to: 52 numbers and a name of 64 bytes.
_STAT_BYTES = 4096
# Twelve controllers of version 1 and the one path of version 2, each at most PATH_MAX. Few come to
# more than a part of one.
_CGROUP_BYTES = 64 * 1024
_CGROUP_USUAL = 1024

# Where parent, session, terminal, start time and the beginnings of code and stack stand among the
# fields after the name, and how many fields there are at least.
_PARENT, _SESSION, _TERMINAL, _START, _CODE, _STACK, _FIELDS = 1, 3, 4, 19, 23, 25, 26

# systemd.unit(5): the characters of a unit's name, and its two kinds that hold processes.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.(?:service|scope)")
_USER_MANAGER = re.compile(r"user@\d+\.service")


class RawStat(NamedTuple):
    """What `Stat` is made of, as the kernel wrote it: to tell cheaply that nothing has changed."""

    name: bytes
    parent: bytes
    session: bytes
    terminal: bytes
    start: bytes
    code: bytes
    stack: bytes


class Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process.

    Attributes:
        name: what the process calls itself, in whatever bytes.
        parent: its parent's pid; 0 for none in this namespace.
        session: its session id.
        terminal: its controlling terminal's device number; 0 for none.
        start: clock ticks between boot and its start.
        layout: where its code and its stack begin; 0 where that is hidden from this user.
    """

    name: bytes
    parent: int
    session: int
    terminal: int
    start: int
    layout: tuple[int, int]


def split_stat(line: bytes, pid: int) -> RawStat:
    """Find the facts in the one line of /proc/PID/stat.

    The name is the process's own choice and may hold `) R 1 1 1` or a newline, to pose as the
    fields that follow. These hold no parenthesis, so only the last one can close the name.

    Args:
        line: all of the file.
        pid: whose file it is; the line must say so, too.

    Raises:
        ProcessLookupError: the line is not of this process.
    """
    opening = b"%d (" % pid
    closing = line.rfind(b") ")
    if not line.startswith(opening) or closing < len(opening) or not line.endswith(b"\n"):
        raise ProcessLookupError
    fields = line[closing + 2 :].split(None, _FIELDS)
    if len(fields) < _FIELDS:
        raise ProcessLookupError
    return RawStat(
        line[len(opening) : closing],
        fields[_PARENT],
        fields[_SESSION],
        fields[_TERMINAL],
        fields[_START],
        fields[_CODE],
        fields[_STACK],
    )


def parse_stat(raw: RawStat) -> Stat:
    """Parse the facts of `split_stat`.

    Raises:
        ProcessLookupError: they are those of a process being reaped, which has no session any more.
    """
    name, parent, session, terminal, start, code, stack = raw
    if not (
        parent.isdigit()
        and session.isdigit()
        and start.isdigit()
        and code.isdigit()
        and stack.isdigit()
        and terminal.removeprefix(b"-").isdigit()
    ):
        raise ProcessLookupError
    layout = int(code), int(stack)
    return Stat(name, int(parent), int(session), int(terminal), int(start), layout)


# Few units, asked for with every request.
@lru_cache(maxsize=64)
def parse_unit(cgroups: bytes) -> str | None:
    r"""Name the systemd unit in the text of /proc/PID/cgroup; None outside of one.

    The unit is the one that the service manager made, as systemd itself counts: the first
    component below the slices, and where that is a user's service manager, the first below its
    slices in turn. What lies deeper was made by the unit, not by a manager: a service that names a
    cgroup of its own `backup.service` stays what it is.

    Only the line of the unified hierarchy counts (`0::`): the others can be arranged by anybody who
    may mount them.

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
class ProcessFiles:
    """The open files of one process, which can be read again and again.

    The kernel ties all three to the process that was opened, not to its number: once it is reaped,
    `stat` fails, and the others show nothing about a process that has reused the pid.

    Attributes:
        pid: the process id.
        directory: /proc/PID.
        stat: /proc/PID/stat.
        cgroup: /proc/PID/cgroup; -1 where there is none.
    """

    pid: int
    directory: int
    stat: int
    cgroup: int

    @classmethod
    def open(cls, pid: int) -> Self:
        """Open the files of the process that has a number now.

        Raises:
            OSError: there is no such process, or it is hidden from this one.
        """
        directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stat = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            try:
                return cls(pid, directory, stat, _open_cgroup(directory))
            except BaseException:
                os.close(stat)
                raise
        except BaseException:
            os.close(directory)
            raise

    def read_stat(self) -> RawStat:
        """Read the facts in `stat`.

        Raises:
            OSError: the process has been reaped.
        """
        return split_stat(os.pread(self.stat, _STAT_BYTES, 0), self.pid)

    def read_uid(self) -> int:
        """Read the effective uid; meaningless of a process that has been reaped.

        Of all that is in /proc, the directory alone belongs to that uid even where the process is
        undumpable; its files belong to root then (proc(5)).

        Raises:
            OSError: the process is hidden from this one.
        """
        return os.fstat(self.directory).st_uid

    def read_executable(self) -> tuple[str | None, Image]:
        """Read the path of what the process runs, and which file it is, named or not.

        A path that no longer names the file (` (deleted)` at its end, an unreachable mount) or that
        is not UTF-8 counts as no path: it could match what it is not.

        Returns:
            The path, None where there is none; and the image, without its layout.
        """
        try:
            path = os.readlink("exe", dir_fd=self.directory)
            # Through the link, which leads to the file itself, also where it has no name any more.
            file = os.stat("exe", dir_fd=self.directory)
        except PermissionError:
            return None, Image(Answer.HIDDEN)
        except OSError:
            return None, Image(Answer.NOTHING)
        named = path.startswith("/") and not path.endswith(" (deleted)") and _is_text(path)
        answer = Answer.NAMED if named else Answer.UNNAMED
        return path if named else None, Image(answer, file.st_dev, file.st_ino)

    def read_unit(self) -> str | None:
        """Read the systemd unit that the process runs in; None outside of one."""
        if self.cgroup < 0:
            return None
        try:
            cgroups = os.pread(self.cgroup, _CGROUP_USUAL, 0)
            if len(cgroups) == _CGROUP_USUAL:
                cgroups = os.pread(self.cgroup, _CGROUP_BYTES, 0)
        except OSError:
            return None
        return parse_unit(cgroups) if cgroups.endswith(b"\n") else None

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self.directory, self.stat, self.cgroup):
            if fd >= 0:
                os.close(fd)


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _open_cgroup(directory: int) -> int:
    # Nothing but these two may pass for a process outside of every unit: the descriptor is kept.
    try:
        return os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except (FileNotFoundError, PermissionError):
        return -1
