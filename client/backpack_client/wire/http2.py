"""HTTP/2 (RFC 9113) for exactly one call: what the client sends, and a reader of what comes back.

Sans I/O: the socket is the transports' business. What is not needed for one call does not exist:
one stream, no push, no priorities. Frames that a client is to ignore are ignored; broken ones end
the call.
"""

from backpack_client.wire import Ended, Unknown, hpack, malformed

# Section 6.5.2: the frame size that a peer accepts, and receives, without further agreement.
FRAME_LIMIT = 16384
# Section 6.9.2: the window that a peer grants without further agreement.
_DEFAULT_WINDOW = 65535
# Section 6.9.1: no window is larger.
_LARGEST_WINDOW = 2**31 - 1
# What the answer's DATA frames may hold, padding included: the longest message and its prefix. An
# endless answer is granted as much again whenever half of it was used.
WINDOW = 8 * 1024 * 1024 + 64 * 1024
# Everything that may come, frame headers and pings included: a bound on an endless peer.
TOTAL_LIMIT = 2 * WINDOW

_HEADER = 9
_STREAM = 1
_STREAM_BITS = 0x7FFFFFFF

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
_PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

_ACK = _END_STREAM = 0x1
_END_HEADERS = 0x4
_PADDED = 0x8
_WITH_PRIORITY = 0x20

_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_HEADER_LIST_SIZE = 1, 2, 4, 6
_SETTING = 6

# The gRPC status for the error code of a RST_STREAM; INTERNAL for all others
# (gRPC over HTTP2, "HTTP2 transport mapping").
_STATUS_OF_RESET = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED"}


class Exchange:
    """One request and its answer.

    Attributes:
        outgoing: what is to be sent to the peer before waiting for more; the sender clears it.
        headers: the header fields of the answer; None before they have come, and for good where
            the answer is nothing but trailers.
        body: what has come of the answer's body; the reader takes from it.
        trailers: the fields that end the answer; None before that.
    """

    def __init__(
        self, fields: "list[tuple[str, str]]", body: bytes, *, endless: bool = False
    ) -> None:
        """Lay out what the client has to say: one connection, one stream, one request.

        Args:
            fields: the request's header fields, pseudo-header fields first.
            body: the request's body, at least one byte.
            endless: the answer may be of any length, and is read as it comes.

        Raises:
            Unknown: the request's header needs more than one frame.
        """
        block = hpack.encode(fields)
        if len(block) > FRAME_LIMIT:
            raise Unknown("a header of more than one frame")
        settings = b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big")
            for key, value in (
                (_HEADER_TABLE_SIZE, 0),
                (_ENABLE_PUSH, 0),
                (_INITIAL_WINDOW_SIZE, WINDOW),
                (_MAX_HEADER_LIST_SIZE, hpack.LIST_LIMIT),
            )
        )
        self.outgoing = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.outgoing += _frame(_SETTINGS, 0, 0, settings)
        self.outgoing += _window_update(0, WINDOW - _DEFAULT_WINDOW)
        self.outgoing += _frame(_HEADERS, _END_HEADERS, _STREAM, block)
        self.headers: list[tuple[str, str]] | None = None
        self.body = bytearray()
        self.trailers: list[tuple[str, str]] | None = None
        self._endless = endless
        self._unsent = memoryview(body)
        # What the peer still takes, on the whole connection and on the stream. Its settings may
        # lower the latter below zero.
        self._connection_takes = self._stream_takes = _DEFAULT_WINDOW
        self._initial = _DEFAULT_WINDOW
        self._buffer = bytearray()
        self._total = 0
        self._window = WINDOW
        self._settled = False
        self._block: bytearray | None = None
        self._block_ends_stream = False
        self._send_body()

    def feed(self, data: bytes) -> None:
        """Take what has come from the peer. After the trailers, nothing more is read.

        Raises:
            Unknown: it is legal, and not known here.
            Failure: it breaks the protocol.
            Ended: the peer gave the call up.
        """
        self._total += len(data)
        if self._total > TOTAL_LIMIT and not self._endless:
            raise malformed("an endless answer")
        buffer = self._buffer
        buffer += data
        start = 0
        while self.trailers is None and len(buffer) - start >= _HEADER:
            length = int.from_bytes(buffer[start : start + 3], "big")
            if length > FRAME_LIMIT:
                raise malformed("too large a frame")
            end = start + _HEADER + length
            if len(buffer) < end:
                break
            stream = int.from_bytes(buffer[start + 5 : start + 9], "big") & _STREAM_BITS
            payload = bytes(buffer[start + _HEADER : end])
            self._take(buffer[start + 3], buffer[start + 4], stream, payload)
            start = end
        del buffer[:start]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self._settled and kind != _SETTINGS:
            raise malformed("it does not speak HTTP/2")
        if self._block is not None and kind != _CONTINUATION:
            raise malformed("a header block interrupted")
        if kind in (_DATA, _HEADERS, _RST_STREAM, _CONTINUATION):
            self._take_of_stream(kind, flags, stream, payload)
        elif kind in (_SETTINGS, _PING, _GOAWAY):
            if stream:
                raise malformed("a frame on the wrong stream")
            self._take_of_connection(kind, flags, payload)
        elif kind == _PUSH_PROMISE:
            raise malformed("a push, which was declined")
        elif kind == _WINDOW_UPDATE:
            self._take_window(stream, payload)
        # PRIORITY, and whatever later versions add, is to be ignored (sections 5.3.2 and 5.5).

    def _take_of_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SETTINGS:
            if len(payload) % 6 or (flags & _ACK and payload):
                raise malformed("broken settings")
            if flags & _ACK:
                if not self._settled:
                    raise malformed("it does not speak HTTP/2")
                return
            self._settled = True
            self.outgoing += _frame(_SETTINGS, _ACK, 0, b"")
            self._take_settings(payload)
        elif kind == _PING:
            if len(payload) != 8:  # noqa: PLR2004 - section 6.7
                raise malformed("a broken ping")
            if not flags & _ACK:
                self.outgoing += _frame(_PING, _ACK, 0, payload)
        else:
            if len(payload) < 8:  # noqa: PLR2004 - section 6.8
                raise malformed("a broken goodbye")
            if int.from_bytes(payload[:4], "big") & _STREAM_BITS < _STREAM:
                # The request was not looked at, so asking again makes no second lease.
                raise Unknown("the peer did not take the request")

    def _take_of_stream(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if stream != _STREAM:
            raise malformed("a frame on the wrong stream")
        if kind == _DATA:
            self._take_data(flags, payload)
        elif kind == _HEADERS:
            self._block = bytearray(_header_fragment(flags, payload))
            self._block_ends_stream = bool(flags & _END_STREAM)
            self._take_block(flags, self._block)
        elif kind == _CONTINUATION:
            if self._block is None:
                raise malformed("a header block without a beginning")
            self._block += payload
            self._take_block(flags, self._block)
        else:
            raise _reset(payload)

    def _take_data(self, flags: int, payload: bytes) -> None:
        self._window -= len(payload)
        if self.headers is None or self._window < 0:
            raise malformed("data that nobody asked for")
        if flags & _END_STREAM:
            raise malformed("an answer without trailers")
        self.body += _unpad(payload) if flags & _PADDED else payload
        if self._endless and self._window < WINDOW // 2:
            for each in (0, _STREAM):
                self.outgoing += _window_update(each, WINDOW - self._window)
            self._window = WINDOW

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), _SETTING):
            if int.from_bytes(payload[at : at + 2], "big") == _INITIAL_WINDOW_SIZE:
                size = int.from_bytes(payload[at + 2 : at + _SETTING], "big")
                if size > _LARGEST_WINDOW:
                    raise malformed("broken settings")
                # Section 6.9.2: it holds for the stream that is open, too.
                self._stream_takes += size - self._initial
                self._initial = size
        self._send_body()

    def _take_window(self, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload, "big") & _STREAM_BITS
        if len(payload) != 4 or not more:  # noqa: PLR2004 - section 6.9
            raise malformed("a broken window update")
        if stream == 0:
            self._connection_takes += more
        elif stream == _STREAM:
            self._stream_takes += more
        if max(self._connection_takes, self._stream_takes) > _LARGEST_WINDOW:
            raise malformed("a broken window update")
        self._send_body()

    def _send_body(self) -> None:
        """Send of the body what the peer takes now."""
        while self._unsent:
            size = min(FRAME_LIMIT, self._connection_takes, self._stream_takes, len(self._unsent))
            if size <= 0:
                return
            flags = _END_STREAM if size == len(self._unsent) else 0
            self.outgoing += _frame(_DATA, flags, _STREAM, bytes(self._unsent[:size]))
            self._unsent = self._unsent[size:]
            self._connection_takes -= size
            self._stream_takes -= size

    def _take_block(self, flags: int, block: bytearray) -> None:
        if len(block) > hpack.LIST_LIMIT:
            raise malformed("too many header fields")
        if not flags & _END_HEADERS:
            return
        fields = hpack.decode(bytes(block))
        self._block = None
        if self._block_ends_stream:
            self.trailers = fields
        elif self.headers is None:
            self.headers = fields
        else:
            raise malformed("trailers that do not end the answer")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _window_update(stream: int, more: int) -> bytes:
    return _frame(_WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def _header_fragment(flags: int, payload: bytes) -> bytes:
    if flags & _PADDED:
        payload = _unpad(payload)
    if flags & _WITH_PRIORITY:
        if len(payload) < 5:  # noqa: PLR2004 - section 6.2
            raise malformed("a broken header frame")
        payload = payload[5:]
    return payload


def _unpad(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise malformed("more padding than frame")
    return payload[1 : len(payload) - payload[0]]


def _reset(payload: bytes) -> Exception:
    if len(payload) != 4:  # noqa: PLR2004 - section 6.4
        return malformed("a broken reset")
    code = int.from_bytes(payload, "big")
    status = _STATUS_OF_RESET.get(code, "INTERNAL")
    return Ended(status, f"the daemon gave the call up (HTTP/2 error {code})")
