"""What every call goes through: who is connected, the request's form, the errors' way out.

A service is an object with the descriptor of its proto service and one method for each of its
RPCs, named in snake case: `(connection, request) -> response`, or an async generator where the
proto says stream. An exception that is not ours reaches the caller as INTERNAL with an incident id
and the log as type and place: its text may hold anything.
"""

import asyncio
import logging
import re
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from backpackd.core import states
from backpackd.core.errors import (
    BackpackError,
    InvalidRequestError,
    PeerUnknownError,
    ShuttingDownError,
)
from backpackd.core.states import State
from backpackd.ports import Connection

_LOG = logging.getLogger(__name__)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")

WHILE_LOCKED = frozenset(
    f"backpack.v1.Vault.{name}" for name in ("Status", "Init", "Unlock", "Lock")
)
"""The methods that answer while the vault is locked or not yet made. A list of what may, so that
a new method is closed until somebody opens it."""

Context = grpc.aio.ServicerContext[Any, Any]
Find = Callable[[str], Connection | None]


class Service(Protocol):
    """One gRPC service."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """The service in the proto file."""
        ...


class Calls:
    """Guards the calls of all services.

    Args:
        find: looks a connection up by what gRPC says of its peer.
        state: the vault's state.
    """

    def __init__(self, find: Find, state: Callable[[], State]) -> None:
        self._find = find
        self._state = state
        self._closing = False
        self._open = 0
        self._all_done = asyncio.Event()

    def close(self) -> None:
        """Turn new calls away from now on."""
        self._closing = True

    async def finished(self, grace: float) -> None:
        """Wait until the calls that were under way are done; for after `close`.

        The server must go on until then, so that a new call hears why it is turned away.

        Args:
            grace: seconds to wait at most.
        """
        self._note_end()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_done.wait(), grace)

    def _note_end(self) -> None:
        if self._closing and not self._open:
            self._all_done.set()

    @contextmanager
    def enter(self, context: Context) -> Iterator[Connection]:
        """Tell who calls, and keep count of the connection's calls.

        Raises:
            PeerUnknownError: the call came in by no door of ours.
            ShuttingDownError: the daemon is stopping.
        """
        connection = self._find(context.peer())
        if connection is None:
            raise PeerUnknownError("this connection did not come in by the daemon's door")
        if self._closing:
            raise ShuttingDownError("the daemon is stopping: start it again, then try again")
        self._open += 1
        try:
            with connection:
                yield connection
        finally:
            self._open -= 1
            self._note_end()

    def handler(self, service: Service) -> grpc.GenericRpcHandler:
        """Make the gRPC handler of a service.

        Raises:
            AttributeError: the service has no method for one of its RPCs.
        """
        methods = {
            method.name: self._method(service, method) for method in service.descriptor.methods
        }
        return grpc.method_handlers_generic_handler(service.descriptor.full_name, methods)

    def _method(
        self, service: Service, descriptor: MethodDescriptor
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        method = getattr(service, _WORD.sub("_", descriptor.name).lower())
        parse = GetMessageClass(descriptor.input_type).FromString
        locked_too = descriptor.full_name in WHILE_LOCKED

        def admit(raw: bytes) -> Message:
            if not locked_too:
                states.require_unlocked(self._state())
            try:
                return parse(raw)
            except DecodeError:
                raise InvalidRequestError(
                    "the request is not the message that this call takes",
                    reason="malformed-request",
                ) from None

        async def answer(raw: bytes, context: Context) -> bytes:
            with self.enter(context) as connection:
                message: Message = await method(connection, admit(raw))
                return message.SerializeToString()

        async def answer_all(raw: bytes, context: Context) -> None:
            with self.enter(context) as connection:
                responses: AsyncIterator[Message] = method(connection, admit(raw))
                async for response in responses:
                    await context.write(response.SerializeToString())

        async def unary(raw: bytes, context: Context) -> bytes:
            work = answer(raw, context)
            del raw  # grpcio keeps this frame with the error of an aborted call
            response: bytes = await _guarded(work, context)
            return response

        async def stream(raw: bytes, context: Context) -> None:
            work = answer_all(raw, context)
            del raw  # as above
            await _guarded(work, context)

        # Without a deserializer the raw bytes arrive here, and a malformed request is an error of
        # ours instead of an exception inside grpcio.
        if descriptor.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def _guarded(work: Awaitable[Any], context: Context) -> Any:
    """Await a call's work and end the call with the error that it raises, if any.

    grpcio keeps the error of the last aborted call until the next call comes, and then in a cycle
    until the collector runs. So the error that it gets to see carries no frames: theirs hold the
    request, with a passphrase or a value in it.
    """
    try:
        return await work
    except BackpackError as error:
        code, message = grpc.StatusCode[error.status.value], error.message
        metadata = _metadata(error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, its text must not leave
        incident = secrets.token_hex(4)
        _LOG.error("incident %s: %s at %s", incident, type(error).__name__, _place(error))
        code = grpc.StatusCode.INTERNAL
        message = f"internal error, incident {incident}: see the daemon's log"
        metadata = (("backpack-reason", "internal"), ("backpack-incident", incident))
    # Outside of the `except`, so that the error is not the context of the one that abort raises.
    return await context.abort(code, message, metadata)


async def abort(context: Context, error: BackpackError) -> NoReturn:
    """End a call with an error of ours: status, message, reason, and what else it knows."""
    await context.abort(grpc.StatusCode[error.status.value], error.message, _metadata(error))


def _metadata(error: BackpackError) -> tuple[tuple[str, str], ...]:
    metadata = [("backpack-reason", error.reason)]
    if error.retry_after is not None:
        metadata.append(("backpack-retry-after-ms", str(int(error.retry_after * 1000))))
    metadata += [(f"backpack-{name}", text) for name, text in error.facts.items()]
    return tuple(metadata)


def _place(error: BaseException) -> str:
    """Name the places of an exception, innermost last, without its text."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames[-6:])
