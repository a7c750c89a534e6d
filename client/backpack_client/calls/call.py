"""Defines a call, and turns the error of a failed call into a Failure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from backpack_client.durations import format_duration
from backpack_client.failures import (
    EXIT_FAILED,
    EXIT_WAITING,
    Failure,
    from_status,
    is_code,
    no_daemon,
)

Answer = TypeVar("Answer")

OnWait = Callable[[str], None]
"""Is called with the code of the request that a call waits for. It is never awaited."""

# How long to wait for an answer, in seconds. Unlocking takes a fraction of a second, and the daemon
# does one at a time.
DEFAULT_TIMEOUT = 30.0
PACKAGE = "/backpack.v1."
_FACT = "backpack-"


class RpcError(Protocol):
    """The parts of a grpc error that are read; errors of grpc and of grpc.aio have them."""

    def code(self) -> Any:
        """Return the status code; its `name` is the canonical name."""

    def details(self) -> str | None:
        """Return the status message."""

    def trailing_metadata(self) -> Any:
        """Return pairs of name and value."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be carried out.

    The `read` of a call that is followed takes one response at a time.

    Attributes:
        method: its full name, such as `/backpack.v1.Vault/Status`.
        request: the message to send; never shown, because it may hold a passphrase or values.
        parse: makes a response message from bytes.
        read: turns the response into the answer; for a streaming call, the list of responses.
        streams: True if the daemon answers with a stream of responses.
        names: the requested key names, which the hint of a refusal repeats.
        wait: how long the daemon may let it wait for a person, in seconds.
        passphrase: whether the request holds a passphrase or a code. It is sent only on a
            connection that was made after this process had closed itself to others.
    """

    method: str
    request: Message = field(repr=False)
    parse: Callable[[bytes], Message] = field(repr=False)
    read: Callable[[Any], Answer] = field(repr=False)
    streams: bool = False
    names: tuple[str, ...] = ()
    wait: int = 0
    passphrase: bool = False


def failure_of(
    error: RpcError, call: Call[Any], *, socket_path: str, timeout: float, was_closed: bool
) -> Failure:
    """Turn the error of a failed call into a Failure.

    Args:
        error: of grpc or grpc.aio.
        call: the call that failed.
        socket_path: the daemon's socket, for the message.
        timeout: the time limit of the call in seconds, for the message; the wait is extra.
        was_closed: whether the caller has closed the connection, which also ends calls.
    """
    code: str = error.code().name
    facts = _facts(error.trailing_metadata() or ())
    reason = facts.get("backpack-reason", "")
    if not reason and code == "UNAVAILABLE":
        # grpc's own text has a target in grpc's syntax, and several reasons in a row.
        return no_daemon(socket_path, "the connection was lost")
    if not reason and code == "DEADLINE_EXCEEDED":
        return Failure(
            f"the daemon did not answer within {format_duration(timeout + call.wait)}",
            # This exit code is for a get that waits, on the fast path as well.
            exit_code=EXIT_WAITING if call.names else EXIT_FAILED,
            reason="no-answer",
            hint="see whether it answers at all: backpack-client status",
        )
    if not reason and code == "CANCELLED" and was_closed:
        return closed()
    if call.names:
        facts["backpack-names"] = " ".join(call.names)
    return from_status(code, reason, error.details() or "", facts)


def request_code(metadata: Iterable[Any]) -> str:
    """Read the code of the request that a call waits for. It comes before the answer.

    Args:
        metadata: the initial metadata.

    Returns:
        The code; empty if there is none.
    """
    code = _facts(metadata or ()).get("backpack-request-code", "")
    return code if is_code(code) else ""


def closed() -> Failure:
    """Make the failure for a call on a Backpack that was closed."""
    return Failure("this Backpack is closed", reason="closed", hint="open a new one")


def read_nothing(_response: object) -> None:
    """Read an empty answer: it only says that the call succeeded."""


def _facts(metadata: Iterable[Any]) -> dict[str, str]:
    return {
        key: value for key, value in metadata if key.startswith(_FACT) and isinstance(value, str)
    }
