"""News from the daemon as it happens, for asyncio: `AsyncWatch`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Protocol, Self

from backpack_client.calls.call import Answer, Call
from backpack_client.failures import Failure
from backpack_client.wire import Ended


class Stream(Protocol):
    """The answer of a call, one message at a time; `wire.asynchronous` and `grpc_calls` have it."""

    async def read(self) -> bytes | None:
        """Wait for the next message; None at the end."""

    def close(self) -> None:
        """End it."""


class AsyncWatch(Generic[Answer]):
    """News from the daemon as it happens. One task iterates over it.

    It ends when it is closed. If the daemon ends it, it raises a Failure: the vault was locked, or
    operator authority has ended.
    """

    def __init__(
        self,
        call: Call[Answer],
        follow: Callable[[Call[Answer]], Awaitable[Stream]],
        failure_of: Callable[[Ended, Call[Any]], Failure],
    ) -> None:
        self._call = call
        self._follow = follow
        self._failure_of = failure_of
        self._closed = False
        self._stream: Stream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Answer]:
        return self

    async def __anext__(self) -> Answer:
        if self._ended():
            raise StopAsyncIteration
        try:
            response = await self._read()
        except Ended as ended:
            if self._ended():
                raise StopAsyncIteration from None
            raise self._failure_of(ended, self._call) from None
        if response is None:
            raise StopAsyncIteration
        return self._call.read(self._call.parse(response))

    async def _read(self) -> bytes | None:
        if self._stream is None:
            stream = await self._follow(self._call)
            if self._ended():
                stream.close()
                return None
            self._stream = stream
        return await self._stream.read()

    def _ended(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the watch. Closing twice is harmless."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()
