"""The gRPC libraries that callers use, each behind the same small adapter, so that each is held to
the same behaviours.

A test says which calls it makes, all at once, and gets how each of them ended. Nothing here is
ours but the messages: what is sent is what the library makes of them.
"""

import asyncio
import base64
import json
import subprocess
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpclib.client
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from backpack_proto.standard import health_pb2, reflection_pb2
from backpack_proto.v1 import (
    backup_pb2,
    grants_pb2,
    keys_pb2,
    leases_pb2,
    policy_pb2,
    requests_pb2,
    vault_pb2,
)

GRPC_JS: Final = Path(__file__).parent / "e2e" / "grpc_js"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
_API: Final = (
    backup_pb2, grants_pb2, keys_pb2, leases_pb2, policy_pb2, requests_pb2, vault_pb2
)  # fmt: skip
_SERVICES: Final[dict[str, ServiceDescriptor]] = {
    service.full_name: service
    for file in _API
    for service in file.DESCRIPTOR.services_by_name.values()
} | {
    HEALTH: health_pb2.DESCRIPTOR.services_by_name["Health"],
    **dict.fromkeys(REFLECTION, reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]),
}


@dataclass(frozen=True)
class Ask:
    """One call.

    Attributes:
        method: `SERVICE/METHOD`; of `backpack.v1` where the service has no package.
        requests: of it; several only where requests are a stream.
        timeout: seconds until its deadline.
        cancel: when its caller takes it back: `metadata` or `message`, at the first of these.
    """

    method: str
    requests: Sequence[Message] = ()
    timeout: float | None = None
    cancel: str = ""

    @property
    def path(self) -> str:
        """The path that is sent."""
        return f"/{self.method}" if "." in self.method else f"/backpack.v1.{self.method}"

    @property
    def _described(self) -> MethodDescriptor | None:
        service, _, name = self.path[1:].partition("/")
        described = _SERVICES.get(service)
        return described.methods_by_name.get(name) if described else None

    @property
    def request_type(self) -> Any:
        """The class of requests. What does not exist takes and gives what `Status` does."""
        method = self._described
        return GetMessageClass(method.input_type) if method else vault_pb2.StatusRequest

    @property
    def response_type(self) -> Any:
        """The class of responses."""
        method = self._described
        return GetMessageClass(method.output_type) if method else vault_pb2.StatusResponse

    @property
    def streams(self) -> tuple[bool, bool]:
        """Whether requests are a stream, and responses."""
        method = self._described
        return (method.client_streaming, method.server_streaming) if method else (False, False)


@dataclass
class Ended:
    """How a call ended, as its library tells it.

    Attributes:
        status: the canonical name.
        responses: in order.
        initial: metadata that came ahead of them.
        trailing: metadata that came with the status.
    """

    status: str = ""
    message: str = ""
    responses: list[Any] = field(default_factory=list)
    initial: dict[str, str] = field(default_factory=dict)
    trailing: dict[str, str] = field(default_factory=dict)

    @property
    def failure(self) -> tuple[str, str]:
        """Its status and its reason."""
        return self.status, self.trailing.get("backpack-reason", "")


class GrpcClient(Protocol):
    """One library, with one connection."""

    def calls(self, asks: Sequence[Ask]) -> list[Ended]:
        """Make calls, all at once, and wait until all have ended."""

    def close(self) -> None:
        """Close the connection."""


_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def _kind(*streams: bool) -> str:
    return "_".join("stream" if each else "unary" for each in streams)


def _grpcio_kind(ask: Ask) -> str:
    """Name the kind of a call for grpcio.

    It tells what comes ahead of the one response of a call only together with that response. A call
    with a stream of responses is told it at once, and is the same on the wire.
    """
    many_requests, many_responses = ask.streams
    return _kind(many_requests, many_responses or ask.cancel == "metadata")


def _texts(metadata: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in metadata or ()}


class Grpcio:
    """grpcio with threads."""

    def __init__(self, path: Path) -> None:
        self._channel: Any = grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)

    def calls(self, asks: Sequence[Ask]) -> list[Ended]:
        """See `GrpcClient`."""
        return [self._ended(ask, call) for ask, call in [(ask, self._begun(ask)) for ask in asks]]

    def close(self) -> None:
        """See `GrpcClient`."""
        self._channel.close()

    def _begun(self, ask: Ask) -> Any:
        kind = _grpcio_kind(ask)
        method = getattr(self._channel, kind)(
            ask.path, ask.request_type.SerializeToString, ask.response_type.FromString
        )
        begin = method if kind.endswith("stream") else method.future
        requests = iter(ask.requests) if kind.startswith("stream") else ask.requests[0]
        return begin(requests, timeout=ask.timeout)

    @staticmethod
    def _ended(ask: Ask, call: Any) -> Ended:
        ended = Ended()
        with suppress(grpc.RpcError, grpc.FutureCancelledError):
            ended.initial = _texts(call.initial_metadata())
            if ask.cancel == "metadata":
                call.cancel()
            streams = _grpcio_kind(ask).endswith("stream")
            for response in call if streams else [call.result()]:
                ended.responses.append(response)
                if ask.cancel:
                    call.cancel()
        ended.status, ended.message = call.code().name, call.details()
        ended.trailing = _texts(call.trailing_metadata())
        return ended


class _Asynchronous:
    """A library for asyncio, in an event loop of its own that runs for as long as it is open."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._channel = self._run(connect())

    def calls(self, asks: Sequence[Ask]) -> list[Ended]:
        """See `GrpcClient`."""
        ended: list[Ended] = self._run(self._all(asks))
        return ended

    def close(self) -> None:
        """See `GrpcClient`."""
        self._run(self._disconnected())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _all(self, asks: Sequence[Ask]) -> list[Ended]:
        return await asyncio.gather(*map(self._ended, asks))

    async def _ended(self, ask: Ask) -> Ended:
        raise NotImplementedError

    async def _disconnected(self) -> None:
        closing = self._channel.close()
        if closing is not None:
            await closing


class GrpcAio(_Asynchronous):
    """grpcio with asyncio."""

    def __init__(self, path: Path) -> None:
        async def connect() -> Any:
            return grpc.aio.insecure_channel(f"unix:{path}", options=_OPTIONS)

        super().__init__(connect)

    async def _ended(self, ask: Ask) -> Ended:
        ended, kind = Ended(), _grpcio_kind(ask)
        method = getattr(self._channel, kind)(
            ask.path, ask.request_type.SerializeToString, ask.response_type.FromString
        )
        requests = iter(ask.requests) if kind.startswith("stream") else ask.requests[0]
        call = method(requests, timeout=ask.timeout)
        with suppress(grpc.RpcError, asyncio.CancelledError):
            ended.initial = _texts(await call.initial_metadata())
            if ask.cancel == "metadata":
                call.cancel()
            if kind.endswith("stream"):
                async for response in call:
                    ended.responses.append(response)
                    if ask.cancel:
                        call.cancel()
            else:
                ended.responses.append(await call)
        ended.status, ended.message = (await call.code()).name, await call.details()
        ended.trailing = _texts(await call.trailing_metadata())
        return ended


class Grpclib(_Asynchronous):
    """grpclib, which stands on the same HTTP/2 library as the daemon and on nothing of gRPC's."""

    _KINDS: Final = {
        (False, False): grpclib.client.UnaryUnaryMethod,
        (False, True): grpclib.client.UnaryStreamMethod,
        (True, False): grpclib.client.StreamUnaryMethod,
        (True, True): grpclib.client.StreamStreamMethod,
    }

    def __init__(self, path: Path) -> None:
        async def connect() -> Any:
            return grpclib.client.Channel(path=str(path))

        super().__init__(connect)

    async def _ended(self, ask: Ask) -> Ended:
        ended = Ended("OK")
        method = self._KINDS[ask.streams](
            self._channel, ask.path, ask.request_type, ask.response_type
        )
        opened: Any = method.open(timeout=ask.timeout)
        try:
            async with opened as stream:
                await stream.send_request()
                for request in ask.requests:
                    await stream.send_message(request)
                await stream.end()
                await self._read(ask, stream, ended)
        except GRPCError as error:
            ended.status, ended.message = error.status.name, error.message or ""
            # Of a failure that comes while it still sends, it shows the status and keeps the
            # rest to itself. So this is what has come.
            received = opened._stream.trailers or opened._stream.headers
            ended.trailing = _texts(received)
        except StreamTerminatedError as error:
            # Its word for a connection that ends; it ends one itself at the first GOAWAY.
            ended.status, ended.message = Status.UNAVAILABLE.name, str(error)
        except TimeoutError:
            # It watches over its deadlines by itself, and does not wait to be told.
            ended.status = Status.DEADLINE_EXCEEDED.name
        return ended

    @staticmethod
    async def _read(ask: Ask, stream: Any, ended: Ended) -> None:
        await stream.recv_initial_metadata()
        ended.initial = _texts(stream.initial_metadata.items())
        if ask.cancel != "metadata":
            while (response := await stream.recv_message()) is not None:
                ended.responses.append(response)
                if ask.cancel:
                    break
        if ask.cancel:
            await stream.cancel()
            ended.status = Status.CANCELLED.name


class GrpcJs:
    """@grpc/grpc-js, in a process of its own that is told what to call."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            ["node", str(GRPC_JS / "calls.js"), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def calls(self, asks: Sequence[Ask]) -> list[Ended]:
        """See `GrpcClient`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        json.dump([self._told(ask) for ask in asks], self._process.stdin)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline())
        return [self._ended(ask, answer) for ask, answer in zip(asks, answers, strict=True)]

    def close(self) -> None:
        """See `GrpcClient`."""
        self._process.communicate("")

    @staticmethod
    def _told(ask: Ask) -> dict[str, Any]:
        requests = [base64.b64encode(each.SerializeToString()).decode() for each in ask.requests]
        return {
            "path": ask.path,
            "kind": _kind(*ask.streams),
            "requests": requests,
            "timeout": ask.timeout,
            "cancel": ask.cancel,
        }

    @staticmethod
    def _ended(ask: Ask, answer: dict[str, Any]) -> Ended:
        read: Callable[[bytes], Any] = ask.response_type.FromString
        answer["responses"] = [read(base64.b64decode(each)) for each in answer["responses"]]
        return Ended(**answer)


GRPC_CLIENTS: Final[dict[str, Callable[[Path], GrpcClient]]] = {
    "grpcio": Grpcio,
    "grpc.aio": GrpcAio,
    "grpc-js": GrpcJs,
    "grpclib": Grpclib,
}
