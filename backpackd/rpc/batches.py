"""Messages of a stream, put together until one is large enough to be sent."""

from typing import Generic, TypeVar

from google.protobuf.message import Message

MOST_BYTES = 1024 * 1024
"""After which a batch is full. Entries differ in size by a thousand times, so that their count
alone would let a message grow beyond what the server may send."""

_Entry = TypeVar("_Entry", bound=Message)


class Batch(Generic[_Entry]):
    """Entries that go into one message.

    Args:
        most: entries.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: list[_Entry] = []
        self._bytes = 0

    def add(self, entry: _Entry) -> bool:
        """Add an entry, and tell whether the batch is full with it."""
        self._entries.append(entry)
        self._bytes += entry.ByteSize()
        return len(self._entries) >= self._most or self._bytes >= MOST_BYTES

    def take(self) -> list[_Entry]:
        """Return the entries and begin again without any."""
        taken, self._entries, self._bytes = self._entries, [], 0
        return taken
