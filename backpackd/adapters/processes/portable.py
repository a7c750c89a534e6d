"""Reads processes through psutil, where there is no /proc: macOS.

Facts that the system does not offer stay unknown: there is no pidfd inode and no systemd unit. Only
pid and start time identify a process; they are checked again after every reading.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Protocol

from backpackd.adapters.processes.holding import Holding, within_limits
from backpackd.adapters.processes.pinned import ExitCallbacks
from backpackd.core.errors import HomeError, ProcessGoneError
from backpackd.core.peer_facts import Answer, Image, PeerFacts, ProcessFacts, ProcessId
from backpackd.ports import PinnedProcess

if TYPE_CHECKING:
    import psutil

_CHAIN_LIMIT = 64
_WALKS = 8
_COMMAND_LIMIT = 4096


class ExitDescriptor(Protocol):
    """Something that becomes readable when a process ends."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


def watch_exit(pid: int) -> ExitDescriptor:
    """Ask the kernel to tell of a process's end (kqueue(2), EVFILT_PROC).

    Raises:
        ProcessGoneError: there is no such process.
    """
    if sys.platform == "darwin":
        queue = select.kqueue()
        event = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT
        )
        try:
            queue.control([event], 0)
        except OSError as error:
            queue.close()
            raise ProcessGoneError(f"process {pid} is not running") from error
        return queue
    else:  # noqa: RET505 - as one branch of two, mypy knows it for another platform's
        raise HomeError("backpackd runs on Linux and macOS only")


class WatchedProcess:
    """A process known by pid and start time. Implements `ports.PinnedProcess`."""

    def __init__(self, identity: ProcessId, watch: ExitDescriptor) -> None:
        """Take ownership of `watch`."""
        self._identity = identity
        self._watch: ExitDescriptor | None = watch
        self._callbacks = ExitCallbacks(watch.fileno())

    @property
    def pid(self) -> int:
        """Its process id, meaningful only while `alive` says so."""
        return self._identity.pid

    def alive(self) -> bool:
        """Return whether it still runs; neither a zombie does, nor one that was let go."""
        if self._watch is None:
            return False
        try:
            with _reading(self._identity.pid) as process:
                return _identify(process) == self._identity and process.status() != "zombie"
        except ProcessGoneError:
            return False

    def uid(self) -> int | None:
        """Tell as which user it runs now (effective uid); None when it has ended."""
        try:
            with _reading(self._identity.pid) as process:
                return int(process.uids().effective) if self.alive() else None
        except ProcessGoneError:
            return None

    def readable_by(self, uid: int) -> bool:  # noqa: ARG002 - the port
        """Return False: this system cannot tell whether a process has closed itself."""
        return False

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once from the event loop when the process has ended."""
        self._callbacks.add(callback)

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it has ended or this user may not signal it.

        There is no pidfd here: between the check and the signal, the process could end and its pid
        could go to another process of the same user. But pids are not reused that soon.
        """
        if not self.alive():
            return False
        try:
            os.kill(self._identity.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back; callbacks no longer come. Closing twice is harmless."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self._callbacks.close()
            watch.close()


class PortableProcesses(Holding):
    """Reads facts about processes. Implements `ports.Processes`."""

    def __init__(self, watch: Callable[[int], ExitDescriptor] = watch_exit) -> None:
        """Read through psutil.

        Args:
            watch: gives, for a pid, what becomes readable when that process ends.
        """
        self._watch = watch

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read a peer and its ancestors, each checked to be still the parent after the reading.

        Raises:
            ProcessGoneError: the peer ended meanwhile, cannot be read, or keeps changing ancestors.
        """
        for _ in range(_WALKS):
            chain = self._walk(process.pid)
            if not process.alive():
                raise ProcessGoneError(f"process {process.pid} has ended")
            if chain is not None:
                return PeerFacts(uid, gid, chain)
        raise ProcessGoneError(f"process {process.pid} or an ancestor cannot be read")

    def pin(self, pid: int) -> tuple[PinnedProcess, ProcessId]:
        """See `ports.Processes`."""
        # Watched first, identified afterwards: the other way round, the end could be missed.
        with within_limits():
            watch = self._watch(pid)
        try:
            with _reading(pid) as found:
                identity = _identify(found)
        except BaseException:
            watch.close()
            raise
        process = WatchedProcess(identity, watch)
        if not process.alive():
            process.close()
            raise ProcessGoneError(f"process {pid} has ended")
        return process, identity

    def digest(self, process: ProcessId, executable: str) -> str | None:  # noqa: ARG002 - the port
        """Give no digest: what a process runs cannot be opened here.

        Only the file that is now at the path could be hashed. An attacker could start a program and
        then replace its file with a trusted program, to get the trusted digest.
        """
        return None

    def ended(self, process: ProcessId) -> bool:
        """See `ports.Processes`."""
        import psutil  # noqa: PLC0415 - as elsewhere in this file

        if not psutil.pid_exists(process.pid):
            return True
        try:
            with _reading(process.pid) as found:
                return _identify(found) != process or found.status() == "zombie"
        except ProcessGoneError:
            return False

    def claimed_commands(self, facts: PeerFacts) -> dict[int, str]:
        """See `ports.Processes`."""
        import psutil  # noqa: PLC0415 - as elsewhere in this file

        commands = {}
        for process in facts.chain:
            with suppress(psutil.Error):
                words = psutil.Process(process.id.pid).cmdline()
                commands[process.id.pid] = " ".join(words)[:_COMMAND_LIMIT]
        return commands

    def boot_id(self) -> str:
        """Name this boot: the same until the machine restarts.

        Elsewhere than on macOS, it is named by the second in which it began, which a step of the
        clock changes: what is tied to the boot then ends early.
        """
        if sys.platform == "darwin":
            return subprocess.run(
                ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
                check=True,
                capture_output=True,
                text=True,
                timeout=10,
            ).stdout.strip()
        else:  # noqa: RET505 - as one branch of two, mypy knows it for another platform's
            import psutil  # noqa: PLC0415 - Linux runs without it

            return f"boot-{int(psutil.boot_time())}"

    def degraded(self) -> str:
        """Say what weakens attestation on this machine."""
        return (
            "processes are told apart by pid and start time, and executables have no digest "
            "(this system has neither pidfds nor /proc)"
        )

    def _walk(self, pid: int) -> tuple[ProcessFacts, ...] | None:
        """Read a process and its ancestors; None when the reading has to start again."""
        chain: list[ProcessFacts] = []
        while pid > 0 and len(chain) < _CHAIN_LIMIT:
            try:
                with _reading(pid) as process:
                    facts: ProcessFacts | None = _read(process)
            except ProcessGoneError:
                facts = None
            if chain and not _has_parent(chain[-1].id, pid):
                return None
            if facts is None:
                break
            chain.append(facts)
            pid = facts.parent
        return tuple(chain) or None


@cache
def _reader() -> "type[psutil.Process]":
    """Make psutil's class of processes without its guesses."""
    import psutil  # noqa: PLC0415 - Linux runs without it

    class Process(psutil.Process):
        """A process without arguments.

        From these, psutil guesses an executable that the system does not tell, and they are the
        process's own words: one that hides what it runs would be taken for whatever it names.
        """

        def cmdline(self) -> list[str]:
            return []

    return Process


@contextmanager
def _reading(pid: int) -> "Iterator[psutil.Process]":
    """Lend a process to read from; one that ends or cannot be read is ProcessGoneError."""
    import psutil  # noqa: PLC0415 - Linux runs without it

    try:
        yield _reader()(pid)
    except (psutil.Error, OSError, ValueError) as error:
        raise ProcessGoneError(f"process {pid} has ended or cannot be read") from error


def _identify(process: "psutil.Process") -> ProcessId:
    """Tell which process a pid is, by its start in microseconds since the epoch."""
    return ProcessId(process.pid, round(process.create_time() * 1_000_000))


def _read(process: "psutil.Process") -> ProcessFacts:
    """Read the facts about one process."""
    executable, image = _executable(process)
    return ProcessFacts(
        id=_identify(process),
        parent=process.ppid(),
        session=os.getsid(process.pid),
        terminal=_terminal(process),
        uid=process.uids().effective,
        executable=executable,
        # launchd, pid 1, starts a user's services itself: there is no manager of the user's own.
        manager=process.pid == 1,
        name=process.name(),
        image=image,
    )


def _has_parent(child: ProcessId, pid: int) -> bool:
    """Return whether a process is still the same one and still lives with this parent."""
    try:
        with _reading(child.pid) as process:
            return process.ppid() == pid and _identify(process) == child
    except ProcessGoneError:
        return False


def _terminal(process: "psutil.Process") -> int:
    """Read the device number of a process's controlling terminal; 0 for none."""
    path = process.terminal()
    return os.stat(path).st_rdev if path else 0  # noqa: PTH116 - a device, not a file of ours


def _executable(process: "psutil.Process") -> tuple[str | None, Image]:
    """Read the path of what a process runs, None when the system does not tell, and its image.

    The file is the one that stands at the path now: the one that was executed cannot be looked at.
    """
    import psutil  # noqa: PLC0415 - Linux runs without it

    try:
        path = process.exe()
        path.encode("utf-8")
    except psutil.AccessDenied:
        return None, Image(Answer.HIDDEN)
    except UnicodeEncodeError:
        return None, Image(Answer.UNNAMED)
    if not path.startswith("/") or path.endswith(" (deleted)"):
        return None, Image(Answer.UNNAMED)
    try:
        file = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return path, Image(Answer.NAMED)
    return path, Image(Answer.NAMED, file.st_dev, file.st_ino)
