"""The connection to the daemon, for one event loop: opened, used for calls, closed.

The same as `api.connection`, to be awaited.
"""

import asyncio
import os
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from backpack_client import address, process_protection
from backpack_client.aio.lease import AsyncLease
from backpack_client.aio.watch import AsyncWatch, being_cancelled
from backpack_client.calls.call import (
    DEFAULT_TIMEOUT,
    Answer,
    Call,
    OnWait,
    closed,
    failure_of,
    request_code,
)
from backpack_client.channel import RpcError, Target, UsageError, check, open_async_channel
from backpack_client.failures import Failure

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.message import Message


class Connection:
    """A connection that carries out calls. `AsyncBackpack` adds a method for each, by service."""

    def __init__(self, socket: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Note where the daemon is; nothing is opened yet.

        Args:
            socket: the daemon's socket; None: BACKPACK_SOCKET or the default place.
            timeout: how long to wait for each answer, in seconds; waiting for a person is extra.
        """
        self._path = address.socket_path(os.environ, socket)
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._target: Target | None = None
        self._channel: grpc.aio.Channel | None = None
        self._exposed: list[tuple[grpc.aio.Channel, Target]] = []
        self._undumpable = False
        self._closed = False
        self._leases: set[AsyncLease] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._path}>"

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give open leases back and close the connection. Closing twice is harmless."""
        for lease in tuple(self._leases):
            await lease.close()
        async with self._opening:
            self._closed = True
            if self._channel is not None:
                await self._channel.close()
                self._channel = None
            if self._target is not None:
                self._target.close()
                self._target = None
            for channel, target in self._exposed:
                await channel.close()
                target.close()
            self._exposed.clear()

    async def _open(self, *, passphrase: bool = False) -> "grpc.aio.Channel":
        """Return the channel, connected; see `api.connection` for what a passphrase needs."""
        async with self._opening:
            if self._closed:
                raise closed()
            if passphrase and not process_protection.is_undumpable():
                process_protection.make_undumpable()
                self._undumpable = False
            if passphrase and self._channel is not None and not self._undumpable:
                assert self._target is not None
                self._exposed.append((self._channel, self._target))
                self._channel = self._target = None
            if self._channel is None:
                self._undumpable = process_protection.is_undumpable()
                # Waiting for a daemon with a full queue must not hold up the loop.
                target = await asyncio.to_thread(check, self._path)
                self._channel = await open_async_channel(target, self._path, self._timeout)
                self._target = target
            return self._channel

    async def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls`, one request and its answer; see `Backpack.call`."""
        channel = await self._open(passphrase=call.passphrase)
        serialize = type(call.request).SerializeToString
        timeout = self._timeout + call.wait
        try:
            if call.streams:
                stream = channel.unary_stream(call.method, serialize, call.parse)
                responses = stream(call.request, timeout=timeout)
                return call.read([response async for response in responses])
            if on_wait is not None:
                # As a stream of one: only then does grpc deliver initial metadata before the
                # answer. On the wire both are the same.
                stream = channel.unary_stream(call.method, serialize, call.parse)
                return call.read(await _waiting(stream(call.request, timeout=timeout), on_wait))
            unary = channel.unary_unary(call.method, serialize, call.parse)
            return call.read(await unary(call.request, timeout=timeout))
        except RpcError as error:
            raise self._failure_of(error, call) from None
        except (UsageError, asyncio.CancelledError):
            # grpc raises this if another task closes the channel at the wrong moment.
            if self._closed and not being_cancelled():
                raise closed() from None
            raise

    def follow(self, call: Call[Answer]) -> AsyncWatch[Answer]:
        """Carry out a call that is answered with a stream, one response at a time."""
        return AsyncWatch(call, partial(self._open, passphrase=call.passphrase), self._failure_of)

    async def upload(self, call: Call[Answer], more: Iterable["Message"]) -> Answer:
        """Carry out a call that takes a stream; see `Backpack.upload`."""
        channel = await self._open(passphrase=call.passphrase)
        serialize = type(call.request).SerializeToString
        stream = channel.stream_unary(call.method, serialize, call.parse)
        try:
            return call.read(await stream(chain([call.request], more)))
        except RpcError as error:
            raise self._failure_of(error, call) from None
        except (UsageError, asyncio.CancelledError):
            # As in `call`.
            if self._closed and not being_cancelled():
                raise closed() from None
            raise

    def _failure_of(self, error: RpcError, call: Call[Any]) -> Failure:
        return failure_of(
            error,
            call,
            socket_path=self._path,
            timeout=self._timeout,
            was_closed=self._closed,
        )


async def _waiting(stream: Any, on_wait: OnWait) -> Any:
    """Wait for the one answer; report the code of the request if a person must approve it."""
    try:
        if code := request_code(await stream.initial_metadata()):
            on_wait(code)
        (response,) = [each async for each in stream]
    except BaseException:
        # Otherwise the call would go on, and issue a lease that nobody takes.
        stream.cancel()
        raise
    return response
