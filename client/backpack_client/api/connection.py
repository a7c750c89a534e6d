"""The connection to the daemon, which threads may share: opened, used for calls, closed.

Every call goes through `call`, `follow` or `upload`, for methods of `Backpack` as well as for the
command line.
"""

import os
import threading
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from backpack_client import address, process_protection
from backpack_client.api.lease import Lease
from backpack_client.api.watch import Watch
from backpack_client.calls.call import (
    DEFAULT_TIMEOUT,
    Answer,
    Call,
    OnWait,
    closed,
    failure_of,
    request_code,
)
from backpack_client.channel import RpcError, Target, check, open_channel
from backpack_client.failures import Failure

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message


class Connection:
    """A connection that carries out calls. `Backpack` adds a method for each call, by service."""

    def __init__(self, socket: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Note where the daemon is; nothing is opened yet.

        Args:
            socket: the daemon's socket; None: BACKPACK_SOCKET or the default place.
            timeout: how long to wait for each answer, in seconds; waiting for a person is extra.
        """
        self._path = address.socket_path(os.environ, socket)
        self._timeout = timeout
        self._opening = threading.Lock()
        self._target: Target | None = None
        self._channel: grpc.Channel | None = None
        self._exposed: list[tuple[grpc.Channel, Target]] = []
        self._undumpable = False
        self._pid = 0
        self._closed = False
        self._leases: set[Lease] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._path}>"

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give open leases back and close the connection. Closing twice is harmless."""
        for lease in tuple(self._leases):
            lease.close()
        with self._opening:
            self._closed = True
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self._target is not None:
                self._target.close()
                self._target = None
            for channel, target in self._exposed:
                channel.close()
                target.close()
            self._exposed.clear()

    def _open(self, *, passphrase: bool = False) -> "grpc.Channel":
        """Return the channel, connected.

        Args:
            passphrase: whether a passphrase will be sent on the channel. While this process was
                open to others, another process of the user may have taken the descriptor of the
                connection (pidfd_getfd(2)), and would then have its authority. So this makes a
                new connection; calls in progress on the old one end.
        """
        with self._opening:
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
                target = check(self._path)
                self._channel = open_channel(target, self._path, self._timeout)
                self._target = target
                self._pid = os.getpid()
            if self._pid != os.getpid():
                # The daemon would mistake the child for the parent, and grpc breaks after a fork.
                raise Failure(
                    "this Backpack was opened before a fork",
                    reason="forked",
                    hint="open one in this process",
                )
            return self._channel

    def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls`, one request and its answer.

        Args:
            call: the call.
            on_wait: called with the request's code when waiting for a person begins.

        Raises:
            Failure: the daemon refused, did not answer in time, or is not there.
        """
        channel = self._open(passphrase=call.passphrase)
        serialize = type(call.request).SerializeToString
        timeout = self._timeout + call.wait
        try:
            if call.streams:
                stream = channel.unary_stream(call.method, serialize, call.parse)
                return call.read(list(stream(call.request, timeout=timeout)))
            if on_wait is not None:
                # As a stream of one: only then does grpc deliver initial metadata before the
                # answer. On the wire both are the same.
                stream = channel.unary_stream(call.method, serialize, call.parse)
                return call.read(_waiting(stream(call.request, timeout=timeout), on_wait))
            unary = channel.unary_unary(call.method, serialize, call.parse)
            return call.read(unary(call.request, timeout=timeout))
        except RpcError as error:
            raise self._failure_of(error, call) from None
        except ValueError:
            # grpc raises this if another thread closes the channel at the wrong moment.
            if self._closed:
                raise closed() from None
            raise

    def follow(self, call: Call[Answer]) -> Watch[Answer]:
        """Carry out a call that is answered with a stream, one response at a time."""
        return Watch(call, self._open(passphrase=call.passphrase), self._failure_of)

    def upload(self, call: Call[Answer], more: Iterable["Message"]) -> Answer:
        """Carry out a call that takes a stream: first its own request, then the given ones.

        It has no time limit, because the time depends on the amount of data.

        Raises:
            Failure: as for `call`.
        """
        channel = self._open(passphrase=call.passphrase)
        serialize = type(call.request).SerializeToString
        stream = channel.stream_unary(call.method, serialize, call.parse)
        try:
            return call.read(stream(chain([call.request], more)))
        except RpcError as error:
            raise self._failure_of(error, call) from None

    def _failure_of(self, error: RpcError, call: Call[Any]) -> Failure:
        return failure_of(
            error,
            call,
            socket_path=self._path,
            timeout=self._timeout,
            was_closed=self._closed,
        )


def _waiting(stream: Any, on_wait: OnWait) -> Any:
    """Wait for the one answer; report the code of the request if a person must approve it."""
    try:
        if code := request_code(stream.initial_metadata()):
            on_wait(code)
        (response,) = stream
    except BaseException:
        # Otherwise the call would go on, and issue a lease that nobody takes.
        stream.cancel()
        raise
    return response
