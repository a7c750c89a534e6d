"""Reads processes from Linux's /proc, and proves whose facts it read.

/proc is opened by pid, and a pid can come to mean another process between two opens. Three facts
about the kernel close that gap, and everything here rests on them:

* A pidfd says whether its process still runs. If the peer still runs after the reading, the pid was
  the peer's all the time.
* A process gets a new parent only when its parent ends, and then an older ancestor of its own. A
  parent never comes back, and while it lives its number is taken. So if a process has parent N
  before N is opened and still has it after N was read, then what was read is its parent's.
* An open file in /proc belongs to one process, and its `stat` cannot be read once that process is
  reaped. So the files are kept, and read again for every request. If files of N were opened before
  a process was found to have parent N, and can be read after that, N was theirs in between, and
  they are its parent's: one reading proves what takes a new acquaintance two.

Earlier facts are never believed: every fact about every process is read for every request. Only the
opens are saved.

A process that cannot be read ends the chain, and so does the maximum length. That can only make
trees smaller: the root that `core.peer_facts` finds in a part of a chain is never further from the
caller than the root in the whole of it.
"""

import hashlib
import os
import resource
import socket
import stat
from collections import OrderedDict
from io import FileIO
from pathlib import Path

from backpackd.adapters.processes import procfs
from backpackd.adapters.processes.claims import claimed_commands
from backpackd.adapters.processes.holding import Holding, within_limits
from backpackd.adapters.processes.pinned import PidfdProcess, open_process
from backpackd.adapters.processes.process_reader import UNREADABLE, ProcessReader
from backpackd.core.errors import ProcessGoneError, TroubleError
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import PinnedProcess

__all__ = ["LinuxProcesses", "PidfdProcess", "open_process"]

# SO_PEERPIDFD of Linux 6.5, unknown to Python.
_SO_PEERPIDFD = 77

# Processes in a chain. Real chains have about ten; a longer one makes every reading more expensive.
_CHAIN_LIMIT = 64

# How often a walk starts again because an ancestor ended during it. Each time there is one ancestor
# less, so this ends for a benign peer.
_WALKS = 8

# The largest executable that is hashed, in bytes. Browsers and runtimes have a quarter of it.
_DIGEST_LIMIT = 1024 * 1024 * 1024
_DIGEST_CHUNK = 1024 * 1024
_DIGESTS_KEPT = 64

# Processes whose files are kept, and how many descriptors there have to be for each one that is. It
# takes three, and a connection through the door takes four.
_MOST_KEPT = 256
_LEAST_KEPT = 4
_DESCRIPTORS_FOR_ONE = 32


class LinuxProcesses(Holding):
    """Reads facts about processes. Implements `ports.Processes`.

    It keeps files of processes that it has read, and is for one thread, except for `digest`.
    """

    def __init__(self) -> None:
        """Find out which facts this kernel offers.

        Raises:
            TroubleError: /proc is missing, or shows another pid namespace than the daemon's.
        """
        _check_proc()
        self._unique = _pidfds_are_unique()
        self._peer_pidfd = _peers_come_pinned()
        self._digests: dict[tuple[int, ...], str] = {}
        self._boot_id = ""
        self._kept: OrderedDict[int, ProcessReader] = OrderedDict()
        self._most_kept = _most_kept()

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read a peer and its ancestors, and prove that each one was read under its own pid.

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
        """See `ports.Processes`."""
        with within_limits():
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

    def ended(self, process: ProcessId) -> bool:
        """See `ports.Processes`."""
        with within_limits():
            try:
                pinned = open_process(process.pid)
            except ProcessGoneError:
                return True
            try:
                return self._identify(pinned) != process
            except ProcessGoneError:
                # It cannot be read, which a process that lives can bring about.
                return not pinned.alive()
            finally:
                pinned.close()

    def claimed_commands(self, facts: PeerFacts) -> dict[int, str]:
        """See `ports.Processes`."""
        return claimed_commands(facts)

    def boot_id(self) -> str:
        """Name this boot: the same until the machine restarts (random(4))."""
        if not self._boot_id:
            self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return self._boot_id

    def degraded(self) -> str:
        """Describe what weakens attestation on this machine; empty if nothing does."""
        missing = []
        if not self._peer_pidfd:
            missing.append("peers are pinned by pid and start time (SO_PEERPIDFD needs Linux 6.5)")
        if not self._unique:
            missing.append("processes are told apart by start time (pidfs needs Linux 6.9)")
        return "; ".join(missing)

    def close(self) -> None:
        """Close the files of all processes."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _walk(self, pid: int, uid: int) -> tuple[ProcessFacts, ...] | None:
        """Read a process and its ancestors; None when the reading has to start again."""
        chain: list[ProcessFacts] = []
        child: ProcessReader | None = None
        while pid > 0 and len(chain) < _CHAIN_LIMIT:
            process = self._read_kept(pid, uid)
            if process is None:
                process = self._meet(pid, uid)
                if child is not None and not child.has_parent(pid):
                    return None
                if process is None:
                    break
            chain.append(process.facts)
            child = process
            pid = process.facts.parent
        return tuple(chain) or None

    def _read_kept(self, pid: int, uid: int) -> ProcessReader | None:
        """Read the process that has a number again; None for one whose files are not kept."""
        known = self._kept.get(pid)
        if known is None:
            return None
        try:
            known.read(uid)
        except UNREADABLE:
            del self._kept[pid]
            known.close()
            return None
        self._kept.move_to_end(pid)
        return known

    def _meet(self, pid: int, uid: int) -> ProcessReader | None:
        """Open and read the process that has a number now; None where it is not seen."""
        try:
            files = procfs.ProcessFiles.open(pid)
        except UNREADABLE:
            return None
        try:
            known = ProcessReader(files, self._unique_number(pid))
            known.read(uid)
        except UNREADABLE:
            files.close()
            return None
        except BaseException:
            files.close()
            raise
        self._kept[pid] = known
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)[1].close()
        return known

    def _identify(self, process: PinnedProcess) -> ProcessId:
        """Tell which process is held.

        Raises:
            ProcessGoneError: it has ended, or cannot be read.
        """
        try:
            files = procfs.ProcessFiles.open(process.pid)
            try:
                start = procfs.parse_stat(files.read_stat()).start
            finally:
                files.close()
            identity = ProcessId(process.pid, start, self._unique_number(process.pid))
        except UNREADABLE as error:
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

        Only files that nobody but root can write are remembered, for a daemon that is not root. A
        process of the user can change a file that it can write without a trace in the metadata
        (through a shared mapping, or within one tick of the clock). Then the hash of a trusted
        program would stick to another program.
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


def _most_kept() -> int:
    """Tell of how many processes the files may be kept (getrlimit(2))."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_KEPT
    return max(_LEAST_KEPT, min(_MOST_KEPT, limit // _DESCRIPTORS_FOR_ONE))


def _check_proc() -> None:
    """Refuse a /proc that counts processes otherwise than pidfds do."""
    try:
        own = Path("/proc/self").readlink()
    except OSError as error:
        raise TroubleError("/proc cannot be read: mount it, then start again") from error
    if str(own) != str(os.getpid()):
        raise TroubleError("/proc is of another pid namespace: mount the daemon's own there")


def _pidfds_are_unique() -> bool:
    """Return whether every process has a pidfd inode of its own.

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
    """Return whether the kernel hands out the pidfd of who is connected (unix(7))."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return False
        return True
