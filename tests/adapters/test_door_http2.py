"""One connection under attack: floods of frames, bombs, stalled readers."""

import asyncio
import contextlib
import hashlib
import os
import socket

import pytest
from hpack import Encoder

from backpackd.adapters.door import http2
from backpackd.adapters.door.frames import Frames
from backpackd.adapters.door.limits import STREAMS, UNSENT
from doors import MIB, Answers, Setting, answer, asking, at_end, call, first, send, until
from flooding import START, begin, fields, frame, headers

PING, SETTINGS, DATA, RESET, CONTINUATION = 6, 4, 0, 3, 9
FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)),
    "ping answers": frame(PING, 1, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0, b""),
    "full settings": frame(SETTINGS, 0, 0, (b"\0\3" + bytes(4)) * 100),
    "empty data": frame(DATA, 0, 1, b""),
    "padded data": frame(DATA, 8, 1, b"\xff" + bytes(255)),
    "reset": frame(RESET, 0, 1, bytes(4)),
    "window": frame(8, 0, 0, b"\0\0\0\1"),
    "priority": frame(2, 0, 5, bytes(5)),
    "unknown": frame(0xF1, 0, 0, b""),
}


async def flood(client: socket.socket, data: bytes, times: int) -> bool:
    """Send until the other side has closed; False: it took everything."""
    with contextlib.suppress(OSError):
        for _ in range(times):
            await send(client, data)
            with contextlib.suppress(BlockingIOError):
                while client.recv(65536):
                    pass
        return False
    return True


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_million_frames_that_carry_nothing_close_the_connection_with_one_line(
    setting: Setting, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    waiting = START + begin(1, "/test/Wait")
    client, _ = await setting.connected(door, waiting)
    one = FLOODS[kind]
    assert await flood(client, one * 1000, 1000)
    assert door.connections() == []
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("refused a connection: ")
    async with setting.channel() as channel:
        assert await call(channel, "Echo", b"x") == b"x"


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_headers_that_never_end_close_the_connection(
    setting: Setting, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, first("Wait"))
    await until(lambda: len(setting.played.calls) == 1)
    await send(client, headers(3, fields("/test/Echo"), flags=0))
    assert await flood(client, frame(CONTINUATION, 0, 3, bytes(size)) * 100, 1000)
    assert door.connections() == []
    assert len(caplog.messages) == 1


async def test_resetting_every_request_at_once_closes_the_connection(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, START)

    def rapid(number: int) -> bytes:
        stream = 2 * number + 1
        return asking("Wait", stream=stream) + frame(RESET, 0, stream, bytes(4)) * 50

    with contextlib.suppress(OSError):
        for number in range(1000):
            await send(client, rapid(number))
    await until(lambda: not door.connections())
    await until(lambda: len(setting.played.ended) == len(setting.played.calls))
    assert not door._shared.turns._calls


async def test_calls_that_are_reset_hold_nothing(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, START)
    for number in range(500):
        stream = 2 * number + 1
        await send(client, asking("Wait", stream=stream) + frame(RESET, 0, stream, bytes(4)))
    await send(client, asking("Echo", b"x", stream=2001))
    assert (await Answers(client).ended(2001)).data[5:] == b"x"
    assert not connection.calls
    assert door._shared.budget.held == 0


async def test_more_calls_at_once_than_a_connection_may_have_close_it(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, START)
    for number in range(STREAMS + 1):
        with contextlib.suppress(OSError):
            await send(client, asking("Person", stream=2 * number + 1))
    assert await at_end(client)
    assert door.connections() == []
    await until(lambda: len(setting.played.ended) == len(setting.played.calls))


async def test_an_hpack_bomb_is_refused(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, START)
    encoder = Encoder()
    bomb = encoder.encode([*fields("/test/Echo").items(), ("x-bomb", "b" * 4000)])
    await send(client, frame(1, 4, 1, bomb))
    # One byte for each copy of 4 KB.
    await send(
        client, frame(1, 4, 3, encoder.encode(fields("/test/Echo").items()) + b"\xbe" * 9000)
    )
    assert await at_end(client)
    assert door.connections() == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "broken",
    [
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0, 7, b"x"),
        frame(CONTINUATION, 4, 1, b""),
        frame(1, 4, 2, b""),
        frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        frame(1, 4, 1, b"\xbf"),
        frame(SETTINGS, 0, 1, b""),
        frame(SETTINGS, 0, 0, b"12345"),
        frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
        frame(PING, 0, 0, b"1"),
        frame(8, 0, 0, bytes(4)),
        frame(5, 4, 1, bytes(4)),
        frame(1, 4, 1, b""),
        headers(1, {"x-first": "1"} | fields("/test/Echo")),
        headers(1, {name: text for name, text in fields("/x").items() if name != ":path"}),
        headers(1, fields("/test/Echo") | {"Upper": "case"}),
        headers(1, fields("/test/Echo") | {"connection": "close"}),
    ],
)
async def test_broken_http2_closes_the_connection_and_no_other(
    setting: Setting, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        assert await call(channel, "Echo", b"x") == b"x"
        client, _ = await setting.connected(door, START + broken)
        assert await at_end(client)
        assert await call(channel, "Echo", b"x") == b"x"
        assert len(door.connections()) == 1
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("seed", range(20))
async def test_random_bytes_disturb_nobody(setting: Setting, seed: int) -> None:
    door = await setting.open()
    rubbish = hashlib.shake_256(b"%d" % seed).digest(50_000)
    async with setting.channel() as channel:
        for begin_with in (b"", START, START + begin(1, "/test/Echo")):
            client, _ = await setting.connected(door)
            with contextlib.suppress(OSError):
                await send(client, begin_with + rubbish)
            client.shutdown(socket.SHUT_WR)
            assert await at_end(client)
        assert await call(channel, "Echo", b"x") == b"x"


async def test_a_goaway_of_the_client_leaves_its_calls_alone(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, first("Wait"))
    await until(lambda: len(setting.played.calls) == 1)
    await send(client, frame(7, 0, 0, bytes(8)))
    setting.played.go_on.set()
    assert (await answer(client)).data[5:] == b"done"


async def test_frames_in_small_pieces_are_frames(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door)
    for byte in first("Echo", b"bit by bit"):
        await send(client, bytes([byte]))
        await asyncio.sleep(0)
    assert (await answer(client)).data[5:] == b"bit by bit"


# --- those who do not read


def closed_windows(method: str, message: bytes) -> bytes:
    """Ask with a window of nothing for the answer."""
    request = first(method, message)
    return START + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + request[len(START) :]


async def test_a_reader_that_stalls_holds_up_nobody_and_costs_little(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    wide = frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x40\0\0\0")
    request = first("Many", b"10 2000000")
    await send(client, START + wide + request[len(START) :])
    await until(lambda: connection.unread)
    async with setting.channel() as channel:
        for _ in range(20):
            assert await call(channel, "Echo", b"x") == b"x"
    assert len(connection._unsent) <= UNSENT + 20_000 < MIB
    # It is sent on as soon as it is read, and arrives whole.
    got = await Answers(client).ended()
    assert len(got.data) == 10 * 2_000_005


async def test_many_calls_of_a_stalled_reader_share_one_bound(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    wide = frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x40\0\0\0")
    await send(client, START + wide)
    for number in range(50):
        await send(client, asking("Many", b"10 1000000", stream=2 * number + 1))
    await until(lambda: len(setting.played.calls) == 50)
    await until(lambda: len(connection._waiters) == 50)
    assert len(connection._unsent) <= UNSENT + 50_000


async def test_answers_to_frames_that_nobody_reads_stop_the_reading(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "UNSENT", 1000)
    door = await setting.open()
    client, connection = await setting.connected(door, first("Wait"))
    await until(lambda: len(setting.played.calls) == 1)
    monkeypatch.setattr(Frames, "_spend", lambda *_: None)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(frame(PING, 0, 0, bytes(8)) * 100)
            await asyncio.sleep(0)
    await until(lambda: len(connection._unsent) > 1000 and not connection._reading)
    assert len(connection._unsent) < 100_000
    # And it goes on when it is read.
    setting.played.go_on.set()
    assert (await answer(client)).data[5:] == b"done"


async def test_a_peer_that_takes_nothing_is_closed_after_a_while(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http2, "PATIENCE_SECONDS", 0.05)
    door = await setting.open()
    client, _ = await setting.connected(door, closed_windows("Echo", b"x"))
    await until(lambda: not door.connections())
    assert caplog.messages == ["refused a connection: it does not read what it was sent"]
    await until(lambda: len(setting.played.ended) == 1)
    client.close()


async def test_a_peer_that_takes_a_little_now_and_then_is_not_closed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "PATIENCE_SECONDS", 0.2)
    door = await setting.open()
    client, connection = await setting.connected(door, closed_windows("Echo", b"x" * 25))
    await until(lambda: connection.unread)
    for _ in range(30):
        await send(client, frame(8, 0, 1, b"\0\0\0\1"))
        await asyncio.sleep(0.02)
    assert (await answer(client)).data[5:] == b"x" * 25
    assert door.connections() == [connection]


async def test_what_was_not_taken_is_dropped_when_it_is_told_to(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, closed_windows("Echo", b"value"))
    reader, _ = await setting.connected(door, first("Echo", b"value"))
    await answer(reader)
    await until(lambda: connection.unread)
    door.drop_unread()
    assert connection not in door.connections()
    assert len(door.connections()) == 1
    got = b""
    with contextlib.suppress(OSError):
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            got += data
    assert b"value" not in got


@pytest.mark.parametrize("kind", ["one stream", "many streams"])
async def test_requests_that_were_read_are_served_when_the_peer_reads_on(
    setting: Setting, kind: str
) -> None:
    await setting.open()
    # All of it is read at once, and the peer sends nothing after it.
    client = setting.connect()
    streams = [1] if kind == "one stream" else list(range(1, 199, 2))
    message = frame(0, 0, 1, b"\0\0\0\0\x14" + b"m" * 20)
    requests = b""
    for stream in streams:
        requests += begin(stream, "/test/Repeat")
    for number in range(900):
        stream = streams[number % len(streams)]
        requests += message[:5] + stream.to_bytes(4, "big") + message[9:]
    requests += b"".join(frame(0, 1, stream, b"") for stream in streams)
    assert len(START + requests) < 64 * 1024
    wide = frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x7f\0\0\0")
    await send(client, START + wide + requests)
    answers = Answers(client)
    got = [await answers.ended(stream) for stream in streams]
    assert sum(len(one.data) for one in got) == 900 * 2005


async def test_a_stream_of_many_short_requests_is_no_flood(setting: Setting) -> None:
    await setting.open()
    client = setting.connect()
    await send(client, START + begin(1, "/test/Collect"))
    for size in (0, 1, 20):
        message = b"\0\0\0\0" + bytes([size]) + bytes(size)
        await send(client, frame(0, 0, 1, message) * 3000)
    await send(client, frame(0, 1, 1, b""))
    assert (await answer(client)).data[5:] == b"9000 63000"


async def test_two_hundred_mebibytes_through_a_slow_reader_arrive_as_they_were(
    setting: Setting,
) -> None:
    await setting.open(authorized=lambda _: True)
    count, size = 200, MIB
    async with setting.channel() as channel:
        stream = channel.unary_stream("/test/Many")(b"%d %d" % (count, size))
        number = 0
        async for message in stream:
            assert message == bytes([number % 256]) * size
            number += 1
            if number % 10 == 0:
                await asyncio.sleep(0.01)
    assert number == count


async def test_nothing_of_a_message_stays_in_a_connection_that_stays_open(
    setting: Setting,
) -> None:
    door = await setting.open(authorized=lambda _: True)
    secret = os.urandom(32)
    client, connection = await setting.connected(door, first("Echo", secret * 10))
    await Answers(client).ended()
    assert connection.frames._data == b""
    assert connection._unsent == b""
    assert not connection.calls
    assert len(connection._http2.incoming_buffer._data) == 0
    assert len(connection._http2._data_to_send) == 0
