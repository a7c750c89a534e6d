"""Where HTTP/2 frames begin and end in a stream of bytes that comes in any pieces.

Reads frame heads (RFC 9113, section 4.1) and nothing of what they carry, and judges none of it:
what a wrong frame means is for the two ends to say.
"""

HEAD_BYTES = 9
DATA = 0
HEADERS = 1
RST_STREAM = 3
CONTINUATION = 9
END_STREAM = 0x1
END_HEADERS = 0x4

CARRIED_ON = -1
"""Stands for the kind of a part that goes on with the frame before it."""

_CANCEL = 8
_NO_ERROR = 0

Part = tuple[int, int, int, int, int]
"""Where a part of a frame starts and stops, and the frame's kind, flags and stream."""

_STREAM = 0x7FFFFFFF


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write a whole frame."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def reset_stream(stream: int, *, answered: bool = False) -> bytes:
    """Make the frame that ends a stream at once, for either side.

    Args:
        stream: which.
        answered: whether its peer was told all there is to say (RFC 9113, section 8.1).
    """
    return frame(RST_STREAM, 0, stream, (_NO_ERROR if answered else _CANCEL).to_bytes(4, "big"))


class FloodError(Exception):
    """A peer sends more frames than any client needs to. The message says of what kind."""


class Cutter:
    """Cuts one direction of a connection into frames, or parts of them.

    Attributes:
        left: how many bytes of the latest frame have not come yet.
        held: how many bytes of a head that has come in part only are kept.
    """

    __slots__ = ("_head", "left")

    def __init__(self, skip: int = 0) -> None:
        """Start at the beginning of a connection.

        Args:
            skip: how many bytes come before the first frame.
        """
        self.left = skip
        self._head = b""

    @property
    def held(self) -> int:
        """See the class."""
        return len(self._head)

    def cut(self, data: bytes, most: int | None = None) -> tuple[bytes, list[Part]]:
        """Take the next bytes.

        Args:
            data: the bytes.
            most: how many frames may begin in them; None: any number.

        Returns:
            The bytes that the parts are places in, and the parts, one after the other without a
            gap. A head that has come in part only is kept for the next time.

        Raises:
            FloodError: they are more.
        """
        if self._head:
            data = self._head + data
            self._head = b""
        parts: list[Part] = []
        at, end = 0, len(data)
        if self.left:
            at = min(self.left, end)
            self.left -= at
            parts.append((0, at, CARRIED_ON, 0, 0))
        while end - at >= HEAD_BYTES:
            stop = at + HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
            stream = int.from_bytes(data[at + 5 : at + HEAD_BYTES], "big") & _STREAM
            parts.append((at, min(stop, end), data[at + 3], data[at + 4], stream))
            if stop > end:
                self.left = stop - end
                return data, parts
            at = stop
            if most is not None and len(parts) > most:
                raise FloodError("frames")
        if at < end:
            self._head = data[at:]
            data = data[:at]
        return data, parts
