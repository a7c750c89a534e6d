"""Prohibition is for the whole chain: no root that the caller moves leads out of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from backpackd.core.access.decision import applicable
from backpackd.core.access.policy import Policy, make_rule
from backpackd.core.access.requests import MOST_OF_CHAIN, MOST_OF_TREE
from backpackd.core.errors import DeniedError, LimitError, WaitingError
from fakes import GOOD, World, settled, turns

AGENT, TOOL, SHELL, INNER, ORPHAN, SIBLING = 100, 101, 111, 112, 140, 200
LEFTOVERS = "agent.service"


async def granted() -> World:
    """Return a world with an agent that no terminal stands above, and a grant to everybody."""
    world = await World().stocked()
    await world.grant("*")
    world.processes.change(AGENT, session=AGENT, unit=LEFTOVERS)
    world.processes.change(TOOL, session=AGENT, unit=LEFTOVERS)
    world.processes.add(SIBLING)
    return world


def on_a_terminal(world: World) -> int:
    """Have the agent start a tool on a terminal of its own, as `script -qec` does."""
    world.processes.add(110, parent=AGENT, session=AGENT)
    world.processes.add(SHELL, parent=110, session=SHELL, terminal=5)
    world.processes.add(INNER, parent=SHELL, session=SHELL, terminal=5)
    return INNER


def as_leader(world: World) -> int:
    """Have the agent lead the session of a terminal, and call itself a shell."""
    world.processes.change(AGENT, session=AGENT, terminal=5, name="bash")
    return TOOL


def below_a_setuid_program(world: World) -> int:
    """Have the agent execute a setuid program that waits for the tool."""
    world.processes.change(AGENT, uid=0, executable=None)
    return TOOL


def below_a_false_manager(world: World) -> int:
    """Have the agent, an orphan, call itself what service managers are called."""
    world.processes.change(AGENT, manager=True, name="systemd")
    return TOOL


def below_a_setuid_program_on_a_terminal(world: World) -> int:
    world.processes.change(AGENT, uid=0, executable=None)
    return on_a_terminal(world)


MOVES = [
    on_a_terminal,
    as_leader,
    below_a_setuid_program,
    below_a_false_manager,
    below_a_setuid_program_on_a_terminal,
]
Move = Callable[[World], int]


async def revoked(world: World) -> None:
    world.revocation.lease((await world.lease()).id)


async def refused(world: World, pid: int = TOOL) -> None:
    asks = world.asks("K", pid=pid)
    world.approvals.deny((await world.waiting()).code)
    (error,) = await settled(asks)
    assert error.reason == "refused-by-operator"


@pytest.mark.parametrize("move", MOVES)
async def test_what_was_revoked_stays_revoked_wherever_the_root_is(move: Move) -> None:
    world = await granted()
    await revoked(world)
    pid = move(world)
    assert world.access.attest(world.connect(pid)).root.id != world.tree(AGENT)
    with pytest.raises(WaitingError):
        await world.get("K", pid=pid)
    assert await world.get("K", pid=SIBLING) == {"K": b"k"}
    assert await world.get("L", pid=pid) == {"L": b"l"}


@pytest.mark.parametrize("move", MOVES)
async def test_also_where_the_policy_allows_everything_and_in_listings(move: Move) -> None:
    world = await granted()
    await world.vault_policy.replace(Policy(default="allow"))
    await revoked(world)
    pid = move(world)
    with pytest.raises(WaitingError):
        await world.get("K", pid=pid)
    assert [head.name for head in await world.access.listed(world.connect(pid))] == ["L"]


@pytest.mark.parametrize("move", MOVES)
async def test_who_was_refused_does_not_ask_again_from_another_root(move: Move) -> None:
    world = await World().stocked()
    world.processes.change(AGENT, session=AGENT)
    await refused(world)
    with pytest.raises(DeniedError) as caught:
        await world.get("K", pid=move(world))
    assert caught.value.reason == "refused-by-operator"
    assert world.approvals.pending() == []


async def test_a_refusal_ends_the_questions_of_trees_inside() -> None:
    world = await World().stocked()
    inner = world.asks("K", pid=on_a_terminal(world))
    request = await world.waiting()
    outer = world.asks("K")
    await turns(lambda: len(world.approvals.pending()) == 2)
    (own,) = [one for one in world.approvals.pending() if one is not request]
    world.approvals.deny(own.code)
    errors = await settled(inner, outer)
    assert [error.reason for error in errors] == ["refused-by-operator"] * 2


@pytest.mark.parametrize("rule", ["exe:/usr/bin/agent", "sha256", "unit:agent.service"])
@pytest.mark.parametrize("move", [on_a_terminal, as_leader, below_a_false_manager])
async def test_a_rule_denies_below_every_process_that_it_means(move: Move, rule: str) -> None:
    world = await granted()
    if rule == "sha256":
        rule = f"sha256:{world.processes.digest(world.tree(AGENT), '/usr/bin/agent')}"
    await world.vault_policy.replace(Policy(deny=(make_rule(["K"], rule),)))
    pid = move(world)
    # What is inside has left the unit, as `systemd-run --scope` does.
    world.processes.change(pid, unit="run-1.scope")
    with pytest.raises(DeniedError) as caught:
        await world.get("K", pid=pid)
    assert caught.value.reason == "denied-by-rule"
    assert await world.get("K", pid=SIBLING) == {"K": b"k"}


async def test_a_grant_reaches_no_further_than_the_tree() -> None:
    world = await World().stocked()
    await world.grant("K", to="exe:/usr/bin/agent")
    facts = world.access.attest(world.connect(on_a_terminal(world)))
    assert applicable(facts, world.access.rules(world.vault.session())) == []


def an_orphan(world: World, **facts: object) -> int:
    given = {"session": AGENT, "unit": "run-1.scope", **facts}
    world.processes.add(ORPHAN)
    world.processes.change(ORPHAN, **given)
    return ORPHAN


def an_orphan_on_a_terminal(world: World) -> int:
    an_orphan(world, session=ORPHAN, unit=LEFTOVERS)
    world.processes.add(141, parent=ORPHAN, session=141, terminal=6)
    return 141


ORPHANS = {
    "same session": an_orphan,
    "setsid in the same unit": partial(an_orphan, session=ORPHAN, unit=LEFTOVERS),
    "setsid and a terminal of its own": an_orphan_on_a_terminal,
}
each_orphan = pytest.mark.parametrize("leave", ORPHANS.values(), ids=list(ORPHANS))


@each_orphan
async def test_an_orphan_is_asked_about_while_the_revoked_root_lives(leave: Move) -> None:
    world = await granted()
    await revoked(world)
    orphan = leave(world)
    with pytest.raises(WaitingError):
        await world.get("K", pid=orphan)
    assert await world.get("K", pid=SIBLING) == {"K": b"k"}
    assert await world.get("L", pid=orphan) == {"L": b"l"}
    world.processes.kill(AGENT)
    assert await world.get("K", pid=orphan) == {"K": b"k"}


@each_orphan
async def test_an_orphan_is_asked_about_after_revoking_a_tree_that_had_nothing(leave: Move) -> None:
    world = await granted()
    world.revocation.tree(AGENT)
    with pytest.raises(WaitingError):
        await world.get("K", pid=leave(world))


@each_orphan
async def test_an_orphan_gets_what_a_person_allows_it(leave: Move) -> None:
    world = await granted()
    await revoked(world)
    asks = world.asks("K", pid=leave(world))
    world.approvals.approve((await world.waiting()).code, once=False, root_pid=0)
    assert await asks == {"K": b"k"}


async def test_an_orphan_that_is_granted_its_own_tree_keeps_it() -> None:
    world = await granted()
    await revoked(world)
    orphan = an_orphan(world)
    await world.grant("K", to=f"tree:{orphan}")
    assert await world.get("K", pid=orphan) == {"K": b"k"}


@each_orphan
async def test_an_orphan_is_refused_what_was_refused_to_its_tree(leave: Move) -> None:
    world = await World().stocked()
    world.processes.change(AGENT, session=AGENT, unit=LEFTOVERS)
    world.processes.change(TOOL, session=AGENT, unit=LEFTOVERS)
    await refused(world)
    await world.grant("K")
    with pytest.raises(DeniedError) as caught:
        await world.get("K", pid=leave(world))
    assert caught.value.reason == "refused-by-operator"


@each_orphan
async def test_an_orphan_of_what_a_rule_denies_is_asked_about(leave: Move) -> None:
    world = await granted()
    rule = make_rule(["K"], "exe:/usr/bin/agent")
    await world.vault_policy.replace(Policy(deny=(rule, make_rule(["L"], "exe:/usr/bin/other"))))
    orphan = leave(world)
    with pytest.raises(DeniedError):
        await world.get("K")
    await world.opened_again()
    with pytest.raises(WaitingError):
        await world.get("K", pid=orphan)
    assert await world.get("L", pid=orphan) == {"L": b"l"}
    await world.vault_policy.replace(Policy())
    assert await world.get("K", pid=orphan) == {"K": b"k"}


async def test_nothing_is_remembered_of_what_a_rule_for_everybody_denies() -> None:
    world = await granted()
    await world.vault_policy.replace(Policy(deny=(make_rule(["K"], ""),)))
    with pytest.raises(DeniedError):
        await world.get("K")
    assert world.approvals.consents.trees() == set()


async def test_what_runs_under_the_same_terminal_program_is_no_orphan_of_it() -> None:
    world = await granted()
    world.processes.add(300, unit="terminal.service", session=300)
    for shell, agent in ((310, 311), (320, 321)):
        world.processes.add(shell, parent=300, session=shell, terminal=shell)
        world.processes.add(shell + 2, parent=shell, session=shell, terminal=shell)
        world.processes.add(agent, parent=shell, session=shell, terminal=shell)
    world.revocation.lease((await world.lease(pid=311)).id)
    with pytest.raises(WaitingError):
        await world.get("K", pid=311)
    for pid in (312, 321):
        assert await world.get("K", pid=pid) == {"K": b"k"}


SIBLINGS: dict[str, dict[str, object]] = {
    "in its session": {"session": 310, "terminal": 310},
    "with setsid": {"session": 313},
    "in another unit": {"session": 313, "unit": "run-1.scope"},
}
each_sibling = pytest.mark.parametrize("facts", SIBLINGS.values(), ids=list(SIBLINGS))


async def in_a_shell(world: World) -> None:
    """Have an agent run in a shell, and another command beside it that is older."""
    world.processes.add(310, session=310, terminal=310)
    for pid in (312, 311):
        world.processes.add(pid, parent=310, session=310, terminal=310)


def beside_the_agent(world: World, facts: dict[str, object]) -> int:
    """Have the agent give its shell a child, as clone(2) does with `CLONE_PARENT`."""
    world.processes.add(313, parent=310)
    world.processes.change(313, **facts)
    return 313


@each_sibling
async def test_what_an_agent_makes_a_child_of_its_shell_is_asked_about(
    facts: dict[str, object],
) -> None:
    world = await granted()
    await in_a_shell(world)
    world.revocation.lease((await world.lease(pid=311)).id)
    sibling = beside_the_agent(world, facts)
    with pytest.raises(WaitingError):
        await world.get("K", pid=sibling)
    assert await world.get("L", pid=sibling) == {"L": b"l"}
    assert await world.get("K", pid=312) == {"K": b"k"}
    world.processes.kill(311)
    assert await world.get("K", pid=sibling) == {"K": b"k"}


@each_sibling
async def test_what_an_agent_makes_a_child_of_its_shell_is_refused_what_the_agent_was(
    facts: dict[str, object],
) -> None:
    world = await World().stocked()
    await in_a_shell(world)
    await refused(world, pid=311)
    with pytest.raises(DeniedError) as caught:
        await world.get("K", pid=beside_the_agent(world, facts))
    assert caught.value.reason == "refused-by-operator"


async def test_a_grant_to_the_shell_of_a_revoked_agent_counts_for_neither_of_them() -> None:
    world = await World().stocked()
    await in_a_shell(world)
    await world.grant("*", to="tree:310")
    world.revocation.tree(311)
    sibling = beside_the_agent(world, {})
    for pid in (311, sibling):
        with pytest.raises(WaitingError):
            await world.get("K", pid=pid)
    assert await world.get("K", pid=312) == {"K": b"k"}
    await world.grant("K", to=f"tree:{sibling}")
    assert await world.get("K", pid=sibling) == {"K": b"k"}


async def test_consent_for_the_shell_after_the_revocation_counts_for_both() -> None:
    world = await World().stocked()
    await in_a_shell(world)
    world.revocation.tree(311)
    sibling = beside_the_agent(world, {})
    asks = world.asks("K", pid=sibling)
    world.approvals.approve((await world.waiting()).code, once=False, root_pid=310)
    assert await asks == {"K": b"k"}
    assert await world.get("K", pid=311) == {"K": b"k"}


async def test_a_new_daemon_knows_what_stood_beside_a_revoked_agent() -> None:
    world = await granted()
    await in_a_shell(world)
    world.revocation.tree(311)
    await world.revocation.keep()
    fresh = await another_daemon(world)
    await fresh.vault.unlock(GOOD, fresh.tree())
    with pytest.raises(WaitingError):
        await fresh.get("K", pid=beside_the_agent(fresh, {}))


async def another_daemon(world: World) -> World:
    world.vault.lock()
    fresh = World()
    fresh.store.__dict__.update(world.store.__dict__)
    fresh.processes.__dict__.update(world.processes.__dict__)
    await fresh.vault.open()
    return fresh


@pytest.mark.parametrize("old", [False, True], ids=["as it is stored", "by an older version"])
@each_orphan
async def test_a_new_daemon_knows_orphans_and_inner_roots(
    leave: Move, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await granted()
    await revoked(world)
    if old:
        kept = world.approvals.consents.revocations("boot-1")
        monkeypatch.setattr(
            world.approvals.consents, "revocations", lambda _: replace(kept, places={})
        )
    await world.revocation.keep()
    fresh = await another_daemon(world)
    if not old:
        # The root may run elsewhere by now: what counts is where it was revoked.
        fresh.processes.change(AGENT, session=7, unit="elsewhere.scope")
    await fresh.vault.unlock(GOOD, fresh.tree())
    for pid in (leave(fresh), on_a_terminal(fresh)):
        with pytest.raises(WaitingError):
            await fresh.get("K", pid=pid)
    assert await fresh.get("K", pid=SIBLING) == {"K": b"k"}


async def test_after_a_panic_orphans_and_inner_roots_are_asked_about() -> None:
    world = await granted()
    await world.lease("K")
    world.revocation.panic()
    await world.vault.unlock(GOOD, world.tree())
    for pid in (an_orphan(world), on_a_terminal(world)):
        with pytest.raises(WaitingError):
            await world.get("L", pid=pid)
    assert await world.get("K", pid=SIBLING) == {"K": b"k"}


async def test_revoking_a_tree_ends_leases_of_the_roots_inside() -> None:
    world = await granted()
    inner = await world.lease("K", pid=on_a_terminal(world))
    other = await world.lease("K", pid=SIBLING)
    assert inner.holder == world.tree(INNER)
    assert [lease.id for lease in world.revocation.tree(AGENT)] == [inner.id]
    assert world.live_leases.all() == [other]
    with pytest.raises(WaitingError):
        await world.get("K", pid=INNER)


async def test_revoking_a_tree_tells_agents_on_terminals_inside() -> None:
    world = await granted()
    pid = on_a_terminal(world)
    await world.run("K", pid=pid)
    world.revocation.tree(AGENT)
    assert [told for told, _ in world.processes.signals] == [pid]


async def test_revoking_a_tree_tells_agents_inside_whose_lease_is_over() -> None:
    world = await granted()
    pid = on_a_terminal(world)
    await world.run("K", pid=pid, ttl=10)
    world.clock.pass_(1800)
    world.deadlines.review()
    world.revocation.tree(AGENT)
    assert [told for told, _ in world.processes.signals] == [pid]


async def test_what_stood_above_a_tree_counts_after_it_has_ended() -> None:
    world = await granted()
    inner = await world.lease("K", pid=on_a_terminal(world))
    world.processes.kill(110)
    later = await world.lease("K", pid=INNER)
    assert {lease.id for lease in world.revocation.tree(AGENT)} == {inner.id, later.id}


async def test_questions_of_a_tree_are_counted_for_terminals_inside_it() -> None:
    world = await World().stocked()
    for number in range(MOST_OF_TREE):
        with pytest.raises(WaitingError):
            await world.get(f"K{number}")
    with pytest.raises(LimitError):
        await world.get("L", pid=on_a_terminal(world))


async def test_questions_below_one_outermost_process_are_bounded() -> None:
    world = await World().stocked()
    for number in range(MOST_OF_CHAIN + 1):
        shell = 1000 + 10 * number
        world.processes.add(shell, parent=AGENT, session=shell, terminal=shell)
        world.processes.add(shell + 1, parent=shell, session=shell, terminal=shell)
        error = WaitingError if number < MOST_OF_CHAIN else LimitError
        with pytest.raises(error):
            await world.get("K", pid=shell + 1)
    world.processes.add(SIBLING)
    with pytest.raises(WaitingError):
        await world.get("K", pid=SIBLING)


async def test_a_grant_of_the_user_counts_where_nothing_is_prohibited() -> None:
    world = await granted()
    for pid in (on_a_terminal(world), an_orphan(world)):
        assert await world.get("K", pid=pid) == {"K": b"k"}
