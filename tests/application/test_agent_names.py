"""Embedded values under names that are no credential's: handed out once the operator said so."""

import asyncio

import pytest

from agent_worlds import AgentWorld
from backpackd.application.agents import identities as identities_module
from backpackd.application.agents.lock_verification import Given
from backpackd.core.agentlock.content import Credential
from backpackd.core.agentlock.errors import LockContentError
from backpackd.core.errors import LimitError, LockNamesError
from backpackd.ports import Connection


@pytest.fixture
async def ann() -> AgentWorld:
    return await AgentWorld().begun()


async def values(
    world: AgentWorld, document: bytes, *names: str, by: Connection | None = None
) -> dict[str, bytes]:
    return await world.agents.embedded(by or world.agent, world.vault.session(), document, names)


async def accept(world: AgentWorld, document: bytes, *names: str) -> None:
    await world.agents.trust(world.operator, Given(document), "", "", names)


async def with_more(world: AgentWorld, document: bytes, **embedded: bytes) -> bytes:
    put = {name: Credential(value) for name, value in embedded.items()}
    written = await world.agents.edit(world.operator, Given(document), put=put)
    return written.document


def remembered(world: AgentWorld) -> tuple[str, ...]:
    (known,) = world.vault.session().authority.locks.values()
    return known.names


@pytest.mark.parametrize("who", ["agent", "operator"])
async def test_nothing_leaves_under_a_name_that_is_not_accepted(ann: AgentWorld, who: str) -> None:
    document = await ann.lock(CC=b"./evil", A_KEY=b"a")
    with pytest.raises(LockNamesError) as caught:
        await values(ann, document, "A_KEY", "CC", by=getattr(ann, who))
    assert "CC" in caught.value.message
    assert "evil" not in caught.value.message


async def test_what_is_not_asked_for_is_not_in_the_way(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"./evil", A_KEY=b"a")
    assert await values(ann, document, "A_KEY", "K") == {"A_KEY": b"a"}


async def test_an_accepted_name_is_handed_out_also_after_a_restart(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    assert await values(ann, document, "CC") == {"CC": b"gcc"}
    await ann.opened_again()
    agent = ann.connect()
    assert await values(ann, document, "CC", by=agent) == {"CC": b"gcc"}


async def test_opening_a_lock_tells_which_names_wait(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc", VAULT_ADDR=b"x", A_KEY=b"a")
    assert (await ann.opened(document)).view.unaccepted == ("CC", "VAULT_ADDR")
    await accept(ann, document, "CC")
    assert (await ann.opened(document)).view.unaccepted == ("VAULT_ADDR",)


async def test_a_later_version_with_another_name_waits_for_that_one_alone(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    fresh = await with_more(ann, document, VAULT_ADDR=b"x")
    assert await values(ann, fresh, "CC") == {"CC": b"gcc"}
    with pytest.raises(LockNamesError, match="VAULT_ADDR"):
        await values(ann, fresh, "CC", "VAULT_ADDR")
    await accept(ann, fresh, "VAULT_ADDR")
    assert (await values(ann, fresh, "CC", "VAULT_ADDR")).keys() == {"CC", "VAULT_ADDR"}


async def test_what_is_accepted_is_the_name_and_not_the_value(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    fresh = await with_more(ann, document, CC=b"clang")
    assert await values(ann, fresh, "CC") == {"CC": b"clang"}


async def test_that_a_lock_goes_on_does_not_forget_what_was_accepted(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    for tone in ("warm", "dry"):
        document = await ann.edited(document, tone=tone)
        await ann.opened(document)
        assert remembered(ann) == ("CC",)
    await ann.agents.trust(ann.operator, Given(document), "", "")
    assert remembered(ann) == ("CC",), "nor does accepting a version without names"


async def test_a_name_that_was_taken_out_has_to_be_accepted_again(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc", LD=b"ld")
    await accept(ann, document, "CC", "LD")
    without = await ann.agents.edit(ann.operator, Given(document), remove=["CC"])
    await accept(ann, without.document, "LD")
    assert remembered(ann) == ("LD",)
    again = await with_more(ann, without.document, CC=b"evil")
    with pytest.raises(LockNamesError):
        await values(ann, again, "CC")


async def test_what_is_accepted_for_one_lock_is_not_for_another(ann: AgentWorld) -> None:
    one, other = await ann.lock(CC=b"gcc"), await ann.lock(CC=b"evil")
    await accept(ann, one, "CC")
    with pytest.raises(LockNamesError):
        await values(ann, other, "CC")


async def test_a_forgotten_lock_has_no_accepted_names(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    (lock_id,) = ann.vault.session().authority.locks
    await ann.identities.forget_lock(lock_id, by=None)
    with pytest.raises(LockNamesError):
        await values(ann, document, "CC")


@pytest.mark.parametrize("name", ["LD", "K", "A_KEY\n"])
async def test_only_a_name_that_the_lock_embeds_can_be_accepted(ann: AgentWorld, name: str) -> None:
    document = await ann.lock(CC=b"gcc", A_KEY=b"a")
    with pytest.raises(LockContentError):
        await accept(ann, document, "CC", name)
    assert ann.vault.session().authority.locks == {}


async def test_of_two_who_accept_at_once_neither_is_lost(ann: AgentWorld) -> None:
    document = await ann.lock(CC=b"gcc", LD=b"ld")
    await asyncio.gather(accept(ann, document, "CC"), accept(ann, document, "LD"))
    assert remembered(ann) == ("CC", "LD")


async def test_a_teammates_lock_waits_for_each_vault_by_itself(ann: AgentWorld) -> None:
    bob = await AgentWorld().begun()
    document = await ann.lock(CC=b"gcc")
    await accept(ann, document, "CC")
    shared = await ann.shared_with(bob, document, trust=True)
    with pytest.raises(LockNamesError):
        await values(bob, shared, "CC")


async def test_the_record_keeps_no_more_than_its_limit(
    ann: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities_module, "MAX_NAMES", 2)
    await accept(ann, await ann.lock(CC=b"gcc"), "CC")
    document = await ann.lock(CC=b"gcc", LD=b"ld")
    await accept(ann, document, "CC")
    with pytest.raises(LimitError):
        await accept(ann, document, "LD")


async def test_an_error_repeats_few_names(ann: AgentWorld) -> None:
    names = [f"VARIABLE_{number}" for number in range(10)]
    document = await with_more(ann, await ann.lock(), **dict.fromkeys(names, b"v"))
    with pytest.raises(LockNamesError) as caught:
        await values(ann, document, *names)
    assert "and 2 more" in caught.value.message
