"""An agent that calls itself what starts programs for people: each of its tools is a root.

What is revoked from a tool is revoked from the agent, also when the tool has ended.
"""

from collections.abc import Awaitable, Callable

import pytest

from backpackd.core.errors import WaitingError
from fakes import GOOD, Gate, World, settled

AGENT, TOOL, LATER, SIBLING = 100, 101, 151, 200


async def granted() -> World:
    """Return a world with an agent that no terminal stands above, and a grant to everybody."""
    world = await World().stocked()
    await world.grant("*")
    for pid in (AGENT, TOOL):
        world.processes.change(pid, session=AGENT, unit="agent.service")
    world.processes.add(SIBLING)
    return world


def as_starter(world: World) -> int:
    """Have the agent call itself a terminal multiplexer: each of its tools is a root."""
    world.processes.change(AGENT, name="tmux: server")
    return TOOL


def as_starter_in_a_shell(world: World) -> int:
    """Have an agent in the shell of a terminal do the same."""
    world.processes.add(90)
    world.processes.change(90, session=90, terminal=5, executable="/bin/bash", name="bash")
    for pid in (AGENT, TOOL):
        world.processes.change(pid, session=90, terminal=5)
    world.processes.change(AGENT, parent=90)
    return as_starter(world)


async def a_lease_revoked(world: World) -> None:
    world.revocation.lease((await world.lease()).id, by=None)
    world.processes.kill(TOOL)


async def a_key_revoked(world: World) -> None:
    await world.get("K")
    world.revocation.key("K", by=None)
    world.processes.kill(TOOL)


async def a_key_revoked_afterwards(world: World) -> None:
    await world.get("K")
    world.processes.kill(TOOL)
    world.revocation.key("K", by=None)


async def all_revoked_afterwards(world: World) -> None:
    await world.get("K")
    world.processes.kill(TOOL)
    world.revocation.all(by=None)


async def the_tool_revoked(world: World) -> None:
    await world.get("K")
    world.revocation.tree(TOOL, by=None)
    world.processes.kill(TOOL)


async def panicked_afterwards(world: World) -> None:
    await world.get("K")
    world.processes.kill(TOOL)
    world.revocation.panic(by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)


@pytest.mark.parametrize("starter", [as_starter, as_starter_in_a_shell])
@pytest.mark.parametrize(
    "revoke",
    [
        a_lease_revoked,
        a_key_revoked,
        a_key_revoked_afterwards,
        all_revoked_afterwards,
        the_tool_revoked,
        panicked_afterwards,
    ],
)
async def test_an_agent_with_the_name_of_a_starter_does_not_get_back_what_its_tool_lost(
    starter: Callable[[World], int], revoke: Callable[[World], Awaitable[None]]
) -> None:
    world = await granted()
    assert world.access.attest(world.connect(starter(world))).root.id == world.tree(TOOL)
    await revoke(world)
    world.processes.add(LATER, parent=AGENT, session=AGENT)
    with pytest.raises(WaitingError):
        await world.get("K", pid=LATER)
    assert await world.get("K", pid=SIBLING) == {"K": b"k"}
    world.processes.kill(AGENT)
    assert world.live_leases._inside == {}


async def test_a_revocation_that_comes_under_way_means_the_tree_around_as_well() -> None:
    world = await granted()
    as_starter(world)
    gate = world.store.after_rows = Gate()
    task = world.asks("K", wait=0)
    await gate.reached()
    world.store.after_rows = None
    world.revocation.key("K", by=None)
    gate.open()
    (error,) = await settled(task)
    assert error.reason == "waiting-for-approval"
    world.processes.kill(TOOL)
    world.processes.add(LATER, parent=AGENT, session=AGENT)
    with pytest.raises(WaitingError):
        await world.get("K", pid=LATER)


async def test_of_a_tree_with_very_many_keys_inside_every_key_is_remembered() -> None:
    world = await granted()
    as_starter(world)
    names = [f"N{number}" for number in range(300)]
    await world.keys.put([(name, b"n") for name in names], by=None)
    for start in range(0, 300, 60):
        await world.get(*names[start : start + 60])
    origin = world.tree(AGENT)
    assert world.live_leases.had_inside("L") == [(origin, ("L",))]
    world.vault.lock(by=None)
    assert world.live_leases.had_inside() == []
    assert origin not in world.process_watches._held
