"""What is recorded, whose doing it is said to be, and what becomes of it on a full disk."""

import asyncio
import errno
from dataclasses import replace
from typing import Any

import pytest

from audit_worlds import granted, kinds, only, shown, verdict, written
from backpackd.application.access.policy import NOTHING
from backpackd.application.audit import writer as audit_writer
from backpackd.core.access.policy import DenyRule
from backpackd.core.audit import chain
from backpackd.core.audit.chain import Head
from backpackd.core.audit.events import KINDS, AuditEvent
from backpackd.core.errors import DeniedError, DiskFullError, StoreError, WrongPassphraseError
from backpackd.core.peer_facts import PeerFacts
from backpackd.core.vault.states import State
from fakes import GOOD, WRONG, Gate, World, settled, state_of, turns

FULL = "no room"


async def test_the_life_of_a_lease_is_in_the_log() -> None:
    world = await granted()
    lease = await world.lease("K", "L")
    world.live_leases.renew(world.tree(), lease.id, ttl=0)
    world.revocation.lease(lease.id, by=None)
    told = [entry.event for entry in await shown(world) if entry.event.lease == lease.id]
    assert [event.kind for event in told] == ["allowed", "renewed", "lease-ended", "revoked"]
    assert told[0].names == ("K", "L")
    assert told[0].grants == lease.grant_ids
    assert told[2].reason == "revoked"


async def test_an_entry_says_who_in_facts_and_what_they_claim_apart() -> None:
    world = await granted()
    await world.hand_out(world.connect(), "K", reason="because\nof this")
    event = (await only(world, "allowed")).event
    assert event.who is not None
    assert (event.who.pid, event.who.root_pid) == (101, 100)
    assert (event.who.executable, event.who.root_executable) == ("/usr/bin/tool", "/usr/bin/agent")
    assert event.claimed_reason == "because\\nof this"


async def test_what_a_call_does_is_its_callers_doing_and_what_falls_due_is_nobodys() -> None:
    world = await granted()
    lease = await world.lease("K", ttl=5)
    await world.keys.put([("M", b"value")], by=world.connect())
    world.clock.pass_(10)
    world.deadlines.review()
    put = [e.event for e in await shown(world, kinds=frozenset({"put"}))][-1]
    assert put.who is not None
    assert put.who.pid == 101
    ended = (await only(world, "lease-ended")).event
    assert (ended.lease, ended.reason, ended.who) == (lease.id, "expired", None)


async def test_a_lock_that_falls_due_in_somebodys_call_is_nobodys_doing() -> None:
    world = await World(longest=60).stocked()
    world.clock.pass_(100)
    world.deadlines.review()
    assert state_of(world) is State.LOCKED
    await written(world)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.audit_log.ready()
    assert (await only(world, "locked")).event.who is None


async def test_acts_are_in_the_log_in_their_order() -> None:
    world = await World().stocked()
    grant = await world.grant("K")
    await world.standing_grants.remove(grant.id, by=None)
    await world.access.delete_keys(["L"], by=None)
    policy = replace(world.vault_policy.sealed(), max_ttl=60)
    await world.vault_policy.replace(policy, by=None)
    world.operators.admit(world.connect())
    assert (await kinds(world))[-5:] == [
        "granted",
        "ungranted",
        "deleted",
        "policy-changed",
        "authorized",
    ]


async def test_a_request_and_its_answer_are_in_the_log() -> None:
    world = await World().stocked()
    approvals = world.asks("K")
    request = await world.waiting()
    world.approvals.approve(request.code, once=False, root_pid=0, by=None)
    await approvals
    refusing = world.asks("L")
    world.approvals.deny((await world.waiting()).code, by=None)
    await settled(refusing)
    found = [e.event for e in await shown(world)]
    wanted = ["pending", "approved", "allowed", "pending", "refused", "denied"]
    assert [event.kind for event in found if event.kind in wanted] == wanted
    approved = next(event for event in found if event.kind == "approved")
    assert approved.details["code"] == request.code
    assert approved.details["root-pid"] == "100"


async def test_equal_refusals_are_counted() -> None:
    world = await World().stocked()
    world.vault_policy.tighten(replace(NOTHING, default="deny"))
    for _ in range(50):
        with pytest.raises(DeniedError):
            await world.get("K")
    assert len(await shown(world, kinds=frozenset({"denied"}))) == 1
    world.clock.pass_(61)
    world.deadlines.review()
    _, counted = await shown(world, kinds=frozenset({"denied"}))
    assert counted.event.count == 49


async def test_refusals_that_were_counted_are_told_when_the_daemon_stops() -> None:
    world = await World().stocked()
    for _ in range(3):
        world.audit_log.foreign(4242)
    world.audit_log.stopping()
    told = await shown(world, kinds=frozenset({"foreign-user"}))
    assert [entry.event.count for entry in told] == [1, 2]
    assert told[0].event.details == {"uid": "4242"}


async def test_wrong_passphrases_are_recorded_while_locked() -> None:
    world = await World().stocked()
    world.vault.lock(by=None)
    for _ in range(2):
        with pytest.raises(WrongPassphraseError):
            await world.gate.try_one(
                world.connect(100), lambda: world.vault.unlock(WRONG, world.tree(), by=None)
            )
    await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.audit_log.ready()
    assert (await kinds(world)).count("wrong-passphrase") == 2


async def test_every_kind_that_is_written_is_a_known_one() -> None:
    world = await granted()
    lease = await world.lease("K")
    world.revocation.give_back(world.tree(), lease.id, by=None)
    world.revocation.panic(by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.audit_log.ready()
    assert set(await kinds(world)) - {"checkpoint"} <= set(KINDS)


class TestNoLogNoLease:
    async def test_a_lease_whose_entry_cannot_be_written_is_not_given(self) -> None:
        world = await granted()
        await written(world)
        world.store.faults.append(DiskFullError(FULL))
        with pytest.raises(DiskFullError):
            await world.lease("K")
        assert len(world.live_leases) == 0
        assert (await world.get("K"))["K"] == b"k"
        told = await kinds(world)
        # What failed is not said to have been allowed.
        assert told.count("allowed") == 1

    async def test_the_entry_is_stored_before_the_lease_stands(self) -> None:
        world = await granted()
        seen: list[int] = []
        append = world.store.append

        async def noting(rows: Any) -> None:
            seen.append(len(world.live_leases))
            await append(rows)

        world.store.append = noting  # type: ignore[method-assign]
        await world.lease("K")
        assert seen[0] == 0

    async def test_uses_are_spent_in_the_step_that_writes_the_entry(self) -> None:
        world = await World().stocked()
        await world.grant("K", uses=1)
        await written(world)
        writes = world.store.writes
        await world.lease("K")
        assert world.store.writes == writes + 1
        world = await World().stocked()
        grant = await world.grant("K", uses=1)
        await written(world)
        world.store.faults.append(DiskFullError(FULL))
        with pytest.raises(DiskFullError):
            await world.lease("K")
        assert world.vault.session().authority.grants[grant.id].uses_left == 1

    async def test_what_is_denied_while_the_entry_is_written_is_not_handed_out(self) -> None:
        world = await granted()
        append = world.store.append

        async def denying(rows: Any) -> None:
            await append(rows)
            world.vault_policy.tighten(replace(NOTHING, deny=(DenyRule(("K",)),)))

        world.store.append = denying  # type: ignore[method-assign]
        with pytest.raises(DeniedError):
            await world.lease("K")
        world.store.append = append  # type: ignore[method-assign]
        assert len(world.live_leases) == 0
        assert (await only(world, "not-handed-out")).event.reason == "overtaken"
        assert (await only(world, "denied")).event.reason == "denied-by-rule"

    async def test_a_lock_while_the_entry_is_written_leaves_no_lease(self) -> None:
        world = await granted()
        append = world.store.append

        async def locking(rows: Any) -> None:
            await append(rows)
            world.vault.lock(by=None)

        world.store.append = locking  # type: ignore[method-assign]
        with pytest.raises(Exception, match="locked"):
            await world.lease("K")
        assert len(world.live_leases) == 0

    async def test_an_unlock_whose_checkpoint_cannot_be_written_does_not_last(self) -> None:
        world = await World().stocked()
        world.vault.lock(by=None)
        await written(world)
        world.store.faults.append(DiskFullError(FULL))
        with pytest.raises(DiskFullError):
            await world.gate.try_one(
                world.connect(100), lambda: world.vault.unlock(GOOD, world.tree(), by=None)
            )
        assert state_of(world) is State.LOCKED
        await world.gate.try_one(
            world.connect(100), lambda: world.vault.unlock(GOOD, world.tree(), by=None)
        )
        assert await world.keys.list(lambda _: True)

    async def test_an_unlock_that_did_not_last_is_told_once(self) -> None:
        world = await World().stocked()
        world.vault.lock(by=None)
        await written(world)
        world.store.faults.append(DiskFullError(FULL))
        await world.vault.unlock(GOOD, world.tree(), by=None)
        with pytest.raises(DiskFullError):
            await world.audit_log.ready()
        # What else takes a passphrase while the vault is locked has nothing to do with it.
        await world.audit_log.ready()


class TestChangesAndEntries:
    async def test_a_change_that_fails_has_no_entry(self) -> None:
        world = await World().stocked()
        await written(world)
        world.store.faults.append(DiskFullError(FULL))
        with pytest.raises(DiskFullError):
            await world.put("NEW")
        await world.put("OTHER")
        puts = await shown(world, kinds=frozenset({"put"}))
        assert [entry.event.names for entry in puts] == [("K", "L"), ("OTHER",)]

    async def test_a_change_and_its_entry_are_one_write(self) -> None:
        world = await World().stocked()
        await written(world)
        writes = world.store.writes
        await world.put("NEW")
        assert world.store.writes == writes + 1
        assert (await shown(world))[-1].event.names == ("NEW",)

    async def test_a_change_of_a_store_that_was_altered_fails_alone(self) -> None:
        world = await World().stocked()
        await written(world)
        world.store.authority += b"x"
        putting = asyncio.create_task(world.put("NEW"))
        noted = asyncio.create_task(world.audit_log.record(world.audit_log.own_event("started")))
        outcome = await settled(putting, noted)
        assert [type(each).__name__ for each in outcome] == ["DamageError", "NoneType"]


class TestWriting:
    async def test_what_comes_together_is_written_together(self) -> None:
        world = await World().stocked()
        await written(world)
        writes = world.store.writes
        event = world.audit_log.own_event("started")
        await asyncio.gather(*(world.audit_log.record(event) for _ in range(50)))
        assert world.store.writes <= writes + 2

    async def test_notes_wait_for_room_and_keep_their_order(self) -> None:
        world = await World().stocked()
        await written(world)
        world.store.faults += [DiskFullError(FULL)] * 2
        world.audit_log.foreign(1)
        await written(world)
        world.audit_log.foreign(2)
        await written(world)
        world.audit_log.foreign(3)
        found = await shown(world, kinds=frozenset({"foreign-user"}))
        assert [entry.event.details["uid"] for entry in found] == ["1", "2", "3"]

    async def test_who_waits_behind_many_notes_is_told_that_there_is_no_room(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_writer, "_MOST_AT_ONCE", 2)
        world = await World().stocked()
        await written(world)
        world.store.faults += [DiskFullError(FULL)] * 2
        for uid in range(5):
            world.audit_log.foreign(uid)
        with pytest.raises(DiskFullError):
            await world.audit_log.record(world.audit_log.own_event("started"))
        assert len(world.store.faults) == 1
        world.store.faults.clear()
        await world.audit_log.written()
        assert len(await shown(world, kinds=frozenset({"foreign-user"}))) == 5

    async def test_notes_that_are_too_many_are_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_writer, "MOST_NOTED", 3)
        world = await World().stocked()
        await written(world)
        for number in range(10):
            world.audit_log.note(world.audit_log.own_event("started", reason=str(number)))
        assert (await only(world, "not-recorded")).event.count == 7

    async def test_a_caller_that_goes_away_leaves_the_log_whole(self) -> None:
        world = await World().stocked()
        event = world.audit_log.own_event("started")
        tasks = [asyncio.create_task(world.audit_log.record(event)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await settled(*tasks)
        assert (await verdict(world)).problem is None

    async def test_an_unexpected_error_is_a_failure_and_not_a_silence(self) -> None:
        world = await World().stocked()
        await written(world)

        async def broken(_: object) -> None:
            raise RuntimeError

        append = world.store.append
        world.store.append = broken  # type: ignore[assignment, method-assign]
        with pytest.raises(StoreError):
            await world.audit_log.record(world.audit_log.own_event("started"))
        world.store.append = append  # type: ignore[method-assign]
        await world.audit_log.record(world.audit_log.own_event("started"))

    async def test_a_hundred_entries_are_signed_without_a_lock(self) -> None:
        world = await World().stocked()
        event = world.audit_log.own_event("started")
        for _ in range(chain.EVERY + 5):
            await world.audit_log.record(event)
        await turns(lambda: world.audit_log._signing is None)
        reasons = [e.event.reason for e in await shown(world, kinds=frozenset({"checkpoint"}))]
        assert reasons == ["unlock", "regular"]
        known = world.vault.session().authority.audit
        assert known is not None
        assert known.head.number >= chain.EVERY

    async def test_the_end_of_the_log_is_never_set_back_by_reading_it(self) -> None:
        world = await World().stocked()
        await written(world)
        writer = audit_writer.AuditWriter(world.store, world.arena, lambda: 1)
        await writer.load()
        end, gate, audit_last = writer.head.number, Gate(), world.store.audit_last

        async def slow(kind: int | None = None, before: int | None = None) -> Any:
            found = await audit_last(kind, before)
            await gate.pass_()
            return found

        world.store.audit_last = slow  # type: ignore[method-assign]
        loading = asyncio.create_task(writer.load())
        await gate.reached()
        await writer.write(audit_writer.Item((world.audit_log.own_event("started"),)))
        gate.open()
        await loading
        assert (writer.head.number, writer.own) == (end + 2, end + 1)
        await writer.write(audit_writer.Item((world.audit_log.own_event("stopped"),)))
        assert writer.head.number == end + 3

    async def test_where_the_daemons_own_rows_begin_is_not_moved_by_reading_the_log(self) -> None:
        world = await World().stocked()
        await written(world)
        writer = audit_writer.AuditWriter(world.store, world.arena, lambda: 1)
        await writer.load()
        end, gate, append = writer.head.number, Gate(), world.store.append

        async def slow(rows: Any) -> None:
            await append(rows)
            await gate.pass_()

        world.store.append = slow  # type: ignore[method-assign]
        item = audit_writer.Item((world.audit_log.own_event("started"),))
        writing = asyncio.create_task(writer.write(item))
        await gate.reached()
        await writer.load()
        gate.open()
        await writing
        assert (writer.head.number, writer.own) == (end + 2, end + 1)


class TestWithoutALog:
    async def test_what_happens_before_the_first_unlock_waits_for_it(self) -> None:
        world = World()
        await world.audit_log.begin(version="1")
        world.audit_log.foreign(7)
        await world.vault.init(GOOD, world.tree(), by=None)
        await world.audit_log.ready()
        assert (await kinds(world))[:3] == ["started", "foreign-user", "initialized"]

    async def test_nobody_waits_for_a_log_that_is_not_there(self) -> None:
        world = World()
        with pytest.raises(StoreError):
            await world.audit_log.record(world.audit_log.own_event("started"))

    async def test_verifying_nothing_says_so(self) -> None:
        found = await verdict(World())
        assert (found.problem, found.total) == (None, 0)
        assert (await verdict(World(), Head(3, b"h" * 32))).problem is not None


async def test_without_a_vault_no_entry_is_missing_when_the_daemon_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await world.audit_log.writer.load()
    world.audit_log.note(AuditEvent("withheld", 1))
    await world.audit_log.close()
    assert caplog.records == []


async def test_what_was_not_written_of_a_vault_is_said_when_the_daemon_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await granted()
    await written(world)
    world.store.faults.append(DiskFullError(FULL))
    world.audit_log.note(AuditEvent("withheld", 1))
    await world.audit_log.close()
    assert "1 audit entries could not be written" in caplog.text


async def test_without_a_file_to_open_a_caller_is_named_as_it_connected_and_panic_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await granted()
    await world.lease("K")
    connection = world.connect()

    def exhausted(*_: object) -> PeerFacts:
        raise OSError(errno.EMFILE, "injected")

    monkeypatch.setattr(world.processes, "attest", exhausted)
    world.revocation.panic(by=connection)
    assert state_of(world) is State.LOCKED
    assert len(world.live_leases) == 0
