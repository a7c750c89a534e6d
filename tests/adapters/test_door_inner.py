"""The socket between the door and a real gRPC server."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from grpc import aio

from backpackd.adapters.door.inner import InnerSocket, name_of_peer
from backpackd.adapters.door.relay import Relay
from backpackd.core.errors import HomeError
from descriptors import descriptors

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
HEX = "0123456789abcdef" * 2


class Echo(grpc.GenericRpcHandler):
    """Answers every call with what the server takes the peer for."""

    def service(
        self,
        handler_call_details: grpc.HandlerCallDetails,  # noqa: ARG002  # the interface's
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        async def answer(request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
            return context.peer().encode()

        return grpc.unary_unary_rpc_method_handler(answer)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


Serve = Callable[[InnerSocket], Awaitable[aio.Server]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[aio.Server] = []

    async def start(inner: InnerSocket) -> aio.Server:
        server = aio.server()
        servers.append(server)
        server.add_generic_rpc_handlers((Echo(),))
        assert server.add_insecure_port(inner.address)
        inner.hide()
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop(0)


async def peer_as_seen(sock: socket.socket, tmp_path: Path) -> str:
    """Call through `sock`: a gRPC channel makes its own sockets, so bytes are carried over."""
    path = str(tmp_path / "front")
    relays: list[Relay] = []
    with socket.socket(socket.AF_UNIX) as front:
        front.bind(path)
        front.listen()
        front.setblocking(False)

        async def bridge() -> None:
            outer, _ = await asyncio.get_running_loop().sock_accept(front)
            relays.append(Relay(outer, sock, clock=lambda: 0, on_close=lambda: None))
            relays[0].start()

        bridging = asyncio.create_task(bridge())
        async with aio.insecure_channel(f"unix:{path}") as channel:
            method: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a/b")
            answer = await method(b"")
        await bridging
        relays[0].close()
    return answer.decode()


@linux_only
async def test_the_server_sees_the_one_time_name(serve: Serve, tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    await serve(inner)
    sock, name = inner.connect()
    assert name_of_peer(await peer_as_seen(sock, tmp_path)) == name
    inner.close()


@linux_only
async def test_names_differ_from_connection_to_connection(serve: Serve, tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    await serve(inner)
    ends = [inner.connect() for _ in range(50)]
    assert len({name for _, name in ends}) == 50
    for sock, _ in ends:
        sock.close()
    inner.close()


@linux_only
async def test_nothing_of_it_is_left_in_the_file_system(serve: Serve, tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    await serve(inner)
    assert names_in(tmp_path) == []
    inner.close()


@linux_only
def test_the_directory_is_private_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    inner = InnerSocket.make(tmp_path)
    os.umask(before)
    (directory,) = tmp_path.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    inner.close()
    assert list(tmp_path.iterdir()) == []


@linux_only
async def test_it_works_below_a_path_longer_than_a_socket_address(
    serve: Serve, tmp_path: Path
) -> None:
    within = tmp_path / ("d" * 200)
    within.mkdir()
    inner = InnerSocket.make(within)
    await serve(inner)
    sock, name = inner.connect()
    assert name_of_peer(await peer_as_seen(sock, tmp_path)) == name
    inner.close()


@linux_only
def test_it_is_reached_while_the_process_is_undumpable(tmp_path: Path) -> None:
    script = f"""
import asyncio, ctypes, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from grpc import aio
from backpackd.adapters.door.inner import InnerSocket
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
async def main():
    server = aio.server()
    inner = InnerSocket.make({str(tmp_path)!r})
    server.add_insecure_port(inner.address)
    inner.hide()
    await server.start()
    sock, name = inner.connect()
    sock.setblocking(True)
    print(len(sock.recv(9)))
    sock.close()
    await server.stop(0)
    inner.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "9\n", done.stderr


@linux_only
def test_a_socket_of_another_process_in_its_place_is_refused(tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    (directory,) = tmp_path.iterdir()
    script = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind("inner.sock")
sock.listen()
print("ready", flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as planted:
        assert planted.stdout is not None
        planted.stdout.readline()
        with pytest.raises(HomeError, match="another process listens"):
            inner.hide()
        planted.communicate("\n")
    inner.close()


@linux_only
def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    (directory,) = tmp_path.iterdir()
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / "elsewhere"))
        ours.listen()
        (directory / "inner.sock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(HomeError):
            inner.hide()
    inner.close()


@linux_only
def test_a_server_that_did_not_bind_is_told(tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    with pytest.raises(HomeError, match="did not bind"):
        inner.hide()
    inner.close()


@linux_only
async def test_a_stopping_server_unlinks_nothing_of_somebody_elses(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    inner = InnerSocket.make(tmp_path / "inside")
    server = await serve(inner)
    # grpcio looks at the address again when it stops. Whatever directory got the descriptor's
    # number by then would lose its socket; held open, the number is nobody else's.
    other = os.open(tmp_path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "inner.sock"))
        await server.stop(0)
        assert (tmp_path / "inner.sock").exists()
    os.close(other)
    inner.close()


@linux_only
async def test_closing_gives_every_descriptor_back(tmp_path: Path) -> None:
    before = descriptors()
    inner = InnerSocket.make(tmp_path)
    with socket.socket(socket.AF_UNIX) as stand_in:
        stand_in.bind(inner.address.removeprefix("unix:"))
        stand_in.listen()
        inner.hide()
        inner.connect()[0].close()
    inner.close()
    inner.close()
    assert descriptors() <= before


@linux_only
def test_a_server_that_takes_no_more_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    inner = InnerSocket.make(tmp_path)
    with socket.socket(socket.AF_UNIX) as stand_in:
        stand_in.bind(inner.address.removeprefix("unix:"))
        stand_in.listen(3)
        inner.hide()
        # A queue of n holds one more, and the probe of `hide` waits in it as well.
        ends = [inner.connect()[0] for _ in range(3)]
        with pytest.raises(OSError, match="temporarily unavailable"):
            inner.connect()
    for end in ends:
        end.close()
    inner.close()


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="cannot make a directory"):
        InnerSocket.make(tmp_path / "missing")


async def test_on_macos_the_ends_are_path_names_in_the_private_directory(
    serve: Serve, tmp_path: Path
) -> None:
    tmp = Path("/tmp") / f"door-{os.getpid()}-{os.urandom(4).hex()}"
    tmp.mkdir(mode=0o700)
    inner = InnerSocket.make(tmp, platform="darwin")
    server = await serve(inner)
    sock, name = inner.connect()
    assert name_of_peer(await peer_as_seen(sock, tmp_path), platform="darwin") == name
    assert [p.name for p in next(tmp.iterdir()).iterdir()] == ["inner.sock"]
    await server.stop(0)
    inner.close()
    tmp.rmdir()


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "unix:",
        "unix:/tmp/backpack-" + HEX,
        "unix-abstract:",
        "unix-abstract:backpack-",
        "unix-abstract:backpack-" + HEX[:-1],
        "unix-abstract:backpack-" + HEX + "0",
        "unix-abstract:backpack-" + HEX + "\n",
        "unix-abstract:backpack-" + HEX.upper(),
        "unix-abstract:backpack-" + "٣" * 32,
        "unix-abstract: backpack-" + HEX,
        "unix-abstract:xbackpack-" + HEX,
        "Unix-Abstract:backpack-" + HEX,
        "unix-abstract:%00backpack-" + HEX,
        "ipv4:127.0.0.1:80",
        "backpack-" + HEX,
    ],
)
def test_a_peer_of_any_other_form_has_no_name(peer: str) -> None:
    assert name_of_peer(peer, "linux") is None


def test_a_peer_of_the_form_has_its_name() -> None:
    assert name_of_peer("unix-abstract:backpack-" + HEX, "linux") == "backpack-" + HEX


def test_on_macos_the_name_is_the_whole_path() -> None:
    path = "/private/x/inner-1/backpack-" + HEX
    assert name_of_peer("unix:" + path, "darwin") == path
    assert name_of_peer("unix:backpack-" + HEX, "darwin") is None
    assert name_of_peer("unix-abstract:backpack-" + HEX, "darwin") is None
