"""Cuts the bytes of a peer into whole frames, and counts frames that cost more than they carry.

It reads only the first nine bytes of each frame (RFC 9113, section 4.1). The HTTP/2 library knows
what a frame means. There are two reasons to cut first. A frame is the unit that costs time, and
64 KiB hold seven thousand of them, so the library gets a bounded number at a time. And the library
gets only whole frames, so that no part of a passphrase stays in its buffer.
"""

from backpackd.adapters.door.limits import (
    BYTES_FOR_ONE_FRAME,
    FRAMES_A_SECOND,
    FRAMES_FOR_A_REQUEST,
    FRAMES_SPARE,
    LONGEST_FRAME,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client (RFC 9113, section 3.4)."""

_HEAD = 9
_HEADERS = 1
_GOAWAY = 7


class FrameError(Exception):
    """The peer broke the protocol, or sends too many frames. The message says which."""


class Frames:
    """Collects the frames of one connection."""

    __slots__ = ("_at", "_data", "_preface", "_spare", "_spare_at")

    def __init__(self, now: float) -> None:
        """Begin before the preface.

        Args:
            now: seconds on a clock that does not go back.
        """
        self._data = b""
        self._at = 0
        self._preface = True
        self._spare = float(FRAMES_SPARE)
        self._spare_at = now

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    @property
    def ready(self) -> bool:
        """Whether there is a whole frame to cut."""
        begin = self._data[self._at : self._at + 3]
        held = len(self._data) - self._at
        return held >= _HEAD and held >= _HEAD + int.from_bytes(begin, "big")

    def cut(self, most: int, now: float) -> bytes:
        """Return the next whole frames; empty if there is none yet.

        GOAWAY frames are left out. A client that sends one opens no more streams, but still waits
        for its answers; the library would send none after a GOAWAY.

        Args:
            most: how many frames at most; what precedes the first one is a piece of its own.
            now: seconds, as in `__init__`.

        Raises:
            FrameError: the peer does not speak HTTP/2, or sends too many or too long frames.
        """
        if self._preface:
            return self._cut_preface()
        data, at = self._data, self._at
        pieces: list[bytes] = []
        begin_at = at
        count = requests = carried = 0
        size = len(data)
        while count < most and at + _HEAD <= size:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > LONGEST_FRAME:
                raise FrameError("too long a frame")
            end = at + _HEAD + length
            if end > size:
                break
            kind = data[at + 3]
            if kind == _HEADERS:
                requests += 1
            elif kind == 0:
                carried += length
            elif kind == _GOAWAY:
                pieces.append(data[begin_at:at])
                begin_at = end
            count += 1
            at = end
        if not count:
            return b""
        self._spend(count - requests, requests, carried, now)
        pieces.append(data[begin_at:at])
        self._at = at
        if at == size:
            self._data, self._at = b"", 0
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def _cut_preface(self) -> bytes:
        begin = self._data[: len(PREFACE)]
        if not PREFACE.startswith(begin):
            raise FrameError("it does not speak HTTP/2")
        if len(begin) < len(PREFACE):
            return b""
        self._preface = False
        self._at = len(PREFACE)
        return begin

    def earn(self, frames: int) -> None:
        """Give frames to spare, for what the peer was sent or has sent."""
        self._spare = min(self._spare + frames, FRAMES_SPARE)

    def _spend(self, frames: int, requests: int, carried: int, now: float) -> None:
        earned = (
            (now - self._spare_at) * FRAMES_A_SECOND
            + requests * FRAMES_FOR_A_REQUEST
            + carried / BYTES_FOR_ONE_FRAME
        )
        self._spare_at = now
        self._spare = min(self._spare + earned, FRAMES_SPARE + requests * FRAMES_FOR_A_REQUEST)
        self._spare -= frames
        if self._spare < 0:
            raise FrameError("too many frames that carry nothing")
