"""Joins each connection's relay, its frames and the admission of its requests.

It decides nothing: `requests` says what may go on at once, `admission` whose turn it is. Here that
is carried out, on the event loop.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from backpackd.adapters.door.admission import Admission, Limits, Place
from backpackd.adapters.door.answers import Answers
from backpackd.adapters.door.budget import Account, Budget
from backpackd.adapters.door.frames import DATA, FloodError
from backpackd.adapters.door.marks import field
from backpackd.adapters.door.relay import Relay
from backpackd.adapters.door.requests import SPARE_EACH_SECOND, SPARE_FOR_ANSWER, Requests
from backpackd.ports import MARK, Clock, Connection

KEPT_BYTES = 256 * 1024
"""How much of requests that wait is kept of one connection before no more is read from it."""


TOO_MUCH = "a connection: too many bytes of unfinished requests"


class Lanes:
    """Every lane, and the turn of those that wait."""

    def __init__(
        self,
        clock: Clock,
        limits: Limits | None = None,
        *,
        budget: Budget | None = None,
        authorized: Callable[[Connection], bool] = lambda _: False,
        refuse: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start with no lane.

        Args:
            clock: its boot clock says for how long a call has been worked on.
            limits: None: the defaults.
            budget: for the bytes of unfinished requests; None: one with the defaults.
            authorized: tells whose requests it does not bound.
            refuse: told what was refused and why.
        """
        self.admission = Admission(limits)
        self.budget = budget or Budget()
        self.authorized = authorized
        self.refuse = refuse
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def open(self, connection: Connection, relay: Relay) -> "Lane":
        """Make the lane of a new connection, and give the connection what it does for calls."""
        lane = Lane(self, connection, relay)
        connection.rinse = lane.rinse
        connection.waiting = lane.waiting
        connection.standing = lane.standing
        connection.on_close.append(lambda: _detach(connection))
        return lane

    def arrived(self, mark: str) -> None:
        """Say that the server has taken up a request with the mark of a connection."""
        self.admission.arrive(mark, self.now())
        if self.admission.waiting:
            self.review()

    def now(self) -> float:
        """Read the clock."""
        return self._clock.boot()

    def review(self) -> None:
        """Let in those whose turn has come. For whenever room may have come free."""
        while found := self.admission.next(self.now()):
            lane, place = found
            lane.let_go(place)
        self.arm()

    def arm(self) -> None:
        """See to it that those who stand in line get their turn when nothing else happens."""
        if self.admission.waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                self.admission.busy_seconds, self._time_has_passed
            )

    def close(self) -> None:
        """Stop the timer. For after the last lane has closed."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _time_has_passed(self) -> None:
        self._timer = None
        self.review()


def _nothing() -> None:
    """Do nothing."""


def _detach(connection: Connection) -> None:
    """Let go of a lane that has closed.

    What refers to itself is not freed before the garbage collector comes by: until then what was
    sent would stay, and then the event loop would stand still for all of it together.
    """
    connection.rinse = _nothing
    connection.waiting = connection.standing = nullcontext


class Lane:
    """One connection's way to the server.

    Attributes:
        stands: how many calls in progress stand open.
    """

    __slots__ = (
        "_account",
        "_admission",
        "_answers",
        "_charged",
        "_closed",
        "_connection",
        "_earned_at",
        "_exceeded",
        "_lanes",
        "_places",
        "_relay",
        "_requests",
        "_standing",
        "_tree",
        "stands",
    )

    def __init__(self, lanes: Lanes, connection: Connection, relay: Relay) -> None:
        self._lanes = lanes
        self._admission = lanes.admission
        self._relay = relay
        self._tree = connection.tree
        self._connection = connection
        self._requests = Requests(
            self._begin, self._reset, field(MARK, connection.mark), self._charge
        )
        self._answers = Answers()
        self._account = Account(connection.tree, self._give_up)
        self._charged: dict[int, int] = {}
        self._exceeded = False
        self._places: dict[int, Place] = {}
        self._standing = False
        self._closed = False
        self._earned_at = lanes.now()
        self.stands = 0

    @property
    def waits(self) -> int:
        """How many requests wait."""
        return self._requests.waiting

    @property
    def mark(self) -> str:
        """What the requests of this connection carry at the end of their headers."""
        return self._connection.mark

    def from_peer(self, data: bytes) -> bytes | None:
        """Take what the peer sent.

        Returns:
            What of it goes on now; None: the connection is to be closed.
        """
        self._earn()
        try:
            data = self._requests.feed(data)
        except FloodError as error:
            # Closed in the middle of it, the rest was taken for requests that wait.
            if not self._closed:
                self._lanes.refuse(f"a connection: too many {error}")
            return None
        if self._closed:
            # An answer of the door's found the peer gone. Nobody would take this lane out of the
            # line again.
            return None
        if self._exceeded:
            self._lanes.refuse(TOO_MUCH)
            return None
        if self._requests.waiting:
            self._stand()
            # Not in the middle of a frame of a call in progress, which would wait as well.
            if self._requests.cost > KEPT_BYTES and self._requests.between:
                self._relay.stop_reading()
        return data

    def from_server(self, data: bytes) -> bytes:
        """Take what the server sent and return it: where it ends a call, room comes free."""
        data, streams = self._answers.feed(data)
        ended = False
        for stream in streams:
            self._settle(stream)
            place = self._places.pop(stream, None)
            if place is not None:
                self._admission.end(place)
                ended = True
        if ended and self._admission.waiting:
            self._lanes.review()
        return data

    def let_go(self, place: Place) -> None:
        """Let the request that has waited longest begin."""
        self._standing = False
        self._places[self._requests.let_go()] = place
        self._relay.push(self._requests.due())
        if self._closed:
            return
        if self._requests.waiting:
            self._stand()
        if self._requests.cost <= KEPT_BYTES:
            self._relay.go_on()

    def rinse(self) -> None:
        """Overwrite what the server keeps of what it has read from this connection."""
        if not self._closed:
            self._requests.rinse()
            self._relay.push(self._requests.due())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Take one call of this connection for waiting meanwhile: it keeps nobody from working."""
        calls = self._places.values()
        place = next((call for call in calls if call.busy and call.arrived), None)
        if place is None:
            yield
            return
        self._admission.pause(place)
        if self._admission.waiting:
            self._lanes.review()
        try:
            yield
        finally:
            self._admission.resume(place, self._lanes.now())

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Take one call of this connection for one that stands open meanwhile."""
        self.stands += 1
        self._admission.add_standing(self._tree)
        try:
            with self.waiting():
                yield
        finally:
            self._admission.drop_standing(self._tree)
            self.stands -= 1

    def close(self) -> None:
        """Give back every place, and let nothing more begin."""
        if self._closed:
            return
        self._closed = True
        self._lanes.budget.give_back(self._account, self._account.held)
        if self._standing:
            self._admission.leave(self._tree, self)
        for place in self._places.values():
            self._admission.leave_behind(place)
        self._places.clear()
        self._requests.close()
        self._account.give_up = _nothing
        if self._admission.waiting:
            self._lanes.review()

    def _earn(self) -> None:
        """Give the peer frames to spare for the answers and the time since it last sent some."""
        passed = int((self._lanes.now() - self._earned_at) * SPARE_EACH_SECOND)
        self._earned_at += passed / SPARE_EACH_SECOND
        self._requests.earn(passed + SPARE_FOR_ANSWER * self._answers.content)
        self._answers.content = 0

    def _begin(self, stream: int) -> bool:
        place = self._admission.begin(self._tree, self.mark, self._lanes.now())
        if place is not None:
            self._places[stream] = place
        return place is not None

    def _charge(self, stream: int, kind: int, size: int, new: bool) -> bool:
        if new:
            self._charged[stream] = 0
        charged = self._charged.get(stream)
        if charged is None or (kind == DATA and self._lanes.authorized(self._connection)):
            return True
        if self._lanes.budget.charge(self._account, size):
            self._charged[stream] = charged + size
            return True
        if kind != DATA or self._requests.holds(stream) or self._relay.stalled:
            # Headers have to be read, or those after them make no sense.
            self._exceeded = True
            return True
        self._relay.answer(self._answers.refuse(stream))
        self._reset(stream)
        return False

    def _settle(self, stream: int) -> None:
        charged = self._charged.pop(stream, 0)
        if charged:
            self._lanes.budget.give_back(self._account, charged)

    def _give_up(self) -> None:
        self._lanes.refuse(TOO_MUCH)
        # Not now: another lane is in the middle of its bytes, and may be let go by this.
        asyncio.get_running_loop().call_soon(self._relay.close)

    def _reset(self, stream: int) -> None:
        self._settle(stream)
        self._answers.forget(stream)
        place = self._places.pop(stream, None)
        if place is not None:
            self._admission.reset(place)

    def _stand(self) -> None:
        if not self._standing:
            self._standing = True
            self._admission.stand(self._tree, self)
            self._lanes.arm()
