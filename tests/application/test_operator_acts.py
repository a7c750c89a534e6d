"""Every act of an operator is in the audit log, by the call that it is made with."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backpack_proto.v1 import (
    agents_pb2,
    audit_pb2,
    backup_pb2,
    grants_pb2,
    keys_pb2,
    policy_pb2,
    slots_pb2,
    vault_pb2,
)
from backpackd.application.access.access import Wish
from backpackd.core.access.policy import DenyRule
from backpackd.core.errors import (
    BackpackError,
    DiskFullError,
    InvalidRequestError,
    NotAuthorizedError,
)
from fakes import GOOD, OTHER, UID, unheard
from operator_acts import (
    SEAL,
    Acting,
    Prepare,
    adding_a_recipient,
    approving,
    denying,
    drilling,
    forgetting,
    importing,
    migration,
    plain,
    recovering,
    removing_a_recipient,
    removing_a_slot,
    trusting,
    ungranting,
    with_lock,
    word,
)

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `backpack\.v1\.(\w+/\w+)` \| ([^|]*) \|", PROTOCOL, re.MULTILINE))


@dataclass(frozen=True)
class Act:
    """What a call writes into the log: the kind of an event, or of an operator's act the reason."""

    words: tuple[str, ...]
    prepare: Prepare


ACTS = {
    "Vault/ChangePassphrase": Act(
        ("passphrase-changed",),
        plain(vault_pb2.ChangePassphraseRequest(current=GOOD, replacement=OTHER)),
    ),
    "Slots/AddSlot": Act(("slot-added-file",), plain(slots_pb2.AddSlotRequest(kind="file"))),
    "Slots/RemoveSlot": Act(("slot-removed",), removing_a_slot),
    "Slots/RotateMasterKey": Act(("rotated",), plain(slots_pb2.RotateMasterKeyRequest())),
    "Slots/Recover": Act(("recovered",), recovering),
    "Slots/DrillRecovery": Act(("recovery-drilled",), drilling),
    "Backup/ExportKeys": Act(("exported",), plain(backup_pb2.ExportKeysRequest(passphrase=SEAL))),
    "Backup/ImportKeys": Act(("put", "granted", "policy-changed"), importing),
    "Keys/PutKeys": Act(
        ("put",),
        plain(keys_pb2.PutKeysRequest(keys=[keys_pb2.KeyValue(name="NEW", value=b"value")])),
    ),
    "Keys/DeleteKeys": Act(("deleted",), plain(keys_pb2.DeleteKeysRequest(names=["K"]))),
    "Grants/AddGrant": Act(
        ("granted",),
        plain(grants_pb2.AddGrantRequest(patterns=["K"], selector=f"uid:{UID}")),
    ),
    "Grants/RemoveGrant": Act(("ungranted",), ungranting),
    "Requests/ApproveRequest": Act(("approved",), approving),
    "Requests/DenyRequest": Act(("refused",), denying),
    "Policy/SetPolicy": Act(
        ("policy-changed",),
        plain(
            policy_pb2.SetPolicyRequest(
                policy=policy_pb2.PolicyRules(
                    default=policy_pb2.POLICY_DEFAULT_ASK,
                    listing=policy_pb2.POLICY_LISTING_GRANTED,
                    max_ttl_seconds=60,
                )
            )
        ),
    ),
    "Agents/CreateLock": Act(("lock-created",), plain(agents_pb2.CreateLockRequest())),
    "Agents/EditLock": Act(
        ("lock-edited",),
        with_lock(
            lambda document: agents_pb2.EditLockRequest(
                agent_lock=document, personality=b'{"tone":"new"}'
            )
        ),
    ),
    "Agents/MigrateLock": Act(("lock-migrated",), migration),
    "Agents/RewrapLock": Act(
        ("lock-rewrapped",),
        with_lock(lambda document: agents_pb2.RewrapLockRequest(agent_lock=document)),
    ),
    "Agents/AddRecipient": Act(("recipient-added",), adding_a_recipient),
    "Agents/RemoveRecipient": Act(("recipient-removed",), removing_a_recipient),
    "Agents/TrustLock": Act(("lock-accepted",), trusting),
    "Agents/Forget": Act(("lock-forgotten",), forgetting),
}
ONLY_SHOW = {
    "Slots/ListSlots",
    "Keys/ListKeys",
    "Grants/ListGrants",
    "Leases/ListLeases",
    "Leases/WatchLeases",
    "Leases/ListHandouts",
    "Requests/ListRequests",
    "Requests/WatchRequests",
    "Policy/GetPolicy",
    "Audit/ShowAudit",
    "Agents/OpenLock",
    "Agents/ListTrusted",
}
"""What needs operator authority and changes nothing."""
OF_THE_AGENT = {"Agents/UpdateMemory"}
"""What an agent does by itself, and an operator may do with a lock that is not accepted."""


def test_every_call_of_an_operator_is_an_act_or_only_shows_something() -> None:
    operators = {method for method, column in ROWS.items() if column != "no"}
    assert operators == ACTS.keys() | ONLY_SHOW | OF_THE_AGENT


@pytest.mark.parametrize("method", sorted(ROWS))
async def test_the_protocol_says_which_calls_need_an_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    everything = {"all": True} if ROWS[method] == "for `all`" else {}
    request, stranger = acting.empty(method, **everything), acting.world.connect()
    refused = False
    try:
        await acting.call(method, request, by=stranger)
    except NotAuthorizedError:
        refused = True
    except BackpackError:
        refused = False
    assert refused == (ROWS[method] in {"yes", "for `all`"})


async def test_the_protocol_names_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Acting(tmp_path, monkeypatch).methods.keys() == ROWS.keys()


@pytest.mark.parametrize("method", sorted(ACTS))
async def test_every_act_of_an_operator_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    requests = await ACTS[method].prepare(acting)
    before = len(await acting.entries())
    await acting.call(method, *requests)
    fresh = (await acting.entries())[before:]
    for each in ACTS[method].words:
        (event,) = [event for event in fresh if word(event) == each]
        assert event.who is not None
        assert event.who.pid == 101


@pytest.mark.parametrize(("kind", "left"), [("recovery", False), ("file", True)])
async def test_whoever_got_authority_with_a_slot_has_none_once_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, left: bool
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    slot, other = (await acting.slot(kind)).id, acting.world.connect()
    acting.parts.operators.admit(other)
    await acting.call("Slots/RemoveSlot", slots_pb2.RemoveSlotRequest(id=slot))
    assert acting.parts.operators.has(other) == left


async def test_the_log_says_which_slot_was_made_changed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    (first,) = [slot.id for slot in acting.parts.slots.list()]
    added = await acting.slot("file")
    event = (await acting.entries())[-1]
    assert (event.reason, event.details["slot"]) == ("slot-added-file", added.id)
    change = vault_pb2.ChangePassphraseRequest(current=GOOD, replacement=OTHER)
    await acting.call("Vault/ChangePassphrase", change)
    event = (await acting.entries())[-1]
    (second,) = [slot.id for slot in acting.parts.slots.list() if slot.kind == "passphrase"]
    assert event.details == {"slot": second, "removed-1": first}
    acting.parts.operators.admit(acting.connection)
    await acting.call("Slots/RemoveSlot", slots_pb2.RemoveSlotRequest(id=added.id))
    assert (await acting.entries())[-1].details == {"slot": added.id, "kind": "file"}


async def test_a_drill_of_a_locked_vault_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    code = await acting.slot("recovery")
    acting.world.vault.lock(by=None)
    await acting.call("Slots/DrillRecovery", slots_pb2.DrillRecoveryRequest(code=code.drawn))
    await acting.world.vault.unlock(GOOD, acting.world.tree(), by=None)
    await acting.world.audit_log.ready()
    (event,) = [event for event in await acting.entries() if word(event) == "recovery-drilled"]
    assert event.details == {"slot": code.id}
    assert event.who is not None
    verdict = [found async for found in acting.parts.reading.verify(None)][-1]
    assert verdict.problem is None


async def test_an_unlock_says_by_which_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    added = await acting.slot("file")
    acting.world.vault.lock(by=None)
    await acting.world.vault.unlock(added.drawn, acting.world.tree(), kinds={"file"}, by=None)
    await acting.world.audit_log.ready()
    (event,) = [event for event in await acting.entries() if event.kind == "unlocked"]
    assert event.details == {"slot": added.id, "kind": "file"}


async def test_an_event_that_nobody_knows_is_refused_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    for known in ([], ["allowed", "checkpoint", "damaged"]):
        await acting.call("Audit/ShowAudit", audit_pb2.ShowAuditRequest(events=known))
    with pytest.raises(InvalidRequestError) as refused:
        await acting.call(
            "Audit/ShowAudit", audit_pb2.ShowAuditRequest(events=["allowed", "alowed"])
        )
    assert "wrong-passphrase" in refused.value.message
    assert "alowed" not in refused.value.message


async def test_a_policy_that_comes_with_a_backup_ends_leases_that_it_denies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    usual = acting.parts.vault_policy.sealed()
    await acting.parts.vault_policy.replace(replace(usual, deny=(DenyRule(("K",)),)), by=None)
    requests = await importing(acting)
    await acting.parts.vault_policy.replace(usual, by=None)
    await acting.parts.standing_grants.add(
        ("K", "L"), f"uid:{UID}", max_ttl=0, valid=0, uses=0, reason="", by=None
    )
    for name in ("K", "L"):
        await acting.parts.access.get_keys(acting.world.connect(), Wish((name,)), unheard)
    await acting.call("Backup/ImportKeys", *requests)
    assert [lease.names for lease in acting.parts.live_leases.all()] == [("L",)]
    events = await acting.entries()
    imported = [event for event in events if event.reason == "imported"]
    assert [event.kind for event in imported] == ["put", "policy-changed"]
    assert imported[-1].details["deny-1"] == "K to everybody"


LOCK_ACTS = sorted(method for method in ACTS if method.startswith("Agents/"))


@pytest.mark.parametrize("method", LOCK_ACTS)
async def test_no_lock_leaves_before_the_act_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    # The identity is made with the first lock, which is a write of its own.
    await acting.lock()
    requests = await ACTS[method].prepare(acting)
    before = len(await acting.entries())
    acting.world.store.faults.append(DiskFullError("no room"))
    with pytest.raises(DiskFullError):
        await acting.call(method, *requests)
    assert len(await acting.entries()) == before


@pytest.mark.parametrize("method", LOCK_ACTS)
async def test_the_entry_of_a_lock_says_which_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    requests = await ACTS[method].prepare(acting)
    if method in {"Agents/CreateLock", "Agents/EditLock"}:
        credential = agents_pb2.CredentialEntry(name="E", value=b"embedded-value")
        members = "put_credentials" if method == "Agents/EditLock" else "credentials"
        getattr(requests[0], members).append(credential)
    answer = await acting.call(method, *requests)
    event = (await acting.entries())[-1]
    if method != "Agents/Forget":
        assert event.details["lock"] == answer.info.lock_id
        assert event.details["generation"] == str(answer.info.generation)
    if "Recipient" in method:
        assert re.fullmatch(r"[0-9a-z-]{16,}", event.details["recipient"])
    assert b"embedded-value" not in event.encode()


async def test_a_step_back_that_is_accepted_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    await acting.call("Agents/TrustLock", *await trusting(acting))
    assert (await acting.entries())[-1].details["found"] == "lock-stepped-back"
