"""Defines a call, and turns the error of a failed call into a Failure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from backpack_client.durations import format_duration
from backpack_client.failures import (
    Failure,
    from_status,
    is_code,
    no_daemon,
)
from backpack_client.wire import Ended
from backpack_client.wire.conversation import single

Answer = TypeVar("Answer")

OnWait = Callable[[str], None]
"""Is called with the code of the request that a call waits for. It is never awaited."""

# How long to wait for an answer, in seconds. Unlocking takes a fraction of a second, and the daemon
# does one at a time.
DEFAULT_TIMEOUT = 30.0
PACKAGE = "/backpack.v1."


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be carried out.

    The `read` of a call that is followed takes one response at a time.

    Attributes:
        method: its full name, such as `/backpack.v1.Vault/Status`.
        request: the message to send, of protobuf's or encoded already; never shown, since it may
            hold a passphrase or values.
        parse: makes a response message of bytes.
        read: turns the response into the answer; for a streaming call, the list of responses.
        streams: True if the daemon answers with a stream of responses.
        names: the requested key names, which the hint of a refusal repeats.
        wait: how long the daemon may let it wait for a person, in seconds.
        passphrase: whether the request holds a passphrase or what stands for one. It is sent only
            on a connection that was made after this process had closed itself to others.
        for_agents: whether it is one that agents make, which needs neither grpc nor protobuf.
    """

    method: str
    request: Any = field(repr=False)
    parse: Callable[[bytes], Any] = field(repr=False)
    read: Callable[[Any], Answer] = field(repr=False)
    streams: bool = False
    names: tuple[str, ...] = ()
    wait: int = 0
    passphrase: bool = False
    for_agents: bool = False

    def answer(self, responses: list[bytes]) -> Answer:
        """Turn the responses that ended the call into its answer.

        Raises:
            Failure: they are not what such a call is answered with.
        """
        if self.streams:
            return self.read([self.parse(each) for each in responses])
        return self.read(self.parse(single(responses)))


def failure_of(
    ended: Ended, call: Call[Any], *, socket_path: str, timeout: float, was_closed: bool
) -> Failure:
    """Turn what a call ended with into a Failure.

    Args:
        ended: by the daemon, or with the connection.
        call: the call that failed.
        socket_path: the daemon's socket, for the message.
        timeout: the time limit of the call in seconds, for the message; the wait is extra.
        was_closed: whether the caller has closed the connection, which also ends calls.
    """
    code = ended.status
    reason = ended.facts.get("backpack-reason", "")
    if not reason and code == "UNAVAILABLE":
        # grpc's own text has a target in grpc's syntax, and several reasons in a row.
        return no_daemon(socket_path, "the connection was lost")
    if not reason and code == "DEADLINE_EXCEEDED":
        within = format_duration(timeout + call.wait)
        return from_status(code, "", f"the daemon did not answer within {within}", {})
    if not reason and code == "CANCELLED" and was_closed:
        return closed()
    return ended.failure({"backpack-names": " ".join(call.names)} if call.names else {})


def tell_code(on_wait: OnWait | None) -> Callable[[Mapping[str, str]], None] | None:
    """Make what takes in what the daemon tells ahead of its answer.

    Args:
        on_wait: called with the code of the request that the call waits for, if there is one.
    """
    if on_wait is None:
        return None

    def take(headers: Mapping[str, str]) -> None:
        code = headers.get("backpack-request-code", "")
        if is_code(code):
            on_wait(code)

    return take


def closed() -> Failure:
    """Make the failure for a call on a Backpack that was closed."""
    return Failure("this Backpack is closed", reason="closed", hint="open a new one")


def forked() -> Failure:
    """Make the failure for a call on a Backpack that another process has opened."""
    return Failure(
        "this Backpack was opened before a fork", reason="forked", hint="open one in this process"
    )


def encoded(request: Any) -> bytes:
    """Write a request for the wire."""
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())


def read_nothing(_response: object) -> None:
    """Read an answer that only says that the call was carried out."""
