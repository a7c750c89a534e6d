"""The door on real sockets, with methods that the tests play: the parts."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from hpack import Decoder

from backpackd.adapters.door.door import Door
from backpackd.adapters.door.http2 import Connection
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.adapters.system.listener import open_listener
from backpackd.core.errors import DeniedError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Call
from flooding import START, begin, frame

UID = os.geteuid()
MIB = 1024 * 1024
PING = frame(6, 0, 0, b"12345678")
PUPPET = """
import os, socket, sys
ends = []
for line in sys.stdin:
    words = line.split()
    if words[0] == "connect":
        end = socket.socket(socket.AF_UNIX)
        end.connect(sys.argv[1])
        ends.append(end)
    elif words[0] == "fork":
        if os.fork():
            os._exit(0)
    elif words[0] == "read":
        while ends[-1].recv(65536):
            pass
        print("end", flush=True)
        continue
    print("done", flush=True)
"""


@dataclass
class SetClock:
    now: float = 0

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@dataclass
class PlayedMethod:
    """Implements `ports.Method`."""

    work: Callable[[Call], Awaitable[None]]
    streaming: bool = False
    stays_open: bool = False
    longest: int = 8 * MIB

    async def serve(self, call: Call) -> None:
        await self.work(call)


class Played:
    """Methods of all kinds, by their paths.

    Attributes:
        calls: the calls that were served, in the order in which they began.
        ended: those that are over, however they ended.
        go_on: lets the calls of `/test/Wait` end.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ended: list[Call] = []
        self.go_on = asyncio.Event()
        self.methods = {
            "Echo": PlayedMethod(self._echo),
            "Small": PlayedMethod(self._echo, longest=1000),
            "Who": PlayedMethod(self._who),
            "Wait": PlayedMethod(self._wait),
            "Person": PlayedMethod(self._person),
            "Watch": PlayedMethod(self._watch, stays_open=True),
            "Many": PlayedMethod(self._many),
            "Collect": PlayedMethod(self._collect, streaming=True),
            "Chat": PlayedMethod(self._chat, streaming=True),
            "Repeat": PlayedMethod(self._repeat, streaming=True),
            "Deny": PlayedMethod(self._deny),
            "Break": PlayedMethod(self._break),
        }

    def find(self, path: bytes) -> PlayedMethod | None:
        method = self.methods.get(path.decode().removeprefix("/test/"))
        if method is None:
            return None

        async def noted(call: Call) -> None:
            self.calls.append(call)
            try:
                await method.serve(call)
            finally:
                self.ended.append(call)

        return PlayedMethod(noted, method.streaming, method.stays_open, method.longest)

    async def _echo(self, call: Call) -> None:
        await call.send(await call.receive() or b"", last=True)

    async def _who(self, call: Call) -> None:
        await call.receive()
        await call.send(b"%d" % call.connection.peer.process.pid, last=True)

    async def _wait(self, call: Call) -> None:
        await self.go_on.wait()
        await call.send(b"done", last=True)

    async def _person(self, call: Call) -> None:
        await call.announce("request-code", "K7QM")
        await call.announce("request-code", "again")
        await self.go_on.wait()
        await call.send(b"done", last=True)

    async def _watch(self, call: Call) -> None:
        await call.send(b"first")
        await asyncio.Event().wait()

    async def _many(self, call: Call) -> None:
        count, size = map(int, (await call.receive() or b"").split())
        for number in range(count):
            await call.send(bytes([number % 256]) * size)

    async def _collect(self, call: Call) -> None:
        count = size = 0
        while (message := await call.receive()) is not None:
            count += 1
            size += len(message)
        await call.send(b"%d %d" % (count, size), last=True)

    async def _chat(self, call: Call) -> None:
        while (message := await call.receive()) is not None:
            await call.send(message)

    async def _repeat(self, call: Call) -> None:
        while (message := await call.receive()) is not None:
            await call.send(message * 100)

    async def _deny(self, call: Call) -> None:
        await call.receive()
        raise DeniedError("no: 50 % of “it”", facts={"tree-pid": "7"})

    async def _break(self, _: Call) -> None:
        raise ValueError("telltale")


class Setting:
    """A door and what is around it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.clock = SetClock()
        self.played = Played()
        self.trees: dict[int, int] = {}
        self.doors: list[Door] = []
        self.clients: list[socket.socket] = []

    async def open(self, *, start: bool = True, **options: Any) -> Door:
        options = {
            "uid": UID,
            "pin": PidfdProcess,
            "tree_of": lambda peer: ProcessId(self.trees.get(peer.process.pid, 1), 0),
            "find": self.played.find,
            "clock": self.clock,
            **options,
        }
        door = Door([open_listener(self.path)], **options)
        self.doors.append(door)
        if start:
            door.start()
        return door

    def channel(self, **options: Any) -> Any:
        """Open a gRPC channel with a connection of its own."""
        further = [(f"grpc.{name}", value) for name, value in options.items()]
        longest = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        own = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.insecure_channel(f"unix:{self.path}", options=[*own, *longest, *further])

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.setblocking(False)
        client.connect(self.path)
        return client

    async def connected(self, door: Door, data: bytes = b"") -> tuple[socket.socket, Connection]:
        """Connect, and see to it that the door has let it in."""
        known = door.connections()
        client = self.connect()
        await until(lambda: any(one not in known for one in door.connections()))
        (connection,) = (one for one in door.connections() if one not in known)
        if data:
            await send(client, data)
        return client, connection


def asking(method: str, message: bytes = b"", *, stream: int = 1) -> bytes:
    """Make the frames of a unary request."""
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return begin(stream, f"/test/{method}") + frame(0, 1, stream, body)


def first(method: str, message: bytes = b"") -> bytes:
    """Make what a client sends that makes a request at once."""
    return START + asking(method, message)


async def call(channel: Any, method: str, message: bytes = b"", **options: Any) -> bytes:
    answer: bytes = await channel.unary_unary(f"/test/{method}")(message, **options)
    return answer


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


def highest_descriptor() -> int:
    return max(int(path.name) for path in Path("/dev/fd").iterdir())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110  # what is waited for has no event to it
        await asyncio.sleep(0.001)


async def received(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


@dataclass
class Answer:
    """What has come on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Answers:
    """Reads what a daemon sends on a connection that is written by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()
        self._bytes = b""
        self._streams: dict[int, Answer] = {}

    async def ended(self, stream: int = 1) -> Answer:
        """Read to the end of a stream."""
        while not (found := self._streams.setdefault(stream, Answer())).ended:
            data = await received(self._sock)
            assert data, "the connection was closed"
            self._bytes += data
            while len(self._bytes) >= 9 + (size := int.from_bytes(self._bytes[:3], "big")):
                self._take(self._bytes[3:9], self._bytes[9 : 9 + size])
                self._bytes = self._bytes[9 + size :]
        return found

    def _take(self, head: bytes, payload: bytes) -> None:
        answer = self._streams.setdefault(int.from_bytes(head[2:], "big"), Answer())
        if head[0] == 0:
            answer.data += payload
        elif head[0] == 1:
            answer.fields |= {str(name): str(text) for name, text in self._decoder.decode(payload)}
        answer.ended |= head[0] in (0, 1) and bool(head[1] & 1)


async def answer(sock: socket.socket) -> Answer:
    """Read the answer to a request on the first stream."""
    return await Answers(sock).ended()


async def at_end(sock: socket.socket) -> bool:
    """Wait for the end of the stream, whichever way it is told."""
    try:
        while await received(sock):
            pass
    except ConnectionResetError:
        pass
    return True


class Puppet:
    """A process that connects when it is told to."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUPPET, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def tell(self, command: str) -> str:
        return await asyncio.to_thread(self._tell, command)

    def _tell(self, command: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()
