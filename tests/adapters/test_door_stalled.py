"""A peer on a real socket that stops reading, and when the door gives it up."""

import asyncio
import socket
import sys

import pytest

from backpackd.adapters.door.door import Door
from backpackd.ports import Connection
from doors import PING, Setting, at_end, received, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

MORE_THAN_THE_KERNEL_TAKES = bytes(2 * 1024 * 1024)


async def stalled(setting: Setting, door: Door) -> tuple[socket.socket, Connection]:
    """Connect, and be sent more than is read."""
    client, connection = await setting.connected(door)
    server = setting.server.ends[connection.name]
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(loop.sock_sendall(server, MORE_THAN_THE_KERNEL_TAKES))
    # There is always more, until the test ends: what a test reads does not empty the relay.
    sending.add_done_callback(lambda done: done.cancelled() or done.exception())
    await until(lambda: door._entries[connection.name].relay.unread)
    return client, connection


async def test_who_does_not_read_is_closed_and_the_log_says_so(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    _, connection = await stalled(setting, door)
    relay = door._entries[connection.name].relay
    assert relay._patience is not None
    assert relay._patience.when() == pytest.approx(relay._moved_at + relay.patience, abs=5)
    relay._moved_at -= relay.patience
    relay._look_again()
    await until(lambda: door.find(connection.name) is None)
    assert caplog.messages == ["refused a connection: it does not read what it was sent"]


async def test_who_reads_slowly_but_reads_is_not_given_up(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await stalled(setting, door)
    relay = door._entries[connection.name].relay
    relay._moved_at -= 2 * relay.patience
    long_ago = relay._moved_at
    await received(client)
    while relay._moved_at == long_ago:
        await received(client)
    relay._look_again()
    assert door.find(connection.name) is connection
    await until(lambda: relay.unread)
    relay._moved_at -= 2 * relay.patience
    relay._look_again()
    assert door.find(connection.name) is None


async def test_dropping_what_is_unread_closes_those_and_no_others(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await stalled(setting, door)
    _, other = await setting.connected(door)
    door.drop_unread()
    assert door.connections() == (other,)
    taken = 0
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(client, 1 << 20):
        taken += len(piece)
    assert taken < len(MORE_THAN_THE_KERNEL_TAKES)


async def test_a_peer_that_has_read_all_is_left_alone(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    setting.server.ends[connection.name].send(PING)
    assert await received(client) == PING
    door.drop_unread()
    assert door.find(connection.name) is connection


async def test_a_connection_can_be_closed_by_whom_it_was_handed_to(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    connection.close()
    connection.close()
    assert await at_end(client)
    assert door.connections() == ()
