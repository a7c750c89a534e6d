"""HTTP/2 (RFC 9113) for exactly one call: writes the request, and reads the answer.

Sans I/O: `unary` has the socket. It has only what one call needs: one stream, no push, no
priorities, and no window updates, because the initial window holds the largest answer. It ignores
frames that a client must ignore. A broken frame ends the call.
"""

from backpack_client.failures import Failure, from_status
from backpack_client.fastpath import HandOver, hpack, malformed

# Section 6.5.2: the default frame size that a peer accepts and sends.
FRAME_LIMIT = 16384
# Section 6.9.2: the default window that a peer grants.
_DEFAULT_WINDOW = 65535
# The limit for the answer's DATA frames, including padding.
WINDOW = 8 * 1024 * 1024
# The limit for all received bytes, including frame headers and pings: it stops an endless peer.
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

# The gRPC status for the error code of a RST_STREAM; INTERNAL for all others
# (gRPC over HTTP2, "HTTP2 transport mapping").
_STATUS_OF_RESET = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED"}


def opening(fields: "list[tuple[str, str]]", body: bytes) -> bytes:
    """Encode everything that the client sends: one connection, one stream, one request.

    Args:
        fields: the request's header fields, pseudo-header fields first.
        body: the request's body.

    Returns:
        The bytes to send, in one piece.

    Raises:
        HandOver: the request needs more than one frame for its header or its body.
    """
    block = hpack.encode(fields)
    if len(block) > FRAME_LIMIT or len(body) > FRAME_LIMIT:
        raise HandOver("a request of more than one frame")
    settings = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big")
        for key, value in (
            (_HEADER_TABLE_SIZE, 0),
            (_ENABLE_PUSH, 0),
            (_INITIAL_WINDOW_SIZE, WINDOW),
            (_MAX_HEADER_LIST_SIZE, hpack.LIST_LIMIT),
        )
    )
    return b"".join(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_WINDOW_UPDATE, 0, 0, (WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")),
            _frame(_HEADERS, _END_HEADERS, _STREAM, block),
            _frame(_DATA, _END_STREAM, _STREAM, body),
        )
    )


class Reply:
    """Reads the answer to the one request.

    Attributes:
        outgoing: bytes to send to the peer before waiting for more; the sender clears it.
        headers: the header fields of the answer; None before they have come, and always None if
            the answer has only trailers.
        body: the received part of the answer's body.
        trailers: the fields that end the answer; None before that.
    """

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self.headers: list[tuple[str, str]] | None = None
        self.body = bytearray()
        self.trailers: list[tuple[str, str]] | None = None
        self._buffer = bytearray()
        self._total = 0
        self._window = WINDOW
        self._settled = False
        self._block: bytearray | None = None
        self._block_ends_stream = False

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer. After the trailers, nothing more is read.

        Raises:
            HandOver: it is legal, but not known here.
            Failure: it breaks the protocol, or the peer gave the call up.
        """
        self._total += len(data)
        if self._total > TOTAL_LIMIT:
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
        elif kind == _WINDOW_UPDATE and len(payload) != 4:  # noqa: PLR2004 - section 6.9
            raise malformed("a broken window update")
        # The whole request has been sent, so the peer's window does not matter.
        # Ignore PRIORITY and unknown frames of later versions (sections 5.3.2 and 5.5).

    def _take_of_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SETTINGS:
            if len(payload) % 6 or (flags & _ACK and payload):
                raise malformed("broken settings")
            if flags & _ACK:
                if not self._settled:
                    raise malformed("it does not speak HTTP/2")
                return
            # No setting changes the bytes that are left to send.
            self._settled = True
            self.outgoing += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING:
            if len(payload) != 8:  # noqa: PLR2004 - section 6.7
                raise malformed("a broken ping")
            if not flags & _ACK:
                self.outgoing += _frame(_PING, _ACK, 0, payload)
        else:
            if len(payload) < 8:  # noqa: PLR2004 - section 6.8
                raise malformed("a broken goodbye")
            if int.from_bytes(payload[:4], "big") & _STREAM_BITS < _STREAM:
                # The peer did not process the request, so asking again makes no second lease.
                raise HandOver("the peer did not take the request")

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


def _reset(payload: bytes) -> Failure:
    if len(payload) != 4:  # noqa: PLR2004 - section 6.4
        return malformed("a broken reset")
    code = int.from_bytes(payload, "big")
    status = _STATUS_OF_RESET.get(code, "INTERNAL")
    return from_status(status, "", f"the daemon gave the call up (HTTP/2 error {code})", {})
