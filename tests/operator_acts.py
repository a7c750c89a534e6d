"""An operator's calls on the application as the daemon joins it, and what prepares each."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from agent_worlds import AgentWorld
from backpack_proto.v1 import (
    agents_pb2,
    backup_pb2,
    grants_pb2,
    requests_pb2,
    slots_pb2,
)
from backpackd import composition
from backpackd.application.access.access import Wish
from backpackd.application.audit.reader import Filter
from backpackd.core.audit.events import AuditEvent
from backpackd.ports import Connection
from backpackd.rpc.calls import Guard, snake_case
from backpackd.rpc.services.vault import About
from fakes import OTHER, UID, FakeNotifier, FakeTimer, World, turns, unheard
from served import Guarded

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors" / "agent-lock-v1"
SEAL = b"thirteen slow camels"


class Acting:
    """The application as the daemon joins it, on fakes, with an operator's connection."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(composition, "notifier", FakeNotifier)
        monkeypatch.setattr(os, "geteuid", lambda: UID)
        self.world = world = World()
        self.parts = composition.make_application(
            world.store,
            world.vault,
            world.processes,
            world.clock,
            audit_log=world.audit_log,
            arena=world.arena,
            stretcher=world.stretcher,
            home=home,
        )
        self.parts.deadlines.attach(FakeTimer())
        about = About("1", 7, False, 5, list, b"")
        self.methods: dict[str, tuple[Any, Any]] = {}
        guard = Guard(world.vault, self.parts.operators, self.parts.deadlines)
        for service in composition.make_services(self.parts, about):
            behind = Guarded(guard, service)
            for method in service.descriptor.methods:
                work = getattr(behind, snake_case(method.name))
                self.methods[f"{service.descriptor.name}/{method.name}"] = (work, method)
        self.connection = world.connect()

    async def begun(self) -> "Acting":
        await self.world.stocked()
        self.parts.operators.admit(self.connection)
        return self

    def empty(self, method: str, **members: Any) -> Message:
        return GetMessageClass(self.methods[method][1].input_type)(**members)

    async def call(self, method: str, *requests: Message, by: Connection | None = None) -> Any:
        """Call a method; return its answer, or a list where it streams."""
        work, descriptor = self.methods[method]
        given = _stream(requests) if descriptor.client_streaming else requests[0]
        answer = work(by or self.connection, given)
        if descriptor.server_streaming:
            return [each async for each in answer]
        return await answer

    async def entries(self) -> list[AuditEvent]:
        await turns(lambda: self.world.audit_log.writer._task is None)
        found = self.parts.reading.entries(self.world.vault.session(), Filter())
        return [entry.event async for entry in found]

    async def slot(self, kind: str) -> slots_pb2.AddSlotResponse:
        added: slots_pb2.AddSlotResponse = await self.call(
            "Slots/AddSlot", slots_pb2.AddSlotRequest(kind=kind)
        )
        return added

    async def lock(self) -> bytes:
        made = await self.call("Agents/CreateLock", agents_pb2.CreateLockRequest())
        document: bytes = made.agent_lock
        return document

    async def asked(self) -> str:
        """Let a process ask for a key, and return the code of what waits."""
        wish = Wish(("K",), wait=60)
        approvals = asyncio.create_task(
            self.parts.access.get_keys(self.world.connect(), wish, unheard)
        )
        approvals.add_done_callback(lambda done: done.cancelled() or done.exception())
        await turns(lambda: bool(self.parts.approvals.pending()))
        return self.parts.approvals.pending()[0].code


async def _stream(requests: tuple[Message, ...]) -> AsyncIterator[Message]:
    for request in requests:
        yield request


Prepare = Callable[[Acting], Awaitable[list[Message]]]


def plain(*requests: Message) -> Prepare:
    async def prepare(_: Acting) -> list[Message]:
        return list(requests)

    return prepare


def with_lock(make: Callable[[bytes], Message]) -> Prepare:
    async def prepare(acting: Acting) -> list[Message]:
        return [make(await acting.lock())]

    return prepare


async def removing_a_slot(acting: Acting) -> list[Message]:
    return [slots_pb2.RemoveSlotRequest(id=(await acting.slot("file")).id)]


async def recovering(acting: Acting) -> list[Message]:
    code = (await acting.slot("recovery")).drawn
    return [slots_pb2.RecoverRequest(code=code, replacement=OTHER)]


async def drilling(acting: Acting) -> list[Message]:
    return [slots_pb2.DrillRecoveryRequest(code=(await acting.slot("recovery")).drawn)]


async def importing(acting: Acting) -> list[Message]:
    (ungrant,) = await ungranting(acting)
    pieces = await acting.call("Backup/ExportKeys", backup_pb2.ExportKeysRequest(passphrase=SEAL))
    await acting.call("Grants/RemoveGrant", ungrant)
    sealed = acting.parts.vault_policy.sealed()
    await acting.parts.vault_policy.replace(replace(sealed, max_ttl=60), by=None)
    terms = backup_pb2.ImportTerms(
        passphrase=SEAL, on_conflict=backup_pb2.ON_CONFLICT_REPLACE, with_grants=True
    )
    return [
        backup_pb2.ImportKeysRequest(terms=terms),
        *(backup_pb2.ImportKeysRequest(data=piece.data) for piece in pieces if piece.data),
    ]


async def ungranting(acting: Acting) -> list[Message]:
    request = grants_pb2.AddGrantRequest(patterns=["K"], selector=f"uid:{UID}")
    grant = (await acting.call("Grants/AddGrant", request)).grant
    return [grants_pb2.RemoveGrantRequest(id=grant.id)]


async def approving(acting: Acting) -> list[Message]:
    return [requests_pb2.ApproveRequestRequest(code=await acting.asked())]


async def denying(acting: Acting) -> list[Message]:
    return [requests_pb2.DenyRequestRequest(code=await acting.asked())]


async def migration(_: Acting) -> list[Message]:
    document = (VECTORS / "basic.agent.lock").read_bytes()
    legacy = agents_pb2.LegacyKey(key=b"correct-horse-battery-staple-0123456789")
    return [agents_pb2.MigrateLockRequest(agent_lock=document, legacy=legacy)]


async def adding_a_recipient(acting: Acting) -> list[Message]:
    identity = await (await AgentWorld().begun()).text()
    return [agents_pb2.AddRecipientRequest(agent_lock=await acting.lock(), identity=identity)]


async def removing_a_recipient(acting: Acting) -> list[Message]:
    (request,) = await adding_a_recipient(acting)
    added = await acting.call("Agents/AddRecipient", request)
    other = next(each for each in added.info.recipients if not each.own)
    return [
        agents_pb2.RemoveRecipientRequest(
            agent_lock=added.agent_lock, fingerprint=other.fingerprint
        )
    ]


async def trusting(acting: Acting) -> list[Message]:
    """Step back to an older version of a lock of this vault's own."""
    old = await acting.lock()
    edit = agents_pb2.EditLockRequest(agent_lock=old, personality=b'{"tone":"new"}')
    new = (await acting.call("Agents/EditLock", edit)).agent_lock
    await acting.call("Agents/OpenLock", agents_pb2.OpenLockRequest(agent_lock=new))
    return [agents_pb2.TrustLockRequest(agent_lock=old)]


async def forgetting(acting: Acting) -> list[Message]:
    opening = agents_pb2.OpenLockRequest(agent_lock=await acting.lock())
    opened = await acting.call("Agents/OpenLock", opening)
    return [agents_pb2.ForgetRequest(lock_id=opened.info.lock_id)]


def word(event: AuditEvent) -> str:
    return event.reason if event.kind == "operator-act" else event.kind
