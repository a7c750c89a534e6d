"""Calls for threads, each on a connection of its own, that can be ended all at once."""

import _socket
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from backpack_client.address import connect
from backpack_client.failures import Failure
from backpack_client.wire import lost
from backpack_client.wire.conversation import Conversation, collect, exchange, send

CONNECT_PATIENCE = 10.0
"""How long a call waits for a place among the daemon's new connections, in seconds."""

Socket = TypeVar("Socket", bound=_socket.socket)
OnHeaders = Callable[[dict[str, str]], None]


class Caller:
    """Makes calls to one daemon. Threads may share it."""

    def __init__(self, path: str) -> None:
        """Say where the daemon's socket is."""
        self._path = path
        self._lock = threading.Lock()
        self._lines: set[Line[_socket.socket]] = set()
        self._streams: set[Stream] = set()
        self._closed = False

    def check(self) -> None:
        """Connect once, to see that there is a daemon that can be trusted.

        Raises:
            Failure: see `address.connect`.
        """
        connect(self._path).close()

    def call(
        self,
        method: str,
        message: bytes,
        seconds: float,
        on_headers: OnHeaders | None = None,
        *,
        streams: bool = False,
    ) -> list[bytes]:
        """Make a call and wait for its end.

        Args:
            method: its path, such as `/backpack.v1.Leases/GetKeys`.
            message: the request, encoded.
            seconds: how long it may take; the daemon is told.
            on_headers: called once with what the daemon tells ahead of its answer.
            streams: whether the answer may be any number of messages.

        Returns:
            The messages of the answer, encoded.

        Raises:
            Ended: the daemon refused, did not answer in time, or was lost; or `close` was called.
            Failure: there is no daemon that can be trusted, or it broke the protocol.
        """
        deadline = time.monotonic() + seconds
        line = self._open(min(seconds, CONNECT_PATIENCE))
        try:
            conversation = Conversation(method, message, seconds, endless=streams)
            return collect(line.connection, conversation, deadline, on_headers)
        finally:
            self.drop(line)

    def follow(self, method: str, message: bytes) -> "Stream":
        """Make a call whose answer is read as it comes, as long as that takes.

        Raises:
            Ended: `close` was called, or the daemon takes nothing.
            Failure: there is no daemon that can be trusted.
        """
        conversation = Conversation(method, message, endless=True)
        line = self._open(CONNECT_PATIENCE)
        try:
            # Now, so that what happens from now on is told, whenever it is read.
            send(line.connection, conversation.outgoing, time.monotonic() + CONNECT_PATIENCE)
        except BaseException:
            self.drop(line)
            raise
        stream = Stream(self, line, conversation)
        with self._lock:
            self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End every call that is under way; later ones are ended at once."""
        with self._lock:
            self._closed = True
            for line in self._lines:
                line.hang_up()
            streams = tuple(self._streams)
        # Whoever forgot to close one will not read it either, and it would keep its descriptor.
        for stream in streams:
            stream.close()

    def forget(self, stream: "Stream") -> None:
        """Close the connection of a stream that is over."""
        with self._lock:
            self._streams.discard(stream)
        self.drop(stream.line)

    def end(self, line: "Line[_socket.socket]") -> None:
        """End the call on a line, whichever thread waits for it."""
        with self._lock:
            if line in self._lines:
                line.hang_up()

    def drop(self, line: "Line[_socket.socket]") -> None:
        """Close the connection of a call that nobody waits for any more."""
        with self._lock:
            self._lines.discard(line)
            line.hang_up()
            line.connection.close()

    def _open(self, patience: float) -> "Line[_socket.socket]":
        line = Line(connect(self._path, patience=patience))
        with self._lock:
            if not self._closed:
                self._lines.add(line)
                return line
        line.connection.close()
        raise lost()


class Line(Generic[Socket]):
    """A connection that carries a call."""

    def __init__(self, connection: Socket) -> None:
        self.connection = connection
        self._pid = os.getpid()

    def hang_up(self) -> None:
        """End the call: whoever reads here or at the daemon sees the end."""
        # A child of a fork has a copy of the connection, and must not end it for its parent. And a
        # parent's call must end although a child still has a copy: closing alone would not do that.
        if self._pid == os.getpid():
            with contextlib.suppress(OSError):
                self.connection.shutdown(_socket.SHUT_RDWR)


class Stream:
    """The answer of a call, one message at a time: read by one thread, closed by any.

    Attributes:
        line: what it is read from.
    """

    def __init__(
        self, caller: Caller, line: Line[_socket.socket], conversation: Conversation
    ) -> None:
        self._caller = caller
        self.line = line
        self._conversation = conversation
        # Held while the connection is read, so that no other thread closes its descriptor then.
        self._reading = threading.RLock()

    def read(self) -> bytes | None:
        """Wait for the next message; None at the end.

        Raises:
            Ended: the daemon ended it, or was lost; or somebody has closed it.
            Failure: the daemon broke the protocol.
        """
        conversation = self._conversation
        with self._reading:
            try:
                while not conversation.messages and not conversation.over:
                    conversation.feed(exchange(self.line.connection, conversation.outgoing, None))
            except Failure:
                self._caller.forget(self)
                raise
            if conversation.messages:
                return conversation.messages.pop(0)
            self._caller.forget(self)
        conversation.check()
        return None

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        self._caller.end(self.line)
        with self._reading:
            self._caller.forget(self)
