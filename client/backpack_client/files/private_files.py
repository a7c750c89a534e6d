"""New files that hold a secret: private from the first moment, and complete or absent.

The caller writes their content.
"""

import contextlib
import os
from types import TracebackType
from typing import Self

from backpack_client.failures import Failure, printable


class NewFile:
    """A new file: it stays if the block succeeds, and is removed otherwise.

    Args:
        path: where; an existing file is never touched.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self._path, flags, 0o600)
        except (OSError, ValueError) as error:
            raise self._failure("make", error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._sync()
        except OSError as failed:
            self._remove()
            raise self._failure("write", failed) from None
        finally:
            os.close(self._descriptor)
        if kind is not None:
            self._remove()

    def write(self, data: bytes) -> None:
        """Write more bytes.

        Raises:
            Failure: there is no room, or the file cannot be written.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise self._failure("write", error) from None

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        # Sync the directory as well: otherwise a crash may leave a file without a name.
        within = os.path.dirname(self._path) or "."  # noqa: PTH120 - a path as it was typed
        directory = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - likewise

    def _failure(self, what: str, error: OSError | ValueError) -> Failure:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number).lower() if number else "not a path"
        there = isinstance(error, FileExistsError)
        return Failure(
            f"cannot {what} {printable(self._path, 256)}: {why}",
            reason="file-failed",
            hint="nothing is overwritten: name a new file" if there else "",
        )
