"""What a call is, and how the error that it ends with becomes a Failure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from backpack_client.durations import format_duration
from backpack_client.failures import (
    Failure,
    from_status,
    is_code,
    no_daemon,
)

Answer = TypeVar("Answer")

OnWait = Callable[[str], None]
"""Is called with the code of the request that a call waits for. Never awaited."""

# How long to wait for an answer, in seconds; unlocking takes part of one, one at a time.
DEFAULT_TIMEOUT = 30.0
PACKAGE = "/backpack.v1."
_FACT = "backpack-"


class RpcError(Protocol):
    """What is read of a grpc error; those of grpc and grpc.aio both have it."""

    def code(self) -> Any:
        """Give the status code; its `name` is the canonical one."""

    def details(self) -> str | None:
        """Give the status message."""

    def trailing_metadata(self) -> Any:
        """Give pairs of name and value."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be carried out.

    The `read` of a call that is followed takes one response at a time.

    Attributes:
        method: its full name, such as `/backpack.v1.Vault/Status`.
        request: the message to send; never shown, since it may hold a passphrase or values.
        parse: makes a response message of bytes.
        read: turns the response into the answer; for a streaming call, the list of responses.
        streams: True when the daemon answers with a stream of responses.
        names: the key names that are asked for, which a refusal's hint repeats.
        wait: how long the daemon may let it wait for a person, in seconds.
        passphrase: whether the request holds a passphrase or what stands for one. It is sent only
            on a connection that was made after this process had closed itself to others.
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
    """Turn the error that a call ended with into a Failure.

    Args:
        error: of grpc or grpc.aio.
        call: the call that failed.
        socket_path: the daemon's socket, for the message.
        timeout: how long the call was given, in seconds, for the message; the wait comes on top.
        was_closed: the caller has closed the connection, which ends calls as the daemon may do.
    """
    code: str = error.code().name
    facts = _facts(error.trailing_metadata() or ())
    reason = facts.get("backpack-reason", "")
    if not reason and code == "UNAVAILABLE":
        # grpc's own text names a target in its syntax and several reasons in a row.
        return no_daemon(socket_path, "the connection was lost")
    if not reason and code == "DEADLINE_EXCEEDED":
        within = format_duration(timeout + call.wait)
        return from_status(code, "", f"the daemon did not answer within {within}", {})
    if not reason and code == "CANCELLED" and was_closed:
        return closed()
    if call.names:
        facts["backpack-names"] = " ".join(call.names)
    return from_status(code, reason, error.details() or "", facts)


def request_code(metadata: Iterable[Any]) -> str:
    """Read the code of the request that a call waits for, which comes before the answer.

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
    """Read an answer that only says that the call was carried out."""


def _facts(metadata: Iterable[Any]) -> dict[str, str]:
    return {
        key: value for key, value in metadata if key.startswith(_FACT) and isinstance(value, str)
    }
