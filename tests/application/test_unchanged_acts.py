"""What finds everything as it is to be changes nothing, and is not recorded as an act."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from agent_worlds import AgentWorld
from backpack_proto.v1 import agents_pb2, backup_pb2, grants_pb2, leases_pb2, policy_pb2
from backpackd.application.agents.lock_verification import Given
from fakes import UID
from operator_acts import Acting, Prepare, importing, migration, trusting, word


async def editing_nothing(acting: Acting) -> list[Message]:
    return [agents_pb2.EditLockRequest(agent_lock=await acting.lock())]


async def editing_into_the_same(acting: Acting) -> list[Message]:
    same = agents_pb2.CredentialEntry(name="E", value=b"v")
    made = await acting.call(
        "Agents/CreateLock",
        agents_pb2.CreateLockRequest(credentials=[same], personality=b'{"tone":"calm"}'),
    )
    return [
        agents_pb2.EditLockRequest(
            agent_lock=made.agent_lock, put_credentials=[same], personality=b'{ "tone": "calm" }'
        )
    ]


async def sealing_the_same_policy(acting: Acting) -> list[Message]:
    shown = await acting.call("Policy/GetPolicy", policy_pb2.GetPolicyRequest())
    return [policy_pb2.SetPolicyRequest(policy=shown.sealed)]


async def granting_again(acting: Acting) -> list[Message]:
    request = grants_pb2.AddGrantRequest(patterns=["K"], selector=f"uid:{UID}", reason="as it was")
    await acting.call("Grants/AddGrant", request)
    return [request]


async def importing_again(acting: Acting) -> list[Message]:
    requests = await importing(acting)
    requests[0].terms.on_conflict = backup_pb2.ON_CONFLICT_KEEP  # type: ignore[attr-defined]
    await acting.call("Backup/ImportKeys", *requests)
    return requests


async def accepting_again(acting: Acting) -> list[Message]:
    requests = await trusting(acting)
    await acting.call("Agents/TrustLock", *requests)
    return requests


async def accepting_the_same_author_again(acting: Acting) -> list[Message]:
    other = await AgentWorld().begun()
    own = (await acting.call("Agents/Identity", agents_pb2.IdentityRequest())).identity.text
    made = await other.agents.create(other.operator, credentials={}, personality=b"", memory=b"")
    shared = await other.agents.add_recipient(other.operator, Given(made.document), own)
    request = agents_pb2.TrustLockRequest(
        agent_lock=shared.document, author=await other.spoken(), label="Bob"
    )
    await acting.call("Agents/TrustLock", request)
    return [request]


async def keeping_the_same_key_again(acting: Acting) -> list[Message]:
    (request,) = await migration(acting)
    request.keep_legacy_key = True  # type: ignore[attr-defined]
    await acting.call("Agents/MigrateLock", request)
    return [request]


async def revoking_from_nobody(_: Acting) -> list[Message]:
    return [leases_pb2.RevokeLeasesRequest(tree_pid=4711)]


NOT_DONE = [
    ("Agents/EditLock", editing_nothing, ()),
    ("Agents/EditLock", editing_into_the_same, ()),
    ("Policy/SetPolicy", sealing_the_same_policy, ()),
    ("Grants/AddGrant", granting_again, ()),
    ("Backup/ImportKeys", importing_again, ()),
    ("Agents/TrustLock", accepting_again, ()),
    ("Agents/TrustLock", accepting_the_same_author_again, ()),
    ("Agents/MigrateLock", keeping_the_same_key_again, ("lock-migrated",)),
    ("Leases/RevokeLeases", revoking_from_nobody, ()),
]
"""Calls that find everything as they want it, and what they do all the same."""


@pytest.mark.parametrize(
    ("method", "prepare", "words"), NOT_DONE, ids=[row[1].__name__ for row in NOT_DONE]
)
async def test_what_changes_nothing_is_no_act_in_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    prepare: Prepare,
    words: tuple[str, ...],
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    requests = await prepare(acting)
    before = len(await acting.entries())
    await acting.call(method, *requests)
    assert [word(event) for event in (await acting.entries())[before:]] == list(words)


async def test_an_edit_that_changes_nothing_gives_the_lock_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    (request,) = await editing_into_the_same(acting)
    edited = await acting.call("Agents/EditLock", request)
    assert edited.agent_lock == request.agent_lock  # type: ignore[attr-defined]


async def test_a_backup_records_the_policy_that_it_changes_and_no_grant_that_stood_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    requests = await importing_again(acting)
    sealed = acting.parts.vault_policy.sealed()
    await acting.parts.vault_policy.replace(replace(sealed, max_ttl=90), by=None)
    before = len(await acting.entries())
    await acting.call("Backup/ImportKeys", *requests)
    assert [word(event) for event in (await acting.entries())[before:]] == ["policy-changed"]
    assert acting.parts.vault_policy.sealed() == sealed


@pytest.mark.parametrize("terms", [{"reason": "another"}, {"uses": 3}, {"max_ttl_seconds": 60}])
async def test_a_grant_on_other_terms_is_an_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any]
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    (request,) = await granting_again(acting)
    before = len(await acting.entries())
    for member, value in terms.items():
        setattr(request, member, value)
    await acting.call("Grants/AddGrant", request)
    assert [word(event) for event in (await acting.entries())[before:]] == ["granted"]


async def test_an_author_under_another_name_is_an_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    (request,) = await accepting_the_same_author_again(acting)
    before = len(await acting.entries())
    request.label = "Robert"  # type: ignore[attr-defined]
    await acting.call("Agents/TrustLock", request)
    assert [word(event) for event in (await acting.entries())[before:]] == ["author-accepted"]
