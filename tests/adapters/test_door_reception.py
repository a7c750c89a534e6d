"""The door's reception on real sockets: who waits, who does not, and what becomes of them."""

import asyncio
import os
import signal
import sys
from collections.abc import Hashable
from itertools import pairwise

import pytest

from backpackd.adapters.door import reception
from backpackd.adapters.door.admission import Limits as Calls
from backpackd.adapters.door.arrivals import Arrivals
from backpackd.adapters.door.arrivals import Limits as Lines
from backpackd.adapters.door.limits import Limits
from backpackd.adapters.door.reception import (
    OPENS_PER_TURN,
    REST_SECONDS,
    SPACE_SECONDS,
    Newcomer,
)
from backpackd.core.errors import TroubleError
from backpackd.core.facts import ProcessId
from backpackd.ports import Peer
from descriptors import descriptors
from doors import REQUEST, UID, Puppet, Setting, at_end, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


async def test_whoever_hangs_up_while_waiting_is_not_looked_at(
    setting: Setting, puppet: Puppet
) -> None:
    examined: list[int] = []

    def tree_of(peer: Peer) -> ProcessId:
        examined.append(peer.process.pid)
        return ProcessId(1, 0)

    door = await setting.open(start=False, tree_of=tree_of)
    for _ in range(5):
        setting.connect().close()
    await puppet.tell("connect")
    await door.start()
    await until(lambda: len(door.connections()) == 1)
    assert examined == [puppet.process.pid]


async def test_whoever_ends_while_waiting_is_refused(
    setting: Setting, puppet: Puppet, caplog: pytest.LogCaptureFixture
) -> None:
    # A child keeps the connection open; it did not connect.
    door = await setting.open(start=False)
    await puppet.tell("connect")
    await puppet.tell("fork")
    puppet.process.wait()
    await door.start()
    await until(lambda: caplog.messages != [])
    assert caplog.messages == ["refused a connection of a process that has ended"]
    assert door.connections() == ()


async def test_too_many_that_wait_are_refused_and_the_first_are_not(
    setting: Setting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "_limits", lambda: Lines(per_group=3, total=10))
    door = await setting.open(start=False)
    clients = [setting.connect() for _ in range(5)]
    await door.start()
    assert await at_end(clients[3])
    assert await at_end(clients[4])
    await until(lambda: len(door.connections()) == 3)
    assert caplog.messages == ["refused a connection: too many wait to be let in"]


async def test_a_foreign_user_is_refused_as_such_also_when_too_many_wait(
    setting: Setting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "_limits", lambda: Lines(per_group=0, total=0))
    await setting.open(uid=UID + 1)
    assert await at_end(setting.connect())
    assert caplog.messages == [f"refused a connection of uid {UID}"]


async def test_stopping_turns_away_those_who_wait(setting: Setting) -> None:
    door = await setting.open(start=False)
    clients = [setting.connect() for _ in range(5 * OPENS_PER_TURN)]
    before = descriptors()
    await door.start()
    while not door.connections():  # noqa: ASYNC110  # turn by turn: all of them is too many
        await asyncio.sleep(0)
    let_in = len(door.connections())
    assert let_in < len(clients)
    door.stop_accepting()
    # The lock of the socket file and its directory go with the listener, and that itself.
    assert len(before - descriptors()) >= 3
    assert len(descriptors() - before) == 4 * let_in
    ends = [one for one in clients[let_in:] if await at_end(one)]
    assert len(ends) == len(clients) - let_in


async def test_a_tree_that_is_full_is_not_looked_at_all_the_time(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[int] = []

    def tree_of(peer: Peer) -> ProcessId:
        examined.append(peer.process.pid)
        return ProcessId(1, 0)

    door = await setting.open(start=False, tree_of=tree_of, limits=Limits(per_tree=1))
    for _ in range(20):
        setting.connect()
    rests: list[float] = []
    rest = Arrivals.rest

    def noted(self: Arrivals[Newcomer], id: Hashable, until: float) -> None:  # noqa: A002  # as there
        rests.append(until)
        rest(self, id, until)

    monkeypatch.setattr(Arrivals, "rest", noted)
    await door.start()
    await until(lambda: len(examined) == 5)
    # The first one had room; after each of the others the line rested, by the loop's clock.
    assert len(rests) >= 3
    assert all(later - sooner >= 0.9 * REST_SECONDS for sooner, later in pairwise(rests))


async def test_while_requests_wait_connections_are_opened_one_at_a_time_and_spaced(
    setting: Setting,
) -> None:
    opened: list[float] = []

    def tree_of(peer: Peer) -> ProcessId:
        opened.append(asyncio.get_running_loop().time())
        return ProcessId(1, 0)

    door = await setting.open(start=False, tree_of=tree_of, call_limits=Calls(busy=0))
    setting.connect().send(REQUEST)
    await door.start()
    await until(lambda: door._lanes.admission.waiting)
    opened.clear()
    for _ in range(3 * OPENS_PER_TURN):
        setting.connect()
    await until(lambda: len(opened) == 3 * OPENS_PER_TURN)
    assert all(later - sooner >= 0.9 * SPACE_SECONDS for sooner, later in pairwise(opened))


async def test_what_fails_on_one_newcomer_does_not_keep_the_next_waiting(setting: Setting) -> None:
    tries: list[int] = []

    def tree_of(peer: Peer) -> ProcessId:
        tries.append(peer.process.pid)
        if len(tries) == 1:
            raise TroubleError("what nobody foresaw")
        return ProcessId(1, 0)

    door = await setting.open(start=False, tree_of=tree_of)
    first = setting.connect()
    setting.connect()
    await door.start()
    await until(lambda: len(door.connections()) == 1)
    assert await at_end(first)


async def test_a_process_whose_tree_became_known_while_it_waited_stands_with_that(
    setting: Setting, puppet: Puppet
) -> None:
    # Both are of one process group here, so at first they stand in one line.
    order: list[int] = []

    def tree_of(peer: Peer) -> ProcessId:
        order.append(peer.process.pid)
        return ProcessId(1 if peer.process.pid == os.getpid() else 2, 0)

    door = await setting.open(start=False, tree_of=tree_of)
    for _ in range(10):
        setting.connect()
    await puppet.tell("connect")
    await door.start()
    await until(lambda: len(door.connections()) == 11)
    assert order.index(puppet.process.pid) <= 2


async def test_a_stopped_peer_does_not_keep_others_waiting(
    setting: Setting, puppet: Puppet
) -> None:
    door = await setting.open(start=False)
    await puppet.tell("connect")
    puppet.process.send_signal(signal.SIGSTOP)
    try:
        setting.connect()
        await door.start()
        await until(lambda: len(door.connections()) == 2)
    finally:
        puppet.process.send_signal(signal.SIGCONT)
