"""A place on the disk for bytes in transit: no other process sees it, and nothing remains of it.

The caller seals the bytes that it writes.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from backpackd.adapters.stores.failures import translate_os

_PIECE = 256 * 1024


class FileSpool:
    """Implements `ports.Spool` in a file without a name.

    Args:
        directory: on the file system that has room for it, private to the user.
    """

    def __init__(self, directory: Path) -> None:
        # If the system has no files without a name: unlinked before anything is in it.
        self._descriptor = -1
        try:
            with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
                self._descriptor = os.dup(file.fileno())
        except OSError as error:
            raise translate_os(error) from error

    async def append(self, data: bytes) -> None:
        """See `ports.Spool`."""
        await asyncio.to_thread(self._append, data)

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `ports.Spool`."""
        place = 0
        while True:
            piece = await asyncio.to_thread(os.pread, self._descriptor, _PIECE, place)
            if not piece:
                return
            place += len(piece)
            yield piece

    def close(self) -> None:
        """See `ports.Spool`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise translate_os(error) from error
