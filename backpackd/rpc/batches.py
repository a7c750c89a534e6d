"""Collects entries of a stream until one message is large enough to send."""

from typing import Generic, TypeVar

from google.protobuf.message import Message

MOST_BYTES = 1024 * 1024
"""The size at which a batch is full. The sizes of entries differ by a factor of a thousand. With a
limit on their count alone, a message could become longer than the server may send."""

_Entry = TypeVar("_Entry", bound=Message)


class Batch(Generic[_Entry]):
    """Entries for one message.

    Args:
        most: the most entries.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: list[_Entry] = []
        self._bytes = 0

    def add(self, entry: _Entry) -> bool:
        """Add an entry, and return whether the batch is now full."""
        self._entries.append(entry)
        self._bytes += entry.ByteSize()
        return len(self._entries) >= self._most or self._bytes >= MOST_BYTES

    def take(self) -> list[_Entry]:
        """Return the entries and start again with none."""
        taken, self._entries, self._bytes = self._entries, [], 0
        return taken
