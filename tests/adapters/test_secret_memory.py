"""The arena on the real kernel: who can read it, what a wipe leaves, what happens without it."""

import ctypes
import errno
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backpackd.adapters.secrets import secret_memory
from backpackd.adapters.secrets.secret_memory import SLOT_SIZE, Arena
from backpackd.core.errors import HomeError, LimitError

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HOLDER = """
import json, os, sys
from backpackd.adapters.secrets import secret_memory
if sys.argv[1] == "mlock":
    def missing():
        raise OSError(38, "not there")
    secret_memory._map_secret = missing
arena = secret_memory.Arena()
slot = arena.store(os.urandom(32))
print(json.dumps({"address": arena._address, "kind": arena.kind}), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena()
    yield made
    made.close()


@contextmanager
def holder(kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a process that holds a secret, and say where."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield process.pid, json.loads(process.stdout.readline())
        process.communicate(b"")


def missing() -> int:
    raise OSError(errno.ENOSYS, "not there")


def without_secretmem(monkeypatch: pytest.MonkeyPatch) -> Arena:
    monkeypatch.setattr(secret_memory, "_map_secret", missing)
    return Arena()


def mapping_flags(address: int) -> set[str]:
    """Return the kernel's flags of the mapping that begins at `address`, proc_pid_smaps(5)."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = found or line.startswith(f"{address:08x}-")
        if found and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("there is no such mapping")


def page(arena: Arena) -> bytes:
    return ctypes.string_at(arena._address, secret_memory._PAGE)


def test_what_was_stored_is_lent(arena: Arena) -> None:
    slot = arena.store(b"a master key of 32 bytes, no less")
    with slot.open() as view:
        assert bytes(view) == b"a master key of 32 bytes, no less"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_of_bytes_can_be_stored(arena: Arena, kind: Any) -> None:
    with arena.store(kind(b"\x00\xff" * 16)).open() as view:
        assert view == b"\x00\xff" * 16


def test_the_view_is_over_the_mapping_itself(arena: Arena) -> None:
    slot = arena.store(b"x" * 32)
    with slot.open() as view:
        ctypes.memset(arena._address + slot._offset, ord("y"), 32)
        assert view == b"y" * 32


def test_the_view_cannot_be_written_through(arena: Arena) -> None:
    with arena.store(b"x" * 32).open() as view, pytest.raises(TypeError):
        view[0] = 0


def test_a_view_that_escapes_its_block_is_dead(arena: Arena) -> None:
    with arena.store(b"x" * 32).open() as view:
        pass
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_the_cryptography_in_use_takes_the_view_as_it_is(arena: Arena) -> None:
    with arena.store(b"x" * 32).open() as view:
        derived = HKDF(SHA256(), 32, b"salt", b"info").derive(view)
        mac = hmac.digest(view, b"name", "sha256")
    assert derived == HKDF(SHA256(), 32, b"salt", b"info").derive(b"x" * 32)
    assert mac == hmac.digest(b"x" * 32, b"name", "sha256")


def test_a_wiped_slot_cannot_be_opened(arena: Arena) -> None:
    slot = arena.store(b"x" * 32)
    slot.wipe()
    with pytest.raises(ValueError, match="wiped"), slot.open():
        pass


def test_a_wipe_leaves_nothing_of_the_secret(arena: Arena) -> None:
    arena.store(b"x" * SLOT_SIZE).wipe()
    assert page(arena) == bytes(secret_memory._PAGE)


def test_wiping_twice_does_not_touch_the_next_secret_in_that_place(arena: Arena) -> None:
    first = arena.store(b"x" * 32)
    first.wipe()
    second = arena.store(b"y" * 32)
    first.wipe()
    with second.open() as view:
        assert view == b"y" * 32


def test_a_wipe_waits_for_the_reader_and_lets_nobody_else_in(arena: Arena) -> None:
    slot = arena.store(b"x" * 32)
    with slot.open() as view:
        slot.wipe()
        with pytest.raises(ValueError, match="wiped"), slot.open():
            pass
        assert view == b"x" * 32
    assert page(arena) == bytes(secret_memory._PAGE)


def test_a_reader_that_fails_still_leaves_the_slot_to_be_wiped(arena: Arena) -> None:
    slot = arena.store(b"x" * 32)

    def fail() -> None:
        with slot.open():
            slot.wipe()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert page(arena) == bytes(secret_memory._PAGE)


def test_a_full_arena_refuses_and_keeps_what_it_holds(arena: Arena) -> None:
    count = secret_memory._PAGE // SLOT_SIZE
    slots = [arena.store(number.to_bytes(SLOT_SIZE, "big")) for number in range(count)]
    with pytest.raises(LimitError):
        arena.store(b"one more")
    for number, slot in enumerate(slots):
        with slot.open() as view:
            assert view == number.to_bytes(SLOT_SIZE, "big")


def test_a_wiped_place_is_used_again(arena: Arena) -> None:
    for _ in range(secret_memory._PAGE // SLOT_SIZE + 1):
        arena.store(b"x").wipe()


@pytest.mark.parametrize("length", [0, SLOT_SIZE + 1])
def test_what_does_not_fit_a_slot_is_refused(arena: Arena, length: int) -> None:
    with pytest.raises(ValueError, match="fit"):
        arena.store(bytes(length))
    assert page(arena) == bytes(secret_memory._PAGE)


def test_no_secret_shows_in_a_repr(arena: Arena) -> None:
    slot = arena.store(b"hunter2 hunter2!")
    assert "hunter2" not in repr(slot) + repr(arena)


def test_a_closed_arena_lends_and_stores_nothing() -> None:
    arena = Arena()
    slot = arena.store(b"x" * 32)
    arena.close()
    arena.close()
    with pytest.raises(ValueError, match="wiped"), slot.open():
        pass
    with pytest.raises(ValueError, match="closed"):
        arena.store(b"x")


def test_closing_waits_for_the_reader() -> None:
    arena = Arena()
    with arena.store(b"x" * 32).open() as view:
        arena.close()
        assert view == b"x" * 32
    assert arena._address == 0


@linux
def test_the_kernel_keeps_the_page_locked_undumped_and_unforked(arena: Arena) -> None:
    assert {"lo", "dd", "dc"} <= mapping_flags(arena._address)


@linux
def test_the_fallback_is_as_locked_undumped_and_unforked(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = without_secretmem(monkeypatch)
    assert arena.kind == "mlock"
    assert {"lo", "dd", "dc"} <= mapping_flags(arena._address)
    with arena.store(b"x" * 32).open() as view:
        assert view == b"x" * 32
    arena.close()


@linux
def test_no_descriptor_leads_to_the_page(arena: Arena) -> None:
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
        assert "secretmem" not in str(target)


@linux
def test_even_root_cannot_read_the_page_through_proc() -> None:
    with holder("memfd_secret") as (pid, facts):
        if facts["kind"] != "memfd_secret":
            pytest.skip("memfd_secret is missing: Linux 6.5, or 5.14 with secretmem.enable=1")
        mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(mem, 32, facts["address"])
        os.close(mem)


@linux
def test_the_locked_page_is_within_reach_of_root_which_shows_that_the_test_above_looks() -> None:
    with holder("mlock") as (pid, facts):
        mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        assert os.pread(mem, SLOT_SIZE * 64, facts["address"]).strip(b"\0") != b""
        os.close(mem)


@linux
@pytest.mark.parametrize("kind", ["memfd_secret", "mlock"])
def test_a_forked_child_has_no_such_memory(kind: str) -> None:
    script = HOLDER.replace("sys.stdin.read()", "") + (
        "import ctypes\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    ctypes.string_at(arena._address, 32)\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, kind], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.splitlines()[-1]) == -signal.SIGSEGV


@linux
def test_without_any_lockable_memory_the_daemon_is_told_what_to_do() -> None:
    script = (
        "import os, resource\n"
        "from backpackd.adapters.secrets.secret_memory import Arena\n"
        "from backpackd.core.errors import HomeError\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"
        "try:\n"
        "    Arena()\n"
        "except HomeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "ulimit -l" in done.stdout


def test_a_failed_fallback_is_an_error_and_never_plain_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(secret_memory, "_map_secret", missing)
    monkeypatch.setattr(secret_memory, "_map_locked", missing)
    with pytest.raises(HomeError, match="cannot lock"):
        Arena()
