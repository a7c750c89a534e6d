"""The operator's calls for threads, on one connection that is opened with the first call."""

import threading
from collections.abc import Iterable
from itertools import chain
from typing import Any

import grpc

from backpack_client import process_protection
from backpack_client.calls.call import Call, encoded
from backpack_client.channel import RpcError, Target, check, ended, facts, open_channel
from backpack_client.wire import lost
from backpack_client.wire.blocking import OnHeaders


class GrpcCalls:
    """Makes calls to one daemon on one connection, opened with the first. Threads may share it."""

    def __init__(self, path: str, timeout: float) -> None:
        """Say where the daemon's socket is, and how long connecting may take, in seconds."""
        self._path = path
        self._timeout = timeout
        self._opening = threading.Lock()
        self._target: Target | None = None
        self._channel: grpc.Channel | None = None
        self._exposed: list[tuple[grpc.Channel, Target]] = []
        self._undumpable = False
        self._closed = False

    def call(
        self, call: Call[Any], seconds: float, on_headers: OnHeaders | None = None
    ) -> list[bytes]:
        """Make a call and wait for its end.

        Args:
            call: the call.
            seconds: how long it may take.
            on_headers: called once with what the daemon tells ahead of its answer.

        Returns:
            The messages of the answer, encoded.

        Raises:
            Ended: the daemon refused, did not answer in time, or was lost; or `close` was called.
            Failure: there is no daemon that can be trusted.
        """
        channel = self._open(passphrase=call.passphrase)
        request = encoded(call.request)
        try:
            if call.streams or on_headers is not None:
                # Of a stream, even of one message, grpc gives what comes ahead of it at once. On
                # the wire both are the same.
                stream = channel.unary_stream(call.method)(request, timeout=seconds)
                return _read(stream, on_headers)
            return [channel.unary_unary(call.method)(request, timeout=seconds)]
        except RpcError as error:
            raise ended(error) from None
        except ValueError:
            # What grpc raises when another thread closes the channel at the wrong moment.
            if self._closed:
                raise lost() from None
            raise

    def follow(self, call: Call[Any]) -> "Stream":
        """Make a call whose answer is read as it comes, as long as that takes."""
        channel = self._open(passphrase=call.passphrase)
        return Stream(channel.unary_stream(call.method)(encoded(call.request)))

    def upload(self, call: Call[Any], more: Iterable[Any]) -> list[bytes]:
        """Make a call that takes a stream: first its own request, then the given ones.

        Raises:
            Ended: as for `call`.
        """
        channel = self._open(passphrase=call.passphrase)
        requests = map(encoded, chain([call.request], more))
        try:
            return [channel.stream_unary(call.method)(requests)]
        except RpcError as error:
            raise ended(error) from None

    def close(self) -> None:
        """Close the connection, and end every call that is under way. It is opened no more."""
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

    def _open(self, *, passphrase: bool) -> Any:
        """Return the channel, connected.

        Args:
            passphrase: one is to be sent on it. Another process of the user may have taken the
                descriptor of a connection that was made while this process was open to it, and
                would have its authority (pidfd_getfd(2)). So a new one is made; calls that are
                under way end on the old one.
        """
        with self._opening:
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
                target = check(self._path)
                self._channel = open_channel(target, self._path, self._timeout)
                self._target = target
            return self._channel


class Stream:
    """The answer of a call, one message at a time: read by one thread, closed by any."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self) -> bytes | None:
        """Wait for the next message; None at the end.

        Raises:
            Ended: the daemon ended it, or was lost; or it was closed.
        """
        try:
            message: bytes | None = next(self._stream, None)
        except RpcError as error:
            raise ended(error) from None
        return message

    def close(self) -> None:
        """End it. Closing twice is harmless."""
        self._stream.cancel()


def _read(stream: Any, on_headers: OnHeaders | None) -> list[bytes]:
    try:
        if on_headers is not None:
            on_headers(facts(stream.initial_metadata()))
        return list(stream)
    except BaseException:
        # Left alone, it would go on to a lease that nobody takes.
        stream.cancel()
        raise
