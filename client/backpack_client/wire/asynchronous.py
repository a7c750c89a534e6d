"""Calls for tasks of one event loop: the same as `blocking`, to be awaited."""

import _socket
import asyncio
import contextlib
import socket
from functools import partial

from backpack_client.address import connect
from backpack_client.failures import Failure, is_forbidden, sockets_forbidden
from backpack_client.wire import late, lost
from backpack_client.wire.blocking import CONNECT_PATIENCE, Line, OnHeaders
from backpack_client.wire.conversation import LONGEST, RECEIVE, Conversation


class Caller:
    """Makes calls to one daemon. Tasks of one event loop may share it."""

    def __init__(self, path: str) -> None:
        """Say where the daemon's socket is."""
        self._path = path
        self._lines: set[Line[socket.socket]] = set()
        self._streams: set[Stream] = set()
        self._closed = False

    async def check(self) -> None:
        """Connect once; see `blocking`."""
        (await _connect(self._path, CONNECT_PATIENCE)).close()

    async def call(
        self,
        method: str,
        message: bytes,
        seconds: float,
        on_headers: OnHeaders | None = None,
        *,
        streams: bool = False,
    ) -> list[bytes]:
        """Make a call and wait for its end; see `blocking`.

        A task that is cancelled meanwhile ends the call.

        Raises:
            Ended: as in `blocking`.
            Failure: as in `blocking`.
        """
        limit = asyncio.timeout(min(seconds, LONGEST))
        try:
            async with limit:
                conversation = Conversation(method, message, seconds, endless=streams)
                return await self._call(conversation, min(seconds, CONNECT_PATIENCE), on_headers)
        except TimeoutError:
            if not limit.expired():
                raise
            raise late() from None

    async def follow(self, method: str, message: bytes) -> "Stream":
        """Make a call whose answer is read as it comes, as long as that takes; see `blocking`."""
        conversation = Conversation(method, message, endless=True)
        stream = Stream(self, await self._open(CONNECT_PATIENCE), conversation)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End every call that is under way; later ones are ended at once."""
        self._closed = True
        for line in self._lines:
            line.hang_up()
        # As in `blocking`.
        for stream in tuple(self._streams):
            stream.close()

    def forget(self, stream: "Stream") -> None:
        """Close the connection of a stream that is over."""
        self._streams.discard(stream)
        self.drop(stream.line)

    def drop(self, line: Line[socket.socket]) -> None:
        """Close the connection of a call that nobody waits for any more."""
        self._lines.discard(line)
        line.hang_up()
        line.connection.close()

    async def _call(
        self, conversation: Conversation, patience: float, on_headers: OnHeaders | None
    ) -> list[bytes]:
        line = await self._open(patience)
        try:
            while not conversation.over:
                await send(line, conversation)
                conversation.feed(await receive(line))
                if on_headers is not None and conversation.headers is not None:
                    on_headers(conversation.headers)
                    on_headers = None
        finally:
            self.drop(line)
        conversation.check()
        return conversation.messages

    async def _open(self, patience: float) -> Line[socket.socket]:
        connection = await _connect(self._path, patience)
        if self._closed:
            connection.close()
            raise lost()
        line = Line(connection)
        self._lines.add(line)
        return line


class Stream:
    """The answer of a call, one message at a time: read by one task.

    Attributes:
        line: what it is read from.
    """

    def __init__(
        self, caller: Caller, line: Line[socket.socket], conversation: Conversation
    ) -> None:
        self._caller = caller
        self.line = line
        self._conversation = conversation
        self._reading = False

    async def read(self) -> bytes | None:
        """Wait for the next message; None at the end.

        Raises:
            Ended: the daemon ended it, or was lost; or it was closed.
            Failure: the daemon broke the protocol.
        """
        conversation = self._conversation
        self._reading = True
        try:
            while not conversation.messages and not conversation.over:
                await self._exchange()
        except Failure:
            self._caller.forget(self)
            raise
        finally:
            self._reading = False
        if conversation.messages:
            return conversation.messages.pop(0)
        self._caller.forget(self)
        conversation.check()
        return None

    async def _exchange(self) -> None:
        try:
            await send(self.line, self._conversation)
        except asyncio.CancelledError:
            # Nobody knows how much of it was sent, so nothing more can be.
            self._caller.forget(self)
            raise
        self._conversation.feed(await receive(self.line))

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        if self._reading:
            # The task that reads sees the end, and closes the descriptor that it waits for.
            self.line.hang_up()
        else:
            self._caller.forget(self)


async def send(line: Line[socket.socket], conversation: Conversation) -> None:
    """Send what a conversation has to say."""
    if conversation.outgoing:
        # As in `conversation`: a peer that has hung up may have answered before.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(line.connection, conversation.outgoing)
        conversation.outgoing.clear()


async def receive(line: Line[socket.socket]) -> bytes:
    """Wait for the peer's next bytes; nothing where it has hung up.

    A task that is cancelled while it waits has taken no bytes: the loop's own `sock_recv` reads
    them before the task runs again, and a cancellation in between loses them.
    """
    while True:
        try:
            return line.connection.recv(RECEIVE)
        except BlockingIOError:
            await _readable(line.connection)
        except OSError as error:
            if is_forbidden(error):
                raise sockets_forbidden(error) from None
            return b""


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    descriptor = connection.fileno()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def _connect(path: str, patience: float) -> socket.socket:
    # In a thread: a daemon with a full queue is waited for, which must not hold up the loop.
    loop = asyncio.get_running_loop()
    connecting = loop.run_in_executor(None, partial(connect, path, patience=patience))
    try:
        connection = await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_unwanted)
        raise
    connection.setblocking(False)
    return socket.socket(fileno=connection.detach())


def _close_unwanted(connecting: "asyncio.Future[_socket.socket]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
