"""Agent locks in the daemon: who may open and change which, and what is remembered."""

import asyncio
import json
import threading
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from agent_worlds import AgentWorld
from backpackd.application.agents import identities as identities_module
from backpackd.application.agents.lock_verification import Given
from backpackd.application.callers.worker import MOST_WAITING, Worker
from backpackd.core.agentlock import strictjson
from backpackd.core.agentlock.content import Credential
from backpackd.core.agentlock.document import read
from backpackd.core.agentlock.errors import LockFileError, RecipientsError, WrongRecipientError
from backpackd.core.errors import (
    BackpackError,
    CredentialUnknownError,
    InvalidRequestError,
    LimitError,
    LockedError,
    LockRefusedError,
    MemoryChangedError,
    TrustUnknownError,
)


@pytest.fixture
async def ann() -> AgentWorld:
    return await AgentWorld().begun()


@pytest.fixture
async def bob() -> AgentWorld:
    return await AgentWorld().begun()


async def reason(call: Awaitable[object], kind: type[BackpackError] = LockRefusedError) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def test_the_identity_is_made_once_and_stays(ann: AgentWorld) -> None:
    assert ann.vault.session().authority.identity == b""
    both = await asyncio.gather(ann.spoken(), ann.spoken())
    assert both[0] == both[1]
    await ann.opened_again()
    assert await ann.spoken() == both[0]


async def test_private_keys_are_not_in_the_record_in_the_clear(ann: AgentWorld) -> None:
    own = await ann.identities.own(ann.vault.session())
    sealed = ann.vault.session().authority.identity
    assert own.signing not in sealed
    assert own.decryption[:32] not in sealed


async def test_an_own_lock_opens_for_any_process(ann: AgentWorld) -> None:
    opening = await ann.opened(await ann.lock(memory={"n": 1}))
    assert json.loads(opening.personality) == {"tone": "dry"}
    assert json.loads(opening.memory) == {"n": 1}
    assert opening.view.author is not None
    assert opening.view.author.own


async def test_no_embedded_value_is_in_what_opening_tells(ann: AgentWorld) -> None:
    opening = await ann.opened(await ann.lock(E=b"an embedded value"), operator=True)
    assert opening.view.credentials == (("E", True), ("K", False))
    assert "an embedded value" not in repr(opening)


async def test_an_unknown_author_is_refused_whatever_is_asked(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    document = await ann.shared_with(bob, await ann.lock(E=b"v"), trust=False)
    digest = read(document).mark.memory_digest
    session, given = bob.vault.session(), Given(document)
    calls: list[Awaitable[object]] = [
        bob.agents.open(bob.agent, given),
        bob.agents.update_memory(bob.agent, given, b"{}", digest),
        bob.agents.update_memory(bob.operator, given, b"{}", digest),
        bob.agents.edit(bob.operator, given, personality=b"{}"),
        bob.agents.rewrap(bob.operator, given),
        bob.agents.add_recipient(bob.operator, given, await bob.text()),
        bob.agents.check(bob.agent, session, document),
        bob.agents.embedded(bob.agent, session, document, ["E"]),
    ]
    for call in calls:
        assert await reason(call) == "unknown-author"
    assert bob.vault.session().authority.locks == {}, "nothing is remembered of it"


async def test_the_operator_may_look_at_an_unknown_authors_lock(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    document = await ann.shared_with(bob, await ann.lock(), trust=False)
    opening = await bob.opened(document, operator=True)
    assert opening.view.warnings == ("unknown-author",)
    assert bob.vault.session().authority.locks == {}


async def test_an_author_is_accepted_by_the_fingerprint_that_was_compared(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    document = await ann.shared_with(bob, await ann.lock(), trust=False)
    for told in ("", await bob.spoken()):
        call = bob.agents.trust(bob.operator, Given(document), told, "")
        assert await reason(call) == "unknown-author"
    await bob.agents.trust(bob.operator, Given(document), await ann.spoken(), "ann")
    await bob.opened(document)
    await bob.opened_again()
    assert [author.label for author in bob.vault.session().authority.authors] == ["ann"]


async def test_an_authors_lock_does_not_open_any_more_once_it_is_forgotten(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    document = await ann.shared_with(bob, await ann.lock(), trust=True)
    await bob.opened(document)
    await bob.identities.forget_author(await ann.spoken(), by=None)
    assert await reason(bob.opened(document)) == "unknown-author"
    call = bob.identities.forget_author(await ann.spoken(), by=None)
    assert await reason(call, TrustUnknownError) == "not-trusted"


async def test_whoever_is_removed_opens_nothing_later(ann: AgentWorld, bob: AgentWorld) -> None:
    document = await ann.shared_with(bob, await ann.lock(), trust=True)
    gone = await ann.agents.remove_recipient(ann.operator, Given(document), await bob.spoken())
    later = await ann.edited(gone.document, tone="later")
    for version in (gone.document, later):
        assert await reason(bob.opened(version), WrongRecipientError) == "not-a-recipient"
    await bob.opened(document)


async def test_somebody_who_is_no_recipient_cannot_be_removed(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    call = ann.agents.remove_recipient(ann.operator, Given(await ann.lock()), await bob.spoken())
    assert await reason(call, RecipientsError) == "invalid-recipients"


async def test_a_step_back_is_refused_until_it_is_accepted(ann: AgentWorld) -> None:
    old = await ann.lock()
    new = await ann.edited(old, tone="new")
    await ann.opened(new)
    assert await reason(ann.opened(old)) == "lock-stepped-back"
    assert (await ann.opened(old, operator=True)).view.warnings == ("lock-stepped-back",)
    assert await reason(ann.opened(old)) == "lock-stepped-back", "looking is not accepting"
    assert await reason(ann.edited(old, tone="x")) == "lock-stepped-back"
    await ann.agents.trust(ann.operator, Given(old), "", "")
    await ann.opened(old)


async def test_a_fork_is_refused_until_it_is_accepted(ann: AgentWorld) -> None:
    trunk = await ann.lock()
    one, other = await ann.edited(trunk, tone="one"), await ann.edited(trunk, tone="other")
    await ann.opened(one)
    assert await reason(ann.opened(other)) == "lock-forked"
    session = ann.vault.session()
    assert await reason(ann.agents.embedded(ann.agent, session, other, ["K"])) == "lock-forked"
    await ann.agents.trust(ann.operator, Given(other), "", "")
    await ann.opened(other)
    assert await reason(ann.opened(one)) == "lock-forked"


async def test_what_was_seen_is_remembered_over_a_lock(ann: AgentWorld) -> None:
    old = await ann.lock()
    await ann.opened(await ann.edited(old, tone="new"), path="/project/agent.lock")
    await ann.opened_again()
    ann.operator, ann.agent = ann.connect(), ann.connect()
    assert await reason(ann.opened(old)) == "lock-stepped-back"
    (known,) = ann.vault.session().authority.locks.values()
    assert (known.mark.generation, known.path) == (2, "/project/agent.lock")


async def test_of_two_versions_opened_at_once_the_older_one_is_not_remembered(
    ann: AgentWorld,
) -> None:
    old = await ann.lock()
    new = await ann.edited(old, tone="new")
    await asyncio.gather(ann.opened(new), ann.opened(old), return_exceptions=True)
    (known,) = ann.vault.session().authority.locks.values()
    assert known.mark.generation == 2


async def test_opening_again_does_not_write_the_vault(ann: AgentWorld) -> None:
    document = await ann.lock()
    await ann.opened(document, path="/one")
    before = ann.vault.session().authority.generation
    await ann.opened(document, path="/other")
    assert ann.vault.session().authority.generation == before


async def test_the_memory_is_replaced_only_where_it_is_the_one_that_was_read(
    ann: AgentWorld,
) -> None:
    document = await ann.lock(memory={"n": 0})
    digest = (await ann.opened(document)).view.memory_digest
    fresh = await ann.agents.update_memory(ann.agent, Given(document), b'{"n": 1}', digest)
    assert json.loads((await ann.opened(fresh.encode())).memory) == {"n": 1}
    late = ann.agents.update_memory(ann.agent, Given(fresh.encode()), b'{"n": 2}', digest)
    assert await reason(late, MemoryChangedError) == "memory-changed"
    for other in ("", "0" * 64, "é"):
        call = ann.agents.update_memory(ann.agent, Given(document), b"{}", other)
        assert await reason(call, MemoryChangedError) == "memory-changed"


async def test_a_memory_that_steps_back_or_forks_is_told_and_used(ann: AgentWorld) -> None:
    document = await ann.lock()
    digest = read(document).mark.memory_digest
    given = Given(document)
    one = (await ann.agents.update_memory(ann.agent, given, b'{"n": 1}', digest)).encode()
    other = (await ann.agents.update_memory(ann.agent, given, b'{"n": 2}', digest)).encode()
    await ann.opened(one)
    assert (await ann.opened(document)).view.warnings == ("memory-stepped-back",)
    assert (await ann.opened(other)).view.warnings == ("memory-forked",)


async def test_saving_a_memory_touches_neither_header_nor_other_layers(ann: AgentWorld) -> None:
    document = await ann.lock()
    before = json.loads(document)
    digest = read(document).mark.memory_digest
    fresh = await ann.agents.update_memory(ann.agent, Given(document), b'{"n": 1}', digest)
    after = json.loads(fresh.encode())
    assert before["layers"].pop("memory") != after["layers"].pop("memory")
    assert before == after


async def test_embedded_values_come_out_for_the_names_asked_for_alone(ann: AgentWorld) -> None:
    document = await ann.lock(A_KEY=b"a", B_KEY=b"b")
    names = ["A_KEY", "K", "X"]
    found = await ann.agents.embedded(ann.agent, ann.vault.session(), document, names)
    assert found == {"A_KEY": b"a"}


async def test_embedded_values_do_not_come_out_once_the_vault_was_locked(ann: AgentWorld) -> None:
    document, session = await ann.lock(A=b"a"), ann.vault.session()
    work = asyncio.create_task(ann.agents.embedded(ann.agent, session, document, ["A"]))
    await asyncio.sleep(0)
    ann.vault.lock(by=None)
    with pytest.raises(LockedError):
        await work


@pytest.mark.parametrize("which", [1, 2, 3])
async def test_nothing_of_a_lock_comes_out_once_the_vault_was_locked(
    ann: AgentWorld, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    document = await ann.lock()
    await ann.opened(document)
    real, done = ann.bench.do, 0

    async def locked_meanwhile(*arguments: Any) -> Any:
        nonlocal done
        result = await real(*arguments)
        done += 1
        if done == which:
            ann.vault.lock(by=None)
        return result

    monkeypatch.setattr(ann.bench, "do", locked_meanwhile)
    with pytest.raises(LockedError):
        await ann.agents.open(ann.agent, Given(document))
    assert done == which


async def test_json_that_a_caller_sends_is_read_beside_the_event_loop(
    ann: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte of empty lists takes most of a second, which nobody else waits for."""
    document = await ann.lock()
    threads: set[int] = set()
    real = strictjson.loads

    def noting(*arguments: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return real(*arguments, **options)

    monkeypatch.setattr(strictjson, "loads", noting)
    digest = read(document).mark.memory_digest
    threads.clear()
    await ann.agents.update_memory(ann.agent, Given(document), b'{"a":1}', digest)
    await ann.agents.edit(ann.operator, Given(document), personality=b'{"a":1}')
    await ann.agents.create(ann.operator, credentials={}, personality=b'{"a":1}', memory=b'{"a":1}')
    assert (
        await reason(ann.migration.migrate(ann.operator, Given(document)), InvalidRequestError)
        == "already-migrated"
    )
    assert threads
    assert threading.get_ident() not in threads


async def test_a_lock_that_does_not_open_leaves_no_mark(ann: AgentWorld, bob: AgentWorld) -> None:
    document = await ann.shared_with(bob, await ann.lock(), trust=True)
    known = dict(bob.vault.session().authority.locks)
    gone = await ann.agents.remove_recipient(ann.operator, Given(document), await bob.spoken())
    digest = read(gone.document).mark.memory_digest
    calls: list[Awaitable[object]] = [
        bob.opened(gone.document),
        bob.agents.update_memory(bob.agent, Given(gone.document), b"{}", digest),
        bob.agents.embedded(bob.agent, bob.vault.session(), gone.document, ["K"]),
        bob.agents.trust(bob.operator, Given(gone.document), "", ""),
    ]
    for call in calls:
        assert await reason(call, WrongRecipientError) == "not-a-recipient"
    assert bob.vault.session().authority.locks == known


async def test_credentials_are_put_and_taken_out(ann: AgentWorld) -> None:
    given = Given(await ann.lock())
    written = await ann.agents.edit(
        ann.operator, given, put={"A": Credential(), "B": Credential(b"b")}, remove=["K"]
    )
    assert written.view.credentials == (("A", False), ("B", True))
    call = ann.agents.edit(ann.operator, given, remove=["MISSING"])
    assert await reason(call, CredentialUnknownError) == "no-such-credential"


async def test_a_recipient_can_be_accepted_as_an_author_in_one_step(
    ann: AgentWorld, bob: AgentWorld
) -> None:
    document = await ann.lock()
    written = await ann.agents.add_recipient(
        ann.operator, Given(document), await bob.text() + "\n", trust=True, label="bob"
    )
    await bob.agents.trust(bob.operator, Given(written.document), await ann.spoken(), "")
    opening = await ann.opened(await bob.edited(written.document, tone="by bob"))
    assert opening.view.author is not None
    assert opening.view.author.label == "bob"


@pytest.mark.parametrize("label", ["x" * 65, "a\nb", "\x1b[2J", "\u202e"])
async def test_a_label_that_a_terminal_would_act_on_is_refused(ann: AgentWorld, label: str) -> None:
    call = ann.agents.trust(ann.operator, Given(await ann.lock()), "", label)
    assert await reason(call, InvalidRequestError) == "invalid-label"


async def test_a_claimed_path_is_limited(ann: AgentWorld) -> None:
    document = await ann.lock()
    await ann.opened(document, path="p" * 256)
    assert await reason(ann.opened(document, path="p" * 257), InvalidRequestError)


async def test_a_vault_knows_only_so_many_locks_and_trusts_only_so_many_authors(
    ann: AgentWorld, bob: AgentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities_module, "MAX_LOCKS", 1)
    monkeypatch.setattr(identities_module, "MAX_AUTHORS", 0)
    first = await ann.lock()
    await ann.opened(first)
    assert await reason(ann.opened(await ann.lock()), LimitError) == "limit"
    await ann.identities.forget_lock(read(first).lock_id, by=None)
    await ann.opened(await ann.lock())
    other = (await bob.identities.own(bob.vault.session())).public
    assert await reason(ann.identities.trust(other, "", by=None), LimitError) == "limit"


async def test_what_is_no_lock_is_an_error_of_its_own(ann: AgentWorld) -> None:
    whole = await ann.lock()
    for broken in (b"", b"{}", whole[:-1], whole + b" ", b"x" * (1024 * 1024 + 1)):
        with pytest.raises(LockFileError):
            await ann.opened(broken)


async def test_one_tree_has_only_so_many_pieces_in_the_line(ann: AgentWorld) -> None:
    bench = Worker()
    trees = [ann.tree(100), replace(ann.tree(100), pid=1)]
    work = [asyncio.create_task(bench.do(trees[0], lambda: 1)) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(LimitError):
        await bench.do(trees[0], lambda: 2)
    assert await bench.do(trees[1], lambda: 3) == 3
    assert await asyncio.gather(*work) == [1] * MOST_WAITING
    assert await bench.do(trees[0], lambda: 4) == 4
    bench.close()
