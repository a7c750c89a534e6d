"""The door on real sockets, in front of servers that the tests play themselves: the parts."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backpackd.adapters.door.door import Door
from backpackd.adapters.door.listener import open_listener
from backpackd.adapters.door.marks import field as marks_field
from backpackd.adapters.door.marks import last_headers
from backpackd.adapters.door.opening import PREFACE
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.core.facts import ProcessId
from backpackd.ports import MARK, Connection

UID = os.geteuid()
REQUEST = PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\1\4\0\0\0\1"
PING = b"\0\0\x08\6\0\0\0\0\0" + b"12345678"
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
        print(ends[-1].recv(100).hex() or "end", flush=True)
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
class PlayedServer:
    """Stands in for the inner socket; the test holds the server's ends."""

    ends: dict[str, socket.socket] = field(default_factory=dict)
    failure: OSError | None = None

    def connect(self) -> tuple[socket.socket, str]:
        if self.failure:
            raise self.failure
        door, server = socket.socketpair()
        door.setblocking(False)
        server.setblocking(False)
        name = f"backpack-{len(self.ends):032x}"
        self.ends[name] = server
        return door, name


class Setting:
    """A door and what is around it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.clock = SetClock()
        self.server = PlayedServer()
        self.trees: dict[int, int] = {}
        self.doors: list[Door] = []
        self.clients: list[socket.socket] = []

    async def open(self, *, start: bool = True, **options: Any) -> Door:
        options = {
            "uid": UID,
            "pin": PidfdProcess,
            "tree_of": lambda peer: ProcessId(self.trees.get(peer.process.pid, 1), 0),
            "clock": self.clock,
            **options,
        }
        door = Door([open_listener(self.path)], self.server, **options)
        self.doors.append(door)
        if start:
            await door.start()
        return door

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.setblocking(False)
        client.connect(self.path)
        return client

    async def connected(self, door: Door, request: bool = True) -> tuple[socket.socket, Connection]:
        """Connect, and see to it that the door has let it in."""
        known = door.connections()
        client = self.connect()
        await until(lambda: any(one not in known for one in door.connections()))
        (connection,) = (one for one in door.connections() if one not in known)
        if request:
            await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await received(self.server.ends[connection.name])
        return client, connection


def marked(connection: Connection, request: bytes) -> bytes:
    """Return what the server gets of bytes that end with an empty HEADERS frame."""
    frame = request[-9:]
    mark = marks_field(MARK, connection.mark)
    last = last_headers(int.from_bytes(frame[5:], "big"), mark)
    return request[:-9] + frame[:4] + bytes((frame[4] & ~4,)) + frame[5:] + last


def highest_descriptor() -> int:
    return max(int(path.name) for path in Path("/dev/fd").iterdir())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110  # what is waited for has no event to it
        await asyncio.sleep(0.001)


async def received(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


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
