"""One unary gRPC call over a connected socket: send, read until the trailers, judge the status.

Knows gRPC over HTTP/2 (grpc.io, "gRPC over HTTP2") and the socket; frames are `http2`'s business
and messages are bytes here.
"""

import _socket
import time

from backpack_client.failures import (
    EXIT_NO_DAEMON,
    Failure,
    from_status,
    is_forbidden,
    sockets_forbidden,
)
from backpack_client.fastpath import HandOver, http2, malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# 64 values of 64 KiB with their names, and room for what later versions add.
MESSAGE_LIMIT = 5 * 1024 * 1024

_PREFIX = 5
_RECEIVE = 64 * 1024
# A socket takes no timeout beyond what poll(2) does, some 24 days.
_LONGEST = 20 * 86400
_STATUS_DIGITS = 3
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


def call(
    connection: _socket.socket,
    method: str,
    message: bytes,
    seconds: int,
    facts: "dict[str, str]",
    *,
    on_headers: "Callable[[dict[str, str]], None] | None" = None,
) -> bytes:
    """Make one call and wait for its answer.

    Args:
        connection: to the daemon; used for this call only.
        method: the path of the method, such as `/backpack.v1.Leases/GetKeys`.
        message: the request, encoded.
        seconds: how long the whole call may take; the daemon is told.
        facts: what the caller knows besides the daemon's trailing metadata, for the hint of a
            failure.
        on_headers: called once with what the daemon tells ahead of its answer, as soon as that
            has come.

    Returns:
        The response, encoded.

    Raises:
        HandOver: the answer is legal, and not known here.
        Failure: the daemon refused, did not answer in time, or broke the protocol.
    """
    deadline = time.monotonic() + seconds
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "backpack-client"),
        ("grpc-timeout", f"{seconds}S"),
    ]
    body = b"\0" + len(message).to_bytes(4, "big") + message
    reply = http2.Reply()
    reply.outgoing += http2.opening(fields, body)
    while reply.trailers is None:
        data = _exchange(connection, reply.outgoing, deadline)
        reply.outgoing.clear()
        reply.feed(data)
        _check_length(reply.body)
        if on_headers is not None and reply.headers is not None:
            _check_headers(reply.headers)
            on_headers(dict(reply.headers))
            on_headers = None
    _check_headers(reply.headers)
    _check_status(dict(reply.trailers), facts)
    if len(reply.body) < _PREFIX or len(reply.body) != _PREFIX + _length(reply.body):
        raise malformed("not exactly one message")
    if reply.body[0]:
        raise HandOver("a compressed message")
    return bytes(reply.body[_PREFIX:])


def _exchange(connection: _socket.socket, outgoing: bytearray, deadline: float) -> bytes:
    try:
        if outgoing:
            _send(connection, outgoing, deadline)
        connection.settimeout(_left(deadline))
        data = connection.recv(_RECEIVE)
    except TimeoutError:
        raise _late() from None
    except OSError as error:
        if is_forbidden(error):
            raise sockets_forbidden(error) from None
        data = b""
    if not data:
        raise Failure(
            "the daemon closed the connection before it answered",
            exit_code=EXIT_NO_DAEMON,
            reason="no-daemon",
            hint="see whether it runs: backpack-client status",
        )
    return data


def _send(connection: _socket.socket, outgoing: bytearray, deadline: float) -> None:
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(outgoing)
    except TimeoutError:
        raise
    except OSError as error:
        if is_forbidden(error):
            # Nothing of it has left: to wait for an answer would be in vain.
            raise
        # A peer that has hung up may have answered before, and its answer still be there to read:
        # to give up here would take a lease that was issued for one that was not.
        return


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late()
    return min(left, _LONGEST)


def _late() -> Failure:
    return from_status("DEADLINE_EXCEEDED", "", "the daemon did not answer in time", {})


def _length(body: bytearray) -> int:
    return int.from_bytes(body[1:_PREFIX], "big")


def _check_length(body: bytearray) -> None:
    # At the first bytes, not after having waited for what would never fit.
    if len(body) >= _PREFIX and _length(body) > MESSAGE_LIMIT:
        raise malformed("too large a message")


def _check_headers(fields: "list[tuple[str, str]] | None") -> None:
    if fields is None:
        return
    headers = dict(fields)
    if headers.get(":status") != "200":
        raise HandOver("an HTTP status other than 200")
    if not headers.get("content-type", "").startswith("application/grpc"):
        raise HandOver("a content type that is not gRPC")


def _check_status(trailers: "dict[str, str]", facts: "dict[str, str]") -> None:
    if trailers.get(":status", "200") != "200":
        raise HandOver("an HTTP status other than 200")
    text = trailers.get("grpc-status", "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _STATUS_DIGITS):
        raise malformed("an answer without a status")
    code = int(text)
    if code == 0:
        return
    told = {name: value for name, value in trailers.items() if name.startswith("backpack-")}
    raise from_status(
        _STATUSES[code] if code < len(_STATUSES) else "UNKNOWN",
        trailers.get("backpack-reason", ""),
        _percent_decoded(trailers.get("grpc-message", "")),
        facts | told,
    )


def _percent_decoded(text: str) -> str:
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
