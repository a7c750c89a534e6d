"""gRPC's standard health and reflection services, behind the same guard as our own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection
from grpc_reflection.v1alpha.reflection_pb2 import DESCRIPTOR as REFLECTION

from backpackd.core.errors import BackpackError, ShuttingDownError
from backpackd.rpc.calls import Calls, Context, abort

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = REFLECTION.services_by_name["ServerReflection"].full_name


class Health(health.HealthServicer):
    """The health service; whether the daemon serves, not whether the vault is unlocked."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls
        self._watching: set[asyncio.Task[None]] = set()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - gRPC's name
        """Answer `Check`."""
        try:
            with self._calls.enter(context):
                return await super().Check(request, context)
        except BackpackError as error:
            await abort(context, error)

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - gRPC's name
        """Answer `Watch`."""
        try:
            with self._calls.enter(context):
                watch = asyncio.create_task(super().Watch(request, context))
                self._watching.add(watch)
                try:
                    await asyncio.wait([watch])
                finally:
                    watch.cancel()
                    self._watching.discard(watch)
                raise ShuttingDownError("the daemon is stopping")
        except BackpackError as error:
            await abort(context, error)

    async def close(self) -> None:
        """Tell watchers that the daemon stops, and end their calls: they would hold it up."""
        await self.enter_graceful_shutdown()
        for watch in self._watching:
            watch.cancel()


class Reflection:
    """The reflection service, by which tools learn the API from the daemon itself."""

    def __init__(self, calls: Calls, names: Sequence[str]) -> None:
        self._calls = calls
        # Typed as a coroutine by its stubs, and an async generator in fact.
        self._servicer: Any = reflection.ReflectionServicer(names)

    async def ServerReflectionInfo(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        """Answer `ServerReflectionInfo`."""
        try:
            with self._calls.enter(context):
                async for response in self._servicer.ServerReflectionInfo(requests, context):
                    yield response
        except BackpackError as error:
            await abort(context, error)


def add_standard(server: grpc.aio.Server, calls: Calls, names: Sequence[str]) -> Health:
    """Add both services to a server.

    Args:
        server: not yet started.
        calls: the guard.
        names: the full names of our own services.

    Returns:
        The health service, to be told when the daemon stops.
    """
    serving = Health(calls)
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    known = [*names, HEALTH, _REFLECTION]
    reflecting = Reflection(calls, known)
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server  # its stubs lack types
    add(reflecting, server)
    return serving
