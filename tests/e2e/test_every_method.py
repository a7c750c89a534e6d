"""Whatever is sent to whichever method, a designed error comes back or an answer, nothing else.

The invariant: no bytes from a caller make a method answer INTERNAL or UNKNOWN, or without a reason.
Every method of every service is called in every state of the vault, with and without operator
authority, with the committed corpus and with mutations of it. `FUZZ_SEED` and `FUZZ_COUNT` in the
environment choose others; a failure names the seed.
"""

import os
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from backpack_proto.v1 import agents_pb2, agents_pb2_grpc, leases_pb2
from daemons import Client, RunningDaemon
from request_corpus import Request, corpus, encoded, mutations, services

SEED = int(os.environ.get("FUZZ_SEED", "10"))
COUNT = int(os.environ.get("FUZZ_COUNT", "60"))
LEGACY = Path(__file__).parents[1] / "vectors" / "agent-lock-v1" / "default-key.agent.lock"
DESIGNED = {
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "UNAUTHENTICATED",
    "PERMISSION_DENIED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "DATA_LOSS", "UNAVAILABLE",
}  # fmt: skip
STATES = ("no vault", "locked", "unlocked", "authorized")
# What takes a second each time that it works, or stays open until its caller has enough.
FEW = {"WatchLeases", "WatchRequests", "Watch", "RotateMasterKey", "ExportKeys", "Init"}
# Seconds for what stays open by design; the status by which gRPC ends it carries no reason.
ENOUGH = 0.5
OPEN_ENDED = {"WatchLeases", "WatchRequests", "Watch", "GetKeys"}
TOGETHER = 8
"""How many of those wait at once."""
# The health service's own word for a service that it does not know (its proto file says so), and
# gRPC's for a method that nobody serves.
WITHOUT_REASON = {("Check", "NOT_FOUND"), ("List", "UNIMPLEMENTED")}
# Called last: after wrong passphrases the right one is not tried for a while either. And what has
# become an agent gets SIGTERM when its leases are revoked: here that is the test's own process.
LAST = {
    "Init", "Unlock", "Authorize", "ChangePassphrase", "Recover", "DrillRecovery", "ImportKeys",
    "GetKeys",
}  # fmt: skip


def raw_call(client: Client, request: Request, raw: bytes) -> None:
    """Make a call with these bytes, and take all that comes back."""
    method = request.method
    path = f"/{method.containing_service.full_name}/{method.name}"
    seconds = ENOUGH if method.name in OPEN_ENDED else 60
    channel = client.channel
    if method.client_streaming and method.server_streaming:
        list(channel.stream_stream(path)(iter([raw]), timeout=seconds))
    elif method.client_streaming:
        channel.stream_unary(path)(iter([raw]), timeout=seconds)
    elif method.server_streaming:
        list(channel.unary_stream(path)(raw, timeout=seconds))
    else:
        channel.unary_unary(path)(raw, timeout=seconds)


def fault(client: Client, request: Request, raw: bytes) -> str:
    """Make a call and say what is wrong with how it ends; empty: nothing."""
    try:
        raw_call(client, request, raw)
    except grpc.RpcError as error:
        ended: Any = error
        status, name = ended.code().name, request.method.name
        reason = dict(ended.trailing_metadata() or ()).get("backpack-reason", "")
        if name in OPEN_ENDED and status == "DEADLINE_EXCEEDED":
            return ""
        if (status not in DESIGNED or not reason) and (name, status) not in WITHOUT_REASON:
            return f"{status} with reason {reason!r}: {ended.details()}"
    return ""


class Setting:
    """A daemon in one of the states, and what the corpus needs of it."""

    def __init__(self, daemon: RunningDaemon, state: str) -> None:
        self._daemon = daemon
        self._state = state
        self.standins: dict[str, bytes] = {
            "@uid": str(os.geteuid()).encode(),
            "@legacy": LEGACY.read_bytes(),
        }
        self.standins |= {"@deep": b"[" * 30_000, "@digits": b'{"a":' + b"9" * 5000 + b"}"}
        self._prepare()
        self.client = self._daemon.client()
        self.restore()

    def _prepare(self) -> None:
        if self._state == "no vault":
            return
        operator = self._daemon.operator()
        operator.put("K", b"value")
        operator.grant("K")
        operator.get("K")
        agents: Any = agents_pb2_grpc.AgentsStub(operator.channel)
        made = agents.CreateLock(agents_pb2.CreateLockRequest())
        own = agents.Identity(agents_pb2.IdentityRequest()).identity.text
        with suppress(grpc.RpcError):
            operator.leases.GetKeys(leases_pb2.GetKeysRequest(names=["ASKED_FOR"]))
        self.standins |= {
            "@lock": made.agent_lock,
            "@hash": made.info.memory_hash.encode(),
            "@identity": own.encode(),
            "@code": operator.pending()[0].code.encode(),
        }

    def restore(self) -> None:
        """Bring the daemon back into the state, which calls may have ended."""
        if self._state == "locked":
            self.client.lock()
        elif self._state in ("unlocked", "authorized"):
            self.client.unlock()
            if self._state == "authorized":
                self.client.authorize()


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_the_corpus_has_requests_for_every_method(service: ServiceDescriptor) -> None:
    assert {request.method.name for request in corpus(service)} == set(service.methods_by_name)


@pytest.fixture
def daemon_in(state: str, request: pytest.FixtureRequest) -> RunningDaemon:
    """Return a daemon that has a vault in all states but the first."""
    if state != "no vault":
        request.getfixturevalue("cheap_vault")
    running: RunningDaemon = request.getfixturevalue("daemon")
    return running


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_every_method_answers_whatever_it_is_sent_by_design(
    daemon_in: RunningDaemon, service: ServiceDescriptor, state: str
) -> None:
    setting = Setting(daemon_in, state)
    chance = random.Random(f"{SEED} {service.full_name} {state}")
    by_method: dict[str, list[Request]] = defaultdict(list)
    for request in corpus(service):
        by_method[request.method.name].append(request)
    faults = []
    for name in sorted(by_method, key=LAST.__contains__):
        requests = by_method[name]
        raws = [(each, encoded(each.message, setting.standins)) for each in requests]
        count = COUNT // 10 if name in FEW else COUNT
        made = mutations(requests, count, chance, setting.standins)
        calls = [*raws, *((requests[0], raw) for raw in made)]
        with ThreadPoolExecutor(TOGETHER if name in OPEN_ENDED else 1) as threads:
            found = threads.map(lambda call: fault(setting.client, *call), calls)
            faults += [
                f"{name} of {len(raw)} bytes {raw[:200].hex()}: {wrong}"
                for (_, raw), wrong in zip(calls, found, strict=True)
                if wrong
            ]
        if name not in LAST:
            setting.restore()
    assert not faults, f"seed {SEED}:\n" + "\n".join(faults)
    log = daemon_in.log_text()
    assert [word for word in ("incident", "Traceback", "internal error") if word in log] == [], log
