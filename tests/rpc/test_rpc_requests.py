"""The service Requests: what is listed and told is what a person is to see, and no more."""

import asyncio
from typing import Any

import pytest

from backpack_proto.v1 import requests_pb2
from backpackd.core.errors import RequestChangedError, WaitingError
from backpackd.ports import Connection
from backpackd.rpc.services.requests import MOST_SHOWN_BYTES, RequestsService
from fakes import World
from served import guarded

EVERYTHING = requests_pb2.ListRequestsRequest(all=True)


async def served() -> tuple[World, Any]:
    world = await World().stocked()
    service = RequestsService(
        world.vault, world.approvals, world.access, world.operators, world.clock
    )
    return world, guarded(world, service)


def operator(world: World) -> Connection:
    connection = world.connect()
    world.operators.admit(connection)
    return connection


async def ask(world: World, name: str, pid: int) -> None:
    with pytest.raises(WaitingError):
        await world.get(name, pid=pid)


async def test_a_request_is_listed_with_what_runs_now_and_approved_as_it_was_shown() -> None:
    world, service = await served()
    person = operator(world)
    await ask(world, "K", 101)
    (before,) = (await service.list_requests(person, EVERYTHING)).requests
    world.processes.exec(100, "/usr/bin/python3")
    world.clock.pass_(1)
    (now,) = (await service.list_requests(person, EVERYTHING)).requests
    shown = [listed.chain[1].executable for listed in (before, now)]
    assert shown == ["/usr/bin/agent", "/usr/bin/python3"]

    async def approve(revision: int) -> None:
        await service.approve_request(
            person, requests_pb2.ApproveRequestRequest(code=now.code, revision=revision)
        )

    with pytest.raises(RequestChangedError):
        await approve(before.revision)
    await approve(now.revision)


async def test_who_watches_its_own_tree_hears_nothing_of_others() -> None:
    world, service = await served()
    world.processes.add(200)
    watch: Any = service.watch_requests(world.connect(), requests_pb2.WatchRequestsRequest())
    assert not (await anext(watch)).requests
    news = asyncio.ensure_future(anext(watch))
    for name in ("K", "L"):
        await ask(world, name, 200)
        for _ in range(10):
            await asyncio.sleep(0)
    assert not news.done()
    await ask(world, "K", 101)
    (shown,) = (await news).requests
    assert shown.chain[0].pid == 101
    await watch.aclose()


async def test_who_watches_everything_hears_of_each_change_once() -> None:
    world, service = await served()
    watch: Any = service.watch_requests(
        operator(world), requests_pb2.WatchRequestsRequest(all=True)
    )
    assert not (await anext(watch)).requests
    task = world.asks("K")
    await world.waiting()
    assert [shown.waiting for shown in (await anext(watch)).requests] == [1]
    world.processes.exec(100, "/usr/bin/python3")
    world.clock.pass_(1)
    world.approvals.look(world.approvals.pending())
    assert (await anext(watch)).requests[0].chain[1].executable == "/usr/bin/python3"
    world.approvals.close()
    assert not (await anext(watch)).requests
    await asyncio.wait([task])
    await watch.aclose()


async def test_requests_of_long_chains_with_long_names_do_not_outgrow_an_answer() -> None:
    world, service = await served()
    person = operator(world)
    for tree in range(32):
        for depth in range(60):
            pid = 1000 + 100 * tree + depth
            # Names that take four bytes a character.
            path = "/" + "\U00020000" * 250
            world.processes.add(pid, parent=pid - 1 if depth else 1, executable=path)
        for name in range(8):
            await ask(world, f"N{name}", pid)
    assert len(world.approvals.pending()) == 256
    answer = await service.list_requests(person, EVERYTHING)
    assert 8 <= len(answer.requests) < 256
    assert answer.ByteSize() < 2 * MOST_SHOWN_BYTES
    first = answer.requests[0].code
    await service.deny_request(person, requests_pb2.DenyRequestRequest(code=first))
    again = (await service.list_requests(person, EVERYTHING)).requests
    assert first not in {each.code for each in again}
