"""What the server sends on its way to the peer, and the few answers that are the door's own.

An answer of the door's refuses one request with a status and a reason, as the server would have,
and leaves the connection and its other calls alone. It is put between two of the server's frames
and never into a header block (RFC 9113, section 6.10), in literals that change no table (RFC 7541,
section 6.2.3).
"""

from backpackd.adapters.door.frames import (
    CARRIED_ON,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Cutter,
    Part,
    frame,
    reset_stream,
)
from backpackd.adapters.door.marks import field

_STATUS_200 = b"\x88"
"""RFC 7541, appendix A, entry 8."""

_RESOURCE_EXHAUSTED = "8"
_TOO_MUCH = (
    field("grpc-status", _RESOURCE_EXHAUSTED)
    + field(
        "grpc-message",
        "more than this connection may send without operator authority: authorize first",
    )
    + field("backpack-reason", "limit")
)


class Answers:
    """Follows the server's frames.

    Attributes:
        content: how many frames of content have come, of answers and not of the connection.
        left_open: the streams on which the server has begun to answer.
    """

    __slots__ = ("_block", "_cutter", "_due", "content", "left_open")

    def __init__(self) -> None:
        self._cutter = Cutter()
        self._block = False
        self._due: list[bytes] = []
        self.content = 0
        self.left_open: set[int] = set()

    def feed(self, data: bytes) -> tuple[bytes, list[int]]:
        """Take the next bytes that the server sent.

        Returns:
            The bytes for the peer, and the streams that end with them.
        """
        held = self._cutter.held
        _, parts = self._cutter.cut(data)
        ended = [part[4] for part in parts if _ends(part)]
        for _, _, kind, _, stream in parts:
            if kind == HEADERS:
                self.left_open.add(stream)
            elif kind == DATA:
                self.content += 1
        self.left_open.difference_update(ended)
        gap = self._gap(parts, held, len(data))
        if not self._due or gap is None:
            return data, ended
        due = b"".join(self._due)
        self._due.clear()
        return data[:gap] + due + data[gap:], ended

    def forget(self, stream: int) -> None:
        """Take a stream for ended: its peer has reset it."""
        self.left_open.discard(stream)

    def refuse(self, stream: int) -> bytes:
        """Answer a request that is too much.

        Returns:
            What the peer is sent now; else `feed` returns it in time.
        """
        start = b"" if stream in self.left_open else _STATUS_200 + _CONTENT_TYPE
        self._due.append(
            frame(HEADERS, END_HEADERS | END_STREAM, stream, start + _TOO_MUCH)
            + reset_stream(stream, answered=True)
        )
        if self._cutter.left or self._cutter.held or self._block:
            return b""
        return self._due.pop()

    def _gap(self, parts: list[Part], held: int, size: int) -> int | None:
        """Find a place in the new bytes before which a frame has ended, and a header block."""
        found = None
        for start, _, kind, flags, _ in parts:
            if kind == CARRIED_ON:
                continue
            # The head of the first frame may have gone on in part already.
            if not self._block and start >= held:
                found = start - held
            if kind in (HEADERS, CONTINUATION):
                self._block = not flags & END_HEADERS
        if not (self._block or self._cutter.left or self._cutter.held):
            found = size
        return found


_CONTENT_TYPE = field("content-type", "application/grpc")


def _ends(part: Part) -> bool:
    _, _, kind, flags, _ = part
    return kind == RST_STREAM or (kind in (HEADERS, DATA) and bool(flags & END_STREAM))
