"""The services on a whole application without gRPC: who may call what, and what they answer."""

import asyncio
from typing import Any

import pytest

from backpack_proto.v1 import grants_pb2, keys_pb2, leases_pb2, policy_pb2, requests_pb2, vault_pb2
from backpackd.core.errors import (
    BackpackError,
    InvalidRequestError,
    LockedError,
    NotAuthorizedError,
    PeerUnknownError,
    WaitingError,
    WrongPassphraseError,
)
from backpackd.core.protections import Protection
from backpackd.core.vault.states import State
from backpackd.ports import Connection
from backpackd.rpc.services.grants import GrantsService
from backpackd.rpc.services.keys import KeysService
from backpackd.rpc.services.leases import LeasesService
from backpackd.rpc.services.policy import PolicyService
from backpackd.rpc.services.requests import RequestsService
from backpackd.rpc.services.vault import About, VaultService
from fakes import GOOD, OTHER, UID, WRONG, Gate, World, settled, state_of
from served import guarded


class Services:
    """All services on one world, with the keys K and L and a grant of K."""

    def __init__(self) -> None:
        self.world = World()
        world = self.world
        about = About("1", 7, False, 5, lambda: [Protection("core-dumps", True, "none")], b"/home")
        self.vault = guarded(
            world,
            VaultService(
                world.vault,
                world.access,
                world.operators,
                world.gate,
                live_leases=world.live_leases,
                revocation=world.revocation,
                slots=world.slots,
                recovery=world.recovery,
                audit_log=world.audit_log,
                clock=world.clock,
                about=about,
            ),
        )
        self.keys = guarded(
            world, KeysService(world.vault, world.keys, world.access, world.standing_grants)
        )
        self.leases = guarded(
            world,
            LeasesService(
                world.vault,
                world.access,
                world.operators,
                world.clock,
                live_leases=world.live_leases,
                revocation=world.revocation,
                reading=world.reading,
            ),
        )
        self.grants = guarded(world, GrantsService(world.standing_grants, world.access, world.keys))
        self.requests = guarded(
            world,
            RequestsService(
                world.vault, world.approvals, world.access, world.operators, world.clock
            ),
        )
        self.policy = guarded(world, PolicyService(world.vault_policy))

    async def stocked(self) -> "Services":
        await self.vault.init(self.world.connect(), vault_pb2.InitRequest(passphrase=GOOD))
        await self.world.keys.put([("K", b"k"), ("L", b"l")], by=None)
        await self.world.grant("K")
        return self

    def operator(self, pid: int = 101) -> Connection:
        connection = self.world.connect(pid)
        self.world.operators.admit(connection)
        return connection

    async def listed(self, connection: Connection, *, everything: bool) -> list[str]:
        request = keys_pb2.ListKeysRequest(all=everything)
        return [
            key.name
            async for batch in self.keys.list_keys(connection, request)
            for key in batch.keys
        ]


KEY = keys_pb2.KeyValue(name="N", value=b"v")


@pytest.mark.parametrize(
    ("service", "method", "request_"),
    [
        ("keys", "put_keys", keys_pb2.PutKeysRequest(keys=[KEY])),
        ("keys", "put_keys", keys_pb2.PutKeysRequest(keys=[KEY], dry_run=True)),
        ("keys", "delete_keys", keys_pb2.DeleteKeysRequest(names=["K"])),
        ("grants", "add_grant", grants_pb2.AddGrantRequest(patterns=["K"], selector="uid:1000")),
        ("grants", "remove_grant", grants_pb2.RemoveGrantRequest(id="0" * 16)),
        ("grants", "list_grants", grants_pb2.ListGrantsRequest(all=True)),
        ("leases", "list_leases", leases_pb2.ListLeasesRequest(all=True)),
        ("requests", "list_requests", requests_pb2.ListRequestsRequest(all=True)),
        ("requests", "approve_request", requests_pb2.ApproveRequestRequest(code="AAAA")),
        ("requests", "deny_request", requests_pb2.DenyRequestRequest(code="AAAA")),
        ("policy", "get_policy", policy_pb2.GetPolicyRequest()),
        ("policy", "set_policy", policy_pb2.SetPolicyRequest()),
    ],
)
async def test_what_changes_or_shows_everything_needs_operator_authority(
    service: str, method: str, request_: Any
) -> None:
    services = await Services().stocked()
    writes = services.world.store.writes
    with pytest.raises(NotAuthorizedError):
        await getattr(getattr(services, service), method)(services.world.connect(), request_)
    assert services.world.store.writes == writes


async def test_listing_every_key_needs_operator_authority() -> None:
    services = await Services().stocked()
    assert await services.listed(services.operator(), everything=True) == ["K", "L"]
    with pytest.raises(NotAuthorizedError):
        await services.listed(services.world.connect(), everything=True)


async def test_a_caller_lists_the_keys_that_it_may_lease() -> None:
    services = await Services().stocked()
    assert await services.listed(services.world.connect(), everything=False) == ["K"]


async def test_authority_comes_from_the_passphrase_on_the_same_connection() -> None:
    services = await Services().stocked()
    connection = services.world.connect()
    request = vault_pb2.AuthorizeRequest(passphrase=GOOD)
    answer = await services.vault.authorize(connection, request)
    assert answer.authorized_until_ms == (services.world.clock.epoch + 300) * 1000
    assert services.world.operators.has(connection)


async def test_a_wrong_passphrase_gives_no_authority() -> None:
    services = await Services().stocked()
    connection = services.world.connect()
    with pytest.raises(WrongPassphraseError):
        await services.vault.authorize(connection, vault_pb2.AuthorizeRequest(passphrase=WRONG))
    assert not services.world.operators.has(connection)


async def test_a_lock_in_the_middle_of_authorizing_gives_no_authority() -> None:
    services = await Services().stocked()
    connection = services.world.connect()
    services.world.stretcher.gate = Gate()
    request = vault_pb2.AuthorizeRequest(passphrase=GOOD)
    authorizing = asyncio.create_task(services.vault.authorize(connection, request))
    await services.world.stretcher.gate.reached()
    services.world.vault.lock(by=None)
    services.world.stretcher.gate.open()
    with pytest.raises(LockedError):
        await authorizing
    assert not services.world.operators.has(connection)


@pytest.mark.parametrize("call", ["init", "unlock", "authorize", "change_passphrase"])
async def test_every_call_that_takes_a_passphrase_is_throttled(call: str) -> None:
    services = await Services().stocked()
    requests: dict[str, Any] = {
        "init": vault_pb2.InitRequest(passphrase=GOOD),
        "unlock": vault_pb2.UnlockRequest(passphrase=WRONG),
        "authorize": vault_pb2.AuthorizeRequest(passphrase=WRONG),
        "change_passphrase": vault_pb2.ChangePassphraseRequest(current=WRONG, replacement=OTHER),
    }
    for _ in range(3):
        with pytest.raises(WrongPassphraseError):
            await services.vault.unlock(services.world.connect(), requests["unlock"])
    with pytest.raises(BackpackError) as caught:
        await getattr(services.vault, call)(services.world.connect(), requests[call])
    assert caught.value.reason == "throttled"


@pytest.mark.parametrize(("who", "told"), [("own", 1), ("stranger", 0), ("operator", 1)])
async def test_locking_is_open_to_everybody_and_counts_for_those_who_may_know(
    who: str, told: int
) -> None:
    services = await Services().stocked()
    await services.world.get("K")
    services.world.processes.add(200)
    connection = services.world.connect(101 if who == "own" else 200)
    if who == "operator":
        services.world.operators.admit(connection)
    answer = await services.vault.lock(connection, vault_pb2.LockRequest())
    assert answer.leases_ended == told
    assert state_of(services.world) is State.LOCKED


async def test_who_locks_and_is_gone_has_locked() -> None:
    services = await Services().stocked()
    services.world.processes.add(200)
    connection = services.world.connect(200)
    services.world.processes.kill(200)
    await services.vault.lock(connection, vault_pb2.LockRequest())
    assert state_of(services.world) is State.LOCKED


async def test_a_reader_that_takes_its_time_learns_no_names_after_a_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.rpc.services.keys._BATCH", 1)
    services = await Services().stocked()
    answers = services.keys.list_keys(services.operator(), keys_pb2.ListKeysRequest(all=True))
    assert [key.name for key in (await anext(answers)).keys] == ["K"]
    services.world.vault.lock(by=None)
    with pytest.raises(LockedError):
        await anext(answers)


async def test_asking_for_what_one_may_not_see_does_not_keep_the_vault_unlocked() -> None:
    services = await Services().stocked()
    (grant,) = services.world.standing_grants.all()
    await services.world.standing_grants.remove(grant.id, by=None)
    used = services.world.vault.session().used_at
    services.world.clock.pass_(10)
    assert await services.listed(services.world.connect(), everything=False) == []
    await services.vault.status(services.world.connect(), vault_pb2.StatusRequest())
    assert services.world.vault.session().used_at == used


async def test_status_tells_the_caller_about_its_own_tree() -> None:
    services = await Services().stocked()
    await services.world.get("K")
    services.world.processes.add(200)
    mine = await services.vault.status(services.world.connect(), vault_pb2.StatusRequest())
    assert (mine.leases_of_tree, mine.tree_pid, mine.authorized_until_ms) == (1, 100, 0)
    other = await services.vault.status(services.world.connect(200), vault_pb2.StatusRequest())
    assert (other.leases_of_tree, other.tree_pid) == (0, 200)


async def test_status_answers_in_every_state() -> None:
    services = Services()
    states = []
    for _ in range(3):
        answer = await services.vault.status(services.world.connect(), vault_pb2.StatusRequest())
        states.append(answer.state)
        if state_of(services.world) is State.UNINITIALIZED:
            await services.world.vault.init(GOOD, services.world.tree(), by=None)
        else:
            services.world.vault.lock(by=None)
    assert states == [
        vault_pb2.VAULT_STATE_UNINITIALIZED,
        vault_pb2.VAULT_STATE_UNLOCKED,
        vault_pb2.VAULT_STATE_LOCKED,
    ]


async def test_a_lease_is_told_in_full() -> None:
    services = await Services().stocked()
    request = leases_pb2.GetKeysRequest(names=["K"], ttl_seconds=60)
    answer = await services.leases.get_keys(services.world.connect(), request)
    epoch = services.world.clock.epoch
    (grant,) = services.world.standing_grants.all()
    assert answer.lease == leases_pb2.Lease(
        id=answer.lease.id,
        names=["K"],
        holder_pid=100,
        grant_ids=[grant.id],
        issued_at_ms=epoch * 1000,
        expires_at_ms=(epoch + 60) * 1000,
        max_expires_at_ms=(epoch + 86400) * 1000,
        remaining_seconds=60,
    )
    assert [(key.name, key.value) for key in answer.keys] == [("K", b"k")]


@pytest.mark.parametrize(
    ("what", "ended"),
    [({"lease_id": "?"}, 1), ({"key": "K"}, 1), ({"tree_pid": 100}, 1), ({"all": True}, 1)],
)
@pytest.mark.parametrize("whose", ["own", "other", "operator"])
async def test_anybody_may_revoke_and_only_those_who_may_know_are_told_how_many(
    what: dict[str, Any], ended: int, whose: str
) -> None:
    services = await Services().stocked()
    found = await services.leases.get_keys(
        services.world.connect(), leases_pb2.GetKeysRequest(names=["K"])
    )
    services.world.processes.add(200)
    connection = services.world.connect(101 if whose == "own" else 200)
    if whose == "operator":
        services.world.operators.admit(connection)
    asked: dict[str, Any] = {
        key: found.lease.id if value == "?" else value for key, value in what.items()
    }
    answer = await services.leases.revoke_leases(
        connection, leases_pb2.RevokeLeasesRequest(**asked)
    )
    assert len(services.world.live_leases) == 0
    assert answer.ended == (0 if whose == "other" else ended)


@pytest.mark.parametrize("request_", [{}, {"all": False}, {"key": "not a name"}])
async def test_revoking_nothing_in_particular_is_refused(request_: dict[str, Any]) -> None:
    services = await Services().stocked()
    await services.world.get("K")
    with pytest.raises(InvalidRequestError):
        await services.leases.revoke_leases(
            services.world.connect(), leases_pb2.RevokeLeasesRequest(**request_)
        )
    assert len(services.world.live_leases) == 1


async def test_a_caller_lists_the_leases_of_its_own_tree() -> None:
    services = await Services().stocked()
    await services.world.get("K")
    services.world.processes.add(200)
    await services.world.get("K", pid=200)
    request = leases_pb2.ListLeasesRequest()
    own = await services.leases.list_leases(services.world.connect(200), request)
    assert [lease.holder_pid for lease in own.leases] == [200]
    request = leases_pb2.ListLeasesRequest(all=True)
    every = await services.leases.list_leases(services.operator(200), request)
    assert len(every.leases) == 2


async def test_a_caller_lists_the_grants_that_cover_it() -> None:
    services = await Services().stocked()
    await services.world.grant("L", to="tree:100")
    services.world.processes.add(200)
    request = grants_pb2.ListGrantsRequest()
    found = await services.grants.list_grants(services.world.connect(200), request)
    assert [grant.selector for grant in found.grants] == [f"uid:{UID}"]


async def test_a_grant_without_counted_uses_says_so() -> None:
    services = await Services().stocked()
    request = grants_pb2.AddGrantRequest(patterns=["K"], selector=f"uid:{UID}")
    free = (await services.grants.add_grant(services.operator(), request)).grant
    request.uses = 3
    counted = (await services.grants.add_grant(services.operator(), request)).grant
    assert not free.HasField("uses_left")
    assert counted.uses_left == 3


async def test_deleting_tells_how_many_leases_ended() -> None:
    services = await Services().stocked()
    await services.world.get("K")
    request = keys_pb2.DeleteKeysRequest(names=["K", "L"])
    answer = await services.keys.delete_keys(services.operator(), request)
    assert (answer.deleted, answer.leases_ended) == (2, 1)


async def test_a_peer_that_has_ended_is_told_nothing() -> None:
    services = await Services().stocked()
    connection = services.world.connect(101)
    services.world.processes.kill(101)
    calls = (
        services.vault.status(connection, vault_pb2.StatusRequest()),
        services.leases.get_keys(connection, leases_pb2.GetKeysRequest(names=["K"])),
        services.leases.list_leases(connection, leases_pb2.ListLeasesRequest()),
        services.grants.list_grants(connection, grants_pb2.ListGrantsRequest()),
    )
    outcome = await settled(*map(asyncio.ensure_future, calls))
    assert {type(found) for found in outcome} == {PeerUnknownError}


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("reason", ["panic", "locked"])
async def test_who_watches_leases_is_told_of_the_lock_before_the_watch_ends(
    everything: bool, reason: str
) -> None:
    services = await Services().stocked()
    watch = services.leases.watch_leases(
        services.operator(), leases_pb2.WatchLeasesRequest(all=everything)
    )
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await services.world.get("K")
    await services.world.get("K")
    assert (await waiting).kind == leases_pb2.WatchLeasesResponse.KIND_ISSUED
    if reason == "panic":
        await services.vault.panic(services.world.connect(), vault_pb2.PanicRequest())
    else:
        await services.vault.lock(services.world.connect(), vault_pb2.LockRequest())
    assert [(await anext(watch)).reason for _ in range(3)] == ["", reason, reason]
    with pytest.raises(LockedError):
        await anext(watch)


async def test_an_operators_watch_ends_with_the_authority() -> None:
    services = await Services().stocked()
    operator = services.operator()
    watch = services.leases.watch_leases(operator, leases_pb2.WatchLeasesRequest(all=True))
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    services.world.operators.drop_all()
    await services.world.get("K")
    with pytest.raises(NotAuthorizedError):
        await waiting


async def test_a_caller_watches_the_leases_of_its_own_tree_only() -> None:
    services = await Services().stocked()
    services.world.processes.add(200)
    watch = services.leases.watch_leases(
        services.world.connect(200), leases_pb2.WatchLeasesRequest()
    )
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await services.world.get("K", pid=101)
    await services.world.get("K", pid=200)
    assert (await waiting).lease.holder_pid == 200


async def test_a_caller_sees_its_own_requests_and_the_operator_every_one() -> None:
    services = await Services().stocked()
    services.world.processes.add(200)
    with pytest.raises(WaitingError):
        await services.world.get("L", pid=200)
    request = requests_pb2.ListRequestsRequest()
    own = await services.requests.list_requests(services.world.connect(101), request)
    assert not own.requests
    request = requests_pb2.ListRequestsRequest(all=True)
    (shown,) = (await services.requests.list_requests(services.operator(), request)).requests
    assert list(shown.names) == ["L"]
    assert [process.may_be_root for process in shown.chain] == [True, False]
    assert [process.proposed_root for process in shown.chain] == [True, False]


async def test_what_a_caller_says_of_itself_is_shown_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = await Services().stocked()
    world = services.world
    world.processes.exec(101, "/tmp/\x1b[2Ja")
    monkeypatch.setattr(world.processes, "claimed_commands", lambda _: {101: "a\nroot: /bin/b"})
    with pytest.raises(WaitingError):
        await world.hand_out(world.connect(), "L", reason="\u202eyes")
    request = requests_pb2.ListRequestsRequest(all=True)
    (shown,) = (await services.requests.list_requests(services.operator(), request)).requests
    assert shown.chain[0].executable == "/tmp/\\x1b[2Ja"
    assert shown.chain[0].claimed_command == "a\\nroot: /bin/b"
    assert shown.claimed_reason == "\\u202eyes"


async def test_who_watches_requests_is_told_of_the_lock() -> None:
    services = await Services().stocked()
    watch = services.requests.watch_requests(
        services.operator(), requests_pb2.WatchRequestsRequest(all=True)
    )
    assert not (await anext(watch)).requests
    services.world.vault.lock(by=None)
    with pytest.raises(LockedError):
        await anext(watch)


async def test_locking_by_itself_is_due_from_the_moment_of_unlocking() -> None:
    services = await Services().stocked()
    world = services.world
    world.vault.lock(by=None)
    world.timer.deadline = None
    await services.vault.unlock(world.connect(), vault_pb2.UnlockRequest(passphrase=GOOD))
    assert world.timer.deadline == world.clock.boot() + 600


async def test_granting_says_which_of_the_named_keys_are_not_stored() -> None:
    services = await Services().stocked()
    connection = services.world.connect()
    services.world.operators.admit(connection)
    request = grants_pb2.AddGrantRequest(patterns=["K", "TYPO", "A*"], selector=f"uid:{UID}")
    answer = await services.grants.add_grant(connection, request)
    assert list(answer.not_stored) == ["TYPO"]


async def test_deleting_says_how_many_grants_still_name_the_keys() -> None:
    services = await Services().stocked()
    connection = services.world.connect()
    services.world.operators.admit(connection)
    await services.world.grant("K", to="tree:100")
    before = services.world.standing_grants.naming(["K"])
    request = keys_pb2.DeleteKeysRequest(names=["K"])
    assert (await services.keys.delete_keys(connection, request)).grants_left == before > 0


@pytest.mark.parametrize("lease_id", ["", "x", "0" * 31, "G" * 32, "0" * 32 + "\n"])
@pytest.mark.parametrize("give_back", [False, True])
async def test_what_cannot_be_the_id_of_a_lease_is_refused(lease_id: str, give_back: bool) -> None:
    services = await Services().stocked()
    request = leases_pb2.RevokeLeasesRequest(lease_id=lease_id, give_back=give_back)
    with pytest.raises(InvalidRequestError):
        await services.leases.revoke_leases(services.world.connect(), request)
