"""What agents call on a real daemon: each call has a connection of its own, and ends with it."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from daemons import PASSPHRASE, Client, RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault")

PATIENCE = 30.0


@pytest.fixture
def operator(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("BACKPACK_SOCKET", str(daemon.socket))
    operator = daemon.operator()
    operator.put("K", b"v")
    return operator


def until(true: Callable[[], bool]) -> None:
    """Ask the daemon again and again until something is so."""
    for _ in range(20_000):
        if true():
            return
    raise AssertionError("it did not come about")


async def test_a_task_that_is_cancelled_waits_for_nobody_and_leases_nothing(
    operator: Client,
) -> None:
    asked = asyncio.Event()
    async with AsyncBackpack() as backpack:
        getting = asyncio.create_task(backpack.get("K", wait="1h", on_wait=lambda _: asked.set()))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        (request,) = operator.pending()
        assert request.waiting == 1
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        until(lambda: operator.pending()[0].waiting == 0)
        operator.approve(request.code)
        assert await backpack.leases() == []


def test_closing_ends_a_wait_in_the_daemon_too(operator: Client) -> None:
    asked = threading.Event()
    backpack = Backpack()
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(backpack.get, "K", wait="1h", on_wait=lambda _: asked.set())
        assert asked.wait(PATIENCE)
        backpack.close()
        with pytest.raises(Failure) as caught:
            getting.result(PATIENCE)
    assert caught.value.reason == "closed"
    until(lambda: operator.pending()[0].waiting == 0)


def test_calls_go_on_with_a_daemon_that_was_started_again(
    operator: Client, daemon: RunningDaemon
) -> None:
    operator.grant("K")
    with Backpack() as backpack:
        watch = backpack.watch_leases()
        with backpack.lease("K") as keys:
            assert next(watch).kind in {"live", "issued"}
            daemon.kill()
            with pytest.raises(Failure) as caught:
                next(watch)
            assert (caught.value.reason, caught.value.exit_code) == ("no-daemon", 7)
            with pytest.raises(Failure) as caught:
                backpack.leases()
            assert caught.value.reason == "no-daemon"
            daemon.start()
            daemon.operator()
            # The lease ended with the daemon that had issued it.
            keys._renew_once()
            assert keys.failure is not None
            assert keys.failure.reason == "no-such-lease"
        assert backpack.get("K")["K"] == "v"


def test_the_largest_memory_is_saved_and_read(
    operator: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    memory = {"log": "x" * (255 * 1024)}
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        made = backpack.call(agent_calls.create_lock({}, {}, {}))
        lockfiles.create(str(tmp_path / "agent.lock"), made.data)
    with Backpack() as backpack:
        with backpack.agent(str(tmp_path / "agent.lock")) as agent:
            agent.memory.update(memory)
        assert backpack.agent(str(tmp_path / "agent.lock")).memory == memory


FORKS = """
import os, sys
from backpack_client import Backpack, Failure

with Backpack() as backpack, backpack.lease("K") as keys:
    watch = backpack.watch_leases()
    next(watch)
    child = os.fork()
    if child == 0:
        try:
            backpack.leases()
        except Failure as failure:
            print(failure.reason, flush=True)
        with Backpack() as own:
            print(own.get("K")["K"], flush=True)
        backpack.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(keys["K"], len(backpack.leases()), next(watch).kind)
"""


def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(operator: Client) -> None:
    operator.grant("K")
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("forked\nv\nv 2 issued\n", "")


INTERRUPTED = """
from backpack_client import Backpack

with Backpack() as backpack:
    backpack.get("K", wait="1h", on_wait=lambda code: print(code, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_ends_while_it_waits_is_not_waited_with(
    operator: Client, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as program:
        assert program.stdout is not None
        code = program.stdout.readline().decode().strip()
        assert [each.code for each in operator.pending()] == [code]
        os.kill(program.pid, number)
        program.wait(PATIENCE)
    until(lambda: all(each.waiting == 0 for each in operator.pending()))
