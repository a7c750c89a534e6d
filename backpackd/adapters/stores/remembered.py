"""Remembers rows that were read from a file, sealed as they are.

For what reads in another thread: the way there and back takes longer than the rest of a reading.
What is remembered is what the file held; whether it is what the vault wrote is not judged here.

It forgets nothing by itself but what is too much. Who changes a row, or may find another file,
starts anew. A file that no other program can change meanwhile is taken for granted, as SQLite does
when it keeps the pages that it read under an exclusive lock.
"""

from collections.abc import Iterable

from backpackd.core.rows import KeyRow

MOST_BYTES = 1024 * 1024
"""How many bytes of rows are remembered: the keys that are in use, not the vault."""


class Remembered:
    """Rows as they were read. For one thread."""

    def __init__(self) -> None:
        self._rows: dict[bytes, KeyRow] = {}
        self._size = 0

    def get(self, index: bytes) -> KeyRow | None:
        """Return a row that is remembered."""
        return self._rows.get(index)

    def add(self, rows: Iterable[KeyRow]) -> None:
        """Remember rows, and forget the oldest where there are too many."""
        for row in rows:
            if row.index not in self._rows:
                self._rows[row.index] = row
                self._size += _size(row)
        while self._size > MOST_BYTES:
            self._size -= _size(self._rows.pop(next(iter(self._rows))))


def _size(row: KeyRow) -> int:
    return len(row.index) + len(row.head) + len(row.value)
