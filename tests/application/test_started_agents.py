"""Agents that run: their lease lives while they do, and what ends it is told to them or not."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backpackd.application.access import started_agents
from backpackd.application.access.started_agents import GRACE
from backpackd.application.audit.reader import Filter
from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.access.selectors import Selector
from backpackd.core.errors import DeniedError, LimitError, PeerUnknownError, WaitingError
from fakes import World, turns

TERM, KILL = (101, signal.SIGTERM), (101, signal.SIGKILL)
AGENT, SCRIPT, TOOL = 101, 100, 102


@pytest.fixture
async def world() -> World:
    """Return a world with the keys K and L granted to the user, and a tool below the agent."""
    made = await World().stocked()
    await made.grant("K", "L")
    made.processes.add(TOOL, parent=AGENT, executable="/usr/bin/curl")
    return made


def leases(world: World) -> list[tuple[int, tuple[str, ...]]]:
    return [(lease.holder.pid, lease.names) for lease in world.live_leases.all()]


async def test_the_process_that_asks_holds_the_lease_and_not_the_tree_that_it_is_in(
    world: World,
) -> None:
    handout = await world.run()
    assert dict(handout.values) == {"K": b"k"}
    assert leases(world) == [(AGENT, ("K",))]


async def test_the_lease_lives_while_the_agent_does_and_ends_with_it(world: World) -> None:
    await world.run(ttl=10)
    for _ in range(10):
        world.clock.pass_(6)
        world.deadlines.review()
    assert leases(world) == [(AGENT, ("K",))]
    world.processes.kill(AGENT)
    assert (leases(world), len(world.started)) == ([], 0)
    assert world.processes.signals == []


async def test_a_machine_that_slept_past_the_deadline_ends_the_lease_and_not_the_agent(
    world: World,
) -> None:
    await world.run(ttl=10)
    world.clock.pass_(1800)
    assert leases(world) == []
    world.deadlines.review()
    assert leases(world) == []
    assert (len(world.started), world.processes.signals) == (1, [])


async def test_an_agent_whose_lease_is_over_is_told_when_its_key_is_revoked(world: World) -> None:
    await world.run("K", ttl=10)
    world.clock.pass_(1800)
    world.deadlines.review()
    world.revocation.key("L", by=None)
    assert world.processes.signals == []
    world.revocation.key("K", by=None)
    assert world.processes.signals == [(AGENT, signal.SIGTERM)]
    with pytest.raises(WaitingError):
        await world.get("K", pid=TOOL)


async def test_what_is_revoked_from_an_agent_without_a_lease_is_of_where_it_was_started(
    world: World,
) -> None:
    handout = await world.run("K")
    world.revocation.give_back(handout.lease.holder, handout.lease.id, by=None)
    world.revocation.key("K", by=None)
    world.processes.kill(AGENT)
    world.processes.add(AGENT, parent=100)
    with pytest.raises(WaitingError):
        await world.run("K")


async def test_another_lease_of_the_agents_tree_is_not_renewed_for_it(world: World) -> None:
    await world.run("K")
    await world.lease("L", pid=TOOL, ttl=10)
    assert sorted(leases(world)) == [(AGENT, ("K",)), (AGENT, ("L",))]
    world.clock.pass_(11)
    world.deadlines.review()
    assert leases(world) == [(AGENT, ("K",))]
    assert world.processes.signals == []


async def test_the_maximum_ends_the_lease_and_leaves_the_agent_alone(world: World) -> None:
    (grant,) = world.standing_grants.all()
    await world.standing_grants.remove(grant.id, by=None)
    await world.grant("K", max_ttl=20)
    await world.run(ttl=10)
    for _ in range(4):
        world.clock.pass_(6)
        world.deadlines.review()
    assert (leases(world), world.processes.signals) == ([], [])


async def test_no_lease_is_renewed_for_an_agent_whose_end_was_not_told_yet(world: World) -> None:
    await world.run(ttl=10)
    # Another process has its pid, and no callback has come.
    world.processes.add(AGENT, parent=SCRIPT)
    world.clock.pass_(6)
    world.deadlines.review()
    world.clock.pass_(5)
    world.deadlines.review()
    assert leases(world) == []


async def test_the_alarm_is_set_for_the_renewal(world: World) -> None:
    await world.run(ttl=10)
    assert world.timer.deadline == world.clock.boot() + 5


async def revoke(world: World) -> None:
    world.revocation.lease(world.live_leases.all()[0].id, by=None)


async def revoke_key(world: World) -> None:
    world.revocation.key("K", by=None)


async def revoke_all(world: World) -> None:
    world.revocation.all(by=None)


async def revoke_agent(world: World) -> None:
    world.revocation.tree(AGENT, by=None)


async def revoke_script(world: World) -> None:
    world.revocation.tree(SCRIPT, by=None)


async def panic(world: World) -> None:
    world.revocation.panic(by=None)


async def ungrant(world: World) -> None:
    await world.standing_grants.remove(world.standing_grants.all()[0].id, by=None)


End = Callable[[World], Awaitable[None]]


@pytest.mark.parametrize(
    "end", [revoke, revoke_key, revoke_all, revoke_agent, revoke_script, panic, ungrant]
)
async def test_what_somebody_decided_terminates_the_agent_and_kills_it_after_a_grace(
    world: World, end: End
) -> None:
    await world.run()
    await end(world)
    assert leases(world) == []
    assert world.processes.signals == [TERM]
    world.clock.pass_(GRACE - 1)
    world.deadlines.review()
    assert world.processes.signals == [TERM]
    world.clock.pass_(1)
    world.deadlines.review()
    world.deadlines.review()
    assert world.processes.signals == [TERM, KILL]


@pytest.mark.parametrize("end", [revoke, revoke_all, panic, ungrant])
async def test_an_agent_that_is_to_be_kept_is_only_cut_off(world: World, end: End) -> None:
    await world.run(terminate=False)
    await end(world)
    world.clock.pass_(GRACE)
    world.deadlines.review()
    assert (leases(world), world.processes.signals) == ([], [])


async def lock(world: World) -> None:
    world.vault.lock(by=None)


async def delete(world: World) -> None:
    await world.access.delete_keys(["K"], by=None)


async def give_back(world: World) -> None:
    (lease,) = world.live_leases.all()
    world.revocation.give_back(lease.holder, lease.id, by=None)


@pytest.mark.parametrize("end", [lock, delete, give_back])
async def test_what_is_not_against_the_agent_leaves_it_running(world: World, end: End) -> None:
    await world.run()
    await end(world)
    world.clock.pass_(GRACE)
    world.deadlines.review()
    assert (leases(world), world.processes.signals) == ([], [])


async def test_the_end_of_what_a_grant_was_given_to_leaves_the_agent_running(world: World) -> None:
    await world.standing_grants.remove(world.standing_grants.all()[0].id, by=None)
    world.processes.add(90)
    world.processes.reparent(SCRIPT, 90)
    await world.grant("K", to="tree:90")
    await world.run()
    world.processes.kill(90)
    assert (leases(world), world.processes.signals) == ([], [])


async def test_an_agent_that_heeds_the_first_signal_gets_no_second(world: World) -> None:
    await world.run()
    await revoke(world)
    world.processes.kill(AGENT)
    world.processes.add(AGENT, parent=SCRIPT)
    world.clock.pass_(GRACE)
    world.deadlines.review()
    assert world.processes.signals == [TERM]


async def test_a_panic_reaches_an_agent_that_a_lock_had_cut_off(world: World) -> None:
    await world.run()
    world.vault.lock(by=None)
    world.revocation.panic(by=None)
    assert world.processes.signals == [TERM]


async def test_the_kill_comes_also_while_the_vault_is_locked(world: World) -> None:
    await world.run()
    world.revocation.panic(by=None)
    world.clock.pass_(GRACE)
    world.deadlines.review()
    assert world.processes.signals == [TERM, KILL]


async def test_an_agent_that_executes_something_else_keeps_its_lease(world: World) -> None:
    await world.run(ttl=10)
    world.processes.exec(AGENT, "/usr/bin/other")
    world.clock.pass_(6)
    world.deadlines.review()
    assert leases(world) == [(AGENT, ("K",))]


async def test_a_process_with_the_agents_pid_has_nothing_of_it(world: World) -> None:
    await world.run()
    world.processes.kill(AGENT)
    world.processes.add(AGENT, parent=SCRIPT)
    world.revocation.all(by=None)
    assert world.processes.signals == []
    assert world.access.attest(world.connect(AGENT)).root.id.pid == SCRIPT


async def test_a_caller_that_has_ended_gets_no_lease(world: World) -> None:
    connection = world.connect(AGENT)
    world.processes.kill(AGENT)
    with pytest.raises(PeerUnknownError):
        await world.hand_out(connection, "K")


async def test_an_agent_is_the_root_of_its_tree_while_it_lives(world: World) -> None:
    await world.run()
    assert world.access.attest(world.connect(TOOL)).root.id.pid == AGENT
    assert world.access.attest(world.connect(SCRIPT)).root.id.pid == SCRIPT


async def test_of_agents_in_agents_the_innermost_is_the_root(world: World) -> None:
    await world.run()
    await world.run(pid=TOOL)
    assert world.access.attest(world.connect(TOOL)).root.id.pid == TOOL
    assert world.access.attest(world.connect(AGENT)).root.id.pid == AGENT


async def test_an_agent_cannot_talk_itself_out_of_being_terminated(world: World) -> None:
    await world.run()
    await world.run(terminate=False)
    await revoke_all(world)
    assert world.processes.signals == [TERM]


async def test_revoking_from_an_agent_revokes_from_the_agents_that_it_started(
    world: World,
) -> None:
    await world.run(terminate=False)
    await world.run(pid=TOOL)
    world.revocation.tree(AGENT, by=None)
    assert (leases(world), world.processes.signals) == ([], [(TOOL, signal.SIGTERM)])


async def test_revoking_from_an_agent_leaves_its_siblings_alone(world: World) -> None:
    await world.run()
    world.processes.add(110, parent=SCRIPT)
    await world.run(pid=110)
    world.revocation.tree(110, by=None)
    assert leases(world) == [(AGENT, ("K",))]
    assert world.processes.signals == [(110, signal.SIGTERM)]


async def test_the_question_proposes_the_process_itself(world: World) -> None:
    await world.keys.put([("M", b"m")], by=None)
    with pytest.raises(WaitingError):
        await world.run("M")
    (request,) = world.approvals.pending()
    assert request.tree.pid == AGENT
    world.approvals.approve(request.code, once=False, root_pid=0, by=None)
    assert dict((await world.run("M")).values) == {"M": b"m"}
    with pytest.raises(WaitingError):
        await world.get("M", pid=SCRIPT)
    assert await world.get("M", pid=TOOL) == {"M": b"m"}


async def test_an_agent_cannot_leave_a_refusal_behind_by_being_a_root_of_its_own(
    world: World,
) -> None:
    await world.keys.put([("M", b"m")], by=None)
    with pytest.raises(WaitingError):
        await world.get("M", pid=SCRIPT)
    world.approvals.deny(world.approvals.pending()[0].code, by=None)
    with pytest.raises(DeniedError):
        await world.run("M")


async def test_a_refusal_to_one_agent_stops_the_loop_that_starts_the_next(world: World) -> None:
    await world.keys.put([("M", b"m")], by=None)
    with pytest.raises(WaitingError):
        await world.run("M")
    world.approvals.deny(world.approvals.pending()[0].code, by=None)
    world.processes.kill(AGENT)
    world.processes.add(110, parent=SCRIPT)
    with pytest.raises(DeniedError):
        await world.run("M", pid=110)


async def test_what_was_revoked_from_an_agent_its_tools_have_to_ask_for(world: World) -> None:
    await world.run(terminate=False)
    await revoke(world)
    with pytest.raises(WaitingError):
        await world.get("K", pid=TOOL)


async def test_what_was_revoked_from_an_agent_the_next_one_has_to_ask_for(world: World) -> None:
    await world.run()
    await revoke(world)
    world.processes.kill(AGENT)
    world.processes.add(110, parent=SCRIPT)
    with pytest.raises(WaitingError):
        await world.run(pid=110)


async def test_what_was_revoked_from_a_tree_an_agent_in_it_has_to_ask_for(world: World) -> None:
    await world.lease(pid=SCRIPT)
    world.revocation.tree(SCRIPT, by=None)
    with pytest.raises(WaitingError):
        await world.run()


async def test_a_rule_against_a_program_holds_for_the_agents_that_it_starts(world: World) -> None:
    rule = DenyRule(("K",), Selector("exe", "/usr/bin/agent"))
    world.vault_policy.tighten(Policy(deny=(rule,)))
    with pytest.raises(DeniedError):
        await world.run()


async def test_the_requests_of_a_loop_of_agents_count_as_those_of_one_tree(world: World) -> None:
    for number in range(8):
        await world.keys.put([(f"M{number}", b"m")], by=None)
        world.processes.add(200 + number, parent=SCRIPT)
        with pytest.raises(WaitingError):
            await world.run(f"M{number}", pid=200 + number)
    world.processes.add(300, parent=SCRIPT)
    with pytest.raises(LimitError):
        await world.run("M9", pid=300)


async def test_there_are_so_many_agents_of_one_tree_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_agents, "MOST_AGENTS_OF_TREE", 1)
    await world.run()
    world.processes.add(110, parent=SCRIPT)
    with pytest.raises(LimitError):
        await world.run(pid=110)
    world.processes.add(120)
    await world.run(pid=120)
    assert sorted(pid for pid, _ in leases(world)) == [AGENT, 120]


async def test_of_agents_that_begin_at_once_no_more_get_room_than_there_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_agents, "MOST_AGENTS_OF_TREE", 1)
    world.processes.add(110, parent=SCRIPT)
    real, together = world.keys.open, asyncio.Barrier(2)

    async def opened_together(*arguments: Any) -> Any:
        await together.wait()
        return await real(*arguments)

    monkeypatch.setattr(world.keys, "open", opened_together)
    both = await asyncio.gather(world.run(), world.run(pid=110), return_exceptions=True)
    assert [isinstance(each, LimitError) for each in both] in ([False, True], [True, False])
    assert len(world.started) == len(leases(world)) == 1


async def test_so_many_leases_are_kept_for_one_agent_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_agents, "MOST_LEASES_OF_AGENT", 2)
    await world.run("K")
    await world.run("L")
    with pytest.raises(LimitError):
        await world.run("K")
    assert sorted(leases(world)) == [(AGENT, ("K",)), (AGENT, ("L",))]


async def test_an_agent_that_runs_needs_no_second_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_agents, "MOST_AGENTS_OF_TREE", 1)
    await world.run("K")
    await world.run("L")
    assert sorted(leases(world)) == [(AGENT, ("K",)), (AGENT, ("L",))]


async def test_an_agent_that_fetches_by_itself_is_handed_nothing(world: World) -> None:
    handout = await world.run(without_values=True)
    assert handout.values == ()
    assert leases(world) == [(AGENT, ("K",))]
    entries = world.reading.entries(world.vault.session(), Filter())
    kinds = [entry.event.kind async for entry in entries]
    assert "withheld" in kinds
    assert "allowed" not in kinds


async def test_embedded_values_come_from_the_lock_and_the_others_from_the_vault(
    world: World,
) -> None:
    await world.grant("E")
    world.embedded.values = {"E": b"embedded", "OTHER": b"never"}
    handout = await world.run("E", "K", agent_lock=b"lock")
    assert handout.values == (("E", b"embedded"), ("K", b"k"))


async def test_a_lock_that_is_refused_is_refused_before_a_person_is_asked(world: World) -> None:
    world.embedded.refusal = DeniedError("not this lock")
    with pytest.raises(DeniedError):
        await world.run("M", agent_lock=b"lock")
    assert world.approvals.pending() == []


async def test_leases_that_all_end_at_once_are_no_longer_kept_and_are_in_the_log(
    world: World,
) -> None:
    await world.run()
    world.revocation.all(by=None)
    (agent,) = world.started._agents.values()
    assert not agent.leases
    await turns(lambda: world.audit_log.writer._task is None)
    entries = world.reading.entries(world.vault.session(), Filter(kinds=frozenset({"lease-ended"})))
    assert [entry.event.reason async for entry in entries] == ["revoked"]


async def test_tools_on_terminals_of_their_own_are_asked_about_as_the_agent_is(
    world: World,
) -> None:
    (grant,) = world.standing_grants.all()
    await world.standing_grants.remove(grant.id, by=None)
    asked = asyncio.create_task(world.run("K", wait=60))
    request = await world.waiting()
    world.approvals.approve(request.code, once=False, root_pid=0, by=None)
    await asked
    for pid in (201, 301):
        world.processes.add(pid, parent=AGENT, session=pid, terminal=pid)
        world.processes.add(pid + 1, parent=pid, session=pid, terminal=pid)
        assert await world.get("K", pid=pid + 1) == {"K": b"k"}
    world.revocation.tree(AGENT, by=None)
    with pytest.raises(WaitingError):
        await world.get("K", pid=302)
