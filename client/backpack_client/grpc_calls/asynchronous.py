"""The operator's calls for asyncio: the same as `blocking`, to be awaited."""

import asyncio
from collections.abc import Iterable
from itertools import chain
from typing import Any

import grpc.aio

from backpack_client import process_protection
from backpack_client.calls.call import Call, encoded
from backpack_client.channel import (
    EOF,
    RpcError,
    Target,
    UsageError,
    check,
    ended,
    facts,
    open_async_channel,
)
from backpack_client.wire import lost
from backpack_client.wire.blocking import OnHeaders


class GrpcCalls:
    """Makes calls to one daemon on one connection, opened with the first, from one event loop."""

    def __init__(self, path: str, timeout: float) -> None:
        """Say where the daemon's socket is, and how long connecting may take, in seconds."""
        self._path = path
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._target: Target | None = None
        self._channel: grpc.aio.Channel | None = None
        self._exposed: list[tuple[grpc.aio.Channel, Target]] = []
        self._undumpable = False
        self._closed = False

    async def call(
        self, call: Call[Any], seconds: float, on_headers: OnHeaders | None = None
    ) -> list[bytes]:
        """Make a call and wait for its end; see `blocking`.

        Raises:
            Ended: as there.
        """
        channel = await self._open(passphrase=call.passphrase)
        request = encoded(call.request)
        try:
            if call.streams or on_headers is not None:
                # As in `blocking`.
                stream = channel.unary_stream(call.method)(request, timeout=seconds)
                return await _read(stream, on_headers)
            return [await channel.unary_unary(call.method)(request, timeout=seconds)]
        except RpcError as error:
            raise ended(error) from None
        except (UsageError, asyncio.CancelledError):
            # What grpc raises when another task closes the channel at the wrong moment.
            if self._closed and not being_cancelled():
                raise lost() from None
            raise

    async def follow(self, call: Call[Any]) -> "Stream":
        """Make a call whose answer is read as it comes, as long as that takes."""
        channel = await self._open(passphrase=call.passphrase)
        return Stream(channel.unary_stream(call.method)(encoded(call.request)))

    async def upload(self, call: Call[Any], more: Iterable[Any]) -> list[bytes]:
        """Make a call that takes a stream: first its own request, then the given ones.

        Raises:
            Ended: as for `call`.
        """
        channel = await self._open(passphrase=call.passphrase)
        requests = map(encoded, chain([call.request], more))
        try:
            return [await channel.stream_unary(call.method)(requests)]
        except RpcError as error:
            raise ended(error) from None
        except (UsageError, asyncio.CancelledError):
            # As in `call`.
            if self._closed and not being_cancelled():
                raise lost() from None
            raise

    async def close(self) -> None:
        """Close the connection, and end every call that is under way. It is opened no more."""
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

    async def _open(self, *, passphrase: bool) -> Any:
        """Return the channel, connected; see `blocking` for what a passphrase needs."""
        async with self._opening:
            if self._closed:
                raise lost()
            if passphrase and not process_protection.is_undumpable():
                process_protection.make_undumpable()
                self._undumpable = False
            if passphrase and self._channel is not None and not self._undumpable:
                assert self._target is not None
                self._exposed.append((self._channel, self._target))
                self._channel = self._target = None
            if self._channel is None:
                self._undumpable = process_protection.is_undumpable()
                # A daemon with a full queue is waited for, which must not hold up the loop.
                target = await asyncio.to_thread(check, self._path)
                self._channel = await open_async_channel(target, self._path, self._timeout)
                self._target = target
            return self._channel


class Stream:
    """The answer of a call, one message at a time: read by one task."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def read(self) -> bytes | None:
        """Wait for the next message; None at the end.

        Raises:
            Ended: the daemon ended it, or was lost; or it was closed.
        """
        try:
            message = await self._stream.read()
        except RpcError as error:
            raise ended(error) from None
        except asyncio.CancelledError:
            # What grpc raises of a call that was cancelled, too.
            if being_cancelled():
                raise
            raise lost() from None
        return None if message is EOF else bytes(message)

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        self._stream.cancel()


def being_cancelled() -> bool:
    """Tell whether the running task is being cancelled, and not the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _read(stream: Any, on_headers: OnHeaders | None) -> list[bytes]:
    try:
        if on_headers is not None:
            on_headers(facts(await stream.initial_metadata()))
        return [message async for message in stream]
    except BaseException:
        # Left alone, it would go on to a lease that nobody takes.
        stream.cancel()
        raise
