import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure, VaultState
from backpack_client.channel import check
from backpack_proto.v1 import grants_pb2, keys_pb2, leases_pb2, vault_pb2
from daemons import PASSPHRASE, RunningDaemon
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse, status

MARK = "marker-of-a-value"
PATIENCE = 30.0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        yield running


def test_importing_the_package_loads_nothing_that_costs() -> None:
    code = (
        "import sys, backpack_client; "
        "print([m for m in ('grpc', 'google.protobuf', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_everything_that_is_named_can_be_imported() -> None:
    import backpack_client  # noqa: PLC0415 - what is under test

    assert all(getattr(backpack_client, name) for name in backpack_client.__all__)
    assert set(backpack_client.__all__) <= set(dir(backpack_client))
    with pytest.raises(AttributeError):
        backpack_client.nothing_of_this_name  # noqa: B018 - the access is the test


def test_grpcs_verbosity_is_gone_after_the_import() -> None:
    code = "import os; from backpack_client import Backpack; print('GRPC_VERBOSITY' in os.environ)"
    environ = {key: text for key, text in os.environ.items() if key != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_status_is_read(fake: FakeDaemon) -> None:
    fake.answers["Status"] = lambda _: status(
        state=vault_pb2.VAULT_STATE_LOCKED,
        protections=[vault_pb2.Protection(name="scrubbing", on=True, detail="how")],
    )
    with Backpack(fake.path) as backpack:
        told = backpack.status()
    assert told.state is VaultState.LOCKED
    assert told.protections[0].name == "scrubbing"
    assert told.authorized_until is None
    assert told.started_at.timestamp() == 1_700_000_000


def test_a_state_of_a_newer_daemon_is_unknown(fake: FakeDaemon) -> None:
    fake.answers["Status"] = lambda _: status(state=9)
    with Backpack(fake.path) as backpack:
        assert backpack.status().state is VaultState.UNKNOWN


def test_a_put_carries_bytes_and_text_as_utf_8(fake: FakeDaemon) -> None:
    fake.answers["PutKeys"] = lambda _: keys_pb2.PutKeysResponse(created=2)
    with Backpack(fake.path) as backpack:
        assert backpack.put({"A": b"\xff", "B": "\u2603"}, replace=True).created == 2
    request = fake.requests("PutKeys")[0]
    assert [(key.name, key.value) for key in request.keys] == [
        ("A", b"\xff"),
        ("B", "\u2603".encode()),
    ]
    assert request.replace


def test_a_listing_comes_in_batches(fake: FakeDaemon) -> None:
    fake.answers["ListKeys"] = lambda _: [
        keys_pb2.ListKeysResponse(keys=[keys_pb2.KeyEntry(name=name)]) for name in "AB"
    ]
    with Backpack(fake.path) as backpack:
        assert [key.name for key in backpack.list(all=True)] == ["A", "B"]
    assert fake.requests("ListKeys")[0].all


def test_a_stream_that_fails_is_a_failure(fake: FakeDaemon) -> None:
    fake.answers["ListKeys"] = refuse("FAILED_PRECONDITION", "locked")
    with Backpack(fake.path) as backpack, pytest.raises(Failure) as caught:
        backpack.list()
    assert caught.value.exit_code == 3


def test_a_grant_carries_its_limits(fake: FakeDaemon) -> None:
    fake.answers["AddGrant"] = lambda request: grants_pb2.AddGrantResponse(
        grant=grants_pb2.Grant(id="g", patterns=request.patterns, selector=request.selector)
    )
    with Backpack(fake.path) as backpack:
        added = backpack.grant("A*", to="tree:5", ttl="1h", valid_for=60, uses=3, reason="why")
    request = fake.requests("AddGrant")[0]
    assert (request.max_ttl_seconds, request.valid_seconds, request.uses) == (3600, 60, 3)
    assert (added.id, added.uses_left, added.expires_at) == ("g", None, None)


def test_values_that_are_got_once_leave_their_lease_to_run_out(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    with Backpack(fake.path) as backpack:
        values = backpack.get("K", ttl="5m", reason="why")
    assert values["K"] == MARK
    assert [name for name, _ in fake.seen] == ["GetKeys"]


def test_a_lease_is_given_back_at_the_end(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse(ended=1)
    with Backpack(fake.path) as backpack:
        with backpack.lease("K", ttl="10m", reason="why") as keys:
            assert dict(keys) == {"K": MARK}
        with pytest.raises(Failure, match="given back"):
            keys["K"]
    assert fake.requests("GetKeys")[0].ttl_seconds == 600
    given = fake.requests("RevokeLeases")[0]
    # Revoking would end the consent, too, and a person would be asked again.
    assert (given.lease_id, given.give_back) == ("lease-1", True)


@pytest.mark.usefixtures("renewed_at_once")
def test_a_lease_is_renewed_while_it_is_open(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()}, lease(remaining=30))
    fake.answers["RenewLease"] = lambda _: leases_pb2.RenewLeaseResponse(lease=lease(remaining=900))
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    with Backpack(fake.path) as backpack, backpack.lease("K") as keys:
        assert fake.calls.get(timeout=PATIENCE) == "GetKeys"
        assert fake.calls.get(timeout=PATIENCE) == "RenewLease"
        assert keys["K"] == MARK


@pytest.mark.usefixtures("renewed_at_once")
def test_a_lease_that_was_revoked_says_so_at_the_next_access(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()}, lease(remaining=30))
    fake.answers["RenewLease"] = refuse("NOT_FOUND", "no-such-lease", "it has ended")
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    with Backpack(fake.path) as backpack, backpack.lease("K") as keys:
        thread = keys._thread
        assert thread is not None
        thread.join(PATIENCE)
        with pytest.raises(Failure, match="it has ended"):
            keys["K"]
        assert keys.failure is not None


def test_what_went_wrong_in_the_block_is_not_hidden_by_the_end(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = refuse("INTERNAL")
    with (
        Backpack(fake.path) as backpack,
        pytest.raises(ZeroDivisionError),
        backpack.lease("K"),
    ):
        raise ZeroDivisionError


def test_a_lease_that_could_not_be_given_back_is_told(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = refuse("INTERNAL")
    with Backpack(fake.path) as backpack, pytest.raises(Failure), backpack.lease("K"):
        pass


def test_a_lease_that_was_over_anyway_ends_quietly(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = refuse("FAILED_PRECONDITION", "locked")
    with Backpack(fake.path) as backpack, backpack.lease("K"):
        pass


def test_a_lease_is_opened_once(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    with Backpack(fake.path) as backpack:
        keys = backpack.lease("K")
        with keys:
            pass
        with pytest.raises(Failure), keys:
            pass


def test_closing_gives_open_leases_back_and_leaves_no_thread(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": MARK.encode()})
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    backpack = Backpack(fake.path)
    keys = backpack.lease("K").__enter__()
    backpack.close()
    assert len(fake.requests("RevokeLeases")) == 1
    assert keys._thread is not None
    keys._thread.join(PATIENCE)
    assert not keys._thread.is_alive()
    with pytest.raises(Failure):
        keys["K"]


def test_after_closing_every_call_is_refused(fake: FakeDaemon) -> None:
    backpack = Backpack(fake.path)
    backpack.close()
    backpack.close()
    with pytest.raises(Failure) as caught:
        backpack.status()
    assert caught.value.reason == "closed"


def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(fake: FakeDaemon) -> None:
    go_on = threading.Event()
    fake.answers["Status"] = lambda _: (go_on.wait(PATIENCE), status())[1]
    try:
        with Backpack(fake.path, timeout=3) as backpack, pytest.raises(Failure) as caught:
            backpack.status()
    finally:
        go_on.set()
    assert caught.value.reason == "no-answer"


def test_without_a_daemon_entering_fails_and_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught, Backpack(str(tmp_path / "none.sock")):
        pass
    assert caught.value.exit_code == 7
    assert "backpack-client start" in caught.value.hint


def test_a_socket_in_a_directory_that_others_can_write_is_refused(fake: FakeDaemon) -> None:
    Path(fake.path).parent.chmod(0o777)
    with pytest.raises(Failure) as caught, Backpack(fake.path):
        pass
    assert caught.value.reason == "socket-not-trusted"
    assert fake.seen == []


def test_a_socket_behind_a_path_that_is_too_long_for_an_address_is_reached(
    tmp_path: Path,
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    with fake_daemon(tmp_path) as fake:
        Path(fake.path).rename(deep / "s.sock")
        backpack = Backpack(str(deep / "s.sock"))
        with backpack:
            assert backpack.status().daemon_pid == 77
            assert backpack._grpc is not None
            assert backpack._grpc._target is not None
            descriptor = backpack._grpc._target.descriptor
            assert descriptor >= 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        # The server unlinks what it made.
        (deep / "s.sock").rename(fake.path)


def test_a_stale_socket_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(Failure) as caught:
        check(str(path))
    assert caught.value.reason == "no-daemon"


def test_after_a_fork_the_child_is_told_to_open_its_own(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Backpack(fake.path) as backpack:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with pytest.raises(Failure) as caught:
            backpack.status()
    assert caught.value.reason == "forked"


def test_operator_authority_is_not_shared_between_two_objects(daemon: RunningDaemon) -> None:
    path = str(daemon.socket)
    with Backpack(path) as first, Backpack(path) as second:
        first.init(PASSPHRASE)
        first.authorize(PASSPHRASE)
        first.put({"K": "v"})
        with pytest.raises(Failure) as caught:
            second.put({"L": "v"})
    assert caught.value.reason == "not-authorized"


def test_a_key_is_leased_and_given_back_on_a_real_daemon(daemon: RunningDaemon) -> None:
    with Backpack(str(daemon.socket)) as backpack:
        backpack.init(PASSPHRASE)
        backpack.authorize(PASSPHRASE)
        backpack.put({"K": MARK})
        backpack.grant("K", to=f"uid:{os.geteuid()}", ttl="1h")
        with backpack.lease("K", ttl=60) as keys:
            assert keys["K"] == MARK
            assert [each.id for each in backpack.leases()] == [keys.lease.id]
        assert backpack.leases() == []


async def test_the_same_with_asyncio_on_a_real_daemon(daemon: RunningDaemon) -> None:
    async with AsyncBackpack(str(daemon.socket)) as backpack:
        await backpack.init(PASSPHRASE)
        await backpack.authorize(PASSPHRASE)
        await backpack.put({"K": MARK})
        await backpack.grant("K", to=f"uid:{os.geteuid()}", ttl="1h")
        async with backpack.lease("K", ttl=60) as keys:
            assert keys["K"] == MARK
            assert [each.id for each in await backpack.leases()] == [keys.lease.id]
        assert await backpack.leases() == []
