"""One gRPC call on one HTTP/2 stream, and gRPC's encoding.

The source is the document "gRPC over HTTP2" of the gRPC project. It covers unary calls and streams
in either direction, deadlines, cancellation, and flow control. Messages are never compressed: a
compressed message is refused with an error, and nothing is expanded.

For an unexpected exception, the caller gets INTERNAL with the number of an incident. The log gets
only its type and place, because its text may hold anything.
"""

import asyncio
import logging
import re
import secrets
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from h2.exceptions import ProtocolError

from backpackd.adapters.door.limits import FRAMES_FOR_A_MESSAGE, HEADER_BYTES, QUEUED
from backpackd.core.errors import (
    BackpackError,
    InvalidRequestError,
    LimitError,
    ShuttingDownError,
    UnimplementedError,
)
from backpackd.ports import Headers, Method

if TYPE_CHECKING:
    from backpackd.adapters.door.http2 import Connection

_LOG = logging.getLogger("backpackd.calls")

CODES = {
    "OK": 0,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}
"""The canonical status codes that are used here."""

_PREFIX = 5
_HEADER_OVERHEAD = 32
"""RFC 9113, section 6.5.2."""
_CONTENT_TYPE = re.compile(rb"application/grpc(?:\+proto)?(?:;.*)?", re.DOTALL)
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NEEDS_ESCAPE = re.compile(rb"[^ -$&-~]")
_INITIAL: Headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_OK: Headers = [(b"grpc-status", b"0")]


class Call:
    """One call. Implements `ports.Call`.

    Attributes:
        connection: its connection.
        stands: whether it stays open as long as its caller likes.
        stopping: whether it must end because the daemon stops.
    """

    def __init__(self, connection: "Connection", stream: int) -> None:
        """Begin with nothing received."""
        self.connection = connection
        self.stands = False
        self.stopping = False
        self._stream = stream
        self._method: Method | None = None
        self._open = True
        self._ended = False
        self._announced = False
        self._expired = False
        self._counted = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._wanted = _PREFIX
        self._messages: deque[bytes] = deque()
        self._queued = 0
        self._charged = 0
        self._unacknowledged = 0
        self._news: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What comes in.

    def begin(self, headers: Headers) -> None:
        """Take the request's headers, and answer at once if they are wrong."""
        fields = dict(headers)
        if fields.get(b":method") != b"POST":
            self._answer_as_http(b"405")
        elif not _CONTENT_TYPE.fullmatch(fields.get(b"content-type", b"")):
            self._answer_as_http(b"415")
        else:
            try:
                self._accept(headers, fields)
            except BackpackError as error:
                self._fail(error)

    def _accept(self, headers: Headers, fields: dict[bytes, bytes]) -> None:
        if sum(len(name) + len(value) + _HEADER_OVERHEAD for name, value in headers) > HEADER_BYTES:
            raise LimitError(f"a request has at most {HEADER_BYTES} bytes of headers")
        if self.connection.shared.stopping:
            raise _stopping()
        method = self.connection.shared.find(fields.get(b":path", b""))
        if method is None:
            raise UnimplementedError("there is no such method in this version of the daemon")
        if fields.get(b"grpc-encoding", b"identity") != b"identity":
            raise UnimplementedError(
                "messages are not compressed here: send them with the encoding identity",
                reason="compression",
            )
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None:
            found = _TIMEOUT.fullmatch(timeout)
            if found is None:
                raise _malformed("the deadline does not have the form that gRPC describes")
            seconds = int(found[1]) * _SECONDS[found[2]]
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        self._method = method
        self.stands = method.stays_open
        if method.streaming:
            self._start()

    def receive_data(self, data: bytes, flow: int) -> None:
        """Take a part of the request.

        Args:
            data: the content.
            flow: bytes that it took up of the peer's window, padding included.
        """
        if self._method is None:
            # It was already answered; later bytes are not read.
            self.connection.acknowledge(self._stream, flow)
            return
        try:
            self._charge(len(data))
            self._chunks.append(data)
            self._size += len(data)
            self._cut_messages(self._method)
        except BackpackError as error:
            self.connection.acknowledge(self._stream, flow)
            self._abort(error)
            return
        if self._queued < QUEUED or not self._method.streaming:
            self.connection.acknowledge(self._stream, flow)
        else:
            self._unacknowledged += flow

    def receive_end(self) -> None:
        """Note that the request is complete."""
        self._ended = True
        if self._method is None:
            return
        if self._size or not (self._method.streaming or self._messages):
            self._abort(_malformed("the request ends in the middle of a message"))
        elif self._method.streaming:
            self._tell()
        else:
            self._start()

    def reset(self) -> None:
        """End without an answer: the peer has reset the stream, or is gone."""
        self._open = False
        self._cancel()

    def stop(self) -> None:
        """End because the daemon stops."""
        self.stopping = True
        self._cancel()

    def _cut_messages(self, method: Method) -> None:
        # Put together only for a whole message, and once for many: it would take time with the
        # square of the bytes otherwise.
        if self._size < self._wanted:
            return
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        begin, self._wanted = 0, _PREFIX
        while len(data) - begin >= _PREFIX:
            body = begin + _PREFIX
            length = int.from_bytes(data[begin + 1 : body], "big")
            if data[begin]:
                raise _malformed("a message is marked as compressed, and no encoding was named")
            if length > method.longest:
                raise LimitError(
                    f"the request is too long: this call takes at most {method.longest} bytes",
                    reason="request-too-large",
                )
            if len(data) < body + length:
                self._wanted = _PREFIX + length
                break
            if not method.streaming and (self._messages or len(data) > body + length):
                raise _malformed("this call takes exactly one message")
            self._messages.append(data[body : body + length])
            self._queued += _PREFIX + length
            self.connection.frames.earn(FRAMES_FOR_A_MESSAGE)
            begin = body + length
        self._size = len(data) - begin
        self._chunks = [data[begin:]] if self._size else []
        if begin:
            self._tell()

    def _charge(self, size: int) -> None:
        connection = self.connection
        if not size or connection.shared.authorized(connection):
            return
        if not connection.shared.budget.charge(connection, connection.tree, size):
            raise LimitError(
                "more than this connection may send without operator authority: authorize first"
            )
        self._charged += size

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # For the method that serves it.

    async def receive(self) -> bytes | None:
        """Wait for the next message of the request; return None if there are no more."""
        while not self._messages:
            if self._ended:
                return None
            self._news = asyncio.get_running_loop().create_future()
            with self.waiting():
                await self._news
            self._news = None
        message = self._messages.popleft()
        self._queued -= _PREFIX + len(message)
        if self._unacknowledged and self._queued < QUEUED and self._open:
            self.connection.acknowledge(self._stream, self._unacknowledged)
            self._unacknowledged = 0
            self.connection.flush()
        if self._method is not None and self._method.streaming:
            self._give_back(_PREFIX + len(message))
        return message

    async def announce(self, name: str, text: str) -> None:
        """Send initial metadata to the caller, before the answer.

        Only the first such metadata of a call is sent. From then on the call waits for somebody, so
        it does not count as a call in progress.

        Args:
            name: without the prefix `backpack-`.
            text: ASCII.
        """
        if self._announced or not self._open:
            return
        self._send_headers([(_named(name), text.encode("ascii"))])
        self.connection.flush()
        self._count(in_progress=False)

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Send a message, as fast as the peer reads it.

        Args:
            message: encoded.
            last: whether the call ends with it; it then goes out together with the status.
        """
        data = b"\0" + len(message).to_bytes(4, "big") + message
        at = 0
        if not self._announced:
            self._send_headers([])
        while at < len(data):
            if not self._open:
                return
            room = self.connection.room(self._stream)
            if room:
                self.connection.send_data(self._stream, data[at : at + room])
                at += room
                if at < len(data) or not last:
                    self.connection.flush()
            else:
                with self.waiting():
                    await self.connection.wait_for_room()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count as a call in progress inside the block, which waits for somebody else."""
        counted = self._counted
        self._count(in_progress=False)
        try:
            yield
        finally:
            if counted and self._task is not None:
                self._count(in_progress=True)

    # Its life.

    def _start(self) -> None:
        turns = self.connection.shared.turns
        if turns.full(self.connection.tree):
            turns.take(self.connection.tree, self._run)
        else:
            self._run()

    def _run(self) -> None:
        if self._method is None:
            return
        self._count(in_progress=not self.stands)
        self._task = asyncio.get_running_loop().create_task(self._serve(self._method))
        # Not at the end of the task's own work: a task that is cancelled early never starts.
        self._task.add_done_callback(self._over)

    async def _serve(self, method: Method) -> None:
        try:
            await method.serve(self)
            self._finish("OK", "", [])
        except BackpackError as error:
            self._fail(error)
        except ProtocolError:
            # The stream or the connection ended during a send.
            self._open = False
        except Exception as error:  # noqa: BLE001 - its text must never leave
            incident = secrets.token_hex(4)
            _LOG.error("incident %s: %s at %s", incident, type(error).__name__, _place(error))
            self._finish(
                "INTERNAL",
                f"internal error, incident {incident}: see the daemon's log",
                [(b"backpack-reason", b"internal"), (b"backpack-incident", incident.encode())],
            )

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if task.cancelled() and self._expired:
            self._finish("DEADLINE_EXCEEDED", "the deadline of the call has passed", [])
        elif task.cancelled() and self.stopping:
            self._fail(_stopping())
        self._end()

    def _expire(self) -> None:
        self._expired = True
        if self._task is None:
            self._finish("DEADLINE_EXCEEDED", "the deadline of the call has passed", [])
        self._cancel()

    def _cancel(self) -> None:
        """End the task, and release everything then; without a task, release it now."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._end()

    def _count(self, *, in_progress: bool) -> None:
        if in_progress != self._counted:
            self._counted = in_progress
            turns, tree = self.connection.shared.turns, self.connection.tree
            (turns.begin_call if in_progress else turns.end_call)(tree)

    def _give_back(self, size: int) -> None:
        size = min(size, self._charged)
        self._charged -= size
        connection = self.connection
        connection.shared.budget.give_back(connection, connection.tree, size)

    def _end(self) -> None:
        """Release everything. Calling it several times is harmless."""
        self._count(in_progress=False)
        self._give_back(self._charged)
        self._method = None
        self._chunks.clear()
        self._messages.clear()
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            self.connection.calls.pop(self._stream, None)

    # How it ends.

    def _send_headers(self, further: Headers) -> None:
        self._announced = True
        if self._open:
            self.connection.send_headers(self._stream, [*_INITIAL, *further], end=False)

    def _abort(self, error: BackpackError) -> None:
        """Answer with an error, even if a task serves the call."""
        self._fail(error)
        self._cancel()

    def _fail(self, error: BackpackError) -> None:
        metadata = [(b"backpack-reason", error.reason.encode())]
        if error.retry_after is not None:
            delay = str(int(error.retry_after * 1000))
            metadata.append((b"backpack-retry-after-ms", delay.encode()))
        metadata += [(_named(name), escaped(text)) for name, text in error.facts.items()]
        self._finish(error.status.value, error.message, metadata)

    def _finish(self, status: str, message: str, metadata: Headers) -> None:
        """Send the status and nothing else."""
        trailers = _OK
        if status != "OK":
            code = str(CODES[status]).encode()
            trailers = [(b"grpc-status", code), (b"grpc-message", escaped(message)), *metadata]
        if status == "UNIMPLEMENTED":
            trailers = [*trailers, (b"grpc-accept-encoding", b"identity")]
        self._close(trailers if self._announced else [*_INITIAL, *trailers])

    def _answer_as_http(self, status: bytes) -> None:
        """Answer a client that does not speak gRPC."""
        self._close([(b":status", status)])

    def _close(self, headers: Headers) -> None:
        if self._open:
            self._open = False
            with suppress(ProtocolError):
                self.connection.send_headers(self._stream, headers, end=True)
                if not self._ended:
                    # So that the peer stops sending a request that is already answered.
                    self.connection.reset_stream(self._stream)
            self.connection.flush()
        self._end()


def escaped(text: str) -> bytes:
    """Percent-encode a text for `grpc-message`: spaces and printable ASCII stay."""
    return _NEEDS_ESCAPE.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))


def _named(name: str) -> bytes:
    return b"backpack-" + name.encode("ascii")


def _malformed(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, reason="malformed-request")


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("the daemon is stopping: start it again, then try again")


def _place(error: BaseException) -> str:
    """Name the places of an exception, innermost last, without its text."""
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames[-6:])
