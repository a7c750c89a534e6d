import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_proto.v1 import keys_pb2, leases_pb2
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse

PATIENCE = 30.0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        running.answers["GetKeys"] = handout({"K": b"v"})
        running.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
        yield running


def test_both_apis_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    named = {"status", "put", "lease", "grant", "approve", "policy", "identity"}
    assert named | {"slots", "rotate", "export", "audit", "call", "upload"} <= set(
        methods(Backpack)
    )
    assert methods(Backpack) == methods(AsyncBackpack)


async def test_a_listing_comes_in_batches_to_asyncio(fake: FakeDaemon) -> None:
    fake.answers["ListKeys"] = lambda _: [
        keys_pb2.ListKeysResponse(keys=[keys_pb2.KeyEntry(name=name)]) for name in "AB"
    ]
    async with AsyncBackpack(fake.path) as backpack:
        assert [key.name for key in await backpack.list()] == ["A", "B"]


async def test_a_refusal_is_a_failure_with_its_facts(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = refuse("PERMISSION_DENIED", "no-grant", tree_pid="42")
    async with AsyncBackpack(fake.path) as backpack:
        with pytest.raises(Failure) as caught:
            await backpack.get("K")
    assert caught.value.exit_code == 5
    assert "tree:42" in caught.value.hint


@pytest.mark.usefixtures("renewed_at_once")
async def test_an_async_lease_is_renewed_and_given_back(fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": b"v"}, lease(remaining=30))
    fake.answers["RenewLease"] = lambda _: leases_pb2.RenewLeaseResponse(lease=lease())
    async with AsyncBackpack(fake.path) as backpack:
        async with backpack.lease("K") as keys:
            await asyncio.to_thread(fake.calls.get, timeout=PATIENCE)
            assert await asyncio.to_thread(fake.calls.get, timeout=PATIENCE) == "RenewLease"
            assert keys["K"] == "v"
        with pytest.raises(Failure, match="given back"):
            keys["K"]
    assert [name for name, _ in fake.seen] == ["GetKeys", "RenewLease", "RevokeLeases"]


@pytest.mark.usefixtures("renewed_at_once")
async def test_an_async_lease_that_was_revoked_says_so_at_the_next_access(
    fake: FakeDaemon,
) -> None:
    fake.answers["GetKeys"] = handout({"K": b"v"}, lease(remaining=30))
    fake.answers["RenewLease"] = refuse("NOT_FOUND", "no-such-lease", "it has ended")
    async with AsyncBackpack(fake.path) as backpack, backpack.lease("K") as keys:
        assert keys._task is not None
        await asyncio.wait_for(keys._task, PATIENCE)
        with pytest.raises(Failure, match="it has ended"):
            keys["K"]


async def test_an_async_lease_is_given_back_when_its_task_is_cancelled(fake: FakeDaemon) -> None:
    opened = asyncio.Event()

    async def hold(backpack: AsyncBackpack) -> None:
        async with backpack.lease("K"):
            opened.set()
            await asyncio.Event().wait()

    async with AsyncBackpack(fake.path) as backpack:
        task = asyncio.create_task(hold(backpack))
        await asyncio.wait_for(opened.wait(), PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(fake.requests("RevokeLeases")) == 1


async def test_closing_gives_open_async_leases_back(fake: FakeDaemon) -> None:
    backpack = AsyncBackpack(fake.path)
    await backpack.lease("K").__aenter__()
    await backpack.close()
    await backpack.close()
    assert len(fake.requests("RevokeLeases")) == 1
    with pytest.raises(Failure) as caught:
        await backpack.status()
    assert caught.value.reason == "closed"


async def test_without_a_daemon_entering_an_async_backpack_fails(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        async with AsyncBackpack(str(tmp_path / "none.sock")):
            pass
    assert caught.value.exit_code == 7
