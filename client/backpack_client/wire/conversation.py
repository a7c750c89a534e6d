"""One gRPC call over HTTP/2 (grpc.io, "gRPC over HTTP2"): the request, and the answer's messages.

`Conversation` does no I/O. `call` and the rest carry its bytes over a blocking socket; they stand
in this file since each file costs every `get` a tenth of a millisecond. Messages are bytes here.
"""

import _socket
import time

from backpack_client.failures import is_forbidden, sockets_forbidden
from backpack_client.wire import Ended, Unknown, http2, late, lost, malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# 64 values of 64 KiB, or an agent's lock with its memory: the daemon sends no longer message.
MESSAGE_LIMIT = 8 * 1024 * 1024

RECEIVE = 64 * 1024
# A socket takes no timeout beyond what poll(2) does, some 24 days.
LONGEST = 20 * 86400

_PREFIX = 5
_STATUS_DIGITS = 3
# "gRPC over HTTP2" allows eight digits, and a unit.
_LARGEST_TIMEOUT = 99_999_999
_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


class Conversation:
    """A call under way.

    Attributes:
        outgoing: what is to be sent before waiting for more; the sender clears it.
        headers: what the daemon tells ahead of its answer; None before that has come, and for good
            where nothing but the end comes.
        messages: the answer's messages that have come; a reader of a stream takes them out.
        over: whether the call has ended.
    """

    def __init__(
        self, method: str, message: bytes, seconds: float | None = None, *, endless: bool = False
    ) -> None:
        """Begin a call.

        Args:
            method: its path, such as `/backpack.v1.Leases/GetKeys`.
            message: the request, encoded.
            seconds: how long the whole call may take, as the daemon is told; None: any time.
            endless: the answer is a stream that is read as it comes.

        Raises:
            Unknown: the method's path is too long for one frame.
        """
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "backpack-client"),
        ]
        if seconds is not None:
            fields.append(("grpc-timeout", _timeout(seconds)))
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._exchange = http2.Exchange(fields, body, endless=endless)
        self.outgoing = self._exchange.outgoing
        self.headers: dict[str, str] | None = None
        self.messages: list[bytes] = []
        self.over = False
        self._end: Ended | None = None

    def feed(self, data: bytes) -> None:
        """Take what has come; no bytes say that the peer has hung up.

        Raises:
            Unknown: it is legal, and not known here.
            Failure: it breaks the protocol.
        """
        try:
            if not data:
                raise lost()
            self._exchange.feed(data)
        except Ended as ended:
            self._end, self.over = ended, True
        self._collect()
        if self.headers is None and self._exchange.headers is not None:
            self.headers = _checked(self._exchange.headers)
        if self._exchange.trailers is not None and not self.over:
            self._end, self.over = _end(dict(self._exchange.trailers)), True
            if self._end is None and self._exchange.body:
                raise malformed("a message cut short")

    def check(self) -> None:
        """Raise what the call ended with, unless it went well or has not ended.

        Raises:
            Ended: the daemon refused or gave the call up, or the connection was lost.
        """
        if self._end is not None:
            raise self._end

    def _collect(self) -> None:
        body = self._exchange.body
        while len(body) >= _PREFIX:
            length = int.from_bytes(body[1:_PREFIX], "big")
            # At the first bytes, not after having waited for what would never fit.
            if length > MESSAGE_LIMIT:
                raise malformed("too large a message")
            if len(body) < _PREFIX + length:
                return
            if body[0]:
                raise Unknown("a compressed message")
            self.messages.append(bytes(body[_PREFIX : _PREFIX + length]))
            del body[: _PREFIX + length]


def single(messages: "list[bytes]") -> bytes:
    """Return the one message that a call without a stream is answered with.

    Raises:
        Failure: there is none, or there are several.
    """
    if len(messages) != 1:
        raise malformed("not exactly one message")
    return messages[0]


def call(
    connection: _socket.socket,
    method: str,
    message: bytes,
    seconds: float,
    *,
    on_headers: "Callable[[dict[str, str]], None] | None" = None,
) -> bytes:
    """Make one call and wait for its answer.

    Args:
        connection: to the daemon; used for this call only.
        method: the path of the method, such as `/backpack.v1.Leases/GetKeys`.
        message: the request, encoded.
        seconds: how long the whole call may take; the daemon is told.
        on_headers: called once with what the daemon tells ahead of its answer, as soon as that
            has come.

    Returns:
        The response, encoded.

    Raises:
        Unknown: the answer is legal, and not known here.
        Ended: the daemon refused, did not answer in time, or hung up.
        Failure: it broke the protocol.
    """
    deadline = time.monotonic() + seconds
    conversation = Conversation(method, message, seconds)
    return single(collect(connection, conversation, deadline, on_headers))


def collect(
    connection: _socket.socket,
    conversation: Conversation,
    deadline: float,
    on_headers: "Callable[[dict[str, str]], None] | None" = None,
) -> "list[bytes]":
    """Carry a call through to its end; `call` says what is raised.

    Args:
        connection: to the daemon.
        conversation: the call.
        deadline: on the monotonic clock, in seconds.
        on_headers: as for `call`.

    Returns:
        All messages of the answer.
    """
    while not conversation.over:
        conversation.feed(exchange(connection, conversation.outgoing, deadline))
        if on_headers is not None and conversation.headers is not None:
            on_headers(conversation.headers)
            on_headers = None
    conversation.check()
    return conversation.messages


def exchange(connection: _socket.socket, outgoing: bytearray, deadline: float | None) -> bytes:
    """Send what is to be sent, and wait for the peer's next bytes.

    Args:
        connection: to the daemon.
        outgoing: what is to be sent; it is cleared.
        deadline: on the monotonic clock, in seconds; None: none.

    Returns:
        What has come; nothing where the peer has hung up.

    Raises:
        Ended: the deadline has passed.
    """
    send(connection, outgoing, deadline)
    try:
        connection.settimeout(_left(deadline))
        return connection.recv(RECEIVE)
    except TimeoutError:
        raise late() from None
    except OSError as error:
        if is_forbidden(error):
            raise sockets_forbidden(error) from None
        return b""


def send(connection: _socket.socket, outgoing: bytearray, deadline: float | None) -> None:
    """Send what is to be sent, if anything; see `exchange`.

    Raises:
        Ended: the deadline has passed.
    """
    if not outgoing:
        return
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(outgoing)
    except TimeoutError:
        raise late() from None
    except OSError as error:
        if is_forbidden(error):
            # Nothing of it has left: to wait for an answer would be in vain.
            raise sockets_forbidden(error) from None
        # A peer that has hung up may have answered before, and its answer still be there to read:
        # to give up here would take a lease that was issued for one that was not.
    outgoing.clear()


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise late()
    return min(left, LONGEST)


def _timeout(seconds: float) -> str:
    whole = int(seconds)
    if whole == seconds or whole * 1000 >= _LARGEST_TIMEOUT:
        return f"{min(whole, _LARGEST_TIMEOUT)}S"
    return f"{int(seconds * 1000) + 1}m"


def _checked(fields: "list[tuple[str, str]]") -> "dict[str, str]":
    headers = dict(fields)
    if headers.get(":status") != "200":
        raise Unknown("an HTTP status other than 200")
    if not headers.get("content-type", "").startswith("application/grpc"):
        raise Unknown("a content type that is not gRPC")
    return headers


def _end(trailers: "dict[str, str]") -> Ended | None:
    if trailers.get(":status", "200") != "200":
        raise Unknown("an HTTP status other than 200")
    text = trailers.get("grpc-status", "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _STATUS_DIGITS):
        raise malformed("an answer without a status")
    code = int(text)
    if code == 0:
        return None
    return Ended(
        _STATUSES[code] if code < len(_STATUSES) else "UNKNOWN",
        percent_decoded(trailers.get("grpc-message", "")),
        {name: value for name, value in trailers.items() if name.startswith("backpack-")},
    )


def percent_decoded(text: str) -> str:
    """Undo the encoding of `grpc-message`; what is not of the form stays as it is."""
    raw = bytearray()
    first, *rest = text.split("%")
    raw += first.encode("latin-1")
    for part in rest:
        try:
            # Two digits only: int() would take a sign, a space or an underscore.
            raw.append(int(part[:2], 16) if part[:2].isalnum() and len(part) > 1 else 256)
            part = part[2:]  # noqa: PLW2901 - the digits have been taken
        except ValueError:
            raw += b"%"
        raw += part.encode("latin-1")
    return raw.decode("utf-8", "replace")
