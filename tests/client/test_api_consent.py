"""Waiting for a person, answering requests, the policy, panic and the watches, from Python."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure, PolicyDefault
from backpack_proto.v1 import leases_pb2, policy_pb2, requests_pb2, vault_pb2
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse, request

PATIENCE = 30.0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        running.answers["GetKeys"] = handout({"K": b"v"})
        running.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
        yield running


def test_the_code_is_told_while_the_call_still_waits(fake: FakeDaemon) -> None:
    told = threading.Event()
    codes = []

    def answer(message: leases_pb2.GetKeysRequest) -> object:
        # The answer comes only after the code has arrived.
        assert told.wait(PATIENCE)
        return handout({"K": b"v"})(message)

    def on_wait(code: str) -> None:
        codes.append(code)
        told.set()

    fake.code, fake.answers["GetKeys"] = "K7QF", answer
    with Backpack(fake.path) as backpack:
        assert backpack.get("K", on_wait=on_wait)["K"] == "v"
    assert codes == ["K7QF"]


@pytest.mark.parametrize("code", ["", "K;reboot", "K" * 20])
def test_without_a_code_nobody_is_told(fake: FakeDaemon, code: str) -> None:
    fake.code = code
    codes: list[str] = []
    with Backpack(fake.path) as backpack, backpack.lease("K", on_wait=codes.append) as keys:
        assert keys["K"] == "v"
    assert codes == []


async def test_the_code_is_told_to_asyncio_too(fake: FakeDaemon) -> None:
    told = threading.Event()

    def answer(message: leases_pb2.GetKeysRequest) -> object:
        assert told.wait(PATIENCE)
        return handout({"K": b"v"})(message)

    fake.code, fake.answers["GetKeys"] = "K7QF", answer
    async with AsyncBackpack(fake.path) as backpack:
        assert (await backpack.get("K", on_wait=lambda _: told.set()))["K"] == "v"


@pytest.mark.parametrize(("wait", "seconds"), [("2m", 120), (0, 0), ("0s", 0)])
def test_the_wait_is_the_daemons_to_keep(fake: FakeDaemon, wait: str | int, seconds: int) -> None:
    with Backpack(fake.path) as backpack:
        backpack.get("K", wait=wait)
    assert fake.requests("GetKeys")[0].wait_seconds == seconds


def test_without_a_word_a_get_waits_a_minute(fake: FakeDaemon) -> None:
    with Backpack(fake.path) as backpack:
        backpack.get("K")
        with backpack.lease("K"):
            pass
    assert [each.wait_seconds for each in fake.requests("GetKeys")] == [60, 60]


def test_an_error_in_the_callback_ends_the_call(fake: FakeDaemon) -> None:
    fake.code = "K7QF"

    def on_wait(_: str) -> None:
        raise KeyError("mine")

    with Backpack(fake.path) as backpack, pytest.raises(KeyError, match="mine"):
        backpack.get("K", on_wait=on_wait)


def test_a_request_is_read_and_answered(fake: FakeDaemon) -> None:
    fake.answers["ListRequests"] = lambda _: requests_pb2.ListRequestsResponse(requests=[request()])
    fake.answers["ApproveRequest"] = lambda _: requests_pb2.ApproveRequestResponse(root_pid=65)
    fake.answers["DenyRequest"] = lambda _: requests_pb2.DenyRequestResponse()
    with Backpack(fake.path) as backpack:
        (found,) = backpack.requests(all=True)
        assert (found.code, found.names, found.chain[1].proposed_root) == ("K7QF", ("K",), True)
        assert backpack.approve("k7qf", once=True, root=64) == 65
        backpack.deny("K7QF")
    approved = fake.requests("ApproveRequest")[0]
    assert (approved.code, approved.once, approved.root_pid) == ("K7QF", True, 64)


@pytest.mark.parametrize("code", ["", "K7 F", "K\n", "K" * 17])
def test_what_is_no_code_is_a_usage_failure(fake: FakeDaemon, code: str) -> None:
    with Backpack(fake.path) as backpack:
        for answer in (backpack.approve, backpack.deny):
            with pytest.raises(Failure) as caught:
                answer(code)
            assert caught.value.exit_code == 2


def test_a_default_of_tomorrow_reads_as_the_tightest(fake: FakeDaemon) -> None:
    fake.answers["GetPolicy"] = lambda _: policy_pb2.GetPolicyResponse()
    with Backpack(fake.path) as backpack:
        assert backpack.policy().sealed.default == PolicyDefault.DENY


def test_panic_tells_what_it_ended(fake: FakeDaemon) -> None:
    fake.answers["Panic"] = lambda _: vault_pb2.PanicResponse(leases_ended=2, requests_ended=1)
    with Backpack(fake.path) as backpack:
        done = backpack.panic()
    assert (done.leases_ended, done.requests_ended) == (2, 1)


def events(_: object) -> list[leases_pb2.WatchLeasesResponse]:
    kind = leases_pb2.WatchLeasesResponse
    return [
        kind(kind=kind.KIND_LIVE, lease=lease()),
        kind(kind=kind.KIND_ENDED, lease=lease(), reason="revoked"),
    ]


def test_a_watch_tells_what_happens(fake: FakeDaemon) -> None:
    fake.answers["WatchLeases"] = events
    with Backpack(fake.path) as backpack, backpack.watch_leases() as watch:
        assert [(each.kind, each.reason) for each in watch] == [("live", ""), ("ended", "revoked")]


async def test_a_watch_tells_asyncio_what_happens(fake: FakeDaemon) -> None:
    fake.answers["WatchLeases"] = events
    async with AsyncBackpack(fake.path) as backpack, backpack.watch_leases() as watch:
        assert [each.kind async for each in watch] == ["live", "ended"]


def test_a_watch_that_the_daemon_ends_says_why(fake: FakeDaemon) -> None:
    fake.answers["WatchLeases"] = refuse("UNAUTHENTICATED", "not-authorized")
    with Backpack(fake.path) as backpack, pytest.raises(Failure) as caught:
        next(iter(backpack.watch_leases(all=True)))
    assert caught.value.reason == "not-authorized"


def test_a_watch_can_be_closed_by_another_thread(fake: FakeDaemon) -> None:
    going_on = threading.Event()

    def forever(_: object) -> Iterator[leases_pb2.WatchLeasesResponse]:
        yield events(_)[0]
        going_on.wait(PATIENCE)

    fake.answers["WatchLeases"] = forever
    with Backpack(fake.path) as backpack:
        watch = backpack.watch_leases()
        assert next(watch).kind == "live"
        closer = threading.Timer(0.05, watch.close)
        closer.start()
        assert list(watch) == []
        closer.join()
        going_on.set()
