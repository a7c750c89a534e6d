"""Serves gRPC services in the test's own process, with whatever stands behind them."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from backpackd.adapters.door.door import Door
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.adapters.system.listener import open_listener
from backpackd.core.errors import NotAuthorizedError, ProcessGoneError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.vault.states import State
from backpackd.ports import Connection
from backpackd.rpc.calls import Guard, Service, served_methods, snake_case
from backpackd.rpc.methods import METHODS
from backpackd.rpc.standard import standard_services
from doors import UID, SetClock
from fakes import PlayedCall, World

TREE = ProcessId(100, 1)


class Around:
    """What a guard asks and tells: vault, operators and deadlines in one.

    Attributes:
        state: the vault's state.
        authorized: whether connections have operator authority.
        noted: what was done after calls that succeeded.
    """

    def __init__(self) -> None:
        self.state = State.UNLOCKED
        self.authorized = True
        self.noted: list[str] = []

    def touch(self) -> None:
        self.noted.append("use")

    def review(self) -> None:
        self.noted.append("review")

    def require(self, _: Connection) -> None:
        if not self.authorized:
            raise NotAuthorizedError("authorize first")


class Served:
    """A server under way.

    Attributes:
        around: what the guard sees.
        guard: of its calls.
        door: through which they come.
        channel: raw bytes in and out.
    """

    def __init__(self, around: Around, guard: Guard, door: Door, channel: Any) -> None:
        self.around = around
        self.guard = guard
        self.door = door
        self.channel = channel

    async def unary(self, method: str, request: bytes = b"") -> bytes:
        response: bytes = await self.channel.unary_unary(f"/{method}")(request)
        return response

    def stream(self, method: str, request: bytes = b"") -> Any:
        return self.channel.unary_stream(f"/{method}")(request)


@asynccontextmanager
async def serving(directory: Path, *services: Service) -> AsyncIterator[Served]:
    """Serve services, and the standard ones, on a socket in a directory."""
    around = Around()
    played: Any = around
    guard = Guard(played, played, played)
    path = str(directory / "run" / "s")
    door = Door(
        [open_listener(path)],
        uid=UID,
        pin=PidfdProcess,
        tree_of=lambda _: TREE,
        find=served_methods(guard, [*services, *standard_services(services)]).get,
        clock=SetClock(),
    )
    door.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        yield Served(around, guard, door, channel)
    for connection in door.connections():
        connection.close()
    await door.close()


class Guarded:
    """A service behind its guard, called on connections: what a caller meets without gRPC."""

    def __init__(self, guard: Guard, service: Service) -> None:
        self._guard = guard
        self._service = service
        self._methods = {snake_case(one.name): one for one in service.descriptor.methods}

    def __getattr__(self, name: str) -> Any:
        method = self._methods[name]
        rules = METHODS[method.full_name]
        work = getattr(self._service, name)

        def admitted(connection: Connection, request: Any) -> PlayedCall:
            self._guard.admit(rules, connection)
            if not method.client_streaming:
                self._guard.admit_request(rules, connection, request)
            return PlayedCall(connection)

        async def unary(connection: Connection, request: Any) -> Any:
            answer = await work(admitted(connection, request), request)
            self._guard.succeeded(rules)
            return answer

        async def stream(connection: Connection, request: Any) -> AsyncIterator[Any]:
            first = True
            async with aclosing(work(admitted(connection, request), request)) as answers:
                async for answer in answers:
                    if first:
                        self._guard.succeeded(rules)
                        first = False
                    yield answer

        return stream if method.server_streaming else unary


def guarded(world: World, service: Service) -> Any:
    """Put a service of a world behind a guard."""
    return Guarded(Guard(world.vault, world.operators, world.deadlines), service)


def told(error: grpc.RpcError) -> tuple[str, str]:
    """Return status and reason of a failed call."""
    failed: Any = error
    metadata = dict(failed.trailing_metadata() or ())
    return failed.code().name, str(metadata.get("backpack-reason", ""))


def gone(*_: object) -> None:
    """Fail as attestation does when the peer has ended."""
    raise ProcessGoneError("gone")
