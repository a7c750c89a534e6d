"""Values that a lock embeds, fetched by the agent itself: `get` and the Python API on a daemon."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backpack_client import AsyncBackpack, Backpack, Failure
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from daemons import PASSPHRASE, RunningDaemon

VALUE = b"sk-embedded-0123456789"
CLIENT = [sys.executable, "-m", "backpack_client"]
PATIENCE = 120

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]


@pytest.fixture
def lock(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a lock that embeds E_KEY, and stands for K, which is stored; both are granted."""
    operator = daemon.operator()
    operator.put("K", b"stored")
    operator.grant("K", "E_KEY")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(lockfiles.LOCK_VARIABLE, raising=False)
    path = tmp_path / "agent.lock"
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        made = backpack.call(agent_calls.create_lock({}, {"K": None, "E_KEY": VALUE}))
    lockfiles.create(str(path), made.data)
    return path


def client(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*CLIENT, *arguments],
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def test_an_agent_that_was_handed_nothing_fetches_what_its_lock_embeds(lock: Path) -> None:
    fetch = f'{" ".join(CLIENT)} get --json K E_KEY | grep -c "{VALUE.decode()}"'
    done = client("run", "--inject", "none", "--", "sh", "-c", fetch)
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr


def test_an_address_that_the_lock_itself_brings_is_told(lock: Path) -> None:
    lock.unlink()
    with Backpack() as backpack:
        backpack.authorize(PASSPHRASE)
        embedded = {"OPENAI_BASE_URL": b"https://example.org", "K": None}
        made = backpack.call(agent_calls.create_lock({}, embedded))
        backpack.call(agent_calls.trust_lock(made.data, "", names=["OPENAI_BASE_URL"]))
        backpack.grant("OPENAI_BASE_URL", "K", to=f"uid:{os.geteuid()}")
    lockfiles.create(str(lock), made.data)
    done = client("run", "--", "sh", "-c", 'echo "$OPENAI_BASE_URL"')
    assert (done.returncode, done.stdout) == (0, b"https://example.org\n"), done.stderr
    assert b"warning: the lock itself sets OPENAI_BASE_URL" in done.stderr
    fetching = client("run", "--inject", "none", "--", "true")
    assert (fetching.returncode, fetching.stderr) == (0, b"")


def test_keys_that_are_missing_are_named_to_who_may_have_them(lock: Path) -> None:
    done = client("run", "--no-lock", "--key", "K", "--key", "E_KEY", "--", "true")
    assert (done.returncode, b"put E_KEY\n" in done.stderr, b"put K" in done.stderr) == (
        4, True, False
    ), done.stderr  # fmt: skip
    assert b"put E_KEY\n" in client("get", "E_KEY").stderr


def test_get_takes_a_lock_that_is_named(lock: Path) -> None:
    elsewhere = lock.rename(lock.with_name("other.lock"))
    assert client("get", "E_KEY").returncode == 4
    done = client("get", "E_KEY", "--lock", str(elsewhere))
    assert (done.returncode, done.stdout) == (0, VALUE + b"\n"), done.stderr


def test_get_and_lease_take_the_lock_that_run_has_named(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lockfiles.LOCK_VARIABLE, str(lock))
    with Backpack() as backpack:
        assert backpack.get("E_KEY").bytes("E_KEY") == VALUE
        with backpack.lease("E_KEY", "K") as keys:
            assert (keys.bytes("E_KEY"), keys.bytes("K")) == (VALUE, b"stored")


def test_get_and_lease_take_a_lock_that_is_named(lock: Path) -> None:
    with Backpack() as backpack:
        with pytest.raises(Failure, match="not stored"):
            backpack.get("E_KEY")
        assert backpack.get("E_KEY", lock=str(lock)).bytes("E_KEY") == VALUE
        with backpack.lease("E_KEY", lock="agent.lock") as keys:
            assert keys.bytes("E_KEY") == VALUE


async def test_the_asyncio_api_takes_a_lock_too(lock: Path) -> None:
    async with AsyncBackpack() as backpack:
        assert (await backpack.get("E_KEY", lock=str(lock))).bytes("E_KEY") == VALUE
        async with backpack.lease("E_KEY", lock=str(lock)) as keys:
            assert keys.bytes("E_KEY") == VALUE


def test_an_agent_whose_lock_is_gone_does_not_go_on_without_it(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lockfiles.LOCK_VARIABLE, str(lock))
    lock.unlink()
    with Backpack() as backpack, pytest.raises(Failure) as raised:
        backpack.get("K")
    assert raised.value.reason == "no-lock"
    assert "BACKPACK_AGENT_LOCK" in raised.value.hint
    assert client("get", "K").returncode == 1
