"""Calls to the daemon, for one event loop: chosen how they go, made, and ended by `close`.

The same as `api.connection`, to be awaited.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from backpack_client import address
from backpack_client.aio.lease import AsyncLease
from backpack_client.aio.watch import AsyncWatch, Stream
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
from backpack_client.wire.asynchronous import Caller

if TYPE_CHECKING:
    from backpack_client.grpc_calls.asynchronous import GrpcCalls


class Connection:
    """Carries out calls. `AsyncBackpack` adds a method for each call, by service.

    Which connection carries a call is as for `Backpack`; see `api.connection`.
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
        self._grpc: GrpcCalls | None = None
        self._authorized = False
        self._pid = 0
        self._closed = False
        self._leases: set[AsyncLease] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._path}>"

    async def __aenter__(self) -> Self:
        self._check()
        await self._wire.check()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give open leases back and end what is under way. Closing twice is harmless."""
        for lease in tuple(self._leases):
            await lease.close()
        self._closed = True
        self._wire.close()
        if self._grpc is not None:
            await self._grpc.close()

    async def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls`, one request and its answer; see `Backpack.call`.

        Raises:
            Failure: as there.
        """
        self._check()
        seconds = self._timeout + call.wait
        try:
            if self._by_wire(call):
                request = encoded(call.request)
                responses = await self._wire.call(
                    call.method, request, seconds, tell_code(on_wait), streams=call.streams
                )
            else:
                responses = await self._operator().call(call, seconds, tell_code(on_wait))
        except Ended as ended:
            raise self._failure_of(ended, call) from None
        self._authorized |= call.passphrase
        return call.answer(responses)

    def follow(self, call: Call[Answer]) -> AsyncWatch[Answer]:
        """Carry out a call that is answered with a stream, one response at a time."""
        return AsyncWatch(call, self._follow, self._failure_of)

    async def upload(self, call: Call[Answer], more: Iterable[Any]) -> Answer:
        """Carry out a call that takes a stream; see `Backpack.upload`.

        Raises:
            Failure: as there.
        """
        self._check()
        try:
            return call.answer(await self._operator().upload(call, more))
        except Ended as ended:
            raise self._failure_of(ended, call) from None

    def _check(self) -> None:
        """Raise unless calls may be made here; see `api.connection`."""
        if self._closed:
            raise closed()
        self._pid = self._pid or os.getpid()
        if self._pid != os.getpid():
            raise forked()

    async def _follow(self, call: Call[Any]) -> Stream:
        self._check()
        if self._by_wire(call):
            return await self._wire.follow(call.method, encoded(call.request))
        return await self._operator().follow(call)

    def _by_wire(self, call: Call[Any]) -> bool:
        return call.for_agents and not self._authorized

    def _operator(self) -> "GrpcCalls":
        if self._grpc is None:
            module = load("backpack_client.grpc_calls.asynchronous")
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
