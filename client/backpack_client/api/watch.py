"""News from the daemon as it happens, for threads: `Watch`."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, Self

from backpack_client.calls.call import Answer, Call
from backpack_client.failures import Failure
from backpack_client.wire import Ended


class Stream(Protocol):
    """The answer of a call, one message at a time; `wire.blocking` and `grpc_calls` have it."""

    def read(self) -> bytes | None:
        """Wait for the next message; None at the end."""

    def close(self) -> None:
        """End it, from whichever thread."""


class Watch(Generic[Answer]):
    """News from the daemon as it happens. One thread iterates over it.

    It ends when any thread closes it. If the daemon ends it, it raises a Failure: the vault was
    locked, or operator authority has ended.
    """

    def __init__(
        self,
        call: Call[Answer],
        stream: Stream,
        failure_of: Callable[[Ended, Call[Any]], Failure],
    ) -> None:
        self._call = call
        self._stream = stream
        self._failure_of = failure_of
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        if self._ended():
            raise StopIteration
        try:
            response = self._stream.read()
        except Ended as ended:
            if self._ended():
                raise StopIteration from None
            raise self._failure_of(ended, self._call) from None
        if response is None:
            raise StopIteration
        return self._call.read(self._call.parse(response))

    def _ended(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the watch. Closing twice is harmless."""
        self._closed = True
        self._stream.close()
