"""Operator authority and the throttle before every passphrase."""

import asyncio

import pytest

from backpackd.adapters.processes.memory import MemoryProcess
from backpackd.application.callers.operators import DURATION, MOST_WAITING
from backpackd.core.errors import (
    DiskFullError,
    LimitError,
    NotAuthorizedError,
    NotProtectedError,
    ThrottledError,
    UserChangedError,
    WrongPassphraseError,
)
from backpackd.ports import Connection
from fakes import GOOD, WRONG, Gate, World, settled


async def attempt(world: World, passphrase: bytes, pid: int = 100) -> None:
    """Try a passphrase as `Authorize` does, on a connection of its own."""
    connection = world.connect(pid)
    tree = connection.tree
    await world.gate.try_one(connection, lambda: world.vault.verify(passphrase, tree))


async def test_nobody_has_authority_before_proving_the_passphrase() -> None:
    world = await World().unlocked()
    with pytest.raises(NotAuthorizedError):
        world.operators.require(world.connect())


async def test_authority_belongs_to_one_connection() -> None:
    world = await World().unlocked()
    mine, other = world.connect(), world.connect()
    world.operators.admit(mine)
    world.operators.require(mine)
    assert not world.operators.has(other)


async def test_authority_ends_with_the_connection() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    for callback in connection.on_close:
        callback()
    assert not world.operators.has(connection)
    assert world.operators._until == {}


async def test_authority_ends_after_its_time() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    world.clock.pass_(int(DURATION) - 1)
    assert world.operators.remaining(connection) == 1
    world.clock.pass_(1)
    with pytest.raises(NotAuthorizedError):
        world.operators.require(connection)


async def test_authority_ends_when_the_vault_locks() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    await world.opened_again()
    assert not world.operators.has(connection)


async def test_authority_of_connections_that_nobody_hears_of_again_is_forgotten() -> None:
    world = await World().unlocked()
    for _ in range(5):
        world.operators.admit(world.connect())
    world.clock.pass_(int(DURATION))
    world.operators.admit(world.connect())
    assert len(world.operators._until) == 1


async def test_people_may_mistype_twice() -> None:
    world = await World().unlocked()
    for _ in range(2):
        with pytest.raises(WrongPassphraseError) as caught:
            await attempt(world, WRONG)
        assert caught.value.retry_after is None
    await attempt(world, GOOD)


async def test_wrong_passphrases_of_a_tree_delay_it_on_every_connection() -> None:
    world = await World().unlocked()
    for pid in (100, 101, 100):
        with pytest.raises(WrongPassphraseError):
            await attempt(world, WRONG, pid)
    with pytest.raises(ThrottledError) as caught:
        await attempt(world, GOOD, 101)
    assert caught.value.retry_after == 1
    world.clock.pass_(1)
    await attempt(world, GOOD, 101)


async def test_a_wrong_passphrase_is_on_the_disk_before_anybody_is_told() -> None:
    world = await World().unlocked()
    await world.audit_log.written()
    writes = world.store.writes
    with pytest.raises(WrongPassphraseError):
        await attempt(world, WRONG)
    assert world.store.writes == writes + 1


async def test_a_full_disk_changes_no_answer_to_a_wrong_passphrase() -> None:
    world = await World().unlocked()
    await world.audit_log.written()
    world.store.faults.append(DiskFullError("no room"))
    with pytest.raises(WrongPassphraseError):
        await attempt(world, WRONG)
    assert world.store.faults == []
    # Kept until there is room.
    writes = world.store.writes
    await world.audit_log.written()
    assert world.store.writes == writes + 1


async def test_a_delay_begins_when_the_answer_goes_out_however_slow_the_disk_is() -> None:
    world = await World().unlocked()
    for _ in range(2):
        with pytest.raises(WrongPassphraseError):
            await attempt(world, WRONG)
    trying = asyncio.create_task(attempt(world, WRONG))
    gate = world.store.before_append = Gate()
    await gate.reached()
    world.clock.pass_(5)
    gate.open()
    (answer,) = await settled(trying)
    assert answer.retry_after == 1
    with pytest.raises(ThrottledError):
        await attempt(world, GOOD)


async def test_whoever_hangs_up_while_a_wrong_try_is_written_has_tried() -> None:
    world = await World().unlocked()
    await world.audit_log.written()
    for _ in range(3):
        trying = asyncio.create_task(attempt(world, WRONG))
        gate = world.store.before_append = Gate()
        await gate.reached()
        trying.cancel()
        await settled(trying)
        gate.open()
    with pytest.raises(ThrottledError):
        await attempt(world, GOOD)


async def test_only_a_tree_that_gave_the_right_passphrase_is_favored() -> None:
    world = await World().unlocked()
    world.stretcher.favored.clear()
    with pytest.raises(WrongPassphraseError):
        await attempt(world, WRONG)
    assert world.stretcher.favored == []
    await attempt(world, GOOD)
    assert world.stretcher.favored == [world.connect().tree]


async def test_a_delay_is_told_in_whole_seconds_and_never_as_none() -> None:
    world = await World().unlocked()
    for _ in range(3):
        with pytest.raises(WrongPassphraseError):
            await attempt(world, WRONG)
    world.clock.seconds += 0.75  # type: ignore[assignment]
    with pytest.raises(ThrottledError) as caught:
        await attempt(world, GOOD)
    assert caught.value.message.endswith("in 1 s")


async def test_a_throttled_try_is_not_stretched() -> None:
    world = await World().unlocked()
    for _ in range(3):
        with pytest.raises(WrongPassphraseError):
            await attempt(world, WRONG)
    calls = world.stretcher.calls
    with pytest.raises(ThrottledError):
        await attempt(world, GOOD)
    assert world.stretcher.calls == calls


async def test_another_tree_is_not_delayed() -> None:
    world = await World().unlocked()
    world.processes.add(200)
    for _ in range(3):
        with pytest.raises(WrongPassphraseError):
            await attempt(world, WRONG)
    await attempt(world, GOOD, 200)


async def test_wrong_guesses_at_once_are_not_free() -> None:
    world = await World().unlocked()
    calls = world.stretcher.calls
    guesses = [asyncio.create_task(attempt(world, WRONG)) for _ in range(MOST_WAITING)]
    outcome = [type(found) for found in await settled(*guesses)]
    assert outcome.count(WrongPassphraseError) == 3
    assert outcome.count(ThrottledError) == MOST_WAITING - 3
    assert world.stretcher.calls - calls == 3


async def test_waiting_passphrases_of_a_tree_are_limited() -> None:
    world = await World().unlocked()
    world.stretcher.gate = Gate()
    waiting = [asyncio.create_task(attempt(world, GOOD)) for _ in range(MOST_WAITING)]
    await world.stretcher.gate.reached()
    with pytest.raises(LimitError):
        await attempt(world, GOOD)
    world.stretcher.gate.open()
    assert await settled(*waiting) == [None] * MOST_WAITING
    assert world.gate._lines._lines == {}


async def test_a_caller_that_goes_away_gives_its_turn_back() -> None:
    world = await World().unlocked()
    world.stretcher.gate = Gate()
    gone = asyncio.create_task(attempt(world, WRONG))
    await world.stretcher.gate.reached()
    waiting = asyncio.create_task(attempt(world, GOOD))
    await asyncio.sleep(0)
    gone.cancel()
    world.stretcher.gate.open()
    assert (await settled(gone, waiting))[1] is None
    assert world.gate._lines._lines == {}


async def test_the_right_passphrase_forgets_the_wrong_ones() -> None:
    world = await World().unlocked()
    for _ in range(2):
        for _ in range(2):
            with pytest.raises(WrongPassphraseError):
                await attempt(world, WRONG)
        await attempt(world, GOOD)


async def test_a_failure_that_is_no_guess_is_not_counted() -> None:
    world = await World().unlocked()

    async def broken() -> None:
        raise LimitError("busy")

    for _ in range(5):
        with pytest.raises(LimitError):
            await world.gate.try_one(world.connect(100), broken)
    await attempt(world, GOOD)


def process_of(connection: Connection) -> MemoryProcess:
    process = connection.peer.process
    assert isinstance(process, MemoryProcess)
    return process


async def test_a_passphrase_of_a_process_that_others_can_read_is_not_tried() -> None:
    world = await World().unlocked()
    connection = world.connect()
    process_of(connection).readable = True
    calls = world.stretcher.calls
    with pytest.raises(NotProtectedError) as caught:
        await world.gate.try_one(connection, lambda: world.vault.verify(GOOD, connection.tree))
    assert (caught.value.status.value, caught.value.reason) == ("UNAUTHENTICATED", "not-protected")
    assert "PR_SET_DUMPABLE" in caught.value.message
    assert world.stretcher.calls == calls


async def test_a_connection_that_could_be_taken_when_it_was_made_gets_no_authority() -> None:
    world = await World().unlocked()
    connection = world.connect()
    connection.peer.exposed = True
    with pytest.raises(NotProtectedError):
        await world.gate.try_one(connection, lambda: world.vault.verify(GOOD, connection.tree))
    with pytest.raises(NotProtectedError):
        world.operators.admit(connection)


async def test_a_process_that_opens_itself_loses_its_authority_for_good() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    process_of(connection).readable = True
    with pytest.raises(NotProtectedError):
        world.operators.require(connection)
    # What was taken meanwhile would have it again otherwise.
    process_of(connection).readable = False
    assert not world.operators.has(connection)
    with pytest.raises(NotProtectedError):
        world.operators.require(connection)


async def test_to_have_authority_is_seen_to_end_as_well() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    process_of(connection).readable = True
    assert not world.operators.has(connection)


async def test_roots_processes_need_no_protection_that_root_would_not_heed() -> None:
    world = await World().unlocked()
    world.processes.add(300, uid=0)
    connection = world.connect(300)
    connection.peer.uid = 0
    process_of(connection).readable = True
    world.operators.admit(connection)
    world.operators.require(connection)


async def test_a_process_that_became_another_user_gets_no_authority() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.processes.exec(101, "/usr/bin/su", uid=0)
    with pytest.raises(UserChangedError):
        await world.gate.try_one(connection, lambda: world.vault.verify(GOOD, connection.tree))
    with pytest.raises(UserChangedError):
        world.operators.admit(connection)


async def test_a_process_that_became_another_user_has_none_of_what_it_had() -> None:
    world = await World().unlocked()
    connection = world.connect()
    world.operators.admit(connection)
    world.processes.exec(101, "/usr/bin/su", uid=0)
    with pytest.raises(UserChangedError):
        world.operators.require(connection)
    assert not world.operators.has(connection)
