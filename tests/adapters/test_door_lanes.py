"""The door's lanes on real sockets: whose requests reach the server, and when."""

import asyncio
import gc
import os
import socket
import sys

import pytest

from backpackd.adapters.door.admission import Limits
from backpackd.adapters.door.budget import Budget
from backpackd.adapters.door.budget import Limits as BudgetLimits
from backpackd.adapters.door.door import Door
from backpackd.adapters.door.lanes import KEPT_BYTES, Lane
from backpackd.adapters.door.relay import Relay
from backpackd.adapters.door.requests import (
    FILLER_BYTES,
    MOST_WAITING,
    SHORT_RINSE,
    SPARE,
    SPARE_EACH_SECOND,
    SPARE_FOR_ANSWER,
    Requests,
)
from backpackd.ports import Connection
from doors import PING, REQUEST, Puppet, Setting, at_end, marked, received, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# Time alone makes no room here: the clock stands still.
LIMITS = Limits(busy=2)


def begin(stream: int) -> bytes:
    return b"\0\0\0\1\4" + stream.to_bytes(4, "big")


def data(stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + b"\0\0" + stream.to_bytes(4, "big") + payload


def end(stream: int) -> bytes:
    return b"\0\0\0\1\5" + stream.to_bytes(4, "big")


def server_of(setting: Setting, connection: Connection) -> socket.socket:
    return setting.server.ends[connection.name]


async def busy(setting: Setting, door: Door, *, taken_up: bool = True) -> tuple[Connection, int]:
    """Make one connection with two calls in progress and a third that waits."""
    client, connection = await setting.connected(door)
    client.send(begin(3) + begin(5) + PING)
    assert await received(server_of(setting, connection)) == marked(connection, begin(3)) + PING
    if taken_up:
        door.arrived(connection.mark)
        door.arrived(connection.mark)
    return connection, setting.clients.index(client)


async def test_a_request_too_many_waits_and_begins_when_a_call_ends(setting: Setting) -> None:
    door = await setting.open(call_limits=LIMITS)
    connection, _ = await busy(setting, door)
    server = setting.server.ends[connection.name]
    server.send(end(1))
    assert await received(server) == marked(connection, begin(5))


async def spends(client: socket.socket, server: socket.socket, frames: int) -> None:
    """Send so many frames that carry nothing, and see them arrive."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, PING * frames)
    left = len(PING) * frames
    while left:
        left -= len(await received(server))


async def test_who_sends_frames_that_carry_nothing_without_end_is_closed(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    await spends(client, server_of(setting, connection), SPARE)
    client.send(PING)
    assert await at_end(client)
    assert caplog.messages == ["refused a connection: too many frames that carry nothing"]


async def test_time_and_answers_allow_for_more_frames(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    server = server_of(setting, connection)
    await spends(client, server, SPARE)
    setting.clock.now += 2
    await spends(client, server, 2 * SPARE_EACH_SECOND)
    server.send(data(1, b"one") + data(1, b"two"))
    assert await received(client) == data(1, b"one") + data(1, b"two")
    await spends(client, server, 2 * SPARE_FOR_ANSWER)
    client.send(PING)
    assert await at_end(client)


@pytest.mark.parametrize("requests", [1, MOST_WAITING + 2])
async def test_a_connection_that_closes_in_the_middle_of_its_bytes_leaves_nothing_behind(
    setting: Setting, caplog: pytest.LogCaptureFixture, requests: int
) -> None:
    door = await setting.open(budget=Budget(BudgetLimits(per_connection=2000, total=10**6)))
    client, connection = await setting.connected(door)
    door.arrived(connection.mark)
    # What is too much is answered, and by then nobody is there any more.
    client.send(data(1, bytes(1000)) + data(1, bytes(1500)))
    client.send(b"".join(begin(stream) for stream in range(3, 3 + 2 * requests, 2)))
    client.close()
    await until(lambda: not door.connections())
    setting.clock.now += 10
    door._lanes.review()
    door._lanes.admission.expire(setting.clock.now)
    assert door._lanes.admission._trees == {}
    assert caplog.messages == []


async def test_a_tree_with_nothing_in_progress_is_served_while_another_waits(
    setting: Setting,
) -> None:
    door = await setting.open(call_limits=LIMITS)
    await busy(setting, door)
    setting.trees[os.getpid()] = 2
    await setting.connected(door)


async def began(setting: Setting, connection: Connection) -> bool:
    """Wait until the first request of a connection has reached the server."""
    got, expected = b"", marked(connection, REQUEST)
    while len(got) < len(expected):
        got += await received(server_of(setting, connection))
    return got == expected


async def test_a_connection_that_closes_gives_its_places_to_those_who_wait_in_time(
    setting: Setting,
) -> None:
    door = await setting.open(call_limits=LIMITS)
    first, _ = await busy(setting, door)
    client, second = await setting.connected(door, request=False)
    client.send(REQUEST)
    setting.server.ends[first.name].close()
    await until(lambda: door.find(first.name) is None)
    assert door._entries[second.name].calls == 1
    setting.clock.now += LIMITS.busy_seconds
    assert await began(setting, second)


async def test_requests_of_a_connection_that_closed_stand_in_the_servers_line_all_the_same(
    setting: Setting,
) -> None:
    door = await setting.open(call_limits=LIMITS)
    first, _ = await busy(setting, door, taken_up=False)
    client, second = await setting.connected(door, request=False)
    client.send(REQUEST)
    setting.server.ends[first.name].close()
    await until(lambda: door.find(first.name) is None)
    await until(lambda: door._entries[second.name].calls == 1)
    door.arrived(first.mark)
    assert await began(setting, second)


async def test_a_mark_that_nobody_has_frees_nothing(setting: Setting) -> None:
    door = await setting.open(call_limits=LIMITS)
    connection, _ = await busy(setting, door, taken_up=False)
    for mark in ("", "x", connection.mark[:-1]):
        door.arrived(mark)
    assert door._entries[connection.name].calls == 1


async def test_a_call_that_waits_for_a_person_lets_another_begin(setting: Setting) -> None:
    door = await setting.open(call_limits=LIMITS)
    connection, _ = await busy(setting, door)
    with connection.waiting():
        assert await received(server_of(setting, connection)) == marked(connection, begin(5))


async def test_requests_that_wait_are_read_so_far_and_no_further_and_none_is_lost(
    setting: Setting,
) -> None:
    # More than those without authority may send, which is not what this is about.
    door = await setting.open(call_limits=LIMITS, authorized=lambda _: True)
    connection, place = await busy(setting, door)
    client, server = setting.clients[place], setting.server.ends[connection.name]
    body = data(5, bytes(16 * 1024)) * 200
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, body))
    lane = door._entries[connection.name].lane
    await until(lambda: lane._requests.cost > KEPT_BYTES)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not sending.done()
    assert lane._requests.cost < KEPT_BYTES + 80 * 1024
    server.send(end(1))
    got = b""
    expected = marked(connection, begin(5)) + body
    while len(got) < len(expected):
        got += await received(server)
    await sending
    assert got == expected


async def test_a_connection_with_requests_that_wait_is_not_the_one_to_make_room(
    setting: Setting,
) -> None:
    door = await setting.open(call_limits=LIMITS)
    connection, _ = await busy(setting, door)
    assert door._entries[connection.name].calls == 1


async def test_rinsing_reaches_the_server_and_nobody_else(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    connection.rinse()
    got = b""
    while len(got) < SHORT_RINSE * (9 + FILLER_BYTES):
        got += await received(setting.server.ends[connection.name])
    assert len(got) == SHORT_RINSE * (9 + FILLER_BYTES)
    setting.server.ends[connection.name].send(PING)
    assert await received(client) == PING


async def test_rinsing_a_connection_that_closed_does_nothing(setting: Setting) -> None:
    door = await setting.open()
    _, connection = await setting.connected(door)
    setting.server.ends[connection.name].close()
    await until(lambda: not door.connections())
    connection.rinse()
    with connection.waiting():
        pass


async def test_a_peer_that_ends_while_its_requests_wait_leaves_nothing(
    setting: Setting, puppet: Puppet
) -> None:
    door = await setting.open(call_limits=LIMITS)
    connection, place = await busy(setting, door)
    await puppet.tell("connect")
    setting.clients[place].close()
    setting.server.ends[connection.name].close()
    await until(lambda: door.find(connection.name) is None)
    door._lanes.admission.expire(LIMITS.busy_seconds)
    assert door._lanes.admission._trees == {}
    assert door._lanes.admission._by_mark == {}
    assert not door._lanes.admission.waiting


def standing() -> int:
    """Count what the door keeps of connections, in use or not."""
    return sum(isinstance(one, Lane | Relay | Requests) for one in gc.get_objects())


async def test_a_closed_connection_and_what_waited_of_it_are_freed_at_once(
    setting: Setting,
) -> None:
    # Not by the collector: it stops the whole daemon while it looks for such things.
    door = await setting.open(call_limits=LIMITS)
    connection, _ = await busy(setting, door)
    gc.collect()
    gc.disable()
    try:
        before = standing()
        connection.close()
        del connection
        await asyncio.sleep(0)
        assert standing() == before - 3
    finally:
        gc.enable()
