"""Calls to the daemon, which threads may share: chosen how they go, made, and ended by `close`.

Every call goes through `call`, `follow` or `upload`, for methods of `Backpack` as well as for the
command line.
"""

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from backpack_client import address
from backpack_client.api.lease import Lease
from backpack_client.api.watch import Watch
from backpack_client.calls.call import (
    DEFAULT_TIMEOUT,
    Answer,
    Call,
    OnWait,
    closed,
    encoded,
    failure_of,
    forked,
    tell_code,
)
from backpack_client.calls.stubs import load
from backpack_client.failures import Failure
from backpack_client.wire import Ended
from backpack_client.wire.blocking import Caller

if TYPE_CHECKING:
    from backpack_client.grpc_calls.blocking import GrpcCalls


class Connection:
    """Carries out calls. `Backpack` adds a method for each call, by service.

    What agents call needs no grpc: each such call has a connection of its own. The operator's calls
    share one, which has the authority; from the first passphrase on, that one carries every call.
    """

    def __init__(self, socket: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Note where the daemon is; nothing is opened yet.

        Args:
            socket: the daemon's socket; None: BACKPACK_SOCKET or the default place.
            timeout: how long to wait for each answer, in seconds; waiting for a person is extra.
        """
        self._path = address.socket_path(os.environ, socket)
        self._timeout = timeout
        self._wire = Caller(self._path)
        self._loading = threading.Lock()
        self._grpc: GrpcCalls | None = None
        self._authorized = False
        self._pid = 0
        self._closed = False
        self._leases: set[Lease] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._path}>"

    def __enter__(self) -> Self:
        self._check()
        self._wire.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give open leases back and end what is under way. Closing twice is harmless."""
        for lease in tuple(self._leases):
            lease.close()
        self._closed = True
        self._wire.close()
        with self._loading:
            if self._grpc is not None:
                self._grpc.close()

    def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls`, one request and its answer.

        Args:
            call: the call.
            on_wait: called with the request's code when waiting for a person begins.

        Raises:
            Failure: the daemon refused, did not answer in time, or is not there.
        """
        self._check()
        seconds = self._timeout + call.wait
        try:
            if self._by_wire(call):
                request = encoded(call.request)
                responses = self._wire.call(
                    call.method, request, seconds, tell_code(on_wait), streams=call.streams
                )
            else:
                responses = self._operator().call(call, seconds, tell_code(on_wait))
        except Ended as ended:
            raise self._failure_of(ended, call) from None
        self._authorized |= call.passphrase
        return call.answer(responses)

    def follow(self, call: Call[Answer]) -> Watch[Answer]:
        """Carry out a call that is answered with a stream, one response at a time.

        Raises:
            Failure: the daemon is not there.
        """
        self._check()
        try:
            if self._by_wire(call):
                return Watch(
                    call, self._wire.follow(call.method, encoded(call.request)), self._failure_of
                )
            return Watch(call, self._operator().follow(call), self._failure_of)
        except Ended as ended:
            raise self._failure_of(ended, call) from None

    def upload(self, call: Call[Answer], more: Iterable[Any]) -> Answer:
        """Carry out a call that takes a stream: first its own request, then the given ones.

        It has no time limit, because the time depends on the amount of data.

        Raises:
            Failure: as for `call`.
        """
        self._check()
        try:
            return call.answer(self._operator().upload(call, more))
        except Ended as ended:
            raise self._failure_of(ended, call) from None

    def _check(self) -> None:
        """Raise unless calls may be made here."""
        if self._closed:
            raise closed()
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            # Open leases belong to the parent, whose thread renews them, and grpc does not survive
            # a fork.
            raise forked()

    def _by_wire(self, call: Call[Any]) -> bool:
        return call.for_agents and not self._authorized

    def _operator(self) -> "GrpcCalls":
        with self._loading:
            if self._grpc is None:
                module = load("backpack_client.grpc_calls.blocking")
                self._grpc = module.GrpcCalls(self._path, self._timeout)
            calls: GrpcCalls = self._grpc
            return calls

    def _failure_of(self, ended: Ended, call: Call[Any]) -> Failure:
        return failure_of(
            ended,
            call,
            socket_path=self._path,
            timeout=self._timeout,
            was_closed=self._closed,
        )
