"""What happens at once when what is allowed changes: leases end, and waiting calls decide anew."""

import asyncio
import hashlib

import pytest

from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.access.selectors import parse
from backpackd.core.errors import DeniedError
from fakes import World, settled, turns

SETTERS = pytest.mark.parametrize("where", ["sealed", "file"])


async def rule(world: World, where: str, policy: Policy) -> None:
    """Put a policy in force: by the operator, or by the configuration file."""
    if where == "sealed":
        await world.vault_policy.replace(policy, by=None)
    else:
        world.vault_policy.tighten(policy)


async def looked_again() -> None:
    """Let the loop turn often enough for every call to decide anew."""
    for _ in range(20):
        await asyncio.sleep(0)


async def leased() -> World:
    world = await World().stocked()
    await world.grant("*")
    await world.get("K")
    await world.get("L")
    return world


@SETTERS
@pytest.mark.parametrize("selector", ["", "uid:1000", "exe:/usr/bin/tool", "unit:a.service"])
async def test_leases_that_a_new_rule_denies_end_with_the_reason(where: str, selector: str) -> None:
    world = await leased()
    watcher = world.live_leases.watch(None)
    meant = parse(selector) if selector else None
    await rule(world, where, Policy(deny=(DenyRule(("K*",), meant),)))
    assert [lease.names for lease in world.live_leases.all()] == [("L",)]
    event = await watcher.next()
    assert event is not None
    assert (event.kind, event.lease.names, event.reason) == ("ended", ("K",), "denied")


@SETTERS
async def test_a_rule_that_held_before_ends_nothing_again(where: str) -> None:
    world = await World().stocked()
    await world.grant("*")
    other = DenyRule(("K",), parse("exe:/usr/bin/other"))
    await rule(world, where, Policy(deny=(other,)))
    await world.get("K")
    await rule(world, where, Policy(deny=(other, DenyRule(("M",)))))
    assert len(world.live_leases) == 1


@SETTERS
@pytest.mark.parametrize("default", ["ask", "deny"])
async def test_leases_that_rested_on_the_default_end_with_it(where: str, default: str) -> None:
    world = await World().stocked()
    await world.vault_policy.replace(Policy(default="allow"), by=None)
    await world.get("K")
    await world.grant("L")
    await world.get("L")
    await world.get("L", "K")
    await rule(world, where, Policy(default=default))
    assert [lease.names for lease in world.live_leases.all()] == [("L",)]


async def test_a_looser_policy_ends_nothing() -> None:
    world = await leased()
    await world.vault_policy.replace(Policy(default="allow", listing="all"), by=None)
    assert len(world.live_leases) == 2


async def test_who_may_still_have_a_key_gets_it_anew_with_nobody_asked() -> None:
    world = await leased()
    await world.vault_policy.replace(
        Policy(deny=(DenyRule(("K",), parse("exe:/usr/bin/other")),)), by=None
    )
    assert len(world.live_leases) == 1
    assert await world.get("K") == {"K": b"k"}


async def test_a_policy_of_a_locked_vault_is_laid_on_with_nothing_to_end() -> None:
    world = await leased()
    world.vault.lock(by=None)
    world.vault_policy.tighten(Policy(deny=(DenyRule(("K",)),)))
    await world.vault.unlock(b"seven quiet otters", world.tree(), by=None)
    with pytest.raises(DeniedError):
        await world.get("K")


@pytest.mark.parametrize("to", ["uid:1000", "tree:100", "exe:/usr/bin/agent", "sha256:agent"])
async def test_a_new_grant_reaches_the_calls_that_wait(to: str) -> None:
    world = await World().stocked()
    waiting = [world.asks("K"), world.asks("K")]
    await world.waiting(2)
    digest = hashlib.sha256(b"/usr/bin/agent").hexdigest()
    await world.grant("K", to=to.replace("sha256:agent", f"sha256:{digest}"))
    assert await settled(*waiting) == [{"K": b"k"}] * 2


async def test_a_new_grant_is_the_answer_to_the_request() -> None:
    world = await World().stocked()
    waiting = world.asks("K")
    await world.waiting()
    await world.grant("K")
    await settled(waiting)
    assert world.approvals.pending() == []
    assert world.process_watches._held.keys() == {world.tree(100)}


async def test_a_new_grant_for_others_or_for_a_part_leaves_the_question_open() -> None:
    world = await World().stocked()
    world.processes.add(200)
    waiting = world.asks("K", "L")
    request = await world.waiting()
    await world.grant("*", to="tree:200")
    await world.grant("K")
    await looked_again()
    # It goes on waiting, for the same answer.
    assert await world.waiting() is request
    await world.grant("L")
    assert await waiting == {"K": b"k", "L": b"l"}
    assert len(world.notifier.codes) == 1


async def test_a_new_grant_does_not_help_a_tree_that_the_key_was_revoked_from() -> None:
    world = await leased()
    world.revocation.key("K", by=None)
    waiting = world.asks("K")
    request = await world.waiting()
    await world.grant("K", to="tree:100")
    await looked_again()
    assert await world.waiting() is request
    world.vault.lock(by=None)
    await settled(waiting)


@SETTERS
async def test_a_rule_that_denies_reaches_the_calls_that_wait(where: str) -> None:
    world = await World().stocked()
    waiting = world.asks("K")
    await world.waiting()
    await rule(world, where, Policy(deny=(DenyRule(("K",)),)))
    with pytest.raises(DeniedError):
        await waiting
    assert world.approvals.pending() == []


async def test_who_waits_and_is_another_program_by_now_is_decided_on_as_it_is() -> None:
    world = await World().stocked()
    waiting = world.asks("K")
    await world.waiting()
    world.processes.exec(100, "/usr/bin/other")
    # By who first asked it would be allowed, and so the question ends; by who asks now it is not.
    await world.grant("K", to="exe:/usr/bin/agent")
    await turns(lambda: len(world.notifier.codes) == 2)
    assert len(world.live_leases) == 0
    world.vault.lock(by=None)
    await settled(waiting)


async def test_a_lower_ceiling_holds_for_leases_that_live() -> None:
    world = await World().stocked()
    await world.grant("K")
    lease = await world.lease("K", ttl=3600)
    world.clock.pass_(50)
    world.vault_policy.tighten(Policy("allow", "all", (), 60))
    assert lease.max_expires_at == world.clock.boot() + 10
    assert world.renew(world.connect(), lease.id, ttl=7200).expires_at == lease.max_expires_at
    world.clock.pass_(10)
    world.deadlines.review()
    assert len(world.live_leases) == 0


async def test_a_ceiling_that_is_raised_again_lengthens_no_lease() -> None:
    world = await World().stocked()
    await world.grant("K")
    lease = await world.lease("K", ttl=3600)
    world.vault_policy.tighten(Policy("allow", "all", (), 60))
    world.vault_policy.tighten(Policy("allow", "all"))
    assert lease.max_expires_at == world.clock.boot() + 60
