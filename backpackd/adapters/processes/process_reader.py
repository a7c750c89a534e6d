"""One process whose files in /proc are open, and what was last read of it.

Every fact is read again each time; remembered objects only save building equal facts again. `linux`
proves whose parent the process is, and that the caller means this process.
"""

from dataclasses import replace

from backpackd.adapters.processes import procfs
from backpackd.core.peer_facts import ProcessFacts, ProcessId
from backpackd.core.process_roles import is_manager

UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What tells that a process is gone or hidden from this one, and not that the daemon is in trouble.
"""


class ProcessReader:
    """A process with open files, and the facts that were last read."""

    __slots__ = ("_files", "_read", "_unique", "facts")

    facts: ProcessFacts

    def __init__(self, files: procfs.ProcessFiles, unique: int) -> None:
        """Take ownership of the files; there are no facts before `read`.

        Args:
            files: of one process.
            unique: the inode of the pidfd that its number gave after they were opened.
        """
        self._files = files
        self._unique = unique
        self._read: tuple[object, ...] = ()

    def read(self, uid: int) -> None:
        """Read every fact again.

        `stat` comes last: if it can be read, the process had not been reaped, so that what came
        before it is its own, the number of the pidfd included.

        The service manager of a user is told by three facts: pid 1 started it, it runs as the
        peer's uid, and it calls itself `systemd`. The last is a claim that any process of the user
        can make, but only of itself and only to its own loss: whatever runs below it then stands in
        smaller trees. The manager's own name is out of their reach (proc_pid_comm(5)).

        Args:
            uid: the peer's.

        Raises:
            OSError: the process has been reaped, or cannot be read.
        """
        files = self._files
        owner, (executable, image), unit = (
            files.read_uid(),
            files.read_executable(),
            files.read_unit(),
        )
        raw = files.read_stat()
        read = (raw, owner, executable, image, unit, uid)
        if read == self._read:
            return
        pid, told = files.pid, procfs.parse_stat(raw)
        name = told.name.decode("utf-8", "replace")
        self.facts = ProcessFacts(
            id=ProcessId(pid, told.start, self._unique),
            parent=told.parent,
            session=told.session,
            terminal=told.terminal,
            uid=owner,
            executable=executable,
            unit=unit,
            manager=(owner != uid and pid == 1)
            or is_manager(pid, executable, name)
            or (told.parent == 1 and owner == uid and told.name == b"systemd"),
            name=name,
            image=replace(image, layout=told.layout),
        )
        self._read = read

    def has_parent(self, pid: int) -> bool:
        """Return whether it still lives with this parent."""
        try:
            return procfs.parse_stat(self._files.read_stat()).parent == pid
        except UNREADABLE:
            return False

    def close(self) -> None:
        """Close the files."""
        self._files.close()
