"""News from the daemon as it happens, for threads: `Watch`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Self

from backpack_client.calls.call import Answer, Call
from backpack_client.channel import RpcError
from backpack_client.failures import Failure

if TYPE_CHECKING:
    import grpc


class Watch(Generic[Answer]):
    """News from the daemon as it happens. One thread iterates over it.

    It ends when any thread closes it. If the daemon ends it, it raises a Failure: the vault was
    locked, or operator authority has ended.
    """

    def __init__(
        self,
        call: Call[Answer],
        channel: "grpc.Channel",
        failure_of: Callable[[RpcError, Call[Any]], Failure],
    ) -> None:
        self._call = call
        self._failure_of = failure_of
        serialize = type(call.request).SerializeToString
        self._closed = False
        self._stream = channel.unary_stream(call.method, serialize, call.parse)(call.request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        try:
            return self._call.read(next(self._stream))
        except RpcError as error:
            if self._closed:
                raise StopIteration from None
            raise self._failure_of(error, self._call) from None

    def close(self) -> None:
        """End the watch. Closing twice is harmless."""
        self._closed = True
        self._stream.cancel()
