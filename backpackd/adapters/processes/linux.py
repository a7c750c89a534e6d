"""Reads processes from Linux's /proc, and proves whose facts it read.

/proc is read by number, and a number can come to mean another process between two readings. Two
facts of the kernel close that gap, and everything here rests on them:

* A pidfd says whether its process still runs. If the peer's does after the reading, the number was
  the peer's all along.
* A process gets a new parent only when its parent ends, and then an older ancestor of its own. A
  parent never comes back, and while it lives its number is taken. So if a process has parent N
  before N is read and still has it afterwards, then what was read is its parent's.

What cannot be read ends the chain, as does the length of it. That can only make trees smaller: the
root that `core.facts` finds in a part of a chain is never further from the caller than the root in
the whole of it.
"""

import hashlib
import os
import socket
import stat
from io import FileIO
from pathlib import Path

from backpackd.adapters.processes import procfs
from backpackd.adapters.processes.pinned import PidfdProcess, open_process
from backpackd.core.errors import ProcessGoneError, TroubleError
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import PinnedProcess

__all__ = ["LinuxProcesses", "PidfdProcess", "open_process"]

# SO_PEERPIDFD of Linux 6.5, unknown to Python.
_SO_PEERPIDFD = 77

# Processes in a chain. Real ones have about ten; a longer one makes every reading cost more.
_CHAIN_LIMIT = 64

# How often a walk starts again because an ancestor ended meanwhile. Every time there is one
# ancestor less, so this ends for a peer that means well.
_WALKS = 8

# The largest executable that is hashed, in bytes. Browsers and runtimes come to a quarter of it.
_DIGEST_LIMIT = 1024 * 1024 * 1024
_DIGEST_CHUNK = 1024 * 1024
_DIGESTS_KEPT = 64

# What tells that a process is gone or hidden from this one, and not that the daemon is in trouble.
_UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)


class LinuxProcesses:
    """Reads facts about processes. Implements `ports.Processes`."""

    def __init__(self) -> None:
        """Find out what this kernel can tell.

        Raises:
            TroubleError: /proc is missing, or shows another pid namespace than the daemon's.
        """
        _check_proc()
        self._unique = _pidfds_are_unique()
        self._peer_pidfd = _peers_come_pinned()
        self._digests: dict[tuple[int, ...], str] = {}

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read a peer and its ancestors, each proven to be what it was read as.

        Args:
            process: the peer, pinned.
            uid: its effective uid, as the kernel gave it for the connection.
            gid: its effective gid, likewise.

        Raises:
            ProcessGoneError: the peer ended meanwhile, cannot be read, or keeps changing ancestors.
        """
        for _ in range(_WALKS):
            chain = self._walk(process.pid, uid)
            if not process.alive():
                raise ProcessGoneError(f"process {process.pid} has ended")
            if chain is not None:
                return PeerFacts(uid, gid, chain)
        raise ProcessGoneError(f"process {process.pid} or an ancestor cannot be read")

    def pin(self, pid: int) -> tuple[PinnedProcess, ProcessId]:
        """Hold a running process by its pid.

        Raises:
            ProcessGoneError: there is no such process.
        """
        process = open_process(pid)
        try:
            return process, self._identify(process)
        except BaseException:
            process.close()
            raise

    def digest(self, process: ProcessId, executable: str) -> str | None:
        """Hash what a process runs: SHA-256 as lowercase hex; None when it cannot be read.

        The bytes are those of `/proc/PID/exe`, opened once, whatever stands at the path by now, and
        they are hashed only if the open file is the one that the process was attested with. Reads a
        whole file, so call it outside the event loop.

        Args:
            process: which process; another one with the same pid has no digest.
            executable: the path that it was attested with.
        """
        try:
            pinned = open_process(process.pid)
        except (OSError, ProcessGoneError):
            return None
        try:
            with Path(f"/proc/{process.pid}/exe").open("rb", buffering=0) as file:
                # The path of the open file, not the process's, which may run another one by now.
                path = Path(f"/proc/self/fd/{file.fileno()}").readlink()
                if str(path) != executable or self._identify(pinned) != process:
                    return None
                return self._hash(file)
        except (OSError, ProcessGoneError):
            return None
        finally:
            pinned.close()

    def boot_id(self) -> str:
        """Name this boot: the same until the machine restarts (random(4))."""
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()

    def degraded(self) -> str:
        """Say what weakens attestation on this machine; empty when nothing does."""
        missing = []
        if not self._peer_pidfd:
            missing.append("peers are pinned by pid and start time (SO_PEERPIDFD needs Linux 6.5)")
        if not self._unique:
            missing.append("processes are told apart by start time (pidfs needs Linux 6.9)")
        return "; ".join(missing)

    def _walk(self, pid: int, uid: int) -> tuple[ProcessFacts, ...] | None:
        """Read a process and its ancestors; None when the reading has to start again."""
        chain: list[ProcessFacts] = []
        child: procfs.StatFile | None = None
        try:
            while pid > 0 and len(chain) < _CHAIN_LIMIT:
                file, facts = self._open(pid, uid)
                held = child is None or _has_parent(child, pid)
                if child is not None:
                    child.close()
                child = file
                if not held:
                    return None
                if facts is None:
                    break
                chain.append(facts)
                pid = facts.parent
        finally:
            if child is not None:
                child.close()
        return tuple(chain) or None

    def _open(self, pid: int, uid: int) -> tuple[procfs.StatFile | None, ProcessFacts | None]:
        """Open and read the process that has a number now; facts are None where it is not seen."""
        try:
            file = procfs.StatFile.open(pid)
        except _UNREADABLE:
            return None, None
        try:
            return file, self._read(file, uid)
        except _UNREADABLE:
            return file, None
        except BaseException:
            file.close()
            raise

    def _read(self, file: procfs.StatFile, uid: int) -> ProcessFacts:
        """Read the facts about the process that has a number now.

        The service manager of a user is told by three facts: pid 1 started it, it runs as the
        peer's uid, and it calls itself `systemd`. The last is a claim that any process of the user
        can make, but only of itself and only to its own loss: whatever runs below it then stands in
        smaller trees. The manager's own name is out of their reach (proc_pid_comm(5)).
        """
        pid = file.pid
        stat = file.read()
        owner = procfs.read_uid(pid)
        return ProcessFacts(
            id=ProcessId(pid, stat.start, self._unique_number(pid)),
            parent=stat.parent,
            session=stat.session,
            terminal=stat.terminal,
            uid=owner,
            executable=procfs.read_executable(pid),
            unit=procfs.read_unit(pid),
            manager=pid == 1 or (stat.parent == 1 and owner == uid and stat.name == b"systemd"),
            name=stat.name.decode("utf-8", "replace"),
        )

    def _identify(self, process: PinnedProcess) -> ProcessId:
        """Tell which process is held.

        Raises:
            ProcessGoneError: it has ended, or cannot be read.
        """
        try:
            file = procfs.StatFile.open(process.pid)
            try:
                start = file.read().start
            finally:
                file.close()
            identity = ProcessId(process.pid, start, self._unique_number(process.pid))
        except _UNREADABLE as error:
            raise ProcessGoneError(f"process {process.pid} cannot be read") from error
        if not process.alive():
            raise ProcessGoneError(f"process {process.pid} has ended")
        return identity

    def _unique_number(self, pid: int) -> int:
        """Read the inode of a process's pidfd; 0 where the kernel gives all the same one."""
        if not self._unique:
            return 0
        fd = os.pidfd_open(pid)
        try:
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _hash(self, file: FileIO) -> str | None:
        """Hash an open executable, or remember its hash.

        Remembered are only files that root alone can write, for a daemon that is not root. What a
        process of the user can write, it can change without a trace in the metadata (through a
        shared mapping, or within one tick of the clock), and the hash of a program that is trusted
        would stick to another one.
        """
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return None
        version = _version(before)
        if version in self._digests:
            return self._digests[version]
        digest = hashlib.sha256()
        size = 0
        while chunk := file.read(_DIGEST_CHUNK):
            size += len(chunk)
            if size > _DIGEST_LIMIT:
                return None
            digest.update(chunk)
        if _version(os.fstat(file.fileno())) != version or size != before.st_size:
            return None
        if before.st_uid == 0 and not before.st_mode & 0o022 and os.geteuid() != 0:
            while len(self._digests) >= _DIGESTS_KEPT:
                self._digests.pop(next(iter(self._digests)), None)
            self._digests[version] = digest.hexdigest()
        return digest.hexdigest()


def _version(status: os.stat_result) -> tuple[int, ...]:
    """Tell one state of a file from another, as far as its metadata can."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _has_parent(child: procfs.StatFile, pid: int) -> bool:
    """Tell whether a process still lives with this parent."""
    try:
        return child.parent() == pid
    except _UNREADABLE:
        return False


def _check_proc() -> None:
    """Refuse a /proc that counts processes otherwise than pidfds do."""
    try:
        own = Path("/proc/self").readlink()
    except OSError as error:
        raise TroubleError("/proc cannot be read: mount it, then start again") from error
    if str(own) != str(os.getpid()):
        raise TroubleError("/proc is of another pid namespace: mount the daemon's own there")


def _pidfds_are_unique() -> bool:
    """Tell whether every process has a pidfd inode of its own.

    Before pidfs (Linux 6.9), pidfds were anonymous inodes: one for all, on the same device as an
    eventfd's.
    """
    pidfd = os.pidfd_open(os.getpid())
    try:
        eventfd = os.eventfd(0)
        try:
            return os.fstat(pidfd).st_dev != os.fstat(eventfd).st_dev
        finally:
            os.close(eventfd)
    finally:
        os.close(pidfd)


def _peers_come_pinned() -> bool:
    """Tell whether the kernel hands out the pidfd of who is connected (unix(7))."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return False
        return True
