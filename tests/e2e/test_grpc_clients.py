"""What callers rely on, held with each gRPC library against one real daemon.

Each library has one connection for all of this, with operator authority. So whatever would have
closed the connection shows: a library that connected again has lost the authority.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from backpack_proto.standard import health_pb2, reflection_pb2
from backpack_proto.v1 import (
    backup_pb2,
    keys_pb2,
    leases_pb2,
    policy_pb2,
    vault_pb2,
)
from backpackd.rpc.calls import MOST_OPEN
from backpackd.rpc.sizes import MAX_MESSAGE
from cheap_vaults import make_cheap
from daemons import PASSPHRASE, Client, RunningDaemon
from grpc_clients import GRPC_CLIENTS, GRPC_JS, HEALTH, REFLECTION, Ask, Ended, GrpcClient

LIBRARIES: Final = [
    pytest.param(
        name,
        marks=[
            pytest.mark.skipif(
                name == "grpc-js"
                and not (shutil.which("node") and (GRPC_JS / "node_modules" / "@grpc").is_dir()),
                reason="needs node and npm (Debian: nodejs, npm) to install @grpc/grpc-js",
            )
        ],
    )
    for name in GRPC_CLIENTS
]
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
VALUES: Final = {f"LONG_{number:03}": bytes([number]) * 65536 for number in range(64)}
STATUS: Final = Ask("Vault/Status", [vault_pb2.StatusRequest()])
# Needs operator authority, and is short.
POLICY: Final = Ask("Policy/GetPolicy", [policy_pb2.GetPolicyRequest()])


def authorize(client: GrpcClient) -> None:
    (ended,) = client.calls(
        [Ask("Vault/Authorize", [vault_pb2.AuthorizeRequest(passphrase=PASSPHRASE)])]
    )
    assert ended.status == "OK"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Return a daemon with an unlocked vault, for all of this."""
    place = tmp_path_factory.mktemp("clients")
    make_cheap(place / "home")
    environ = {"HOME": str(place), "PATH": "/usr/bin:/bin"}
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock", environ=environ)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def operator(running: RunningDaemon) -> Client:
    """Return somebody who answers requests, and looks what the daemon holds."""
    client = running.operator()
    keys = [keys_pb2.KeyValue(name=name, value=value) for name, value in VALUES.items()]
    client.keys.PutKeys(keys_pb2.PutKeysRequest(keys=keys))
    client.grant("LONG_*")
    return client


@pytest.fixture(scope="module", params=LIBRARIES)
def client(
    request: pytest.FixtureRequest, running: RunningDaemon, operator: Client
) -> Iterator[GrpcClient]:
    """Return one library, connected, with operator authority."""
    library = GRPC_CLIENTS[request.param](running.socket)
    try:
        authorize(library)
        yield library
        # Nothing of all this has closed its connection.
        assert library.calls([POLICY])[0].status == "OK"
    finally:
        library.close()


def get_keys(*names: str, wait: int = 0, **options: Any) -> Ask:
    request = leases_pb2.GetKeysRequest(names=names, wait_seconds=wait)
    return Ask("Leases/GetKeys", [request], **options)


def one(client: GrpcClient, ask: Ask) -> Ended:
    (ended,) = client.calls([ask])
    return ended


def values(ended: Ended) -> list[bytes]:
    assert ended.status == "OK", ended
    return [key.value for response in ended.responses for key in response.keys]


def until_nobody_waits(operator: Client, name: str) -> None:
    """Wait until no call waits for a key; the test's own time limit bounds it."""
    while any(request.waiting for request in operator.pending() if name in request.names):
        pass


def test_a_call_is_answered(client: GrpcClient) -> None:
    assert values(one(client, get_keys("LONG_001"))) == [VALUES["LONG_001"]]


def test_a_stream_of_responses_comes_whole_and_in_order(client: GrpcClient) -> None:
    ended = one(client, Ask("Keys/ListKeys", [keys_pb2.ListKeysRequest(all=True)]))
    names = [key.name for response in ended.responses for key in response.keys]
    assert ended.status == "OK"
    assert [name for name in names if name in VALUES] == sorted(VALUES)


def test_streams_carry_megabytes_in_either_direction(client: GrpcClient) -> None:
    request = backup_pb2.ExportKeysRequest(passphrase=b"nine loud badgers at noon")
    exported = one(client, Ask("Backup/ExportKeys", [request]))
    assert exported.status == "OK"
    assert len(exported.responses) > 1
    terms = backup_pb2.ImportTerms(
        passphrase=request.passphrase, on_conflict=backup_pb2.ON_CONFLICT_KEEP
    )
    parts = [backup_pb2.ImportKeysRequest(data=each.data) for each in exported.responses]
    imported = one(
        client, Ask("Backup/ImportKeys", [backup_pb2.ImportKeysRequest(terms=terms), *parts])
    )
    assert imported.status == "OK"
    assert imported.responses[0].kept == exported.responses[0].keys >= len(VALUES)


def test_streams_may_consist_of_many_short_messages(client: GrpcClient) -> None:
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="backpack.v1.Vault")
    told = one(client, Ask(f"{REFLECTION[0]}/ServerReflectionInfo", [asked] * 600))
    assert (told.status, len(told.responses)) == ("OK", 600)
    parts = [backup_pb2.ImportKeysRequest(data=b"x") for _ in range(1000)]
    terms = backup_pb2.ImportTerms(passphrase=PASSPHRASE, on_conflict=backup_pb2.ON_CONFLICT_KEEP)
    sent = one(
        client, Ask("Backup/ImportKeys", [backup_pb2.ImportKeysRequest(terms=terms), *parts])
    )
    assert sent.failure == ("DATA_LOSS", "not-a-backup")


def test_a_stream_of_requests_may_be_refused_while_it_is_sent(client: GrpcClient) -> None:
    terms = backup_pb2.ImportTerms(passphrase=PASSPHRASE, on_conflict=backup_pb2.ON_CONFLICT_KEEP)
    junk = [backup_pb2.ImportKeysRequest(data=bytes(65536)) for _ in range(40)]
    ended = one(
        client, Ask("Backup/ImportKeys", [backup_pb2.ImportKeysRequest(terms=terms), *junk])
    )
    assert ended.failure == ("DATA_LOSS", "not-a-backup")


def test_a_deadline_ends_the_call_on_both_sides(client: GrpcClient, operator: Client) -> None:
    ended = one(client, get_keys("DEADLINE", wait=3600, timeout=1))
    assert ended.status == "DEADLINE_EXCEEDED"
    assert ended.initial["backpack-request-code"] in {one.code for one in operator.pending()}
    until_nobody_waits(operator, "DEADLINE")


def test_a_call_that_its_caller_takes_back_ends_in_the_daemon(
    client: GrpcClient, operator: Client
) -> None:
    ended = one(client, get_keys("CANCELLED", wait=3600, cancel="metadata"))
    assert ended.status == "CANCELLED"
    assert ended.initial["backpack-request-code"] in {one.code for one in operator.pending()}
    until_nobody_waits(operator, "CANCELLED")


@pytest.mark.parametrize(
    ("status", "end"),
    [("DEADLINE_EXCEEDED", {"timeout": 0.3}), ("CANCELLED", {"cancel": "message"})],
)
def test_streams_that_are_ended_early_make_room_for_as_many(
    client: GrpcClient, status: str, end: dict[str, Any]
) -> None:
    request = health_pb2.HealthCheckRequest()
    for _ in range(2):
        ended = client.calls([Ask(f"{HEALTH}/Watch", [request], **end)] * MOST_OPEN)
        assert [each.failure for each in ended] == [(status, "")] * MOST_OPEN


def test_a_message_of_eight_mebibytes_arrives_and_a_longer_one_is_refused(
    client: GrpcClient,
) -> None:
    keys = [keys_pb2.KeyValue(name=name, value=value) for name, value in VALUES.items()]
    keys += [keys_pb2.KeyValue(name=f"MORE_{name}", value=value) for name, value in VALUES.items()]
    request = keys_pb2.PutKeysRequest(keys=keys, replace=True)
    request.keys[-1].value = request.keys[-1].value[: MAX_MESSAGE - request.ByteSize()]
    assert request.ByteSize() == MAX_MESSAGE
    assert one(client, Ask("Keys/PutKeys", [request])).status == "OK"
    request.keys[-1].value += b"x"
    assert one(client, Ask("Keys/PutKeys", [request])).failure == (
        "RESOURCE_EXHAUSTED",
        "request-too-large",
    )


def test_the_longest_answer_arrives(client: GrpcClient) -> None:
    assert values(one(client, get_keys(*VALUES))) == list(VALUES.values())


def test_a_thousand_calls_go_over_one_connection(client: GrpcClient) -> None:
    for _ in range(1000):
        assert one(client, POLICY).status == "OK"


def test_sixty_four_calls_at_once_get_each_its_own_answer(client: GrpcClient) -> None:
    ended = client.calls([get_keys(name) for name in VALUES])
    assert [values(each) for each in ended] == [[value] for value in VALUES.values()]


def test_sixty_four_calls_that_wait_hold_up_no_other_and_are_answered_together(
    client: GrpcClient, operator: Client, chance: Any
) -> None:
    name = f"ASKED_{chance.randrange(10**9)}"
    operator.put(name, b"v")
    waiting = [get_keys(name, wait=3600)] * 64
    with ThreadPoolExecutor() as pool:
        answered = pool.submit(client.calls, [*waiting, STATUS])
        while [one.waiting for one in operator.pending() if name in one.names] != [64]:
            pass
        assert operator.status().state == vault_pb2.VAULT_STATE_UNLOCKED
        (code,) = (one.code for one in operator.pending() if name in one.names)
        operator.approve(code, once=True)
        *got, status = answered.result()
    assert [values(each) for each in got] == [[b"v"]] * 64
    assert status.status == "OK"


def test_health_is_told_once_and_watched(client: GrpcClient) -> None:
    for service in ("", "backpack.v1.Leases"):
        request = health_pb2.HealthCheckRequest(service=service)
        assert one(client, Ask(f"{HEALTH}/Check", [request])).responses[0].status == SERVING
        watched = one(client, Ask(f"{HEALTH}/Watch", [request], cancel="message"))
        assert (watched.status, watched.responses[0].status) == ("CANCELLED", SERVING)
    request = health_pb2.HealthCheckRequest(service="nothing")
    assert one(client, Ask(f"{HEALTH}/Check", [request])).failure == (
        "NOT_FOUND",
        "no-such-service",
    )


@pytest.mark.parametrize("service", REFLECTION)
def test_the_api_describes_itself(client: GrpcClient, service: str) -> None:
    wanted = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="backpack.v1.Vault.Unlock"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=service),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nothing"),
    ]
    ended = one(client, Ask(f"{service}/ServerReflectionInfo", wanted))
    assert ended.status == "OK"
    listed, vault, own, nothing = ended.responses
    names = {each.name for each in listed.list_services_response.service}
    assert names >= {"backpack.v1.Vault", HEALTH, *REFLECTION}
    described = [
        FileDescriptorProto.FromString(response.file_descriptor_response.file_descriptor_proto[0])
        for response in (vault, own)
    ]
    assert [(each.package, each.service[0].name) for each in described] == [
        ("backpack.v1", "Vault"),
        (service.rpartition(".")[0], "ServerReflection"),
    ]
    assert nothing.error_response.error_code == 5


def test_a_failure_arrives_with_its_status_its_message_and_what_is_known(
    client: GrpcClient,
) -> None:
    failed = {
        "waiting": get_keys("NOBODY_ANSWERS"),
        "missing": get_keys("LONG_000", "LONG_MISSING"),
        "malformed": get_keys(),
        "no method": Ask("Vault/Nothing", STATUS.requests),
        "no service": Ask("backpack.v9.Vault/Status", STATUS.requests),
    }
    ended = dict(zip(failed, client.calls(list(failed.values())), strict=True))
    assert {name: each.failure for name, each in ended.items()} == {
        "waiting": ("DEADLINE_EXCEEDED", "waiting-for-approval"),
        "missing": ("NOT_FOUND", "no-such-key"),
        "malformed": ("INVALID_ARGUMENT", "no-names"),
        "no method": ("UNIMPLEMENTED", "no-such-method"),
        "no service": ("UNIMPLEMENTED", "no-such-method"),
    }
    assert ended["missing"].trailing["backpack-missing"] == "LONG_MISSING"
    assert ended["waiting"].trailing["backpack-request-code"]
    assert ended["waiting"].trailing["backpack-tree-pid"].isdecimal()
    assert all(each.message for each in ended.values())


def test_more_calls_at_once_than_a_connection_takes_wait_in_the_library(
    client: GrpcClient,
) -> None:
    assert {each.status for each in client.calls([STATUS] * 300)} == {"OK"}


@pytest.mark.usefixtures("cheap_vault")
@pytest.mark.parametrize("library", LIBRARIES)
def test_when_the_daemon_stops_every_call_ends_and_says_so(
    daemon: RunningDaemon, library: str
) -> None:
    operator = daemon.operator()
    client = GRPC_CLIENTS[library](daemon.socket)
    watch = Ask(f"{HEALTH}/Watch", [health_pb2.HealthCheckRequest()])
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(client.calls, [watch, get_keys("NOBODY_ANSWERS", wait=3600)])
        # Both were sent in this order on one connection.
        while not any(request.waiting for request in operator.pending()):
            pass
        assert daemon.terminate() == 0
        watched, waited = ending.result()
    client.close()
    assert [watched.status, waited.status] == ["UNAVAILABLE"] * 2
    # At the first word of a stop, grpclib ends all calls without waiting for more.
    if library != "grpclib":
        assert [each.status for each in watched.responses] == [SERVING, NOT_SERVING]
        assert {watched.failure, waited.failure} == {("UNAVAILABLE", "shutting-down")}
