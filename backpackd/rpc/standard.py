"""gRPC's standard health and reflection services, behind the same guard as our own.

Both have calls that stay open for as long as their callers like, so both count and bound those,
and both end them when the daemon stops.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection
from grpc_reflection.v1alpha.reflection_pb2 import DESCRIPTOR as REFLECTION
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from backpackd.core.errors import BackpackError, LimitError, ShuttingDownError
from backpackd.core.facts import ProcessId
from backpackd.rpc.calls import Calls, Context, abort, parse

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
MOST_OF_TREE = 16
"""Open calls of one process tree: else one tree takes up every call that the server allows."""
_REFLECTION = REFLECTION.services_by_name["ServerReflection"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_Request = health_pb2.HealthCheckRequest
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_Methods = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


class OpenCalls:
    """Guards the calls that stay open.

    Attributes:
        closing: set when the daemon stops.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._by_tree: Counter[ProcessId] = Counter()
        self.closing = asyncio.Event()

    async def close(self) -> None:
        """Let the open calls end: they would hold the daemon up."""
        self.closing.set()

    @contextmanager
    def enter(self, context: Context) -> Iterator[None]:
        """Count a call in.

        Raises:
            LimitError: this process tree has too many of them.
            BackpackError: see `Calls.enter`.
        """
        with self._calls.enter(context) as connection:
            tree = connection.tree
            if self._by_tree[tree] >= MOST_OF_TREE:
                raise LimitError("too many open calls of this process tree: end some first")
            self._by_tree[tree] += 1
            try:
                with self._calls.standing(connection):
                    yield
            finally:
                self._by_tree[tree] -= 1
                if not self._by_tree[tree]:
                    del self._by_tree[tree]

    async def until_closing(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Pass requests on until the caller or the daemon ends.

        Raises:
            ShuttingDownError: it is the daemon that ends.
        """
        closing = asyncio.ensure_future(self.closing.wait())
        try:
            while True:
                coming = asyncio.ensure_future(anext(requests))
                try:
                    await asyncio.wait([coming, closing], return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        raise ShuttingDownError("the daemon is stopping")
                    request = coming.result()
                except StopAsyncIteration:
                    return
                finally:
                    coming.cancel()
                yield request
        finally:
            closing.cancel()


class Health:
    """The health service: whether the daemon serves, not whether the vault is unlocked."""

    def __init__(self, calls: Calls, open_calls: OpenCalls, names: Sequence[str]) -> None:
        self._calls = calls
        self._open = open_calls
        self._names = {"", *names}

    def handler(self) -> grpc.GenericRpcHandler:
        """Make its gRPC handler."""
        methods: _Methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    async def check(self, raw: bytes, context: Context) -> bytes:
        """Answer `Check`."""
        try:
            with self._calls.enter(context):
                if parse(_Request, raw).service not in self._names:
                    await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
                return _answer(_SERVING)
        except BackpackError as error:
            await abort(context, error)

    async def watch(self, raw: bytes, context: Context) -> None:
        """Answer `Watch`. There is one change to tell of, and it ends the call."""
        try:
            with self._open.enter(context):
                known = parse(_Request, raw).service in self._names
                await context.write(_answer(_SERVING if known else _UNKNOWN))
                await self._open.closing.wait()
                await context.write(_answer(_NOT_SERVING))
                raise ShuttingDownError("the daemon is stopping")
        except BackpackError as error:
            await abort(context, error)


def _answer(status: Any) -> bytes:
    return health_pb2.HealthCheckResponse(status=status).SerializeToString()


class Reflection:
    """The reflection service, by which tools learn the API from the daemon itself."""

    def __init__(self, open_calls: OpenCalls, names: Sequence[str]) -> None:
        self._open = open_calls
        # Typed as a coroutine by its stubs, and an async generator in fact.
        self._servicer: Any = reflection.ReflectionServicer(names)

    def handler(self) -> grpc.GenericRpcHandler:
        """Make its gRPC handler."""
        methods: _Methods = {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self.answer)
        }
        return grpc.method_handlers_generic_handler(_REFLECTION, methods)

    async def answer(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        """Answer `ServerReflectionInfo`."""
        try:
            with self._open.enter(context):
                asked = _parsed(self._open.until_closing(requests))
                async for response in self._servicer.ServerReflectionInfo(asked, context):
                    yield response.SerializeToString()
        except BackpackError as error:
            await abort(context, error)


async def _parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for raw in requests:
        yield parse(ServerReflectionRequest, raw)


def add_standard(server: grpc.aio.Server, calls: Calls, names: Sequence[str]) -> OpenCalls:
    """Add both services to a server.

    Args:
        server: not yet started.
        calls: the guard.
        names: the full names of our own services.

    Returns:
        Their open calls, to be told when the daemon stops.
    """
    open_calls = OpenCalls(calls)
    health = Health(calls, open_calls, names)
    reflecting = Reflection(open_calls, [*names, HEALTH, _REFLECTION])
    # Not by the helpers of their packages: what those read the requests with fails inside of
    # grpcio, which tells the caller UNKNOWN and the exception's class.
    server.add_generic_rpc_handlers((health.handler(), reflecting.handler()))
    return open_calls
