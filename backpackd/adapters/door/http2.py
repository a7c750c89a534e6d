"""One peer's connection: its socket, its HTTP/2 state, and the calls on it.

The connection *is* the peer: who connected, as the kernel told it at accept, is an attribute of
the object that reads the bytes. HTTP/2 itself (RFC 9113) is the `h2` library's part. This file
moves bytes, passes events on to the calls, and holds the limits that concern one connection.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import GoAwayFrame

from backpackd.adapters.door.budget import Budget
from backpackd.adapters.door.frames import FrameError, Frames
from backpackd.adapters.door.grpc import Call
from backpackd.adapters.door.limits import (
    FIRST_REQUEST_BYTES,
    FIRST_REQUEST_SECONDS,
    FRAMES_PER_JOB,
    PATIENCE_SECONDS,
    UNSENT,
)
from backpackd.adapters.door.turns import Turns
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import FindMethod, Headers, Peer

_RECEIVE = 64 * 1024
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    # What is sent is made here and well-formed; what is received is checked.
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_NO_LAST_STREAM = 2**31 - 1


class _Encoder(Encoder):
    """Writes header fields without Huffman coding.

    On a local socket the few bytes that the coding saves cost more time than they take, and the
    client's own reader (`backpack_client.wire`) is small because it does not know it.
    """

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """See `hpack.Encoder`."""
        return super().encode(headers, huffman)


class _Http2(H2Connection):
    """The library's state machine."""

    MAX_CLOSED_STREAMS = 1024
    """The library remembers 65,536 closed streams otherwise, which is 6 MB for each connection."""

    def __init__(self) -> None:
        super().__init__(_CONFIG)
        self.encoder = _Encoder()


@dataclass(slots=True)
class Shared:
    """What the connections of one door have in common.

    Attributes:
        find: looks up the method for a path.
        refuse: told in a few words of ours what was refused.
        closed: told of each connection that has closed.
        authorized: tells whether a connection has operator authority.
        turns: who is served next.
        budget: for the bytes of unfinished requests.
        stopping: whether new calls are turned away.
    """

    find: FindMethod
    refuse: Callable[[str], None]
    closed: Callable[["Connection"], None]
    authorized: Callable[["Connection"], bool] = lambda _: False
    turns: Turns = field(default_factory=Turns)
    budget: Budget = field(default_factory=Budget)
    stopping: bool = False


class Connection:
    """One connection. Implements `ports.Connection`."""

    def __init__(self, sock: socket.socket, peer: Peer, tree: ProcessId, shared: Shared) -> None:
        """Take a socket and a held process over. Nothing is read before `start`.

        Args:
            sock: accepted and non-blocking.
            peer: who connected.
            tree: the root of its tree.
            shared: what all connections have in common.
        """
        self.name = secrets.token_hex(8)
        self.peer = peer
        self.tree = tree
        self.shared = shared
        self.on_close: list[Callable[[], None]] = []
        self.calls: dict[int, Call] = {}
        self.unfinished = 0
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self.active_at = self._loop.time()
        self._socket = sock
        self._fd = sock.fileno()
        self._http2 = _Http2()
        self._frames = Frames(self.active_at)
        self._reading = False
        self._before_first = FIRST_REQUEST_BYTES
        self._deadline: asyncio.TimerHandle | None = None
        self._unsent = b""
        self._waiters: set[asyncio.Future[None]] = set()
        self._progress_at = 0.0
        self._patience: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to read, and close as soon as the peer's process ends."""
        self._deadline = self._loop.call_later(FIRST_REQUEST_SECONDS, self._too_late)
        self.peer.process.on_exit(self.close)
        self._http2.initiate_connection()
        self.flush()
        self._read_on()

    @property
    def busy(self) -> bool:
        """Whether a call is in progress, other than those that stay open."""
        return any(not call.stands for call in self.calls.values())

    @property
    def stands(self) -> bool:
        """Whether a call stays open for as long as the peer likes."""
        return any(call.stands for call in self.calls.values())

    @property
    def unread(self) -> bool:
        """Whether the peer has not taken what it was to be sent."""
        return bool(self._unsent or self._waiters)

    def close(self) -> None:
        """Close now, with all that is under way. Twice is harmless."""
        if self.closed:
            return
        self.closed = True
        self._stop_reading()
        self._loop.remove_writer(self._fd)
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()
        self._socket.close()
        self._unsent = b""
        for call in list(self.calls.values()):
            call.reset()
        self.shared.closed(self)

    def drain(self) -> None:
        """Tell the peer to begin no more calls here, and end those that only stay open."""
        frame = GoAwayFrame(0, last_stream_id=_NO_LAST_STREAM, error_code=ErrorCodes.NO_ERROR)
        # Past the library, which would send nothing at all after a GOAWAY of its own.
        self._send(frame.serialize())
        for call in list(self.calls.values()):
            if call.stands:
                call.stop()

    # For the calls.

    def send_headers(self, stream: int, headers: Headers, *, end: bool) -> None:
        """Send headers or trailers with the next `flush`."""
        self._http2.send_headers(stream, headers, end_stream=end)
        self._frames.answered(1)

    def send_data(self, stream: int, data: bytes) -> None:
        """Send content with the next `flush`: no more than `room` allows."""
        self._http2.send_data(stream, data)
        self._frames.answered(1)

    def reset_stream(self, stream: int) -> None:
        """Tell the peer that the rest of its request is not wanted, with the next `flush`."""
        self._http2.reset_stream(stream, ErrorCodes.NO_ERROR)

    def acknowledge(self, stream: int, size: int) -> None:
        """Let the peer send so many bytes more, with the next `flush`."""
        self._http2.acknowledge_received_data(size, stream)

    def room(self, stream: int) -> int:
        """Return how many bytes may be sent on a stream now."""
        if len(self._unsent) > UNSENT:
            return 0
        window: int = self._http2.local_flow_control_window(stream)
        return max(0, min(window, self._http2.max_outbound_frame_size))

    async def wait_for_room(self) -> None:
        """Wait until there may be more room than there was."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        self._wait_patiently()
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def flush(self) -> None:
        """Send what is due."""
        data = self._http2.data_to_send()
        if data:
            self._send(data)

    # The socket.

    def _send(self, data: bytes) -> None:
        if self.closed:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.add_writer(self._fd, self._writable)
            self._wait_patiently()

    def _writable(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._loop.remove_writer(self._fd)
        self._progress_at = self._loop.time()
        self._send(unsent)
        if len(self._unsent) <= UNSENT:
            self._wake()
            if not self._reading:
                self._read_on()

    def _read_on(self) -> None:
        """Read again when there is something, unless there is too much to send as it is."""
        if not self.closed and not self._reading and len(self._unsent) <= UNSENT:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        if not self.shared.turns.take(self.tree, self._read):
            # It is in line now, and is not to be told again.
            self._stop_reading()

    def _read(self) -> None:
        """Read once and serve a bounded number of frames."""
        if self.closed:
            return
        try:
            if not self._frames.ready:
                self._receive()
            self._serve_frames()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
        except FrameError as error:
            self._give_up(f"a connection: {error}")
        except ProtocolError as error:
            self._give_up(f"a connection: {type(error).__name__} in its HTTP/2")
        self._go_on()

    def _go_on(self) -> None:
        if self.closed:
            return
        if len(self._unsent) > UNSENT:
            self._stop_reading()
        elif not self._frames.ready:
            self._read_on()
        elif not self.shared.turns.take(self.tree, self._read):
            self._stop_reading()

    def _receive(self) -> None:
        size = _RECEIVE
        if self._deadline is not None:
            # Bytes that come with the first request are not before it: no more is read than may be.
            size = self._before_first
            if not size:
                raise FrameError("no request in its first bytes")
        data = self._socket.recv(size)
        if not data:
            raise ConnectionResetError
        self._before_first -= min(len(data), self._before_first)
        self._frames.feed(data)

    def _serve_frames(self) -> None:
        now = self.active_at = self._loop.time()
        piece = self._frames.cut(FRAMES_PER_JOB, now)
        if piece:
            for event in self._http2.receive_data(piece):
                self._handle(event)
            self.flush()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=stream, headers=headers):
                self._first_request()
                self.calls[stream] = Call(self, stream)
                self.calls[stream].begin(headers)
            case h2.events.DataReceived(stream_id=stream, data=data, flow_controlled_length=flow):
                self._receive_data(stream, data, flow)
            case h2.events.StreamEnded(stream_id=stream) if stream in self.calls:
                self.calls[stream].receive_end()
            case h2.events.StreamReset(stream_id=stream) if stream in self.calls:
                self.calls[stream].reset()
            case h2.events.WindowUpdated():
                self._wake()
            case h2.events.RemoteSettingsChanged():
                # It may have opened the windows of streams.
                self._wake()
            case _:
                # PING and SETTINGS are answered by the library; the rest means nothing here.
                pass

    def _receive_data(self, stream: int, data: bytes, flow: int) -> None:
        call = self.calls.get(stream)
        if call is None:
            # The call is over; what is still on its way goes unread.
            self.acknowledge(stream, flow)
        else:
            call.receive_data(data, flow)

    def _first_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wake(self) -> None:
        self._progress_at = self._loop.time()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Ends.

    def _give_up(self, why: str) -> None:
        """Close because of the peer, with the library's last word where it has one."""
        self.shared.refuse(why)
        with suppress(ProtocolError):
            self.flush()
        self.close()

    def _too_late(self) -> None:
        self._give_up("a connection: no request in time")

    def _wait_patiently(self) -> None:
        """Close if the peer takes nothing for too long of what waits for it."""
        if self._patience is None:
            self._progress_at = self._loop.time()
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        if not self.unread:
            return
        left = self._progress_at + PATIENCE_SECONDS - self._loop.time()
        if left > 0:
            self._patience = self._loop.call_later(left, self._lose_patience)
        else:
            self._give_up("a connection: it does not read what it was sent")
