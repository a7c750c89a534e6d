"""Slots, backups and the audit log, in both APIs: each answer is the same to be awaited."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_proto.v1 import audit_pb2, backup_pb2, slots_pb2
from fake_daemon import FakeDaemon, fake_daemon, refuse


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        answers = running.answers
        answers["ListSlots"] = lambda _: slots_pb2.ListSlotsResponse(
            slots=[slots_pb2.SlotInfo(id="a", kind="recovery", authorizes=True)]
        )
        answers["AddSlot"] = lambda _: slots_pb2.AddSlotResponse(id="b", drawn=b"code")
        answers["RemoveSlot"] = lambda _: slots_pb2.RemoveSlotResponse()
        answers["DrillRecovery"] = lambda _: slots_pb2.DrillRecoveryResponse(drilled_at_ms=1000)
        answers["Recover"] = lambda _: slots_pb2.RecoverResponse()
        answers["RotateMasterKey"] = lambda _: [
            slots_pb2.RotateMasterKeyResponse(keys_total=2),
            slots_pb2.RotateMasterKeyResponse(keys_done=2, keys_total=2, done=True),
        ]
        answers["ShowAudit"] = lambda _: [
            audit_pb2.ShowAuditResponse(entries=[audit_pb2.AuditEntry(number=number)])
            for number in (1, 2)
        ]
        answers["VerifyAudit"] = lambda _: [
            audit_pb2.VerifyAuditResponse(verdict=audit_pb2.AuditVerdict(head="2-ab"))
        ]
        answers["GetAuditHead"] = lambda _: audit_pb2.GetAuditHeadResponse(head="2-ab")
        answers["ExportKeys"] = lambda _: [
            backup_pb2.ExportKeysResponse(keys=1),
            backup_pb2.ExportKeysResponse(data=b"sealed"),
        ]
        answers["ImportKeys"] = lambda _: backup_pb2.ImportKeysResponse(created=3)
        yield running


class Awaited:
    """The asyncio API, called as the blocking one is: it gives what there is to await."""

    def __init__(self, api: Backpack | AsyncBackpack) -> None:
        self._api: Any = api

    async def one(self, name: str, *arguments: Any, **named: Any) -> Any:
        answer = getattr(self._api, name)(*arguments, **named)
        return await answer if isinstance(self._api, AsyncBackpack) else answer

    async def all(self, name: str, *arguments: Any, **named: Any) -> list[Any]:
        watch = getattr(self._api, name)(*arguments, **named)
        if isinstance(self._api, AsyncBackpack):
            async with watch:
                return [each async for each in watch]
        with watch:
            return list(watch)


@pytest.fixture(params=[Backpack, AsyncBackpack])
async def api(fake: FakeDaemon, request: pytest.FixtureRequest) -> AsyncIterator[Awaited]:
    opened: Any = request.param(fake.path)
    if isinstance(opened, AsyncBackpack):
        async with opened:
            yield Awaited(opened)
    else:
        with opened:
            yield Awaited(opened)


@pytest.fixture(autouse=True)
def left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would also protect the test's own process, which later tests look into.
    monkeypatch.setattr("backpack_client.process_protection.make_undumpable", lambda: None)


async def test_slots(api: Awaited, fake: FakeDaemon) -> None:
    assert [slot.kind for slot in await api.one("slots")] == ["recovery"]
    added = await api.one("add_slot", "recovery")
    assert (added.id, added.drawn) == ("b", b"code")
    await api.one("remove_slot", "a")
    assert fake.requests("RemoveSlot")[0].id == "a"
    assert (await api.one("drill_recovery", b"code")).timestamp() == 1
    await api.one("recover", b"code", b"a new passphrase")
    assert fake.requests("Recover")[0].replacement == b"a new passphrase"
    progress = await api.all("rotate", end_leases=True)
    assert [each.done for each in progress] == [False, True]
    assert fake.requests("RotateMasterKey")[0].end_leases


async def test_the_audit_log(api: Awaited, fake: FakeDaemon) -> None:
    batches = await api.all("audit", key="K", newest=2)
    assert [entry.number for batch in batches for entry in batch] == [1, 2]
    assert (fake.requests("ShowAudit")[0].key, fake.requests("ShowAudit")[0].newest) == ("K", 2)
    (last,) = await api.all("verify_audit", "1-ab")
    assert last.verdict.head == await api.one("audit_head") == "2-ab"


async def test_backups(api: Awaited, fake: FakeDaemon) -> None:
    pieces = await api.all("export", b"a passphrase")
    assert b"".join(piece.data for piece in pieces) == b"sealed"
    file = io.BytesIO(b"x" * 300_000)
    imported = await api.one("import_vault", file, b"a passphrase", on_conflict="keep")
    assert imported.created == 3
    ((terms, *parts),) = fake.requests("ImportKeys")
    assert terms.terms.passphrase == b"a passphrase"
    assert b"".join(part.data for part in parts) == b"x" * 300_000


async def test_a_refused_upload_is_a_failure(api: Awaited, fake: FakeDaemon) -> None:
    fake.answers["ImportKeys"] = refuse("DATA_LOSS", "backup-damaged")
    with pytest.raises(Failure) as caught:
        await api.one("import_vault", io.BytesIO(b"x"))
    assert caught.value.reason == "backup-damaged"
