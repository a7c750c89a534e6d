"""What a crash, and a disk without room, leave behind: the old state or the new one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.stores.vault_file import FILE_NAME
from backpackd.core.errors import DiskFullError
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault

VAULT = StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))

# Every commit puts one row and removes one, so that a torn commit shows. Acknowledges on stdout.
COMMITTING = """
import asyncio, os, pathlib, sys
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.rows import Change, KeyRow
async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    n = int((await store.load()).authority.split()[1])
    while True:
        n += 1
        row = KeyRow(n.to_bytes(32, "big"), 1, b"h" * 100, os.urandom(n * 37 % 9000) + b"v" * 16)
        gone = [(n - 5).to_bytes(32, "big")] if n > 5 else []
        before, after = b"authority %d" % (n - 1), b"authority %d" % n
        await store.commit(Change(before, after, put=[row], delete=gone))
        os.write(1, b"%d\\n" % n)
asyncio.run(main())
"""
CREATING = """
import asyncio, os, pathlib, sys
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.rows import SlotRow, StoredVault
async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    os.write(1, b"ready\\n")
    await store.create(StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),)))
    os.write(1, b"done\\n")
    sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


def names(home: Path) -> list[str]:
    return [path.name for path in home.iterdir()]


def run(script: str, home: Path) -> tuple[int, bytes]:
    """Run a script to its end and return its exit status and what it wrote."""
    done = subprocess.run([sys.executable, "-c", script, home], check=False, stdout=subprocess.PIPE)
    return done.returncode, done.stdout


def kill_after(script: str, home: Path, lines: int, seconds: float) -> list[bytes]:
    """Kill a script some time after some lines and return all that it acknowledged.

    Args:
        script: writes a line for everything that it has done.
        home: its argument.
        lines: how many to wait for.
        seconds: how long after the last of them the kill comes.
    """
    command = [sys.executable, "-c", script, os.fspath(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(lines)]
        # Waits for nothing: it picks the moment.
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        return acknowledged + child.stdout.readlines()


async def test_acknowledged_commits_survive_a_kill_at_any_moment(
    home: Path, chance: random.Random
) -> None:
    store = SqliteStore(home)
    await store.create(VAULT)
    await store.close()
    for _ in range(15):
        lines = kill_after(COMMITTING, home, chance.randrange(1, 12), chance.uniform(0, 0.003))
        acknowledged = int(lines[-1])
        store = SqliteStore(home)
        loaded = await store.load()
        assert loaded is not None
        last = int(loaded.authority.split()[1])
        assert last in {acknowledged, acknowledged + 1}
        numbers = {int.from_bytes(head.index, "big") for head in await store.heads()}
        assert numbers == set(range(max(1, last - 4), last + 1))
        await store.close()


async def test_a_kill_while_a_vault_is_made_leaves_none_or_all_of_it(
    tmp_path: Path, chance: random.Random
) -> None:
    for attempt in range(12):
        home = tmp_path / str(attempt)
        home.mkdir(mode=0o700)
        lines = kill_after(CREATING, home, 1, chance.uniform(0, 0.02))
        store = SqliteStore(home)
        found = await store.load()
        assert found == VAULT or (found is None and lines == [b"ready\n"])
        if found is None:
            await store.create(VAULT)
        assert await store.load() == VAULT
        await store.close()
        assert names(home) == [FILE_NAME]


STEPS = ["open", "fill", "synced", "linked", "unlinked"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_each_step_of_making_a_vault_leaves_none_or_all_of_it(
    home: Path, step: str
) -> None:
    script = f"""
import asyncio, os, pathlib, signal, sys
from backpackd.adapters.stores import sqlite
from backpackd.core.rows import SlotRow, StoredVault
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
step, store = {step!r}, sqlite.SqliteStore(pathlib.Path(sys.argv[1]))
if step == "open": store._file.connect = die
if step == "fill": sqlite._put_slots = die
if step == "synced": os.link = die
if step == "linked":
    link = os.link
    def os_link(*a): link(*a); die()
    os.link = os_link
if step == "unlinked": store._file.connect_checked = die
asyncio.run(store.create(StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))))
"""
    assert run(script, home) == (-signal.SIGKILL, b"")
    store = SqliteStore(home)
    found = await store.load()
    assert found == (VAULT if step in {"linked", "unlinked"} else None)
    if found is None:
        await store.create(VAULT)
    await store.close()
    assert names(home) == [FILE_NAME]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", path],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on a disk and return what takes it up."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


async def test_a_full_disk_is_told_and_the_old_state_stays(small_disk: Path) -> None:
    store = SqliteStore(small_disk)
    await store.create(VAULT)
    small = KeyRow(b"1" * 32, 1, b"h" * 100, b"v" * 100)
    await store.commit(Change(b"authority 0", b"authority 1", put=[small]))
    ballast = fill(small_disk)
    large = KeyRow(b"2" * 32, 1, b"h" * 100, os.urandom(60000))
    change = Change(b"authority 1", b"authority 2", put=[large], delete=[b"1" * 32])
    for _ in range(2):
        with pytest.raises(DiskFullError):
            await store.commit(change)
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 1"
    assert await store.rows([b"1" * 32, b"2" * 32]) == {b"1" * 32: small}
    ballast.unlink()
    await store.commit(change)
    assert await store.rows([b"1" * 32, b"2" * 32]) == {b"2" * 32: large}
    await store.close()


async def test_a_vault_on_a_full_disk_opens(small_disk: Path) -> None:
    store = SqliteStore(small_disk)
    await store.create(VAULT)
    await store.close()
    fill(small_disk)
    again = SqliteStore(small_disk)
    assert await again.load() == VAULT
    await again.close()


async def test_a_vault_that_finds_no_room_is_not_made_by_half(small_disk: Path) -> None:
    ballast = fill(small_disk)
    store = SqliteStore(small_disk)
    with pytest.raises(DiskFullError):
        await store.create(VAULT)
    assert not (small_disk / FILE_NAME).exists()
    ballast.unlink()
    await store.create(VAULT)
    assert await store.load() == VAULT
    await store.close()


async def test_a_crash_on_a_full_disk_loses_nothing_that_was_acknowledged(
    small_disk: Path,
) -> None:
    script = """
import asyncio, os, pathlib, signal, sys
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.errors import DiskFullError
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault
async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.create(StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),)))
    n = 0
    try:
        while True:
            row = KeyRow(n.to_bytes(32, "big"), 1, b"h" * 100, os.urandom(30000))
            await store.commit(Change(b"authority %d" % n, b"authority %d" % (n + 1), put=[row]))
            n += 1
    except DiskFullError:
        print(n, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    acknowledged = int(run(script, small_disk)[1])
    assert acknowledged > 1
    store = SqliteStore(small_disk)
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority %d" % acknowledged
    assert len(await store.heads()) == acknowledged
    await store.close()
