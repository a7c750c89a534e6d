"""The whole door before a real gRPC server, and those who try to get around it."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from backpackd.adapters.door.inner import InnerSocket, name_of_peer
from grpc import aio

from backpackd.adapters.door.door import Door
from backpackd.adapters.door.listener import open_listener
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.core.facts import ProcessId
from backpackd.ports import Connection

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")

ROOT = str(Path(__file__).parents[2])
NOBODY = 65534


class Monotonic:
    """Stands in for the boot clock."""

    def boot(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 0


class WhoAmI(grpc.GenericRpcHandler):
    """Answers with the pid behind the connection, as the door knows it, or refuses."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self.seen: list[Connection] = []

    def service(
        self,
        handler_call_details: grpc.HandlerCallDetails,  # noqa: ARG002  # the interface's
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def answer(request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
            assert self.door is not None
            name = name_of_peer(context.peer())
            connection = self.door.find(name) if name else None
            if connection is None:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown peer")
            with connection:
                self.seen.append(connection)
                return b"%d %d" % (connection.peer.process.pid, len(request))

        return grpc.unary_unary_rpc_method_handler(answer)


class Daemon:
    """A door, an inner socket and a gRPC server, as the composition root would put them."""

    def __init__(self, home: Path) -> None:
        self.path = str(home / "run" / "s")
        self.handler = WhoAmI()
        self.server = aio.server()
        self.server.add_generic_rpc_handlers((self.handler,))
        self.inner = InnerSocket.make(home)
        assert self.server.add_insecure_port(self.inner.address)
        self.inner.hide()
        self.door = self.handler.door = Door(
            [open_listener(self.path)],
            self.inner,
            uid=os.geteuid(),
            pin=PidfdProcess,
            tree_of=lambda peer: ProcessId(peer.process.pid, 0),
            clock=Monotonic(),
        )

    async def start(self) -> None:
        await self.server.start()
        await self.door.start()

    async def stop(self) -> None:
        self.door.stop_accepting()
        await self.server.stop(2)
        await self.door.close()
        self.inner.close()


def names_below(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def open_to_everybody(home: Path) -> None:
    for path, mode in ((home, 0o777), (home / "run", 0o777), (home / "run" / "s", 0o666)):
        path.chmod(mode)


@pytest.fixture
def home() -> Iterator[Path]:
    # Not below tmp_path: other users have no way through its parents.
    path = Path(tempfile.mkdtemp(prefix="door-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def daemon(home: Path) -> AsyncIterator[Daemon]:
    made = Daemon(home)
    await made.start()
    yield made
    await made.stop()


async def run(script: str, *args: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *args, stdout=subprocess.PIPE
    )
    return (await process.communicate())[0].decode()


async def call(channel: aio.Channel, request: bytes = b"") -> str:
    method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/who/am.I")
    return (await method(request)).decode()


async def emptied(door: Door) -> None:
    """Wait for the last connection to leave the table."""
    left = asyncio.Event()
    for connection in door.connections():
        connection.on_close.append(left.set)
        await left.wait()


async def test_a_call_arrives_with_the_pid_of_the_process_that_connected(daemon: Daemon) -> None:
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        assert await call(channel) == f"{os.getpid()} 0"


async def test_two_processes_are_told_apart(daemon: Daemon) -> None:
    script = """
import grpc, os, sys
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    print(os.getpid(), channel.unary_unary("/who/am.I")(b"").decode())
"""
    for line in await asyncio.gather(*(run(script, daemon.path) for _ in range(2))):
        own, told, _ = line.split()
        assert own == told


async def test_a_first_request_larger_than_the_byte_limit_before_it_is_served(
    daemon: Daemon,
) -> None:
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        assert await call(channel, bytes(1024 * 1024)) == f"{os.getpid()} {1024 * 1024}"


async def test_calls_in_progress_are_counted_on_their_connection(daemon: Daemon) -> None:
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        await call(channel)
        (connection,) = daemon.door.connections()
        assert daemon.handler.seen == [connection]
        assert connection.served
        assert connection.calls == 0


async def test_a_connection_that_the_client_closes_leaves_the_table(daemon: Daemon) -> None:
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        await call(channel)
    await emptied(daemon.door)
    assert daemon.door.connections() == ()


async def test_stopping_leaves_nothing_but_the_lock(home: Path) -> None:
    daemon = Daemon(home)
    await daemon.start()
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        await call(channel)
        await daemon.stop()
    assert daemon.door.connections() == ()
    assert names_below(home) == ["run", "s.lock"]


FOREIGNER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
try:
    sock.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
    print(repr(sock.recv(100)))
except (BrokenPipeError, ConnectionResetError):
    print("b''")
"""


@needs_root
async def test_a_foreign_uid_is_refused_though_the_modes_let_it_through(
    daemon: Daemon, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_to_everybody(home)
    assert await run(FOREIGNER, daemon.path) == "b''\n"
    assert caplog.messages == [f"refused a connection of uid {NOBODY}"]
    assert daemon.handler.seen == []


async def test_garbage_does_not_disturb_the_calls_of_others(daemon: Daemon) -> None:
    async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
        await call(channel)
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(4096),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(100_000),
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                client.connect(daemon.path)
                loop = asyncio.get_running_loop()
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(client, data)
                with contextlib.suppress(OSError):
                    while await loop.sock_recv(client, 65536):
                        pass
        assert await call(channel) == f"{os.getpid()} 0"


# The daemon runs as another user, as it does for everybody, and so does the neighbour: that is how
# far a process of the same user gets. Everything is imported before the user is changed, since the
# interpreter may lie where that user cannot read.
VICTIM = """
import asyncio, concurrent.futures.thread, ctypes, os, sys
sys.path[:0] = [{root!r}, {here!r}]
import grpc
from grpc import aio
from pathlib import Path
from test_door_attacks import Daemon, call
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(sys.argv[2]), 0, 0, 0)
async def main():
    daemon = Daemon(Path(sys.argv[1]))
    await daemon.start()
    async with aio.insecure_channel("unix:" + daemon.path) as channel:
        await call(channel)
        (connection,) = daemon.door.connections()
        print(os.getpid(), connection.name, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(len(daemon.handler.seen), flush=True)
        await daemon.stop()
asyncio.run(main())
"""

NEIGHBOUR = """
import ctypes, glob, os, socket, sys
CLONE_NEWNET = 0x40000000
pid, name, home = sys.argv[1:]
with open("/proc/self/net/unix") as file:
    table = file.read().splitlines()[1:]
assert any(line.endswith("@" + name) for line in table)
assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
os.setgroups([])
os.setgid(65534)
os.setuid(65534)

def ways():
    for line in table:
        fields = line.split(None, 7)
        if len(fields) == 8 and "inner" in fields[7]:
            yield fields[7]
    yield from (f"/proc/{pid}/fd/{fd}" for fd in range(128))
    yield from (f"/proc/{pid}/fd/{fd}/inner.sock" for fd in range(128))
    yield from (f"/proc/{pid}/root{home}/{each}" for each in ("inner.sock", "run/inner.sock"))
    yield from glob.glob(home + "/**/inner*", recursive=True)

tried = 0
for way in ways():
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\\0" + name)
    tried += 1
    try:
        sock.connect(way)
        sock.settimeout(20)
        print("reached", sock.recv(9).hex())
        break
    except OSError:
        sock.close()
else:
    print("nothing", tried)
"""


async def tried_by_a_neighbour(home: Path, dumpable: int) -> tuple[str, str]:
    os.chown(home, NOBODY, NOBODY)
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        VICTIM.format(root=ROOT, here=str(Path(__file__).parent)),
        str(home),
        str(dumpable),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert victim.stdout
    pid, name = (await victim.stdout.readline()).decode().split()
    outcome = await run(NEIGHBOUR, pid, name, str(home))
    calls, _ = await victim.communicate(b"\n")
    return outcome.strip(), calls.decode().strip()


@needs_root
async def test_a_neighbour_in_another_network_namespace_with_a_live_name_gets_nothing(
    home: Path,
) -> None:
    outcome, calls = await tried_by_a_neighbour(home, dumpable=0)
    assert outcome.startswith("nothing")
    assert int(outcome.split()[1]) > 256
    assert calls == "1"


@needs_root
async def test_the_neighbour_would_get_in_if_the_daemon_were_dumpable(home: Path) -> None:
    # Shows that the neighbour above knows the way, and that being undumpable is what bars it.
    outcome, _ = await tried_by_a_neighbour(home, dumpable=1)
    assert outcome.startswith("reached")


async def test_a_reader_that_stalls_does_not_hold_up_other_connections(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.setblocking(False)
        stalled.connect(daemon.path)
        await asyncio.get_running_loop().sock_sendall(
            stalled, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        )
        ping = (b"\0\0\x08\6\0\0\0\0\0" + bytes(8)) * 3000
        with contextlib.suppress(OSError):
            stalled.send(ping)
        async with aio.insecure_channel(f"unix:{daemon.path}") as channel:
            assert await call(channel) == f"{os.getpid()} 0"
