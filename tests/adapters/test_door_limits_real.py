"""The door on real sockets: limits, floods, and stopping."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import sys
from itertools import pairwise

import pytest

from backpackd.adapters.door.limits import Limits
from backpackd.adapters.door.listener import Listener
from backpackd.adapters.door.reception import ACCEPTS_PER_TURN, OPENS_PER_TURN
from backpackd.core.facts import ProcessId
from backpackd.ports import Peer
from doors import (
    PING,
    UID,
    Puppet,
    Setting,
    at_end,
    highest_descriptor,
    received,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# --- limits


async def test_a_flood_by_one_tree_does_not_keep_another_tree_out(
    setting: Setting, puppet: Puppet
) -> None:
    door = await setting.open(limits=Limits(per_tree=100, total=20))
    for _ in range(60):
        setting.connect()
    await until(lambda: len(setting.server.ends) == 60)
    assert len(door.connections()) == 20
    setting.trees[puppet.process.pid] = 2
    await puppet.tell("connect")
    await until(lambda: any(one.tree.pid == 2 for one in door.connections()))
    assert len(door.connections()) == 20


async def test_a_flood_of_open_calls_does_not_keep_another_tree_out(setting: Setting) -> None:
    door = await setting.open(limits=Limits(per_tree=10, total=5))
    for _ in range(5):
        _, connection = await setting.connected(door)
        connection.__enter__()
    setting.trees[os.getpid()] = 2
    await setting.connected(door)
    assert sorted(one.tree.pid for one in door.connections()) == [1, 1, 1, 1, 2]


async def test_the_connection_that_was_idle_for_longest_makes_room(setting: Setting) -> None:
    door = await setting.open(limits=Limits(per_tree=3, total=10))
    rows = []
    for _ in range(3):
        setting.clock.now += 1
        rows.append(await setting.connected(door))
    setting.clock.now += 1
    rows[0][0].send(PING)
    await received(setting.server.ends[rows[0][1].name])
    _, newest = await setting.connected(door)
    assert door.connections() == (rows[0][1], rows[2][1], newest)
    assert await at_end(rows[1][0])


async def test_a_tree_with_a_call_on_every_connection_is_refused_another(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open(limits=Limits(per_tree=2, total=10))
    kept = []
    for _ in range(2):
        _, connection = await setting.connected(door)
        connection.__enter__()
        kept.append(connection)
    assert await at_end(setting.connect())
    assert door.connections() == tuple(kept)
    assert caplog.messages == ["refused a connection: too many connections of one process tree"]


async def test_a_flood_of_refusals_is_one_line_in_the_log(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open(uid=UID + 1)
    for _ in range(200):
        assert await at_end(setting.connect())
    assert caplog.messages == [f"refused a connection of uid {UID}"]
    await door.close()
    assert caplog.messages[1:] == [f"refused a connection of uid {UID}, 199 more times"]


async def test_a_process_that_fills_the_queue_is_examined_a_few_times_before_another_gets_in(
    setting: Setting, puppet: Puppet
) -> None:
    examined: list[int] = []

    def tree_of(peer: Peer) -> ProcessId:
        examined.append(peer.process.pid)
        return ProcessId(setting.trees.get(peer.process.pid, 1), 0)

    door = await setting.open(start=False, tree_of=tree_of, limits=Limits(per_tree=4))
    setting.trees[puppet.process.pid] = 2
    queue = 300
    for _ in range(queue):
        setting.connect()
    await puppet.tell("connect")
    await door.start()
    await until(lambda: any(one.tree.pid == 2 for one in door.connections()))
    # What is done in the turns that it takes to empty the kernel's queue, and in one more.
    turns = queue // ACCEPTS_PER_TURN + 2
    assert examined.index(puppet.process.pid) <= OPENS_PER_TURN * turns


async def test_a_process_that_connects_again_and_again_is_not_refused(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open(limits=Limits(per_tree=4))
    for _ in range(20):
        client, connection = await setting.connected(door, request=False)
        client.close()
        setting.server.ends[connection.name].close()
        await until(lambda: not door.connections())
    assert caplog.messages == []


async def test_connections_are_taken_in_batches_so_that_the_loop_gets_its_turn(
    setting: Setting,
) -> None:
    await setting.open()
    for _ in range(3 * OPENS_PER_TURN):
        setting.connect()
    seen = [0]
    while seen[-1] < 3 * OPENS_PER_TURN:
        await asyncio.sleep(0)
        seen.append(len(setting.server.ends))
    assert max(after - before for before, after in pairwise(seen)) <= OPENS_PER_TURN


async def test_out_of_descriptors_the_door_gives_up_an_idle_connection_and_does_not_spin(
    setting: Setting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await setting.open()
    _, idle = await setting.connected(door)
    _, busy = await setting.connected(door)
    busy.__enter__()
    tries: list[int] = []
    accept = Listener.accept

    def starved(self: Listener) -> socket.socket:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return accept(self)

    monkeypatch.setattr(Listener, "accept", starved)
    monkeypatch.setattr("backpackd.adapters.door.reception.PAUSE_SECONDS", 1000)
    setting.connect()
    await until(lambda: door.find(idle.name) is None)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(tries) == 1
    assert door.connections() == (busy,)
    resume = door._reception._resume
    assert resume is not None
    resume.cancel()
    door._reception._go_on()
    await until(lambda: len(door.connections()) == 2)
    assert caplog.messages == ["refused to accept: EMFILE"]


@pytest.mark.parametrize("spare", [0, 1, 2, 3])
async def test_really_out_of_descriptors_the_door_survives_and_recovers(
    setting: Setting, caplog: pytest.LogCaptureFixture, spare: int
) -> None:
    door = await setting.open()
    for _ in range(4):
        setting.connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 9, hard))
    hoard: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.dup(0))
        for _ in range(spare):
            os.close(hoard.pop())
        await until(lambda: door._reception.paused)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in hoard:
            os.close(fd)
    assert "EMFILE" in caplog.text
    await until(lambda: len(door.connections()) > 0)


async def test_shutting_down_during_a_pause_does_not_come_back_to_life(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(self: Listener) -> socket.socket:
        raise OSError(errno.ENFILE, "too many open files")

    monkeypatch.setattr(Listener, "accept", starved)
    door = await setting.open()
    setting.connect()
    await until(lambda: door._reception.paused)
    door.stop_accepting()
    assert not door._reception.paused


# --- shutdown


async def test_stopping_refuses_newcomers_at_once_and_keeps_what_is_open(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    door.stop_accepting()
    door.stop_accepting()
    with pytest.raises(FileNotFoundError):
        setting.connect()
    client.send(PING)
    assert await received(setting.server.ends[connection.name]) == PING


async def test_closing_flushes_what_the_server_sent(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    server = setting.server.ends[connection.name]
    answer = os.urandom(1024 * 1024)

    async def answering() -> None:
        await asyncio.get_running_loop().sock_sendall(server, answer)
        server.close()

    async def reading() -> bytes:
        got = b""
        while piece := await received(client):
            got += piece
        return got

    tasks = [asyncio.create_task(one) for one in (answering(), reading())]
    await asyncio.sleep(0)
    await door.close()
    assert (await asyncio.gather(*tasks))[1] == answer
    assert door.connections() == ()


async def test_closing_tells_a_server_that_still_runs_and_delivers_its_last_words(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    server = setting.server.ends[connection.name]
    closing = asyncio.create_task(door.close())
    assert await received(server) == b""
    await asyncio.get_running_loop().sock_sendall(server, b"last words")
    server.close()
    await closing
    assert await received(client) == b"last words"


async def test_closing_does_not_wait_for_a_peer_that_takes_nothing(setting: Setting) -> None:
    door = await setting.open()
    _, connection = await setting.connected(door)
    called: list[int] = []
    connection.on_close.append(lambda: called.append(1))
    await door.close(grace=0.01)
    assert door.connections() == ()
    assert called == [1]


async def test_closing_without_connections_is_immediate_and_harmless_twice(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    door = await setting.open()
    await door.close()
    await door.close()
    assert caplog.records == [one for one in caplog.records if one.name == "asyncio"]
