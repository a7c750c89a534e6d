"""The relay, on real sockets, against an unhurried reader and a stubborn one."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from backpackd.adapters.door.relay import BUFFER_BYTES, Relay

MIB = 1024 * 1024


@dataclass
class Line:
    """A relay with the far ends of its two sockets: a peer and a server."""

    relay: Relay
    peer: socket.socket
    server: socket.socket
    closed: list[int] = field(default_factory=list)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    peer, outer = socket.socketpair()
    server, inner = socket.socketpair()
    for end in (peer, outer, server, inner):
        end.setblocking(False)
    closed: list[int] = []
    relay = Relay(outer, inner, clock=lambda: 7, on_close=lambda: closed.append(1))
    relay.start()
    yield Line(relay, peer, server, closed)
    relay.close()
    peer.close()
    server.close()


async def received(sock: socket.socket, size: int = 65536) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, size)


async def sent(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def everything(sock: socket.socket) -> bytes:
    data = b""
    while piece := await received(sock):
        data += piece
    return data


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def fill(sock: socket.socket, most: int) -> int:
    """Send until the kernel takes no more."""
    count = 0
    try:
        while count < most:
            count += sock.send(bytes(64 * 1024))
    except BlockingIOError:
        pass
    return count


async def test_bytes_go_both_ways(line: Line) -> None:
    await sent(line.peer, b"to the server")
    assert await received(line.server) == b"to the server"
    await sent(line.server, b"to the peer")
    assert await received(line.peer) == b"to the peer"


@pytest.mark.parametrize("way", ["to the server", "to the peer"])
async def test_200_mib_through_a_slow_reader_arrive_unchanged(line: Line, way: str) -> None:
    source, sink = (line.peer, line.server) if way == "to the server" else (line.server, line.peer)
    block = bytes(range(256)) * 4096 + b"so that no block begins where a piece does"
    total, most = 0, 0
    wanted, got = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for _ in range(200):
            wanted.update(block)
            await sent(source, block)
        source.shutdown(socket.SHUT_WR)

    sending = asyncio.create_task(send())
    size = 1
    while piece := await received(sink, size):
        got.update(piece)
        total += len(piece)
        most = max(most, line.relay.buffered)
        size = size * 7 % 99_991 + 1
        if total % 3 == 0:
            await asyncio.sleep(0)
    await sending
    assert total == 200 * len(block)
    assert got.digest() == wanted.digest()
    assert 64 * 1024 < most <= BUFFER_BYTES + 64 * 1024


@pytest.mark.parametrize("way", ["to the server", "to the peer"])
async def test_a_stalled_reader_costs_about_one_mib(line: Line, way: str) -> None:
    source = line.peer if way == "to the server" else line.server
    taken, idle = 0, 0
    while idle < 50:
        more = fill(source, 200 * MIB - taken)
        taken += more
        idle = 0 if more else idle + 1
        await asyncio.sleep(0)
    assert taken < 2 * MIB
    assert line.relay.buffered <= BUFFER_BYTES + 64 * 1024


async def test_single_bytes_to_a_stalled_server_do_not_pile_up_as_objects(line: Line) -> None:
    stuck = line.relay._to_server
    fill(stuck.sink, MIB)
    for _ in range(200):
        line.peer.send(b"x")
        await turns(3)
    assert len(stuck.pieces) == 64
    assert stuck.size == 64


async def test_a_peer_that_sends_no_more_still_gets_its_answer(line: Line) -> None:
    await sent(line.peer, b"question")
    line.peer.shutdown(socket.SHUT_WR)
    assert await everything(line.server) == b"question"
    await sent(line.server, b"answer")
    line.server.close()
    assert await everything(line.peer) == b"answer"


async def test_what_waits_for_the_server_goes_out_before_its_end_of_stream(line: Line) -> None:
    count = 0
    while more := fill(line.peer, 2 * MIB):
        count += more
        await turns()
    line.peer.shutdown(socket.SHUT_WR)
    assert len(await everything(line.server)) == count


async def test_the_end_of_stream_waits_for_the_last_few_bytes_before_it(line: Line) -> None:
    fill(line.relay._to_server.sink, MIB)
    line.peer.send(b"tail")
    line.peer.shutdown(socket.SHUT_WR)
    await turns()
    assert (await everything(line.server)).endswith(b"tail")


async def test_a_server_that_closes_ends_the_connection_after_its_last_byte(line: Line) -> None:
    data = bytes(MIB)
    sending = asyncio.create_task(sent(line.server, data))
    sending.add_done_callback(lambda _: line.server.close())
    assert len(await everything(line.peer)) == len(data)
    assert line.closed == [1]


async def test_a_peer_that_vanishes_ends_the_connection_when_the_server_answers(
    line: Line,
) -> None:
    line.peer.close()
    assert await everything(line.server) == b""
    await sent(line.server, b"answer")
    await turns()
    assert line.closed == [1]


async def test_closing_twice_tells_once_and_stops_both_ends(line: Line) -> None:
    line.relay.close()
    line.relay.close()
    assert line.closed == [1]
    assert await everything(line.peer) == b""
    assert await everything(line.server) == b""


async def test_a_gate_sees_the_bytes_before_the_server_does(line: Line) -> None:
    seen: list[bytes] = []

    def gate(data: bytes) -> bytes | None:
        seen.append(data)
        return data if len(seen) < 2 else None

    line.relay.gate = gate
    await sent(line.peer, b"let through")
    assert await received(line.server) == b"let through"
    await sent(line.peer, b"not")
    assert await everything(line.server) == b""
    assert seen == [b"let through", b"not"]
    assert line.closed == [1]


async def test_the_gate_does_not_see_what_the_server_sends(line: Line) -> None:
    line.relay.gate = lambda _: None
    await sent(line.server, b"greeting")
    assert await received(line.peer) == b"greeting"


async def test_finishing_takes_no_more_from_the_peer_and_flushes_what_the_server_sent(
    line: Line,
) -> None:
    await sent(line.server, b"last words")
    line.relay.finish()
    line.peer.send(b"ignored")
    assert await everything(line.server) == b""
    line.server.close()
    assert await received(line.peer) == b"last words"
    await turns()
    assert line.closed == [1]


async def test_every_arrival_is_stamped_with_the_clock(line: Line) -> None:
    times: Iterator[int] = iter([11, 12])
    clock: Callable[[], float] = lambda: next(times)  # noqa: E731  # a clock of two moments
    line.relay._clock = clock
    await sent(line.peer, b"x")
    await received(line.server)
    assert line.relay.active_at == 11
    await sent(line.server, b"x")
    await received(line.peer)
    assert line.relay.active_at == 12
