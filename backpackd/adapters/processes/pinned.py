"""Holds a process by a descriptor, so that its pid cannot come to mean another process.

It knows whether a process still runs and when it has ended, and can signal it. It reads no other
facts.
"""

import asyncio
import errno
import os
import select
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from backpackd.core.errors import ProcessGoneError

# What pidfd_open(2) says of a pid that is nobody's, that is no pid at all, or that names a thread
# instead of a process (EINVAL before Linux 6.9, ENOENT since).
_NO_PROCESS = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})


_MOST_THREADS = 256
"""The most threads that are checked: each costs some microseconds in the event loop."""


class ExitCallbacks:
    """Callbacks that come once, from the event loop, when a descriptor becomes readable."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waiting: deque[Callable[[], None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def add(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the descriptor is readable, soon if it is so already.

        Needs a running event loop. Callbacks come in the order in which they were added.
        """
        if self._closed:
            return
        self._waiting.append(callback)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._fd, self._fire)

    def close(self) -> None:
        """Call nothing any more. The caller closes the descriptor, after this."""
        self._closed = True
        self._waiting.clear()
        self._stop()

    def _fire(self) -> None:
        # One callback in each turn of the loop, because the descriptor stays readable. If a
        # callback closes this object, the rest must not run; if it fails, the rest must run.
        callback = self._waiting.popleft()
        if not self._waiting:
            self._stop()
        callback()

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._fd)


class PidfdProcess:
    """A process held by a pidfd (pidfd_open(2)). Implements `ports.PinnedProcess`."""

    def __init__(self, pid: int, fd: int) -> None:
        """Take ownership of `fd`.

        Args:
            pid: the process id that belongs to the pidfd, in this pid namespace.
            fd: a pidfd, from `pidfd_open` or `SO_PEERPIDFD`.
        """
        self._pid = pid
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._callbacks = ExitCallbacks(fd)

    def __repr__(self) -> str:
        return f"PidfdProcess(pid={self._pid})"

    @property
    def pid(self) -> int:
        """Its process id, meaningful only while `alive` says so."""
        return self._pid

    def alive(self) -> bool:
        """Return whether it still runs; a zombie does not, and one that was let go is not known to.

        A pidfd is readable from the moment when the last thread has exited (pidfd_open(2)).
        """
        return self._fd >= 0 and not self._poll.poll(0)

    def uid(self) -> int | None:
        """Tell as which user it runs now (effective uid); None when it has ended or is hidden."""
        return self._owner(f"/proc/{self._pid}")

    def readable_by(self, uid: int) -> bool:
        """Return whether a user's other processes can read its memory and take its descriptors.

        The kernel gives the files of a process in /proc to the process's user while it is dumpable,
        and to root otherwise (proc(5)). It checks the same flag when another process reads memory,
        attaches or takes a descriptor (ptrace(2), pidfd_getfd(2)). In a user namespace of the
        user's own they stay the user's, who may attach there all the same.

        Nothing ends a tracer that had attached before the process closed itself. It cannot read
        memory any more, but it can still have the process do system calls, such as opening itself
        for as long as it takes to take a descriptor. It traces single threads, so each is asked.

        Returns:
            True also where it cannot be told.
        """
        owner = self._owner(f"/proc/{self._pid}/mem")
        return owner is None or owner == uid or self._traced()

    def _traced(self) -> bool:
        """Return whether another process traces a thread of it; True if that is unknown."""
        try:
            with os.scandir(f"/proc/{self._pid}/task") as threads:
                for number, thread in enumerate(threads):
                    if number >= _MOST_THREADS or _is_traced(thread.path):
                        return True
        except OSError:
            return True
        return not self.alive()

    def _owner(self, path: str) -> int | None:
        try:
            owner = os.stat(path).st_uid  # noqa: PTH116 - one system call, for every call
        except OSError:
            return None
        # Read by number: it was the process's own if that still runs afterwards.
        return owner if self.alive() else None

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once from the event loop when the process has ended."""
        self._callbacks.add(callback)

    def signal(self, number: int) -> bool:
        """Send it a signal (pidfd_send_signal(2)); False when it has ended or is another user's.

        The kernel checks this user's right to, at this moment: a process that runs as another uid
        by now (sudo) is not signalled.
        """
        # A signal to a zombie would count as sent.
        if not self.alive():
            return False
        try:
            signal.pidfd_send_signal(self._fd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back; callbacks no longer come. Closing twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._callbacks.close()
            os.close(fd)


def _is_traced(thread: str) -> bool:
    try:
        status = Path(thread, "status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        # It has ended since.
        return False
    # A name that holds a line of this kind is written with its line ends escaped.
    return b"\nTracerPid:\t0\n" not in status


def open_process(pid: int) -> PidfdProcess:
    """Hold a running process by its pid.

    Only the number was given, so the caller checks that it holds the process that it meant.

    Raises:
        ProcessGoneError: there is no such process, or it has ended and is not yet reaped.
        OSError: the process could not be held for another reason, such as too many open files.
    """
    try:
        fd = os.pidfd_open(pid)
    except OverflowError as error:
        raise ProcessGoneError("not a process id") from error
    except OSError as error:
        if error.errno in _NO_PROCESS:
            raise ProcessGoneError(f"process {pid} is not running") from error
        raise
    process = PidfdProcess(pid, fd)
    if not process.alive():
        process.close()
        raise ProcessGoneError(f"process {pid} has ended")
    return process
