"""Serves gRPC services in the test's own process, with whatever stands behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.core.states import State
from backpackd.ports import Connection, Peer
from backpackd.rpc.calls import Calls, Service
from backpackd.rpc.standard import OpenCalls, add_standard
from fakes import UID, World

Stream = grpc.aio.UnaryStreamCall[Any, Any]


def stranger() -> Connection:
    """Return a connection of nobody in particular."""
    process, _ = World().processes.pin(100)
    return Connection("name", Peer(UID, UID, process), ProcessId(100, 1))


class Served:
    """A server under way.

    Attributes:
        calls: guards it.
        connection: what it takes every caller for; None: for nobody it knows.
        state: the vault's state as the guard sees it.
        channel: raw bytes in and out.
        standard: the open calls of the standard services.
    """

    def __init__(self) -> None:
        self.connection: Connection | None = stranger()
        self.state = State.UNLOCKED
        self.calls = Calls(lambda _: self.connection, lambda: self.state)
        self.server = grpc.aio.server()
        self.channel: grpc.aio.Channel
        self.standard: OpenCalls

    async def unary(self, method: str, request: bytes = b"") -> bytes:
        call: Any = self.channel.unary_unary(f"/{method}")
        response: bytes = await call(request)
        return response

    def stream(self, method: str, request: bytes = b"") -> Any:
        call: Any = self.channel.unary_stream(f"/{method}")
        return call(request)


@asynccontextmanager
async def serving(directory: Path, *services: Service) -> AsyncIterator[Served]:
    """Serve services, and the standard ones, on a socket in a directory."""
    served = Served()
    served.server.add_generic_rpc_handlers([served.calls.handler(service) for service in services])
    names = [service.descriptor.full_name for service in services]
    served.standard = add_standard(served.server, served.calls, names)
    address = f"unix:{directory}/s"
    served.server.add_insecure_port(address)
    await served.server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as served.channel:
        yield served
        await served.server.stop(None)


def told(error: grpc.RpcError) -> tuple[str, str]:
    """Return status and reason of a failed call."""
    failed: Any = error
    metadata = dict(failed.trailing_metadata() or ())
    return failed.code().name, str(metadata.get("backpack-reason", ""))


def gone(*_: object) -> None:
    """Fail as attestation does when the peer has ended."""
    raise ProcessGoneError("gone")
