"""A revocation outlives a lock, and the daemon: who was revoked from asks a person again."""

import pytest

from backpackd.core.errors import (
    DiskFullError,
    PeerUnknownError,
    RevocationNotKeptError,
    WaitingError,
)
from fakes import GOOD, World


async def granted() -> World:
    world = await World().stocked()
    await world.grant("*")
    return world


async def another(world: World) -> World:
    """Start a daemon anew on the same store, in the same system, and unlock it."""
    world.vault.lock(by=None)
    fresh = World()
    fresh.store.__dict__.update(world.store.__dict__)
    fresh.processes.__dict__.update(world.processes.__dict__)
    await fresh.vault.open()
    await fresh.vault.unlock(GOOD, fresh.tree(), by=None)
    return fresh


async def test_a_lock_does_not_bring_back_what_was_revoked() -> None:
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    await world.opened_again()
    for name in ("K", "L"):
        # No name was kept while the vault was locked, so it is every key.
        with pytest.raises(WaitingError):
            await world.get(name)
    world.processes.add(200)
    assert await world.get("K", pid=200) == {"K": b"k"}


async def test_after_a_panic_a_person_is_asked_about_whoever_had_a_key() -> None:
    world = await granted()
    world.processes.add(200)
    world.processes.add(300)
    await world.lease("K")
    given_back = await world.lease("L", pid=200)
    world.revocation.give_back(given_back.holder, given_back.id, by=None)
    assert world.revocation.panic(by=None).leases == 1
    await world.vault.unlock(GOOD, world.tree(), by=None)
    for pid in (101, 200):
        with pytest.raises(WaitingError):
            await world.get("K", pid=pid)
    assert await world.get("K", pid=300) == {"K": b"k"}


async def test_after_a_panic_with_too_many_holders_everybody_is_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.revocation.MOST_TREES", 0)
    world = await granted()
    await world.lease("K")
    world.revocation.panic(by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    world.processes.add(300)
    with pytest.raises(WaitingError):
        await world.get("K", pid=300)


async def test_a_new_daemon_knows_what_was_revoked() -> None:
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    fresh = await another(world)
    with pytest.raises(WaitingError):
        await fresh.get("K")
    fresh.processes.add(200)
    assert await fresh.get("K", pid=200) == {"K": b"k"}
    # It is asked about like anything else, and a new daemon later knows it still.
    again = await another(fresh)
    with pytest.raises(WaitingError):
        await again.get("K")


async def test_what_was_revoked_of_a_process_that_has_ended_is_nobodys() -> None:
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    world.processes.kill(100)
    world.processes.add(100)
    world.processes.add(101, parent=100)
    fresh = await another(world)
    assert await fresh.get("K") == {"K": b"k"}
    assert fresh.approvals.consents.trees() == set()


async def test_nothing_of_another_boot_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await granted()
    world.revocation.all(by=None)
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    boot = world.processes.boot_id()
    monkeypatch.setattr(type(world.processes), "boot_id", lambda _: boot + "later")
    fresh = await another(world)
    assert await fresh.get("K") == {"K": b"k"}


async def test_keeping_what_is_kept_already_writes_nothing() -> None:
    world = await granted()
    generation = world.vault.session().authority.generation
    await world.revocation.keep()
    assert world.vault.session().authority.generation == generation
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    await world.revocation.keep()
    assert world.vault.session().authority.generation == generation + 1


async def test_the_next_one_that_is_kept_forgets_trees_that_have_ended() -> None:
    world = await granted()
    world.processes.add(200)
    for pid in (101, 200):
        world.revocation.lease((await world.lease(pid=pid)).id, by=None)
        await world.revocation.keep()
    assert {tree.pid for tree in world.vault.session().authority.revoked.trees} == {100, 200}
    world.processes.kill(200)
    world.processes.add(300)
    world.revocation.lease((await world.lease(pid=300)).id, by=None)
    await world.revocation.keep()
    assert {tree.pid for tree in world.vault.session().authority.revoked.trees} == {100, 300}


async def test_where_it_cannot_be_stored_that_is_said_and_it_is_revoked_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await granted()
    lease = await world.lease()

    async def full(_: object) -> None:
        raise DiskFullError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "commit", full)
        world.revocation.lease(lease.id, by=None)
        with pytest.raises(RevocationNotKeptError):
            await world.revocation.keep()
    assert len(world.live_leases) == 0
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_a_lock_in_between_is_said_and_the_daemon_still_knows() -> None:
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    world.vault.lock(by=None)
    with pytest.raises(RevocationNotKeptError):
        await world.revocation.keep()
    await world.vault.unlock(GOOD, world.tree(), by=None)
    with pytest.raises(WaitingError):
        await world.get("K")
    # The next one stores it, and so does the next unlock by a person (see `rpc.vault`).
    await world.revocation.keep()
    assert {tree.pid for tree in world.vault.session().authority.revoked.trees} == {100}


async def test_too_many_trees_are_everybody_in_the_next_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.core.access.consents.MOST_TREES", 0)
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    fresh = await another(world)
    fresh.processes.add(200)
    with pytest.raises(WaitingError):
        await fresh.get("K", pid=200)


async def test_a_process_that_cannot_be_watched_is_remembered_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await granted()
    world.revocation.lease((await world.lease()).id, by=None)
    await world.revocation.keep()
    kept = world.vault.session().authority.revoked
    fresh = World()

    def gone(_: object) -> None:
        raise PeerUnknownError("gone")

    monkeypatch.setattr(fresh.process_watches, "watch", gone)
    fresh.revocation.restore(kept)
    assert fresh.approvals.consents.trees() == set()

    def no_room(_: object) -> None:
        raise DiskFullError("no descriptors")

    monkeypatch.setattr(fresh.process_watches, "watch", no_room)
    fresh.revocation.restore(kept)
    assert fresh.approvals.consents.trees() == set(kept.trees)
