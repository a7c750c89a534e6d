"""The claim: root scanning the daemon's memory finds no master key, no passphrase and no value.

With the vault unlocked and thousands of leases served, no 16-byte window of any of them is in any
region of the daemon that the kernel lets root read. The scan proves itself first, on a process
that does hold what is looked for.
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from backpack_proto.v1 import grants_pb2 as gpb
from backpack_proto.v1 import keys_pb2 as kpb
from backpack_proto.v1 import leases_pb2 as lpb
from backpack_proto.v1 import vault_pb2 as vpb
from backpack_proto.v1.grants_pb2_grpc import GrantsStub
from backpack_proto.v1.keys_pb2_grpc import KeysStub
from backpack_proto.v1.leases_pb2_grpc import LeasesStub
from backpack_proto.v1.vault_pb2_grpc import VaultStub
from backpackd.adapters.clock import SystemClock
from backpackd.adapters.secret_memory import Arena
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.stretching import Argon2idStretcher
from backpackd.application.vault import Vault
from backpackd.core.facts import ProcessId

WINDOW = 16
# Of a window of 16 bytes at any place, 8 that begin at a multiple of 8 are a part.
ANCHOR = 8

CALLS = 3000
CONNECTIONS = 6
# A bound on what would otherwise hang, not a measurement.
HANG = 60.0

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/mem"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the daemon's memory"),
]


@dataclass(frozen=True)
class Found:
    """One place in a process's memory where a window of a needle stands."""

    needle: str
    region: str
    address: int
    length: int


def scan(pid: int, needles: Mapping[str, bytes]) -> list[Found]:
    """Search all readable memory of a process for any 16-byte window of the needles.

    Args:
        pid: whose memory; the caller is root.
        needles: what to look for, by names to report: each at least 16 bytes.

    Returns:
        Every place, in the order of addresses for each needle of each region.
    """
    found = []
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as memory:
        for line in maps:
            fields = line.split(maxsplit=5)
            begin, end = (int(part, 16) for part in fields[0].split("-"))
            region = fields[5].strip() if len(fields) == 6 else "anonymous"
            if "r" not in fields[1]:
                continue
            data = readable(memory.fileno(), begin, end)
            for name, needle in needles.items():
                found += [
                    Found(name, region, begin + place, length)
                    for place, length in windows(data, needle)
                ]
    return found


def readable(descriptor: int, begin: int, end: int) -> bytes:
    """Read a region, with nothing in place of the pages that the kernel does not give."""
    pieces = []
    while begin < end:
        try:
            piece = os.pread(descriptor, end - begin, begin)
        except OSError:  # secret memory, a device, or gone meanwhile
            piece = b""
        pieces.append(piece or bytes(min(4096, end - begin)))
        begin += len(pieces[-1])
    return b"".join(pieces)


def windows(data: bytes, needle: bytes) -> Iterator[tuple[int, int]]:
    """Yield place and length of every stretch of `needle` in `data` of at least 16 bytes."""
    seen = set()
    for offset in range(0, len(needle) - ANCHOR + 1, ANCHOR):
        anchor = needle[offset : offset + ANCHOR]
        place = data.find(anchor)
        while place >= 0:
            before, after = 0, ANCHOR
            while (
                before < min(offset, place)
                and data[place - before - 1] == needle[offset - before - 1]
            ):
                before += 1
            while data[place + after : place + after + 1] == (
                needle[offset + after : offset + after + 1] or b"end"
            ):
                after += 1
            if before + after >= WINDOW and place - before not in seen:
                seen.add(place - before)
                yield place - before, before + after
            place = data.find(anchor, place + 1)


@dataclass
class Daemon:
    """A running daemon on a home of its own."""

    process: subprocess.Popen[bytes]
    home: Path
    socket: str

    def channel(self) -> grpc.Channel:
        """Open a new connection to it."""
        # Without this option, gRPC shares one connection among equal channels.
        return grpc.insecure_channel(
            f"unix:{self.socket}", options=[("grpc.use_local_subchannel_pool", 1)]
        )


@contextmanager
def daemon(directory: Path) -> Iterator[Daemon]:
    """Run a daemon, a child of this process."""
    path = str(directory / "r" / "s")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backpackd", "--home", directory / "h", "--socket", path],
            stderr=log,
        )
    try:
        running = Daemon(process, directory / "h", path)
        with running.channel() as channel:
            VaultStub(channel).Status(vpb.StatusRequest(), wait_for_ready=True, timeout=HANG)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANG)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a directory whose paths fit into a socket address."""
    with tempfile.TemporaryDirectory(prefix="bp") as path:
        yield Path(path)


async def master_key(home: Path, passphrase: bytes) -> bytes:
    """Open a copy of a vault as the daemon does and return its master key."""
    arena, store, stretcher = Arena(), SqliteStore(home), Argon2idStretcher()
    try:
        vault = Vault(store, arena, stretcher, SystemClock())
        await vault.open()
        await vault.unlock(passphrase, ProcessId(1, 1))
        with vault.session().open_master() as master:
            return bytes(master)
    finally:
        await store.close()
        stretcher.close()
        arena.close()


def lease_over_and_over(running: Daemon, names: list[str], values: Mapping[str, bytes]) -> None:
    """Lease keys thousands of times, over several connections that stay open meanwhile."""
    channels = [running.channel() for _ in range(CONNECTIONS)]
    stubs = [LeasesStub(channel) for channel in channels]
    for call in range(CALLS):
        wanted = [names[call % len(names)]] if call % 10 else names
        reply = stubs[call % CONNECTIONS].GetKeys(lpb.GetKeysRequest(names=wanted), timeout=HANG)
        assert {key.name: key.value for key in reply.keys} == {
            name: values[name] for name in wanted
        }
    for channel in channels[1:]:
        channel.close()


def test_the_scan_finds_a_value_in_a_process_that_holds_it() -> None:
    needle = secrets.token_bytes(32)
    script = "import sys; held = sys.stdin.buffer.read(32); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(needle)
        process.stdin.flush()
        process.stdout.readline()
        found = scan(process.pid, {"held": needle, "never there": secrets.token_bytes(32)})
        process.communicate(b"")
    assert {(each.needle, each.length) for each in found} == {("held", 32)}


@pytest.mark.parametrize("start", range(17))
def test_the_scan_finds_a_window_at_any_place_of_the_needle(start: int) -> None:
    needle = secrets.token_bytes(32)
    data = bytes(100) + needle[start : start + WINDOW] + bytes(100)
    assert list(windows(data, needle)) == [(100, WINDOW)]


def test_the_scan_leaves_shorter_pieces_alone() -> None:
    needle = secrets.token_bytes(32)
    assert not list(windows(bytes(9) + needle[3 : 3 + WINDOW - 1] + bytes(9), needle))


def test_root_finds_no_master_key_no_passphrase_and_no_value(directory: Path) -> None:
    passphrase, wrong = secrets.token_hex(20).encode(), secrets.token_hex(20).encode()
    values = {f"K{number}": secrets.token_bytes(32) for number in range(8)}
    # Long values repeat a block, so that two blocks hold every window that they have.
    long_block, longest_block = secrets.token_bytes(64), secrets.token_bytes(64)
    values["LONG"] = long_block * 50
    values["LONGEST"] = longest_block * 1024
    replaced = secrets.token_bytes(32)
    with daemon(directory) as running:
        with running.channel() as channel:
            vault = VaultStub(channel)
            vault.Init(vpb.InitRequest(passphrase=passphrase), timeout=HANG)
            vault.Lock(vpb.LockRequest(), timeout=HANG)
            with pytest.raises(grpc.RpcError):
                vault.Unlock(vpb.UnlockRequest(passphrase=wrong), timeout=HANG)
            vault.Unlock(vpb.UnlockRequest(passphrase=passphrase), timeout=HANG)
            vault.Authorize(vpb.AuthorizeRequest(passphrase=passphrase), timeout=HANG)
            keys = KeysStub(channel)
            keys.PutKeys(
                kpb.PutKeysRequest(keys=[kpb.KeyValue(name="K0", value=replaced)]), timeout=HANG
            )
            pairs = [kpb.KeyValue(name=name, value=value) for name, value in values.items()]
            keys.PutKeys(kpb.PutKeysRequest(keys=pairs, replace=True), timeout=HANG)
            GrantsStub(channel).AddGrant(
                gpb.AddGrantRequest(patterns=["*"], selector=f"uid:{os.geteuid()}"), timeout=HANG
            )
        lease_over_and_over(running, list(values), values)
        copy = shutil.copytree(running.home, directory / "copy")
        master = asyncio.run(master_key(copy, passphrase))
        needles = {
            "master key": master,
            "passphrase": passphrase,
            "wrong passphrase": wrong,
            "replaced value": replaced,
            **values,
            "LONG": long_block * 2,
            "LONGEST": longest_block * 2,
        }
        found = scan(running.process.pid, needles)
    assert found == []
