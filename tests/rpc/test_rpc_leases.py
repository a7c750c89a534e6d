"""The service Leases: who watches hears of its own tree, and only while it is in it."""

import asyncio

import pytest

from backpack_proto.v1 import leases_pb2
from backpackd.core.errors import PeerUnknownError
from backpackd.rpc.services.leases import LeasesService
from fakes import World
from served import guarded


async def test_a_watch_tells_nothing_of_a_tree_that_its_caller_has_left() -> None:
    world = await World().stocked()
    await world.grant("K")
    service = guarded(
        world,
        LeasesService(
            world.vault,
            world.access,
            world.operators,
            world.clock,
            live_leases=world.live_leases,
            revocation=world.revocation,
            reading=world.reading,
        ),
    )
    watch = service.watch_leases(world.connect(101), leases_pb2.WatchLeasesRequest())
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    world.processes.reparent(101, 1)
    world.processes.add(102, parent=100)
    await world.get("K", pid=102)
    with pytest.raises(PeerUnknownError):
        await waiting
