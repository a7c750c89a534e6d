"""Tells when a socket's file is gone, without looking: the kernel reports it (inotify(7)).

The runtime directory of a user disappears when the last session ends. A daemon that goes on then
holds an unlocked vault that no command reaches.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from backpackd.adapters.system.libc import check, libc

_DELETED: Final = 0x200
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_DELETED_SELF: Final = 0x400
_MOVED_SELF: Final = 0x800
_EVENTS: Final = _DELETED | _MOVED_FROM | _MOVED_TO | _DELETED_SELF | _MOVED_SELF
_READ = 64 * 1024


class PathWatch:
    """Watches one path.

    Args:
        loop: calls `gone`.
        path: of a file that exists.
        gone: called once when the path does not name this file any more.

    Raises:
        OSError: the path cannot be watched.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, path: str, gone: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._path = path
        self._gone = gone
        self._file = _identity(path)
        self._fd = check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        try:
            directory = os.fsencode(os.path.dirname(path))  # noqa: PTH120 - bytes
            check(libc.inotify_add_watch(self._fd, directory, _EVENTS), "inotify_add_watch")
        except BaseException:
            os.close(self._fd)
            raise
        loop.add_reader(self._fd, self._look)
        if _identity(path) != self._file:
            loop.call_soon(self._look)

    def close(self) -> None:
        """Watch no longer. Closing twice is harmless."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        if self._fd < 0:
            return
        with suppress(BlockingIOError):
            os.read(self._fd, _READ)
        if _identity(self._path) != self._file:
            self.close()
            self._gone()


def watch_path(
    loop: asyncio.AbstractEventLoop, path: str, gone: Callable[[], None]
) -> PathWatch | None:
    """Watch a path; None where the platform has no inotify, or the path names no file.

    Args:
        loop: calls `gone`.
        path: absolute.
        gone: called once when the path does not name the same file any more.
    """
    if sys.platform != "linux" or not path.startswith("/") or _identity(path) is None:
        return None
    return PathWatch(loop, path, gone)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
