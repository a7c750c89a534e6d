"""Limits of the services in the unit that costs: bytes of what is listed, counts before copies."""

from collections.abc import Callable
from typing import Any

import pytest

from backpack_proto.v1 import (
    audit_pb2,
    backup_pb2,
    grants_pb2,
    keys_pb2,
    leases_pb2,
    policy_pb2,
)
from backpackd.core.access import grants, policy
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import BackpackError, InvalidRequestError, LimitError, LockedError
from backpackd.core.sealing.identity import PublicIdentity
from backpackd.ports import Connection
from backpackd.rpc.services.audit import MOST_NEWEST, AuditService
from backpackd.rpc.services.backup import BackupService
from backpackd.rpc.services.grants import GrantsService
from backpackd.rpc.services.keys import KeysService
from backpackd.rpc.services.leases import LeasesService
from backpackd.rpc.services.policy import PolicyService
from backpackd.rpc.sizes import MAX_MESSAGE
from fakes import World
from served import guarded

LONG = [f"{at:0128}".replace("0", "A", 1) for at in range(1000)]
NOT_ASCII = ["kéy", "\u202eK", "K\x00", "", "\uff21", "\U0010ffff"]


def operator(world: World) -> Connection:
    connection = world.connect()
    world.operators.admit(connection)
    return connection


def leases_of(world: World) -> Any:
    service = LeasesService(
        world.vault,
        world.access,
        world.operators,
        world.clock,
        live_leases=world.live_leases,
        revocation=world.revocation,
        reading=world.reading,
    )
    return guarded(world, service)


def reason(error: type[BackpackError], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    return caught.value.reason


@pytest.mark.parametrize("pattern", NOT_ASCII)
@pytest.mark.parametrize("place", [0, 1])
async def test_a_pattern_that_is_none_is_refused_before_it_is_looked_up(
    pattern: str, place: int
) -> None:
    world = await World().stocked()
    service = guarded(world, GrantsService(world.standing_grants, world.access, world.keys))
    patterns = ["K"] * place + [pattern]
    request = grants_pb2.AddGrantRequest(patterns=patterns, selector="uid:1000")
    with pytest.raises(InvalidRequestError) as caught:
        await service.add_grant(operator(world), request)
    assert caught.value.reason == "invalid-pattern"


@pytest.mark.parametrize("name", NOT_ASCII)
async def test_names_to_delete_are_checked_before_any_is_looked_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World().stocked()
    looked_up: list[object] = []
    monkeypatch.setattr(world.standing_grants, "naming", looked_up.append)
    service = guarded(
        world, KeysService(world.vault, world.keys, world.access, world.standing_grants)
    )
    with pytest.raises(InvalidRequestError) as caught:
        await service.delete_keys(operator(world), keys_pb2.DeleteKeysRequest(names=["K", name]))
    assert caught.value.reason == "invalid-name"
    assert looked_up == []


async def test_rules_are_counted_before_any_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World().stocked()
    read: list[object] = []
    monkeypatch.setattr(policy, "make_rule", lambda *parts: read.append(parts))
    wanted = policy_pb2.PolicyRules(deny=[policy_pb2.DenyRule()] * (policy.MAX_RULES + 1))
    with pytest.raises(InvalidRequestError):
        await guarded(world, PolicyService(world.vault_policy)).set_policy(
            operator(world), policy_pb2.SetPolicyRequest(policy=wanted)
        )
    assert read == []


async def test_recipients_are_counted_before_any_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World().stocked()
    read: list[object] = []
    monkeypatch.setattr(PublicIdentity, "parse", read.append)
    nothing: Any = None
    service = guarded(world, BackupService(world.vault, nothing))
    request = backup_pb2.ExportKeysRequest(recipients=["backpack-identity-v1:"] * 17)
    with pytest.raises(InvalidRequestError):
        await anext(service.export_keys(operator(world), request))
    assert read == []


async def test_entries_with_many_long_names_come_in_messages_that_can_be_sent() -> None:
    world = await World().stocked()
    for _ in range(100):
        world.audit_log.note(AuditEvent("put", 1, names=tuple(LONG)))
    await world.audit_log.written()
    service = guarded(world, AuditService(world.vault, world.reading))
    request = audit_pb2.ShowAuditRequest(key=LONG[0])
    answers = [answer async for answer in service.show_audit(operator(world), request)]
    assert sum(len(answer.entries) for answer in answers) == 100
    assert max(answer.ByteSize() for answer in answers) < MAX_MESSAGE / 4


async def test_the_newest_entries_that_are_held_are_limited() -> None:
    world = await World().stocked()
    service = guarded(world, AuditService(world.vault, world.reading))
    for newest, fits in ((MOST_NEWEST, True), (MOST_NEWEST + 1, False), (2**32 - 1, False)):
        answers = service.show_audit(operator(world), audit_pb2.ShowAuditRequest(newest=newest))
        if fits:
            await anext(answers)
        else:
            with pytest.raises(InvalidRequestError):
                await anext(answers)


async def test_leases_that_do_not_fit_into_an_answer_are_refused_by_design() -> None:
    world = await World().stocked()
    for at in range(1000):
        world.live_leases.issue(
            world.tree(), tuple(LONG[:64]), (), ttl=60, longest=60, lease_id=f"{at}"
        )
    request = leases_pb2.ListLeasesRequest()
    with pytest.raises(LimitError):
        await leases_of(world).list_leases(world.connect(), request)
    world.live_leases.end_all("revoked", by=None)
    assert (await leases_of(world).list_leases(world.connect(), request)).leases == []


async def test_a_lock_in_the_middle_of_a_long_listing_ends_it() -> None:
    world = await World().stocked()
    for at in range(600):
        world.live_leases.issue(world.tree(), ("K",), (), ttl=60, longest=60, lease_id=f"{at}")
    listing = leases_of(world).list_leases(world.connect(), leases_pb2.ListLeasesRequest())
    listing.send(None)
    world.vault.lock(by=None)
    with pytest.raises(LockedError):
        listing.send(None)


async def test_the_patterns_of_all_grants_are_limited_whatever_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grants, "MAX_PATTERNS_OF_ALL", 5)
    world = await World().stocked()
    await world.grant("A", "B", "C")
    with pytest.raises(LimitError):
        await world.grant("D", "E", "F")
    await world.grant("D", "E")
    await world.grant("A", "B", "C", reason="the same again takes no room")


async def test_a_grant_that_is_imported_counts_like_any_other() -> None:
    world = await World().stocked()
    grant = await world.grant(*LONG[:64])
    assert reason(LimitError, lambda: grants.check_room([grant] * 65)) == "limit"
    grants.check_room([grant] * 64)
