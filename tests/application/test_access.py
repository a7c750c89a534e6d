"""Who gets which key."""

import asyncio
import hashlib

import pytest

from backpackd.core.access.leases import DEFAULT_TTL
from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.access.selectors import parse
from backpackd.core.errors import (
    DeniedError,
    InvalidRequestError,
    KeyUnknownError,
    LimitError,
    LockedError,
    PeerUnknownError,
    StoreError,
    UserChangedError,
    WaitingError,
)
from backpackd.core.peer_facts import ProcessId
from backpackd.core.vault.records import KeyHead
from fakes import UID, Gate, World, settled, turns

AGENT = "/usr/bin/agent"


async def test_granted_keys_are_leased_in_the_order_asked_for() -> None:
    world = await World().stocked()
    await world.grant("*")
    handout = await world.hand_out(world.connect(), "L", "K")
    assert handout.values == (("L", b"l"), ("K", b"k"))
    assert handout.lease.names == ("L", "K")


async def test_a_lease_is_held_by_the_root_of_the_tree() -> None:
    world = await World().stocked()
    await world.grant("K")
    assert (await world.lease(pid=101)).holder == world.tree(100)


async def test_without_a_grant_nothing_is_looked_up() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError):
        await world.get("K")
    assert world.store.asked == []


async def test_a_refusal_is_the_same_for_stored_and_missing_keys() -> None:
    world = await World().stocked()
    told = []
    for name in ("K", "MISSING"):
        with pytest.raises(WaitingError) as caught:
            await world.get(name)
        facts = {**caught.value.facts, "request-code": "????"}
        told.append((caught.value.message, caught.value.reason, facts))
    assert told[0] == told[1]


async def test_a_refusal_says_which_tree_asked() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError) as caught:
        await world.get("K")
    assert caught.value.facts["tree-pid"] == "100"
    assert caught.value.facts["uid"] == str(UID)


@pytest.mark.parametrize("default", ["ask", "deny"])
async def test_a_hook_of_a_shell_is_told_of_the_shell(default: str) -> None:
    world = await World().stocked()
    await _set_default(world, default)
    for pid, parent, program in ((300, 1, "zsh"), (301, 300, "direnv"), (302, 301, "bash")):
        path = f"/usr/bin/{program}"
        world.processes.add(pid, parent=parent, executable=path, session=300, terminal=5)
    with pytest.raises((WaitingError, DeniedError)) as caught:
        await world.get("K", pid=302)
    assert (caught.value.facts["tree-pid"], caught.value.facts["root-pid"]) == ("300", "301")
    # What an approval would be for stays the process that the kernel's facts make the root.
    assert [request.tree.pid for request in world.approvals.pending()] in ([301], [])
    await world.grant("K", to="tree:300")
    assert await world.get("K", pid=302) == {"K": b"k"}


async def test_several_names_are_all_or_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    with pytest.raises(WaitingError):
        await world.get("K", "L")
    assert len(world.live_leases) == 0


async def test_a_missing_key_is_told_where_it_is_granted() -> None:
    world = await World().stocked()
    await world.grant("*")
    with pytest.raises(KeyUnknownError):
        await world.get("K", "MISSING")
    assert len(world.live_leases) == 0


@pytest.mark.parametrize("names", [[], ["K", "K"], ["1"], [f"K{n}" for n in range(65)]])
async def test_names_that_are_none_are_refused_first(names: list[str]) -> None:
    world = await World().stocked()
    with pytest.raises(InvalidRequestError):
        await world.get(*names)


async def test_a_reason_is_bounded() -> None:
    world = await World().stocked()
    with pytest.raises(InvalidRequestError):
        await world.hand_out(world.connect(), "K", reason="x" * 257)


async def test_a_caller_that_has_ended_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    connection = world.connect(101)
    world.processes.kill(101)
    with pytest.raises(PeerUnknownError):
        await world.hand_out(connection, "K")


async def test_a_caller_that_has_executed_su_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    connection = world.connect(101)
    world.processes.exec(101, "/usr/bin/su", uid=0)
    with pytest.raises(UserChangedError) as caught:
        await world.hand_out(connection, "K")
    assert (caught.value.status.value, caught.value.reason) == ("UNAUTHENTICATED", "user-changed")


async def test_a_child_of_what_has_executed_su_is_asked_about_for_itself() -> None:
    world = await World().stocked()
    world.processes.exec(100, "/usr/bin/su", uid=0)
    facts = world.access.attest(world.connect(101))
    assert facts.root.id.pid == 101


async def test_uses_are_spent_before_a_value_leaves() -> None:
    world = await World().stocked()
    grant = await world.grant("K", uses=2)
    await world.get("K")
    await world.opened_again()
    assert world.vault.session().authority.grants[grant.id].uses_left == 1


async def test_of_two_callers_at_once_one_gets_the_last_use() -> None:
    world = await World().stocked()
    await world.grant("K", uses=1)
    gets = [asyncio.create_task(world.get("K")) for _ in range(2)]
    outcome = await settled(*gets)
    assert {"K": b"k"} in outcome
    assert [type(found) for found in outcome if isinstance(found, Exception)] == [WaitingError]
    assert len(world.live_leases) == 1


async def test_a_use_that_cannot_be_stored_hands_out_nothing() -> None:
    world = await World().stocked()
    grant = await world.grant("K", uses=1)
    world.store.faults.append(StoreError("broken"))
    with pytest.raises(StoreError):
        await world.get("K")
    assert len(world.live_leases) == 0
    assert world.vault.session().authority.grants[grant.id].uses_left == 1


async def test_a_missing_key_costs_no_use() -> None:
    world = await World().stocked()
    grant = await world.grant("*", uses=1)
    with pytest.raises(KeyUnknownError):
        await world.get("MISSING")
    assert world.vault.session().authority.grants[grant.id].uses_left == 1


async def test_a_grant_taken_back_while_the_value_is_read_allows_nothing() -> None:
    world = await World().stocked()
    grant = await world.grant("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_rows.reached()
    await world.standing_grants.remove(grant.id, by=None)
    world.store.after_rows.open()
    with pytest.raises(WaitingError):
        await getting
    assert len(world.live_leases) == 0


async def test_a_counted_grant_that_takes_the_place_of_another_is_spent() -> None:
    world = await World().stocked()
    free = await world.grant("K")
    counted = await world.grant("K", uses=1)
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.lease())
    await world.store.after_rows.reached()
    await world.standing_grants.remove(free.id, by=None)
    world.store.after_rows.open()
    assert (await getting).grant_ids == (counted.id,)
    assert world.vault.session().authority.grants[counted.id].uses_left == 0


async def test_the_longest_life_is_that_of_the_grant_the_lease_rests_on() -> None:
    world = await World().stocked()
    long = await world.grant("K", max_ttl=5000, uses=5)
    await world.grant("K", max_ttl=100, uses=5)
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.lease())
    await world.store.after_rows.reached()
    await world.standing_grants.remove(long.id, by=None)
    world.store.after_rows.open()
    found = await getting
    assert found.max_expires_at - found.issued_at == 100


async def test_a_key_deleted_while_a_use_is_spent_is_not_handed_over() -> None:
    world = await World().stocked()
    await world.grant("K", uses=1)
    world.store.before_commit = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.before_commit.reached()
    deleting = asyncio.create_task(world.access.delete_keys(["K"], by=None))
    await asyncio.sleep(0)
    world.store.before_commit.open()
    got, deleted = await settled(getting, deleting)
    # Either the lease came first and ended with the key, or it never came.
    assert isinstance(got, KeyUnknownError) or deleted == 1
    assert len(world.live_leases) == 0


async def test_a_key_deleted_before_a_use_is_spent_costs_no_use() -> None:
    world = await World().stocked()
    grant = await world.grant("K", uses=1)
    world.store.before_commit = Gate()
    deleting = asyncio.create_task(world.access.delete_keys(["K"], by=None))
    await world.store.before_commit.reached()
    getting = asyncio.create_task(world.get("K"))
    await turns(lambda: world.store.asked == [1])
    world.store.before_commit.open()
    _, got = await settled(deleting, getting)
    assert isinstance(got, KeyUnknownError)
    assert world.vault.session().authority.grants[grant.id].uses_left == 1


async def test_a_lock_while_a_use_is_spent_hands_out_nothing() -> None:
    world = await World().stocked()
    await world.grant("K", uses=1)
    world.store.after_commit = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_commit.reached()
    world.vault.lock(by=None)
    world.store.after_commit.open()
    with pytest.raises(LockedError):
        await getting
    assert len(world.live_leases) == 0


async def test_a_lock_and_unlock_while_a_value_is_read_hands_out_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_rows.reached()
    await world.opened_again()
    world.store.after_rows.open()
    with pytest.raises(LockedError):
        await getting
    assert len(world.live_leases) == 0


async def test_a_lease_is_short_unless_asked_otherwise_and_no_longer_than_granted() -> None:
    world = await World().stocked()
    await world.grant("*", max_ttl=2000)
    usual = await world.lease()
    assert usual.expires_at - usual.issued_at == DEFAULT_TTL
    longest = await world.lease(ttl=5000)
    assert longest.expires_at - longest.issued_at == 2000


async def test_a_lease_ends_with_the_time_of_its_grant() -> None:
    world = await World().stocked()
    await world.grant("K", valid=90)
    found = await world.lease(ttl=5000)
    assert found.max_expires_at == world.clock.boot() + 90


async def test_a_clock_that_is_set_back_lengthens_no_lease() -> None:
    world = await World().stocked()
    await world.grant("K", valid=90)
    world.clock.epoch -= 86400
    found = await world.lease(ttl=5000)
    assert found.max_expires_at == world.clock.boot() + 90


async def test_a_grant_that_expires_while_its_use_is_spent_hands_out_nothing() -> None:
    world = await World().stocked()
    await world.grant("K", valid=90, uses=1)
    world.store.after_commit = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_commit.reached()
    world.clock.pass_(90)
    world.store.after_commit.open()
    with pytest.raises(WaitingError):
        await getting
    assert len(world.live_leases) == 0


async def test_leases_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpackd.application.access.leases.MOST_LEASES", 2)
    world = await World().stocked()
    grant = await world.grant("K", uses=3)
    await world.get("K")
    await world.get("K")
    with pytest.raises(LimitError):
        await world.get("K")
    assert world.vault.session().authority.grants[grant.id].uses_left == 1


async def test_the_leases_of_one_tree_are_limited_and_others_are_not_kept_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.leases.MOST_OF_TREE", 2)
    world = await World().stocked()
    await world.grant("K")
    world.processes.add(200)
    await world.get("K")
    await world.get("K")
    with pytest.raises(LimitError):
        await world.get("K")
    await world.get("K", pid=200)


async def test_executables_are_read_only_when_a_grant_asks_for_their_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().stocked()
    read: list[str] = []
    digest = world.processes.digest

    def counted(process: ProcessId, executable: str) -> str | None:
        read.append(executable)
        return digest(process, executable)

    monkeypatch.setattr(world.processes, "digest", counted)
    grant = await world.grant("K")
    await world.get("K")
    assert read == []
    await world.standing_grants.remove(grant.id, by=None)
    await world.grant("K", to=f"sha256:{hashlib.sha256(AGENT.encode()).hexdigest()}")
    await world.get("K")
    assert read == ["/usr/bin/tool", AGENT]


async def test_a_caller_learns_the_names_and_grants_that_cover_it() -> None:
    world = await World().stocked()
    mine = await world.grant("K", to="tree:100")
    world.processes.add(200)
    listed = await world.access.listed(world.connect(101))
    assert [head.name for head in listed] == ["K"]
    assert await world.access.grants_of(world.connect(101)) == [mine]
    assert await world.access.grants_of(world.connect(200)) == []


async def test_a_default_that_denies_is_told_apart_from_a_rule_against_which_no_grant_helps() -> (
    None
):
    world = await World().stocked()
    await _set_default(world, "deny")
    with pytest.raises(DeniedError) as caught:
        await world.get("K")
    assert caught.value.reason == "no-grant"
    await world.grant("K")
    assert await world.get("K") == {"K": b"k"}
    world.vault_policy.tighten(Policy("allow", "all", (DenyRule(("K",)),)))
    with pytest.raises(DeniedError) as caught:
        await world.get("K")
    assert caught.value.reason == "denied-by-rule"
    assert "no grant can override it" in caught.value.message


async def test_a_policy_that_allows_needs_no_grant() -> None:
    world = await World().stocked()
    await _set_default(world, "allow")
    assert await world.get("K") == {"K": b"k"}


async def _set_default(world: World, default: str) -> None:
    await world.vault_policy.replace(Policy(default=default), by=None)


async def test_a_listing_for_whom_nothing_is_granted_looks_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The time that it takes would tell how many keys there are.
    world = await World().stocked()
    await world.grant("K", to="tree:100")
    world.processes.add(200)
    looked: list[str] = []

    async def no_list(_: object) -> list[KeyHead]:
        looked.append("every head")
        return []

    monkeypatch.setattr(world.keys, "list", no_list)
    assert await world.access.listed(world.connect(200)) == []
    assert (looked, world.store.asked) == ([], [])
    assert [head.name for head in await world.access.listed(world.connect(101))] == ["K"]
    assert (looked, world.store.asked) == ([], [1])
    await world.grant("L*")
    await world.access.listed(world.connect(200))
    assert looked == ["every head"]


async def test_a_listing_of_named_keys_leaves_out_what_is_denied_or_not_stored() -> None:
    world = await World().stocked()
    await world.grant("K", "L", "M")
    await world.vault_policy.replace(Policy(deny=(DenyRule(("L",)),)), by=None)
    assert [head.name for head in await world.access.listed(world.connect())] == ["K"]


async def test_executables_are_hashed_only_where_it_matters_for_the_keys_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().stocked()
    read: list[str] = []

    def counted(_: ProcessId, executable: str) -> None:
        read.append(executable)

    monkeypatch.setattr(world.processes, "digest", counted)
    await world.grant("K", to=f"sha256:{'0' * 64}")
    rule = DenyRule(("M",), parse(f"sha256:{'0' * 64}"))
    await world.vault_policy.replace(Policy(deny=(rule,)), by=None)
    await world.grant("L")
    await world.get("L")
    assert read == []
    for name in ("K", "M"):
        with pytest.raises(WaitingError):
            await world.get(name)
        assert read == ["/usr/bin/tool", AGENT]
        read.clear()
