"""The door on real sockets when it is crowded, and when the system runs out of something."""

import asyncio
import errno
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from backpackd.adapters.door import door as module
from backpackd.adapters.door import places
from backpackd.adapters.door.limits import (
    ACCEPTS_PER_TURN,
    JOBS_PER_TURN,
)
from backpackd.adapters.system.listener import Listener
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Peer
from doors import (
    PING,
    UID,
    Puppet,
    Setting,
    answer,
    at_end,
    call,
    first,
    highest_descriptor,
    send,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def small_places(monkeypatch: pytest.MonkeyPatch, *, per_tree: int, total: int) -> None:
    judge: Callable[..., Any] = places.judge

    def judged(tree: ProcessId, trees: Any) -> Any:
        return judge(tree, trees, per_tree=per_tree, total=total)

    monkeypatch.setattr(module, "judge", judged)


# --- limits


async def test_a_flood_by_one_tree_does_not_keep_another_tree_out(
    setting: Setting, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_places(monkeypatch, per_tree=100, total=20)
    door = await setting.open()
    for _ in range(60):
        setting.connect()
    await until(lambda: len(door.connections()) == 20)
    setting.trees[puppet.process.pid] = 2
    await puppet.tell("connect")
    await until(lambda: any(one.tree.pid == 2 for one in door.connections()))
    assert len(door.connections()) == 20


async def test_a_flood_of_open_calls_does_not_keep_another_tree_out(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_places(monkeypatch, per_tree=10, total=5)
    door = await setting.open()
    for number in range(1, 6):
        await setting.connected(door, first("Wait"))
        await until(lambda number=number: len(setting.played.calls) == number)  # type: ignore[misc]
    setting.trees[os.getpid()] = 2
    await setting.connected(door)
    assert sorted(one.tree.pid for one in door.connections()) == [1, 1, 1, 1, 2]


async def test_the_connection_that_was_idle_for_longest_makes_room(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_places(monkeypatch, per_tree=3, total=10)
    door = await setting.open()
    rows = [await setting.connected(door, first("Echo", b"x")) for _ in range(3)]
    for client, _ in rows:
        await answer(client)
    before = rows[0][1].active_at
    rows[0][0].send(PING)
    await until(lambda: rows[0][1].active_at > before)
    _, newest = await setting.connected(door)
    assert set(door.connections()) == {rows[0][1], rows[2][1], newest}
    assert await at_end(rows[1][0])


async def test_a_tree_with_a_call_on_every_connection_is_refused_another(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small_places(monkeypatch, per_tree=2, total=10)
    door = await setting.open()
    kept = []
    for number in range(1, 3):
        _, connection = await setting.connected(door, first("Wait"))
        kept.append(connection)
        await until(lambda number=number: len(setting.played.calls) == number)  # type: ignore[misc]
    assert await at_end(setting.connect())
    assert door.connections() == kept
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

    door = await setting.open(start=False, tree_of=tree_of)
    setting.trees[puppet.process.pid] = 2
    queue = 300
    for _ in range(queue):
        setting.connect()
    await puppet.tell("connect")
    door.start()
    await until(lambda: any(one.tree.pid == 2 for one in door.connections()))
    # What is done in the turns that it takes to empty the kernel's queue, and in one more.
    turns = queue // ACCEPTS_PER_TURN + 2
    assert examined.index(puppet.process.pid) <= JOBS_PER_TURN * turns


async def test_of_one_process_a_bounded_number_waits_to_be_let_in(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WAITING_OF_TREE", 20)
    door = await setting.open(start=False)
    for _ in range(400):
        setting.connect()
    most = 0
    take = door._shared.turns.take

    def watched(tree: Any, job: Any) -> bool:
        nonlocal most
        took = take(tree, job)
        most = max(most, door._shared.turns.waiting(tree))
        return took

    door._shared.turns.take = watched  # type: ignore[method-assign]
    door.start()
    await until(lambda: "too many wait" in caplog.text)
    assert most <= 20


# --- running out of descriptors


class Failing:
    """A listener whose accept fails as often as it is told to."""

    def __init__(self, listener: Listener, error: OSError, times: int) -> None:
        self._listener = listener
        self._error = error
        self.left = times

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> socket.socket:
        if self.left:
            self.left -= 1
            raise self._error
        return self._listener.accept()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_when_the_system_runs_out_the_door_makes_room_and_goes_on(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    door = await setting.open()
    idle, _ = await setting.connected(door)
    real = door._listeners[0]
    door._ignore_listeners()
    door._listeners = [Failing(real, OSError(number, "telltale"), 2)]  # type: ignore[list-item]
    door.start()
    client = setting.connect()
    assert await at_end(idle)
    await send(client, first("Echo", b"x"))
    assert (await answer(client)).data[5:] == b"x"
    assert caplog.messages == [f"refused to accept: {errno.errorcode[number]}"]


async def test_without_descriptors_left_connections_are_served_again_when_there_are_some(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    door = await setting.open()
    async with setting.channel() as channel:
        await call(channel, "Echo", b"x")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 4, hard))
        try:
            for _ in range(3):
                try:
                    setting.connect()
                except OSError:
                    break
            await asyncio.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client, _ = await setting.connected(door, first("Echo", b"again"))
        assert (await answer(client)).data[5:] == b"again"
