"""Carries bytes both ways between a peer's socket and the gRPC server's, and judges none of them.

Works on raw non-blocking sockets. Flow control runs both ways: when one side does not take what
the other sends, the relay stops reading, so that a stalled peer costs one bounded buffer and not
the whole answer.

Every piece is a fresh `bytes` object that is dropped once sent. A buffer that is used again would
keep the last value that went through it for as long as the connection is open.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

BUFFER_BYTES = 256 * 1024
"""How much waits in each direction before the relay stops reading."""

PATIENCE_SECONDS = 30.0
"""How long a peer may take nothing of what waits for it."""

_PIECE_BYTES = 64 * 1024

_PIECES = 64
"""How many pieces wait at most: a peer that sends single bytes to a server that does not read would
else turn a bounded number of bytes into any number of objects."""


class _Flow:
    """One direction: what was read from `source` and not yet taken by `sink`."""

    __slots__ = ("ended", "pieces", "reading", "sink", "size", "source", "stopped", "writing")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.pieces: deque[memoryview] = deque()
        self.size = 0
        self.reading = False
        self.writing = False
        self.ended = False
        self.stopped = False

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return self.size >= BUFFER_BYTES or len(self.pieces) >= _PIECES

    def send(self) -> None:
        """Send what waits, as far as the sink takes it.

        Raises:
            OSError: the sink is gone.
        """
        while self.pieces:
            piece = self.pieces[0]
            try:
                sent = self.sink.send(piece)
            except (BlockingIOError, InterruptedError):
                return
            self.size -= sent
            if sent == len(piece):
                self.pieces.popleft()
            else:
                self.pieces[0] = piece[sent:]


class Relay:
    """One connection's bytes, both ways, until either side is done.

    When the peer sends no more, the server is told so and may still answer. When the server sends
    no more, what it sent is flushed and the connection ends: a gRPC server never closes one half.

    A peer that takes nothing of what waits for it for `patience` seconds is given up: what it was
    sent may be a value that it has lost the right to meanwhile.

    Attributes:
        on_stall: called before the relay closes for that.
        patience: see above.
        active_at: when bytes last came from either side, on the clock that was given.
        gate: takes what the peer sent and returns what of it the server gets now; None closes the
            relay. None for a gate: all of it, at once.
        watch: takes what the server sent and returns what the peer gets. None: all of it.
    """

    __slots__ = (
        "_clock",
        "_from_server",
        "_loop",
        "_moved_at",
        "_on_close",
        "_patience",
        "_to_server",
        "active_at",
        "closed",
        "gate",
        "on_stall",
        "patience",
        "watch",
    )

    def __init__(
        self,
        outer: socket.socket,
        inner: socket.socket,
        *,
        clock: Callable[[], float],
        on_close: Callable[[], None],
        gate: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        """Take both sockets over; nothing moves before `start`.

        Args:
            outer: the peer's side, non-blocking.
            inner: the server's side, non-blocking.
            clock: read at every arrival of bytes.
            on_close: called once, when both sockets are closed.
            gate: see the attribute.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._on_close = on_close
        self._to_server = _Flow(outer, inner)
        self._from_server = _Flow(inner, outer)
        self.active_at = clock()
        self.gate = gate
        self.watch: Callable[[bytes], bytes] | None = None
        self.on_stall: Callable[[], None] = lambda: None
        self.patience = PATIENCE_SECONDS
        self._patience: asyncio.TimerHandle | None = None
        self._moved_at = 0.0
        self.closed = False

    @property
    def buffered(self) -> int:
        """How many bytes wait in the relay, both directions together."""
        return self._to_server.size + self._from_server.size

    @property
    def unread(self) -> bool:
        """Whether something waits here that the peer does not take."""
        return self._from_server.size > 0

    def start(self) -> None:
        """Begin to relay."""
        self._resume(self._to_server)
        self._resume(self._from_server)

    def push(self, data: bytes) -> None:
        """Send the server `data` after what it was sent so far. For after the gate, which it skips.

        A relay that is closed, or a peer that sends no more, means that nothing is sent.
        """
        if data and not self.closed and not self._to_server.ended:
            self._pass_on(self._to_server, data)

    def answer(self, data: bytes) -> None:
        """Send the peer `data` after what it was sent so far. For where the server's frames end."""
        if data and not self.closed:
            self._pass_on(self._from_server, data)

    @property
    def stalled(self) -> bool:
        """Whether the peer takes so little that nothing more should be sent to it."""
        return self._from_server.full

    def stop_reading(self) -> None:
        """Take no more from the peer until `go_on`. Twice is harmless."""
        self._to_server.stopped = True
        self._pause(self._to_server)

    def go_on(self) -> None:
        """Take more from the peer again. Twice is harmless."""
        flow = self._to_server
        flow.stopped = False
        if not (self.closed or flow.ended or flow.writing):
            self._resume(flow)

    def finish(self) -> None:
        """Take no more from the peer, let the server finish, and close when all is flushed."""
        if not self.closed and not self._to_server.ended:
            self._end_of(self._to_server)

    def close(self) -> None:
        """Close both sockets now, whatever is under way. Closing twice is harmless."""
        if self.closed:
            return
        self.closed = True
        self.gate = self.watch = None
        if self._patience is not None:
            self._patience.cancel()
        for flow in (self._to_server, self._from_server):
            self._pause(flow)
            self._stop_writing(flow)
            flow.pieces.clear()
            flow.size = 0
        self._to_server.source.close()
        self._to_server.sink.close()
        self._on_close()

    def _readable(self, flow: _Flow) -> None:
        try:
            data = flow.source.recv(_PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self.active_at = self._clock()
        if not data:
            self._end_of(flow)
            return
        if flow is self._from_server:
            if self.watch is not None:
                data = self.watch(data)
        elif self.gate is not None:
            passed = self.gate(data)
            if passed is None:
                self.close()
            data = passed or b""
        if data and not self.closed:
            self._pass_on(flow, data)

    def _pass_on(self, flow: _Flow, data: bytes) -> None:
        flow.pieces.append(memoryview(data))
        flow.size += len(data)
        if not flow.writing:
            self._send(flow)
        if flow.full:
            self._pause(flow)

    def _send(self, flow: _Flow) -> None:
        before = flow.size
        try:
            flow.send()
        except OSError:
            self.close()
            return
        if flow.size < before and flow is self._from_server:
            self._moved_at = self._loop.time()
        if flow.pieces:
            self._start_writing(flow)
            return
        self._stop_writing(flow)
        if flow.ended:
            self._end_sink(flow)
        else:
            self._resume(flow)

    def _end_of(self, flow: _Flow) -> None:
        flow.ended = True
        self._pause(flow)
        if not flow.pieces:
            self._end_sink(flow)

    def _end_sink(self, flow: _Flow) -> None:
        if flow is self._from_server:
            self.close()
            return
        with contextlib.suppress(OSError):
            flow.sink.shutdown(socket.SHUT_WR)

    def _pause(self, flow: _Flow) -> None:
        if flow.reading:
            flow.reading = False
            self._loop.remove_reader(flow.source)

    def _resume(self, flow: _Flow) -> None:
        if not flow.reading and not flow.stopped:
            flow.reading = True
            self._loop.add_reader(flow.source, self._readable, flow)

    def _start_writing(self, flow: _Flow) -> None:
        if not flow.writing:
            flow.writing = True
            self._loop.add_writer(flow.sink, self._send, flow)
            if flow is self._from_server and self._patience is None:
                self._moved_at = self._loop.time()
                self._patience = self._loop.call_later(self.patience, self._look_again)

    def _look_again(self) -> None:
        self._patience = None
        if self.closed or not self._from_server.writing:
            return
        left = self._moved_at + self.patience - self._loop.time()
        if left > 0:
            self._patience = self._loop.call_later(left, self._look_again)
        else:
            self.on_stall()
            self.close()

    def _stop_writing(self, flow: _Flow) -> None:
        if flow.writing:
            flow.writing = False
            self._loop.remove_writer(flow.sink)
