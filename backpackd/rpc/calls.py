"""What every call goes through: who is connected, the request's form, the errors' way out.

A service is an object with the descriptor of its proto service and one method for each of its
RPCs, named in snake case: `(connection, request) -> response`, or an async generator where the
proto says stream. Where requests are a stream, it is given an iterator over them. An exception
that is not ours reaches the caller as INTERNAL with an incident id and the log as type and place:
its text may hold anything.
"""

import asyncio
import hmac
import logging
import re
import secrets
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from backpackd.application.auditing import caller
from backpackd.application.peers import check_user
from backpackd.core import states
from backpackd.core.errors import (
    BackpackError,
    InvalidRequestError,
    LimitError,
    PeerUnknownError,
    ShuttingDownError,
    UserChangedError,
)
from backpackd.core.facts import ProcessId
from backpackd.core.states import State
from backpackd.ports import MARK, Connection
from backpackd.rpc.sizes import check_size

_LOG = logging.getLogger(__name__)
_WORD = re.compile(r"(?<!^)(?=[A-Z])")

WHILE_LOCKED = frozenset(
    f"backpack.v1.{name}"
    for name in (
        "Vault.Status",
        "Vault.Init",
        "Vault.Unlock",
        "Vault.Lock",
        "Vault.Panic",
        "Slots.Recover",
        "Audit.VerifyAudit",
        "Audit.GetAuditHead",
        "Slots.DrillRecovery",
    )
)
"""The methods that answer while the vault is locked or not yet made. A list of what may, so that
a new method is closed until somebody opens it."""

WITH_VALUES = frozenset(
    {
        "backpack.v1.Vault.Init",
        "backpack.v1.Vault.Unlock",
        "backpack.v1.Vault.Authorize",
        "backpack.v1.Vault.ChangePassphrase",
        "backpack.v1.Keys.PutKeys",
        "backpack.v1.Slots.AddSlot",
        "backpack.v1.Slots.Recover",
        "backpack.v1.Slots.DrillRecovery",
        "backpack.v1.Backup.ExportKeys",
        "backpack.v1.Backup.ImportKeys",
        "backpack.v1.Agents.CreateLock",
        "backpack.v1.Agents.EditLock",
        "backpack.v1.Agents.MigrateLock",
        "backpack.v1.Agents.OpenLock",
    }
)
"""The methods whose requests carry a passphrase or values. One that is turned away before its
service sees it was read all the same, and has to be overwritten."""

WATCH = "Watch"
"""How the names of methods begin that stay open until their caller ends them."""

PATIENCE_SECONDS = 30.0
"""How long an answer may wait for its caller to take it."""

MOST_WATCHES = 64
"""Of one process tree. The door counts no room for them, so there has to be another bound."""

_announced: ContextVar["_Announcement"] = ContextVar("announcement")

_Message = TypeVar("_Message", bound=Message)
Context = grpc.aio.ServicerContext[Any, Any]
Find = Callable[[str], Connection | None]


class _Announcement:
    """What a call tells its caller before it is done: gRPC lets it do so once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._done = False

    async def send(self, name: str, text: str) -> None:
        if not self._done:
            self._done = True
            await self._context.send_initial_metadata(((f"backpack-{name}", text),))


async def announce(name: str, text: str) -> None:
    """Tell the caller of the running call something at once, as initial metadata.

    Each call runs in a task of its own, and this finds that call's. Only the first one in a call
    is sent.

    Args:
        name: without the prefix `backpack-`.
        text: ASCII.
    """
    await _announced.get().send(name, text)


class Service(Protocol):
    """One gRPC service."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """The service in the proto file."""
        ...


class Unsent:
    """The answers that gRPC was given and has not sent.

    A caller sets the window into which it is sent (RFC 9113, section 5.2). With one of nothing, the
    answer would be waiting still when its lease was revoked and the vault locked long ago.
    """

    def __init__(self) -> None:
        self._answers: dict[object, tuple[Connection, float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection) -> object:
        """Note an answer, and see to it that it does not wait for ever."""
        answer, loop = object(), asyncio.get_running_loop()
        self._answers[answer] = (connection, loop.time())
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE_SECONDS, self._review)
        return answer

    def drop(self, answer: object) -> None:
        """Forget an answer that was sent, or is of no interest any more. Twice is harmless."""
        self._answers.pop(answer, None)

    def cut_off(self) -> None:
        """Close the connections of all answers that were not sent. For a lock."""
        self._close(float("inf"))

    def _review(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        self._close(loop.time() - PATIENCE_SECONDS)
        oldest = next(iter(self._answers.values()), None)
        if oldest is not None:
            self._timer = loop.call_at(oldest[1] + PATIENCE_SECONDS, self._review)

    def _close(self, until: float) -> None:
        late = {name: one for name, one in self._answers.items() if one[1] <= until}
        for answer, (connection, _) in late.items():
            self.drop(answer)
            connection.close()


class Calls:
    """Guards the calls of all services.

    Attributes:
        unsent: the answers that callers have not taken.

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
        self._watches: set[asyncio.Task[None]] = set()
        self._standing: Counter[ProcessId] = Counter()
        self.unsent = Unsent()

    def close(self) -> None:
        """Turn new calls away from now on, and end the watches: they would end with nothing else.

        Calls of another kind that are under way go on.
        """
        self._closing = True
        for watch in self._watches:
            watch.cancel()

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
            UserChangedError: the process that connected runs as another user by now.
        """
        connection = self._find(context.peer())
        if connection is None or not _is_marked(context, connection):
            raise PeerUnknownError("this connection did not come in by the daemon's door")
        if self._closing:
            connection.rinse()
            raise ShuttingDownError("the daemon is stopping: start it again, then try again")
        try:
            check_user(connection.peer)
        except UserChangedError:
            connection.rinse()
            raise
        self._open += 1
        try:
            with connection:
                yield connection
        finally:
            self._open -= 1
            self._note_end()

    @contextmanager
    def standing(self, connection: Connection) -> Iterator[None]:
        """Serve a call that stays open for as long as its caller likes.

        Raises:
            LimitError: this process tree has too many of them.
        """
        tree = connection.tree
        if self._standing[tree] >= MOST_WATCHES:
            raise LimitError("too many open calls of this process tree: end some first")
        self._standing[tree] += 1
        try:
            with connection.standing():
                yield
        finally:
            self._standing[tree] -= 1
            if not self._standing[tree]:
                del self._standing[tree]

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
        method = _Method(self, service, descriptor, self._state, self._watches)
        # Without a deserializer the raw bytes arrive here, and a malformed request is an error of
        # ours instead of an exception inside grpcio.
        if descriptor.client_streaming:
            return grpc.stream_unary_rpc_method_handler(method.collecting)
        if descriptor.server_streaming:
            return grpc.unary_stream_rpc_method_handler(method.stream)
        return grpc.unary_unary_rpc_method_handler(method.unary)

    @property
    def closing(self) -> bool:
        """Whether new calls are turned away."""
        return self._closing


class _Method:
    """One method of a service, from raw bytes to raw bytes."""

    def __init__(
        self,
        calls: Calls,
        service: Service,
        descriptor: MethodDescriptor,
        state: Callable[[], State],
        watches: set[asyncio.Task[None]],
    ) -> None:
        self._calls = calls
        self._work = getattr(service, _WORD.sub("_", descriptor.name).lower())
        self._message = GetMessageClass(descriptor.input_type)
        self._with_values = descriptor.full_name in WITH_VALUES
        self._locked_too = descriptor.full_name in WHILE_LOCKED
        self._watching = descriptor.name.startswith(WATCH)
        self._state = state
        self._watches = watches

    async def unary(self, raw: bytes, context: Context) -> bytes:
        """Answer a call with one response."""
        work = self._answer(raw, context)
        del raw  # grpcio keeps this frame with the error of an aborted call
        response: bytes = await _guarded(work, context)
        return response

    async def collecting(self, raws: AsyncIterator[bytes], context: Context) -> bytes:
        """Answer a stream of requests with one response."""
        response: bytes = await _guarded(self._answer_stream(raws, context), context)
        return response

    async def stream(self, raw: bytes, context: Context) -> None:
        """Answer a call with a stream of responses."""
        work = (self._watch if self._watching else self._answer_all)(raw, context)
        del raw  # as above
        await _guarded(work, context)

    async def _answer(self, raw: bytes, context: Context) -> bytes:
        with self._calls.enter(context) as connection:
            caller.set(connection)
            _announced.set(_Announcement(context))
            message: Message = await self._work(connection, self._admit(connection, raw))
            self._hand_over(connection, context)
            return message.SerializeToString()

    async def _answer_stream(self, raws: AsyncIterator[bytes], context: Context) -> bytes:
        with self._calls.enter(context) as connection:
            # Before the first request comes: what it is given may never look at it.
            with self._rinsing(connection):
                self._require_state()
            caller.set(connection)
            requests = (self._admit(connection, raw) async for raw in raws)
            message: Message = await self._work(connection, requests)
            return message.SerializeToString()

    async def _answer_all(self, raw: bytes, context: Context) -> None:
        with self._calls.enter(context) as connection:
            caller.set(connection)
            responses: AsyncIterator[Message] = self._work(connection, self._admit(connection, raw))
            with self._calls.standing(connection) if self._watching else nullcontext():
                async for response in responses:
                    answer = self._calls.unsent.add(connection)
                    try:
                        await context.write(response.SerializeToString())
                    finally:
                        self._calls.unsent.drop(answer)
            self._hand_over(connection, context)

    async def _watch(self, raw: bytes, context: Context) -> None:
        task = asyncio.ensure_future(self._answer_all(raw, context))
        del raw
        self._watches.add(task)
        try:
            await task
        except asyncio.CancelledError:
            if self._calls.closing:
                raise ShuttingDownError("the daemon is stopping") from None
            raise
        finally:
            task.cancel()
            self._watches.discard(task)
            del task  # a task holds its error, and the error's frames the task

    def _require_state(self) -> None:
        if not self._locked_too:
            states.require_unlocked(self._state())

    def _hand_over(self, connection: Connection, context: Context) -> None:
        """Note that gRPC has the answer from now on, until it has sent it and the call is over."""
        if not self._locked_too:
            answer = self._calls.unsent.add(connection)
            sent: Any = lambda _: self._calls.unsent.drop(answer)  # noqa: E731 - a class in stubs
            context.add_done_callback(sent)

    def _admit(self, connection: Connection, raw: bytes) -> Message:
        with self._rinsing(connection):
            self._require_state()
            return parse(self._message, raw)

    @contextmanager
    def _rinsing(self, connection: Connection) -> Iterator[None]:
        """Overwrite what was read of a request that is turned away, where it may carry values."""
        try:
            yield
        except BackpackError:
            if self._with_values:
                connection.rinse()
            raise


def parse(kind: type[_Message], raw: bytes) -> _Message:
    """Read a request.

    Raises:
        InvalidRequestError: the bytes are not such a message.
        LimitError: it is larger than this call takes; nothing of it was parsed.
    """
    check_size(kind.DESCRIPTOR, raw)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise InvalidRequestError(
            "the request is not the message that this call takes", reason="malformed-request"
        ) from None


def _is_marked(context: Context, connection: Connection) -> bool:
    """Tell whether a call came by this connection's relay, and not merely under its name.

    Another process of the user that got hold of the inner socket can take on a live connection's
    name in a network namespace of its own. It cannot know the mark, and a second one beside the
    door's, sent on through the door, is no better than a wrong one.
    """
    marks = [value for name, value in context.invocation_metadata() or () if name == MARK]
    return (
        len(marks) == 1
        and isinstance(marks[0], str)
        and hmac.compare_digest(marks[0].encode(), connection.mark.encode())
    )


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
