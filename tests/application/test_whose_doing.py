"""An entry says whose doing it is: that of the connection whose call it was, and of no other."""

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backpack_proto.v1 import keys_pb2, leases_pb2, policy_pb2, requests_pb2, slots_pb2, vault_pb2
from backpackd.core.errors import WrongPassphraseError
from backpackd.ports import Connection
from fakes import GOOD, UID, WRONG, turns
from operator_acts import Acting
from test_architecture import modules, parsed

REVOKED = leases_pb2.RevokeLeasesRequest
POLICY = policy_pb2.PolicyRules(
    default=policy_pb2.POLICY_DEFAULT_ASK,
    listing=policy_pb2.POLICY_LISTING_GRANTED,
    deny=[policy_pb2.DenyRule(patterns=["K"])],
    max_ttl_seconds=60,
)


async def leased(acting: Acting, by: Connection) -> str:
    answer = await acting.call("Leases/GetKeys", leases_pb2.GetKeysRequest(names=["K"]), by=by)
    lease_id: str = answer.lease.id
    return lease_id


async def give_back(acting: Acting, by: Connection) -> None:
    request = REVOKED(lease_id=await leased(acting, by), give_back=True)
    await acting.call("Leases/RevokeLeases", request, by=by)


def calls(method: str, request: Any) -> Callable[[Acting, Connection], Awaitable[Any]]:
    return lambda acting, by: acting.call(method, request, by=by)


async def unlock(acting: Acting, by: Connection) -> None:
    acting.world.vault.lock(by=None)
    await acting.call("Vault/Unlock", vault_pb2.UnlockRequest(passphrase=GOOD), by=by)


async def mistype(acting: Acting, by: Connection) -> None:
    with pytest.raises(WrongPassphraseError):
        await acting.call("Vault/Authorize", vault_pb2.AuthorizeRequest(passphrase=WRONG), by=by)


DOINGS = {
    "a handout": (leased, ["allowed"]),
    "a lease that is given back": (give_back, ["lease-ended"]),
    "a revoked key": (calls("Leases/RevokeLeases", REVOKED(key="K")), ["lease-ended", "revoked"]),
    "a revoked tree": (
        calls("Leases/RevokeLeases", REVOKED(tree_pid=100)),
        ["lease-ended", "revoked"],
    ),
    "a revocation of all": (
        calls("Leases/RevokeLeases", REVOKED(all=True)),
        ["lease-ended", "revoked"],
    ),
    "a panic": (calls("Vault/Panic", vault_pb2.PanicRequest()), ["lease-ended", "panic", "locked"]),
    "a lock": (calls("Vault/Lock", vault_pb2.LockRequest()), ["lease-ended", "locked"]),
    "an unlock": (unlock, ["unlocked"]),
    "a proof of the passphrase": (
        calls("Vault/Authorize", vault_pb2.AuthorizeRequest(passphrase=GOOD)),
        ["authorized"],
    ),
    "a wrong passphrase": (mistype, ["wrong-passphrase"]),
    "a deleted key": (
        calls("Keys/DeleteKeys", keys_pb2.DeleteKeysRequest(names=["K"])),
        ["lease-ended", "deleted"],
    ),
    "a policy": (
        calls("Policy/SetPolicy", policy_pb2.SetPolicyRequest(policy=POLICY)),
        ["lease-ended", "policy-changed"],
    ),
    "a rotation": (
        calls("Slots/RotateMasterKey", slots_pb2.RotateMasterKeyRequest(end_leases=True)),
        ["lease-ended", "rotated"],
    ),
}


@pytest.mark.parametrize("doing", DOINGS)
async def test_what_a_caller_does_is_told_as_its_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    await acting.parts.standing_grants.add(
        ("K",), f"uid:{UID}", by=None, max_ttl=0, valid=0, uses=0, reason=""
    )
    acting.world.processes.add(300)
    await leased(acting, acting.connection)
    # Another one than whose lease it is, on whose connection the vault was made ready.
    doer = acting.world.connect(300)
    acting.parts.operators.admit(doer)
    before = len(await acting.entries())
    work, kinds = DOINGS[doing]
    await work(acting, doer)
    await turns(lambda: acting.world.audit_log.writer._task is None)
    if acting.world.vault.state.name == "LOCKED":
        await acting.world.vault.unlock(GOOD, acting.world.tree(), by=None)
        await acting.world.audit_log.ready()
    fresh = (await acting.entries())[before:]
    for kind in kinds:
        told = [each for each in fresh if kind in {each.kind, each.reason}]
        assert told, kind
        doers = {(each.who.pid, each.who.connection) for each in told if each.who is not None}
        assert (300, doer.name[-8:]) in doers, kind
        assert {pid for pid, _ in doers} == {300}


async def test_what_two_callers_do_at_once_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting = await Acting(tmp_path, monkeypatch).begun()
    code = await acting.asked()
    await acting.call("Requests/DenyRequest", requests_pb2.DenyRequestRequest(code=code))
    found = await acting.entries()
    (pending,) = [event for event in found if event.kind == "pending"]
    (refused,) = [event for event in found if event.kind == "refused"]
    assert pending.who is not None
    assert refused.who is not None
    assert refused.who.connection == acting.connection.name[-8:] != pending.who.connection


def test_nothing_of_the_daemon_says_who_calls_behind_the_callers_back() -> None:
    found = [
        name
        for name, path in modules("backpackd").items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom | ast.Import)
        and "contextvars" in {getattr(node, "module", ""), *(each.name for each in node.names)}
    ]
    assert found == []
