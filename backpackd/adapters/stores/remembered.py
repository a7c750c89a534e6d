"""Remembers rows that were read from a file, in sealed form.

It is for callers that read in another thread: the way there and back takes longer than the reading.
It remembers what the file held, and does not judge whether the vault wrote it.

It forgets rows only if there are too many. A caller that changes a row, or may find another file,
starts a new one. A file that no other program can change meanwhile is taken for granted, as SQLite
does when it keeps the pages that it read under an exclusive lock.
"""

from collections.abc import Iterable

from backpackd.core.rows import KeyRow

MOST_BYTES = 1024 * 1024
"""The most bytes of rows that are remembered: the keys in use, not the whole vault."""


class Remembered:
    """Rows as they were read. For one thread."""

    def __init__(self) -> None:
        self._rows: dict[bytes, KeyRow] = {}
        self._size = 0

    def get(self, index: bytes) -> KeyRow | None:
        """Return a row that is remembered."""
        return self._rows.get(index)

    def add(self, rows: Iterable[KeyRow]) -> None:
        """Remember rows, and forget the oldest if there are too many."""
        for row in rows:
            if row.index not in self._rows:
                self._rows[row.index] = row
                self._size += _size(row)
        while self._size > MOST_BYTES:
            self._size -= _size(self._rows.pop(next(iter(self._rows))))


def _size(row: KeyRow) -> int:
    return len(row.index) + len(row.head) + len(row.value)
