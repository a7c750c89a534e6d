"""News from the daemon as it happens, for asyncio: `AsyncWatch`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Self

from backpack_client.calls.call import Answer, Call
from backpack_client.channel import EOF, RpcError
from backpack_client.failures import Failure

if TYPE_CHECKING:
    import grpc.aio


class AsyncWatch(Generic[Answer]):
    """News from the daemon as it happens. One task iterates over it.

    It ends when it is closed. If the daemon ends it, it raises a Failure: the vault was locked, or
    operator authority has ended.
    """

    def __init__(
        self,
        call: Call[Answer],
        open_: Callable[[], Awaitable["grpc.aio.Channel"]],
        failure_of: Callable[[RpcError, Call[Any]], Failure],
    ) -> None:
        self._call = call
        self._open = open_
        self._failure_of = failure_of
        self._closed = False
        self._stream: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Answer]:
        return self

    async def __anext__(self) -> Answer:
        if self._ended():
            raise StopAsyncIteration
        call = self._call
        if self._stream is None:
            channel = await self._open()
            serialize = type(call.request).SerializeToString
            self._stream = channel.unary_stream(call.method, serialize, call.parse)(call.request)
        try:
            response = await self._stream.read()
        except RpcError as error:
            raise self._failure_of(error, call) from None
        except asyncio.CancelledError:
            if self._ended() and not being_cancelled():
                raise StopAsyncIteration from None
            raise
        if response is EOF:
            raise StopAsyncIteration
        return call.read(response)

    def _ended(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the watch. Closing twice is harmless."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()


def being_cancelled() -> bool:
    """Tell whether the running task is being cancelled, and not the call it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
