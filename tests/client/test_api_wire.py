"""What agents call, from both APIs: how it goes, and how it ends."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_client.wire import asynchronous, blocking
from backpack_proto.v1 import keys_pb2, leases_pb2, vault_pb2
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse
from wire_peer import BEGIN, PATIENCE, Peer, message, played_peer

MOST = 8 * 2**20
"""Bytes that the daemon sends in one message, at most."""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        running.answers["GetKeys"] = handout({"K": b"v"})
        yield running


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with played_peer(tmp_path) as playing:
        yield playing


def in_threads(path: str, do: Callable[[Any], Any], timeout: float = PATIENCE) -> Any:
    with Backpack(path, timeout) as backpack:
        return do(backpack)


def in_a_loop(path: str, do: Callable[[Any], Any], timeout: float = PATIENCE) -> Any:
    async def run() -> Any:
        async with AsyncBackpack(path, timeout) as backpack:
            return await do(backpack)

    return asyncio.run(run())


ways = pytest.mark.parametrize("way", [in_threads, in_a_loop])


@ways
def test_after_authorizing_one_connection_carries_every_call(
    way: Any, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse(authorized_until_ms=1)
    fake.answers["ListLeases"] = lambda _: leases_pb2.ListLeasesResponse(leases=[lease()])
    way(fake.path, lambda backpack: backpack.authorize("x"))

    def another(*_: object, **__: object) -> None:
        raise AssertionError("another connection, without authority")

    monkeypatch.setattr(blocking.Caller, "call", another)
    monkeypatch.setattr(asynchronous.Caller, "call", another)

    def thread(backpack: Backpack) -> int:
        backpack.authorize("x")
        return len(backpack.leases())

    async def task(backpack: AsyncBackpack) -> int:
        await backpack.authorize("x")
        return len(await backpack.leases())

    assert way(fake.path, thread if way is in_threads else task) == 1
    with pytest.raises(AssertionError, match="without authority"):
        way(fake.path, lambda backpack: backpack.leases())


@ways
def test_an_answer_as_long_as_the_daemons_longest_comes_whole(way: Any, fake: FakeDaemon) -> None:
    many = [lease(f"{number:032x}", names=["K" * 128] * 60) for number in range(1020)]
    answer = leases_pb2.ListLeasesResponse(leases=many)
    assert 0.9 * MOST < answer.ByteSize() < MOST
    fake.answers["ListLeases"] = lambda _: answer
    found = way(fake.path, lambda backpack: backpack.leases())
    assert [each.id for each in found] == [each.id for each in many]


@ways
def test_a_listing_of_any_length_comes_whole(way: Any, fake: FakeDaemon) -> None:
    # Three times what one answer may hold.
    batch = keys_pb2.ListKeysResponse(keys=[keys_pb2.KeyEntry(name="K" * 128)] * 8000)
    batches = 3 * MOST // batch.ByteSize()
    fake.answers["ListKeys"] = lambda _: [batch] * batches
    found = way(fake.path, lambda backpack: backpack.list())
    assert len(found) == 8000 * batches


@ways
def test_a_long_request_goes_whole(way: Any, fake: FakeDaemon, tmp_path: Path) -> None:
    # More than a frame, and more than a server takes unasked.
    lock = tmp_path / "agent.lock"
    lock.write_bytes(os.urandom(1000 * 1000))
    lock.chmod(0o600)
    assert way(fake.path, lambda backpack: backpack.get("K", lock=str(lock)))["K"] == "v"
    assert fake.requests("GetKeys")[0].agent_lock == lock.read_bytes()


@ways
@pytest.mark.parametrize("do", [lambda each: each.get("K", wait=0), lambda each: each.leases()])
def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(
    way: Any, peer: Peer, do: Any
) -> None:
    with pytest.raises(Failure) as caught:
        way(peer.path, do, timeout=0.2)
    assert (caught.value.reason, caught.value.exit_code) == ("no-answer", 7)


@ways
def test_a_daemon_that_is_lost_during_a_call_is_no_daemon(way: Any, peer: Peer) -> None:
    def hang_up() -> None:
        assert peer.asked.wait(PATIENCE)
        peer.hang_up()

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(Failure) as caught:
        way(peer.path, lambda backpack: backpack.leases())
    thread.join()
    assert (caught.value.reason, caught.value.exit_code) == ("no-daemon", 7)


@ways
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse("NOT_FOUND", "no-such-lease"), "no-such-lease"),
        (refuse("UNAVAILABLE", "shutting-down"), "shutting-down"),
        (refuse("UNAVAILABLE"), "no-daemon"),
        (refuse("INTERNAL"), "internal"),
    ],
)
def test_a_refusal_is_the_failure_that_it_is_over_grpc(
    way: Any, fake: FakeDaemon, answer: Any, reason: str
) -> None:
    fake.answers["ListLeases"] = answer
    with pytest.raises(Failure) as caught:
        way(fake.path, lambda backpack: backpack.leases())
    assert caught.value.reason == reason


@ways
def test_what_is_no_daemon_is_told(way: Any, peer: Peer) -> None:
    peer.says = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with pytest.raises(Failure) as caught:
        way(peer.path, lambda backpack: backpack.leases())
    assert caught.value.reason == "protocol"


def test_closing_ends_the_get_that_another_thread_waits_for(peer: Peer) -> None:
    peer.says = BEGIN
    backpack = Backpack(peer.path)
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(backpack.get, "K", wait="1h")
        assert peer.asked.wait(PATIENCE)
        backpack.close()
        with pytest.raises(Failure) as caught:
            getting.result(PATIENCE)
    assert caught.value.reason == "closed"


async def test_closing_ends_the_get_that_another_task_waits_for(peer: Peer) -> None:
    peer.says = BEGIN
    backpack = AsyncBackpack(peer.path)
    getting = asyncio.create_task(backpack.get("K", wait="1h"))
    await asyncio.to_thread(peer.asked.wait, PATIENCE)
    await backpack.close()
    with pytest.raises(Failure) as caught:
        await getting
    assert caught.value.reason == "closed"


def test_closing_ends_the_watch_that_another_thread_reads(peer: Peer) -> None:
    live = leases_pb2.WatchLeasesResponse(kind=leases_pb2.WatchLeasesResponse.KIND_LIVE)
    peer.says = BEGIN + message(live.SerializeToString())
    backpack = Backpack(peer.path)
    watch = backpack.watch_leases()
    assert next(watch).kind == "live"
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(next, watch)
        backpack.close()
        with pytest.raises(Failure) as caught:
            reading.result(PATIENCE)
    assert caught.value.reason == "closed"
    watch.close()


async def test_a_watch_that_asyncio_closes_ends_for_the_task_that_reads_it(peer: Peer) -> None:
    peer.says = BEGIN
    async with AsyncBackpack(peer.path) as backpack:
        watch = backpack.watch_leases()
        reading = asyncio.create_task(anext(watch, None))
        await asyncio.to_thread(peer.asked.wait, PATIENCE)
        watch.close()
        assert await reading is None


async def test_after_a_fork_a_child_is_told_to_open_its_own_asyncio_backpack(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncBackpack(fake.path) as backpack:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            with pytest.raises(Failure) as caught:
                await backpack.leases()
    assert caught.value.reason == "forked"


def test_a_lease_in_a_forked_child_says_so_and_stays_the_parents(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    parent = os.getpid()
    with Backpack(fake.path) as backpack, backpack.lease("K") as keys:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(Failure) as caught:
                backpack.lease("K").__enter__()
            assert caught.value.reason == "forked"
        assert keys["K"] == "v"
    assert len(fake.requests("GetKeys")) == 1
