"""Serves gRPC services in the test's own process, with whatever stands behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.core.states import State
from backpackd.ports import MARK, Connection, Peer
from backpackd.rpc.calls import Calls, Service
from backpackd.rpc.intake import Intake
from backpackd.rpc.standard import OpenCalls, add_standard
from fakes import GOOD_MARK, UID, World

Stream = grpc.aio.UnaryStreamCall[Any, Any]


def stranger() -> Connection:
    """Return a connection of nobody in particular."""
    process, _ = World().processes.pin(100)
    return Connection("name", Peer(UID, UID, process), ProcessId(100, 1), GOOD_MARK)


class Marking:
    """A channel whose calls carry a mark, as the door's relay would put it there.

    Attributes:
        marks: what each call carries; empty: nothing.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel: Any = channel
        self.marks: tuple[str, ...] = (GOOD_MARK,)

    def __getattr__(self, kind: str) -> Any:
        make = getattr(self._channel, kind)

        def method(*args: Any, **options: Any) -> Any:
            call = make(*args, **options)
            return lambda *request: call(
                *request, metadata=tuple((MARK, mark) for mark in self.marks)
            )

        return method


class Served:
    """A server under way.

    Attributes:
        calls: guards it.
        connection: what it takes every caller for; None: for nobody it knows.
        state: the vault's state as the guard sees it.
        channel: raw bytes in and out, marked.
        standard: the open calls of the standard services.
        taken_up: the marks of the requests that the server has taken up, in their order.
    """

    def __init__(self) -> None:
        self.connection: Connection | None = stranger()
        self.state = State.UNLOCKED
        self.calls = Calls(lambda _: self.connection, lambda: self.state)
        self.server = grpc.aio.server()
        self.channel: Any
        self.standard: OpenCalls
        self.taken_up: list[str] = []

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
    intake = Intake(served.taken_up.append)
    served.server.add_generic_rpc_handlers(
        [intake, *(served.calls.handler(service) for service in services)]
    )
    names = [service.descriptor.full_name for service in services]
    served.standard = add_standard(served.server, served.calls, names)
    address = f"unix:{directory}/s"
    served.server.add_insecure_port(address)
    await served.server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        served.channel = Marking(channel)
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
