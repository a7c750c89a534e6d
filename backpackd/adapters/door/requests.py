"""One connection's frames on their way to the server: which of them go on now, and which wait.

Only the start of a request can be made to wait: its HEADERS, and with it what follows on the same
stream. Everything else goes on at once, in front of what waits: a call in progress needs the bytes
of its body, room for its answer (WINDOW_UPDATE) and its end (RST_STREAM), and pings and settings
are the connection's. All header blocks stay in their order, whichever stream they are of, since
each one is compressed against those before it (RFC 7541, section 2.3.2).

Frames are put between those of the peer only where one has ended, and never into a header block
(RFC 9113, section 6.10). The headers of every request get the door's mark at their end: the peer's
last frame of them no longer says that it is the last, and one more frame follows.

To look at a frame costs the same whether it carries much or nothing, and the event loop does
nothing else meanwhile. So a peer has a number of frames to spare. It grows with the requests that
it makes, with the bytes that they carry, with what is answered and with time. Who has used them up,
or does what no client does, has its connection closed: `FloodError`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from backpackd.adapters.door.frames import (
    CARRIED_ON,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    RST_STREAM,
    Cutter,
    FloodError,
    reset_stream,
)
from backpackd.adapters.door.marks import last_headers
from backpackd.adapters.door.opening import PREFACE

_FLAGS = 4
"""Where the flags stand in a frame's head."""

_PIECE_COST = 64
"""What keeping a piece takes besides its bytes, so that empty frames count as well."""

_OF_REQUESTS = frozenset({DATA, HEADERS, CONTINUATION})

MOST_WAITING = 128
"""Requests of one connection that wait. The server takes 32 of one at a time, and tells its peer so
before the first."""

MOST_FRAMES = 2048
"""That begin in one piece of what a peer sent: of 64 KiB, 32 bytes for each."""

SPARE = 512
"""Frames that a connection has to spare at first, and at most. Beginning a request is free."""

BYTES_FOR_ONE = 512
"""Of a frame of a request, its head included: for so many there is one frame more."""

SPARE_FOR_REQUEST = 32
SPARE_FOR_ANSWER = 4
"""What it gets for each request, and for each frame of content that it is answered with."""

SPARE_EACH_SECOND = 16

FILLER_BYTES = 16 * 1024
"""The longest frame that every server takes (RFC 9113, section 4.2)."""

_FILLER_KIND = 0xF0
"""For experiments (RFC 9113, section 11.2): an end that does not know it ignores it (5.5)."""

SHORT_RINSE = 8
LONG_RINSE = 256
"""How many fillers rinse at least and at most; between them, as many as there came bytes."""


def filler() -> bytes:
    """Make a frame that means nothing to anybody."""
    head = FILLER_BYTES.to_bytes(3, "big") + bytes((_FILLER_KIND, 0, 0, 0, 0, 0))
    return head + bytes(FILLER_BYTES)


_FILLER = filler()


@dataclass(slots=True)
class _Waiting:
    """A request that waits: its frames so far, and whether the peer has taken it back."""

    pieces: list[bytes] = field(default_factory=list)
    cost: int = 0
    reset: bool = False


def _refuse(*_: object) -> bool:
    return False


def _ignore(_: int) -> None:
    """Do nothing."""


class Requests:
    """Sorts what a peer sends into what goes on and what waits.

    Attributes:
        cost: what is kept for requests that wait, in bytes.
    """

    __slots__ = (
        "_begin",
        "_block",
        "_charge",
        "_cutter",
        "_granted",
        "_last",
        "_latest",
        "_mark",
        "_opening",
        "_reset",
        "_rinses",
        "_since",
        "_spare",
        "_target",
        "_waiting",
        "cost",
    )

    def __init__(
        self,
        begin: Callable[[int], bool] = lambda _: True,
        reset: Callable[[int], None] = lambda _: None,
        mark: bytes = b"",
        charge: Callable[[int, int, int, bool], bool] = lambda *_: True,
    ) -> None:
        """Watch a new connection.

        Args:
            begin: told of a stream that a request would begin on, when no other waits; False lets
                it wait.
            reset: told of a stream that the peer has reset, when that goes on.
            mark: the end of every request's header block; empty: they stay as they are.
            charge: told of each frame of a request before it goes anywhere: stream, kind, length,
                and whether the request begins with it. False ends the stream before it.
        """
        self._begin = begin
        self._reset = reset
        self._charge = charge
        self._cutter = Cutter(len(PREFACE))
        self._latest = 0
        self._block = False
        self._mark = mark
        self._opening = False
        self._last = False
        self._target: _Waiting | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._granted: deque[int] = deque()
        self._rinses = 0
        self._since = 0
        self._spare = SPARE
        self.cost = 0

    def earn(self, frames: int) -> None:
        """Give the peer some more frames to spare."""
        self._spare = min(SPARE, self._spare + frames)

    def holds(self, stream: int) -> bool:
        """Tell whether a request waits here."""
        return stream in self._waiting

    @property
    def waiting(self) -> int:
        """How many requests wait that were not let go yet."""
        return len(self._waiting) - len(self._granted)

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes that the peer sent, and return those for the server.

        Raises:
            FloodError: the connection is to be closed.
        """
        self._since += len(data)
        data, parts = self._cutter.cut(data, MOST_FRAMES)
        out: list[bytes] = []
        run = 0
        for start, stop, kind, flags, stream in parts:
            if kind != CARRIED_ON:
                if (self._granted or self._rinses) and not self._block:
                    out.append(data[run:start])
                    out += self._take_due(0)
                    run = start
                size = stop - start + (self._cutter.left if stop == len(data) else 0)
                if not self._count(kind, stream, size):
                    # What still comes on it the server takes for late, and drops.
                    out += (data[run:start], reset_stream(stream))
                    run = start
                self._sort(kind, flags, stream)
            if self._last:
                out += (data[run:start], self._marked(data[start:stop], kind, stop < len(data)))
                run = stop
            elif self._target is not None:
                out.append(data[run:start])
                self._keep(self._target, data[start:stop])
                run = stop
        if (self._granted or self._rinses) and self.between:
            out.append(data[run:])
            out += self._take_due(self._cutter.left)
            run = len(data)
        if not run and not out:
            return data
        out.append(data[run:])
        return b"".join(out)

    def _marked(self, piece: bytes, kind: int, whole: bool) -> bytes:
        """Mark the last frame of a request's headers, or the next part of that frame.

        Args:
            piece: what came of it.
            kind: of the part.
            whole: whether something has come after it.

        Returns:
            What goes on in its place: nothing when it is to wait.
        """
        if kind != CARRIED_ON:
            piece = piece[:_FLAGS] + bytes((piece[_FLAGS] & ~END_HEADERS,)) + piece[_FLAGS + 1 :]
        if whole or not self._cutter.left:
            piece += last_headers(self._latest, self._mark)
            self._last = False
        if self._target is None:
            return piece
        self._keep(self._target, piece)
        return b""

    def let_go(self) -> int:
        """Let the request that has waited longest begin. For when one waits.

        Returns:
            Its stream.
        """
        stream = next(stream for stream in self._waiting if stream not in self._granted)
        self._granted.append(stream)
        return stream

    def close(self) -> None:
        """Drop what waits, and whoever was told of it. For when the connection is closed."""
        self._waiting.clear()
        self._granted.clear()
        self._target = None
        self.cost = 0
        self._begin = _refuse
        self._reset = _ignore
        self._charge = _refuse

    def rinse(self) -> None:
        """Overwrite what the server keeps of what it has read."""
        wanted = min(max(self._since // FILLER_BYTES, SHORT_RINSE), LONG_RINSE)
        self._rinses = max(self._rinses, wanted)
        self._since = 0

    def due(self) -> bytes:
        """Take what was let go or is to rinse, if it may go now; else `feed` returns it in time."""
        return b"".join(self._take_due(self._cutter.left)) if self.between else b""

    @property
    def between(self) -> bool:
        """Whether what went on so far ended with a frame, and with a whole header block."""
        return self._target is not None or not (self._cutter.left or self._block)

    def _take_due(self, left: int) -> list[bytes]:
        """Take what is to go between two frames; `left` bytes of the one that waits are to come."""
        out: list[bytes] = []
        while self._granted:
            stream = self._granted.popleft()
            going = self._waiting.pop(stream)
            self.cost -= going.cost
            out += going.pieces
            if going.reset:
                self._reset(stream)
            if going is self._target:
                self._target = None
                if left or self._block:
                    # The rest of its frame, or of its headers, follows when it comes.
                    return out
        out += [_FILLER] * self._rinses
        self._rinses = 0
        return out

    def _count(self, kind: int, stream: int, size: int) -> bool:
        """Count a frame of so many bytes. False: its stream is to end before it."""
        new = kind == HEADERS and stream > self._latest
        carries = kind in _OF_REQUESTS
        if not new:
            self.earn((size // BYTES_FOR_ONE if carries else 0) - 1)
            if self._spare < 0:
                raise FloodError("frames that carry nothing")
        return not carries or self._charge(stream, kind, size + _PIECE_COST, new)

    def _open(self, stream: int) -> None:
        """Let a request begin, or wait."""
        if not stream % 2:
            # The server would not take it for one (RFC 9113, section 5.1.1).
            raise FloodError("streams that no client opens")
        self._latest = stream
        self.earn(SPARE_FOR_REQUEST)
        self._opening = bool(self._mark)
        self._last = self._opening and not self._block
        self._target = None
        if self._waiting or not self._begin(stream):
            if len(self._waiting) >= MOST_WAITING:
                raise FloodError("requests")
            self._target = self._waiting[stream] = _Waiting()

    def _sort(self, kind: int, flags: int, stream: int) -> None:
        """Decide where the frame that begins here goes, and what carries it on."""
        if kind == CONTINUATION and self._block:
            self._block = not flags & END_HEADERS
            self._last = self._opening and not self._block
            return
        self._block = kind == HEADERS and not flags & END_HEADERS
        self._opening = self._last = False
        if kind == HEADERS and stream > self._latest:
            self._open(stream)
        elif not self._waiting:
            self._target = None
            if kind == RST_STREAM:
                self._reset(stream)
        elif kind == HEADERS:
            # Trailers: not past the headers that came before them.
            self._target = next(reversed(self._waiting.values()))
        else:
            self._target = self._waiting.get(stream)
            if kind == RST_STREAM:
                if self._target is None:
                    self._reset(stream)
                else:
                    self._target.reset = True

    def _keep(self, waiting: _Waiting, piece: bytes) -> None:
        waiting.pieces.append(piece)
        cost = len(piece) + _PIECE_COST
        waiting.cost += cost
        self.cost += cost
