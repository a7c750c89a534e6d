"""The Python API for agents on a real daemon: personality, and a memory that nobody loses."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_client.calls import agents as agent_calls
from backpack_client.cli.agents import agent_memory
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LOCK_VARIABLE
from daemons import PASSPHRASE, RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")


@pytest.fixture
def lock(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a lock with a memory of one entry, in the current directory."""
    daemon.operator()
    path = tmp_path / "agent.lock"
    with Backpack(str(daemon.socket)) as backpack:
        backpack.authorize(PASSPHRASE)
        call = agent_calls.create_lock({"system_prompt": "be brief"}, {}, {"count": 0})
        lockfiles.create(str(path), backpack.call(call).data)
    monkeypatch.chdir(tmp_path)
    return path


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value.reason


def test_personality_and_memory_are_there_without_the_passphrase(lock: Path) -> None:
    with Backpack() as backpack, backpack.agent() as agent:
        assert agent.personality["system_prompt"] == "be brief"
        assert agent.memory == {"count": 0}
        assert agent.path == str(lock)
        assert agent.info.author is not None
        assert agent.info.author.own


def test_the_personality_cannot_be_written(lock: Path) -> None:
    with Backpack() as backpack:
        personality = backpack.agent(str(lock)).personality
        with pytest.raises(TypeError):
            personality["system_prompt"] = "anything goes"  # type: ignore[index]


def test_the_memory_is_saved_at_the_end_of_the_block(lock: Path) -> None:
    with Backpack() as backpack:
        with backpack.agent() as agent:
            agent.memory["list"] = [1]
            agent.memory["list"].append({"deep": True})
        assert backpack.agent().memory == {"count": 0, "list": [1, {"deep": True}]}
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_memory_that_was_not_changed_writes_no_file(lock: Path) -> None:
    before = lock.stat()
    with Backpack() as backpack, backpack.agent() as agent:
        agent.memory["count"] = 0
    assert lock.stat().st_ino == before.st_ino


def test_an_exception_that_leaves_the_block_saves_nothing(lock: Path) -> None:
    before = lock.read_bytes()

    def fails() -> None:
        with Backpack() as backpack, backpack.agent() as agent:
            agent.memory["half"] = "done"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert lock.read_bytes() == before


def test_two_agents_that_changed_different_entries_lose_nothing(lock: Path) -> None:
    with Backpack() as backpack:
        one, two = backpack.agent(), backpack.agent(str(lock))
        one.memory["one"] = 1
        two.memory["two"] = 2
        one.save()
        two.save()
        assert two.memory == {"count": 0, "one": 1, "two": 2}
        assert backpack.agent().memory == {"count": 0, "one": 1, "two": 2}


def test_two_agents_that_changed_the_same_entry_are_told(lock: Path) -> None:
    with Backpack() as backpack:
        one, two = backpack.agent(), backpack.agent(str(lock))
        one.memory["count"], two.memory["count"] = 1, 2
        one.save()
        assert reason(two.save) == "memory-conflict"
        assert backpack.agent().memory == {"count": 1}
        two.reload()
        assert two.memory == {"count": 1}


def test_a_memory_is_joined_with_a_personality_that_was_edited_meanwhile(lock: Path) -> None:
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        agent = backpack.agent()
        seen = lockfiles.read(str(lock))
        edited = backpack.call(agent_calls.edit_lock(seen.data, personality={"tone": "dry"}))
        lockfiles.replace(seen, edited.data)
        agent.memory["count"] = 7
        agent.save()
        again = backpack.agent()
        assert (dict(again.personality), again.memory) == ({"tone": "dry"}, {"count": 7})


def test_a_counter_that_many_raise_at_once_loses_no_count(
    daemon: RunningDaemon, lock: Path
) -> None:
    agents, times = 4, 5
    failures: list[BaseException] = []

    def raise_one(memory: dict[str, object]) -> None:
        count = memory["count"]
        assert isinstance(count, int)
        memory["count"] = count + 1

    def work() -> None:
        try:
            with Backpack(str(daemon.socket)) as backpack:
                agent = backpack.agent(str(lock))
                for _ in range(times):
                    agent.update(raise_one)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(agents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Backpack() as backpack:
        assert backpack.agent(str(lock)).memory == {"count": agents * times}


def test_update_runs_again_on_what_somebody_else_saved_meanwhile(lock: Path) -> None:
    with Backpack() as backpack:
        other, agent = backpack.agent(), backpack.agent()
        seen: list[object] = []

        def change(memory: dict[str, object]) -> None:
            seen.append(memory["count"])
            if len(seen) == 1:
                other.memory["count"] = 10
                other.save()
            memory["count"] = f"after {memory['count']}"

        agent.update(change)
        assert (seen, agent.memory) == ([0, 10], {"count": "after 10"})


def test_the_lock_that_run_has_named_is_the_agents(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".git").mkdir()
    monkeypatch.chdir(elsewhere)
    with Backpack() as backpack:
        assert reason(backpack.agent) == "no-lock"
        monkeypatch.setenv(LOCK_VARIABLE, str(lock))
        assert backpack.agent().path == str(lock)


def test_a_memory_that_is_too_large_is_refused_and_the_file_is_as_it_was(lock: Path) -> None:
    before = lock.read_bytes()
    with Backpack() as backpack:
        agent = backpack.agent()
        agent.memory["long"] = "x" * (1024 * 1024)
        assert reason(agent.save) == "invalid-lock-content"
    assert lock.read_bytes() == before


def test_a_vault_that_is_locked_meanwhile_saves_nothing(daemon: RunningDaemon, lock: Path) -> None:
    before = lock.read_bytes()
    with Backpack() as backpack:
        agent = backpack.agent()
        agent.memory["count"] = 1
        daemon.client().lock()
        assert reason(agent.save) == "locked"
        assert lock.read_bytes() == before
        backpack.unlock(PASSPHRASE)
        agent.save()
        assert backpack.agent().memory == {"count": 1}


async def test_the_asyncio_agent_does_the_same(lock: Path) -> None:
    async with AsyncBackpack() as backpack:
        async with backpack.agent() as agent:
            assert agent.personality["system_prompt"] == "be brief"
            agent.memory["count"] = 1
        async with backpack.agent(str(lock)) as again:
            assert again.memory == {"count": 1}
        assert (await backpack.identity()).fingerprint


async def test_asyncio_agents_that_save_at_once_lose_nothing(lock: Path) -> None:
    async with AsyncBackpack() as backpack:

        async def work(name: str) -> None:
            async with backpack.agent(str(lock)) as agent:
                for number in range(3):
                    agent.memory[name] = number
                    await agent.save()

        await asyncio.gather(*(work(name) for name in "abcd"))
        async with backpack.agent(str(lock)) as agent:
            assert agent.memory == {"count": 0, "a": 2, "b": 2, "c": 2, "d": 2}


async def test_an_asyncio_agent_that_is_not_open_says_so(lock: Path) -> None:
    async with AsyncBackpack() as backpack:
        agent = backpack.agent(str(lock))
        with pytest.raises(Failure, match="not open yet"):
            _ = agent.memory


def test_a_memory_that_is_put_back_right_after_a_save_is_told(lock: Path) -> None:
    before = lock.read_bytes()
    with Backpack() as backpack, backpack.agent() as agent:
        agent.memory["count"] = 1
    lock.write_bytes(before)
    with Backpack() as backpack:
        assert backpack.agent().info.warnings == ("memory-stepped-back",)


def test_a_memory_that_is_put_back_right_after_an_asyncio_save_is_told(lock: Path) -> None:
    before = lock.read_bytes()

    async def save() -> None:
        async with AsyncBackpack() as backpack, backpack.agent() as agent:
            agent.memory["count"] = 1

    asyncio.run(save())
    lock.write_bytes(before)
    with Backpack() as backpack:
        assert backpack.agent().info.warnings == ("memory-stepped-back",)


@pytest.mark.parametrize("fresh", [{}, {"only": 1}])
def test_replacing_the_memory_leaves_nothing_that_was_saved_meanwhile(
    lock: Path, fresh: dict[str, object]
) -> None:
    with Backpack() as backpack:
        person, agent = backpack.agent(), backpack.agent()
        agent.memory["late"] = "personal data"
        agent.save()
        agent_memory._replace(person, fresh)
        assert backpack.agent().memory == fresh
