"""One call over a connected socket: send, read until the end, judge it.

Frames are `http2`'s business, gRPC is `conversation`'s.
"""

import _socket
import time

from backpack_client.wire import late
from backpack_client.wire.conversation import Conversation, single

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RECEIVE = 64 * 1024
# A socket takes no timeout beyond what poll(2) does, some 24 days.
LONGEST = 20 * 86400


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
    except OSError:
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
    except OSError:
        # A peer that has hung up may have answered before, and its answer still be there to read:
        # to give up here would take a lease that was issued for one that was not.
        pass
    outgoing.clear()


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise late()
    return min(left, LONGEST)
