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

Part = tuple[int, int, int, int, int]
"""Where a part of a frame starts and stops, and the frame's kind, flags and stream."""

_STREAM = 0x7FFFFFFF


class Cutter:
    """Cuts one direction of a connection into frames, or parts of them.

    Attributes:
        left: how many bytes of the latest frame have not come yet.
    """

    __slots__ = ("_head", "left")

    def __init__(self, skip: int = 0) -> None:
        """Start at the beginning of a connection.

        Args:
            skip: how many bytes come before the first frame.
        """
        self.left = skip
        self._head = b""

    def cut(self, data: bytes) -> tuple[bytes, list[Part]]:
        """Take the next bytes.

        Returns:
            The bytes that the parts are places in, and the parts, one after the other without a
            gap. A head that has come in part only is kept for the next time.
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
        if at < end:
            self._head = data[at:]
            data = data[:at]
        return data, parts
