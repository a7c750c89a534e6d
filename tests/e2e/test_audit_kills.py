"""SIGKILL at random moments under load: nothing acknowledged is lost, and nothing left unrecorded.

Two hundred kills by default, in shards that run side by side; BACKPACK_KILLS asks for more.
"""

import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from audit_client import AuditClient
from backpack_proto.v1 import keys_pb2, slots_pb2, slots_pb2_grpc
from backpackd.core.audit.chain import CHECKPOINT, Checkpoint
from backpackd.core.audit.record_state import digest_of
from cheap_vaults import make_cheap
from daemons import Client, RunningDaemon

SHARDS = 20
"""So many that no log gets long: all of it is read after each kill."""
KILLS = -(-int(os.environ.get("BACKPACK_KILLS", "200")) // SHARDS)
NAMES = [f"K{number}" for number in range(4)]
CHANGES = ["put", "put", "put", "delete", "delete", "grant", "grant", "ungrant", "rotate"]
LONGEST_LOAD = 0.25
"""Seconds within which a kill falls."""
STILL = {f"STILL{number}": b"still %d" % number for number in range(40)}
"""Keys that only a rotation touches."""

pytestmark = pytest.mark.usefixtures("quick_start")


@dataclass
class Told:
    """What a daemon acknowledged before it was killed.

    Attributes:
        values: of the keys that are stored.
        grants: that stand.
        asked: what was under way, and may have happened: a key with its value, or None if deleted.
        granting: whether a grant was under way.
        ungranting: a grant that was being taken back.
        leases: lease ids that came with values, and the names.
        acts: how many puts, deletes, grants, ungrants and rotations were acknowledged.
    """

    values: dict[str, bytes] = field(default_factory=dict)
    grants: set[str] = field(default_factory=set)
    asked: dict[str, bytes | None] = field(default_factory=dict)
    granting: bool = False
    ungranting: str = ""
    leases: dict[str, str] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)

    def act(self, kind: str) -> None:
        self.acts[kind] = self.acts.get(kind, 0) + 1


def change(client: Client, told: Told, chance: random.Random) -> None:
    """Change keys and grants, one after the other, until the daemon is gone."""
    try:
        while True:
            what = chance.choice(CHANGES)
            name = chance.choice(NAMES)
            if what == "put":
                value = chance.randbytes(chance.choice([8, 3000])).hex().encode()
                told.asked = {name: value}
                client.put(name, value, replace=True)
                told.values[name] = value
                told.act("put")
            elif what == "delete" and name in told.values:
                told.asked = {name: None}
                client.delete(name)
                del told.values[name]
                told.act("deleted")
            elif what == "grant" and len(told.grants) < 10:
                told.granting = True
                # Each is another one: a grant that stands as it is is no act.
                told.grants.add(client.grant("UNUSED", f"UNUSED_{chance.randbytes(4).hex()}"))
                told.granting = False
                told.act("granted")
            elif what == "ungrant" and told.grants:
                told.ungranting = chance.choice(sorted(told.grants))
                client.ungrant(told.ungranting)
                told.grants.discard(told.ungranting)
                told.ungranting = ""
                told.act("ungranted")
            elif what == "rotate":
                rotate(client)
                told.act("rotated")
            told.asked = {}
    except grpc.RpcError as error:
        if not gone(error):
            raise


def rotate(client: Client) -> None:
    """Put a new master key in force."""
    stub = slots_pb2_grpc.SlotsStub(client.channel)
    *_, last = stub.RotateMasterKey(slots_pb2.RotateMasterKeyRequest())
    assert (last.done, last.keys_done) == (True, last.keys_total)


def lease(client: Client, told: Told) -> None:
    """Get a key again and again until the daemon is gone."""
    try:
        while True:
            answer = client.get("FIXED", ttl=60)
            assert answer.keys[0].value == b"fixed"
            told.leases[answer.lease.id] = "FIXED"
    except grpc.RpcError as error:
        if not gone(error):
            raise


def gone(error: grpc.RpcError) -> bool:
    """Tell whether a call failed because its daemon was killed."""
    failed: object = error
    code = failed.code()  # type: ignore[attr-defined]
    return code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    home = tmp_path / "home"
    make_cheap(home)
    running = RunningDaemon(home, tmp_path / "run" / "s.sock")
    yield running
    running.close()


@pytest.mark.timeout(60 + 20 * KILLS)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_after_a_kill_nothing_acknowledged_is_missing(
    daemon: RunningDaemon, chance: random.Random, shard: int
) -> None:
    daemon.start()
    client = daemon.client()
    client.unlock()
    client.authorize()
    client.put("FIXED", b"fixed")
    client.grant("FIXED")
    client.grant("K*")
    client.grant("STILL*")
    still = [keys_pb2.KeyValue(name=name, value=value) for name, value in STILL.items()]
    client.keys.PutKeys(keys_pb2.PutKeysRequest(keys=still))
    told, leases = Told(), dict[str, str]()
    for _ in range(KILLS):
        killed(daemon, client, told, chance)
        leases |= told.leases
        daemon.start()
        client = daemon.client()
        client.unlock()
        client.authorize()
        told = check(client, daemon.home, told, leases, sample=chance.sample(sorted(STILL), 3))


def killed(daemon: RunningDaemon, client: Client, told: Told, chance: random.Random) -> None:
    """Put a daemon under load and kill it at a random moment."""
    # Drawn before the threads run, so that how far each gets changes nothing in later rounds.
    moment, changes = chance.uniform(0, LONGEST_LOAD), random.Random(chance.getrandbits(64))
    others = [daemon.client() for _ in range(2)]
    workers = [threading.Thread(target=change, args=(client, told, changes))]
    workers += [threading.Thread(target=lease, args=(other, told)) for other in others]
    for worker in workers:
        worker.start()
    # Waits for nothing: it picks the moment.
    threading.Event().wait(moment)
    assert daemon.process is not None
    daemon.process.kill()
    for worker in workers:
        worker.join()
    daemon.kill()
    check_record(daemon.home)


def check_record(home: Path) -> None:
    """Hold that the log's newest checkpoint names the record in the file, as the kill left both."""
    with closing(sqlite3.connect(home / "vault.db")) as connection:
        vault_id, sealed = connection.execute("SELECT vault_id, authority FROM vault").fetchone()
        (body,) = connection.execute(
            "SELECT body FROM audit_log WHERE kind = ? ORDER BY number DESC LIMIT 1", (CHECKPOINT,)
        ).fetchone()
    record = Checkpoint.decode(body).record
    assert record is not None
    assert record.digest == digest_of(vault_id, sealed)


def check(
    client: Client, home: Path, told: Told, leases: dict[str, str], *, sample: list[str]
) -> Told:
    """Hold what is there after a restart against what was acknowledged; return what is there.

    Args:
        client: has operator authority.
        home: the daemon's.
        told: what the run that was killed acknowledged.
        leases: of all runs.
        sample: of the keys that only rotations touch, those to read.
    """
    assert not (home / "vault.db.aside").exists()
    listed = set(client.list())
    assert STILL.keys() <= listed
    for name in sample:
        assert client.value(name) == STILL[name]
    stored = listed - STILL.keys() - {"FIXED"}
    found = {name: client.value(name) for name in stored}
    for name in NAMES:
        allowed = [told.values.get(name), *([told.asked[name]] if name in told.asked else [])]
        assert found.get(name) in allowed, name

    grants = {grant.id for grant in client.all_grants() if "UNUSED" in grant.patterns}
    assert told.grants - grants <= {told.ungranting}
    assert len(grants - told.grants) <= told.granting

    audit = AuditClient(client)
    verdict = audit.verify()
    assert (verdict.problem, verdict.vouched_until) == ("", int(verdict.head.partition("-")[0]))
    assert not client.status().audit_broken_at_ms
    entries = audit.show()
    assert all(entry.event != "damaged" for entry in entries)
    handed = {entry.lease_id: list(entry.names) for entry in entries if entry.event == "allowed"}
    for lease_id, name in leases.items():
        assert handed[lease_id] == [name]
    since = max(i for i, entry in enumerate(entries) if entry.event == "started")
    before = [i for i, entry in enumerate(entries[:since]) if entry.event == "started"]
    run = entries[before[-1] : since]
    for kind, count in told.acts.items():
        # A rotation is told apart from other acts of the operator by its reason.
        written = sum(kind in {entry.event, entry.reason} for entry in run)
        # One more may have been written and not been acknowledged.
        assert count <= written <= count + 2 + len(NAMES), kind
    return Told(values=found, grants=grants)
