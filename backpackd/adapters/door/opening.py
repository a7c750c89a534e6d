"""The first bytes of a connection: do they speak HTTP/2, and has a request begun?

Reads no more than frame headers (RFC 9113, section 4.1) and only up to the first HEADERS frame;
everything after that is the gRPC server's business, and so is the judgement of what the frames
say. It exists so that garbage never reaches the server, and so that the bytes before the first
request can be counted without counting the request itself, which may be large.
"""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client sends first (RFC 9113, section 3.4)."""

MOST_FRAMES = 64
"""Before the first request. A client sends its settings, and a few more."""

_FRAME_HEADER = 9
_HEADERS = 1


class OpeningError(Exception):
    """The connection does not open as it must. The message says how, never with what bytes."""


class Opening:
    """Watches one connection until its first request.

    Attributes:
        started: True once a request has begun.
    """

    __slots__ = ("_frames", "_greeted", "_head", "_limit", "_seen", "_skip", "started")

    def __init__(self, limit: int) -> None:
        """Watch a new connection.

        Args:
            limit: how many bytes may come before the first request.
        """
        self.started = False
        self._limit = limit
        self._seen = 0
        self._frames = 0
        self._greeted = False
        self._head = b""
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes that the peer sent.

        Raises:
            OpeningError: they are not HTTP/2, or too many without a request.
        """
        at = 0
        while at < len(data) and not self.started:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                want = _FRAME_HEADER if self._greeted else len(PREFACE)
                part = data[at : at + want - len(self._head)]
                step = len(part)
                self._head += part
                self._take_head()
            at += step
        self._seen += at
        if self._seen > self._limit:
            raise OpeningError("too many bytes before the first request")

    def _take_head(self) -> None:
        if not self._greeted:
            if not PREFACE.startswith(self._head):
                raise OpeningError("it does not speak HTTP/2")
            if len(self._head) == len(PREFACE):
                self._greeted = True
                self._head = b""
        elif len(self._head) == _FRAME_HEADER:
            self._frames += 1
            if self._frames > MOST_FRAMES:
                raise OpeningError("too many frames before the first request")
            self._skip = int.from_bytes(self._head[:3], "big")
            self.started = self._head[3] == _HEADERS
            self._head = b""
