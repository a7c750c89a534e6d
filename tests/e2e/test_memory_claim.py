"""The claim: root scanning the daemon's memory finds no master key, no passphrase and no value.

With the vault unlocked and thousands of leases served, no 16-byte window of any of them is in any
region of the daemon that the kernel lets root read. The scan proves itself first, on a process
that does hold what is looked for.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from backpack_proto.v1 import (
    backup_pb2,
    backup_pb2_grpc,
    keys_pb2,
    leases_pb2,
    slots_pb2,
    slots_pb2_grpc,
    vault_pb2,
)
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.secrets.stretching import Argon2idStretcher
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.system.clock import SystemClock
from backpackd.application.vault.vault import Vault
from backpackd.core.peer_facts import ProcessId
from daemons import PASSPHRASE, Client, RunningDaemon, failure
from flooding import START, begin, frame
from unaudited import Unaudited

WINDOW = 16
# Of a window of 16 bytes at any place, 8 that begin at a multiple of 8 are a part.
ANCHOR = 8

CALLS = 3000
CONNECTIONS = 6
GIVEN_UP = 100
LOOK_SECONDS = 30
ROUNDS = 50
MIXED = (
    "new passphrase", "backup passphrase", "long passphrase", "wrong passphrase",
    "wrong current", "value", "long value", "too long value", "unauthorized", "long unauthorized",
    "stored already", "malformed", "no method", "taken back",
)  # fmt: skip

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


async def master_key(home: Path, passphrase: bytes) -> bytes:
    """Open a copy of a vault as the daemon does and return its master key."""
    arena, store, stretcher = Arena(), SqliteStore(home), Argon2idStretcher()
    try:
        vault = Vault(store, arena, stretcher, SystemClock(), Unaudited(store))
        await vault.open()
        await vault.unlock(passphrase, ProcessId(1, 1), by=None)
        with vault.session().open_master() as master:
            return bytes(master)
    finally:
        await store.close()
        stretcher.close()
        arena.close()


def lease_over_and_over(clients: list[Client], values: Mapping[str, bytes]) -> None:
    """Lease keys thousands of times, one by one and all together."""
    names = list(values)
    for call in range(CALLS):
        wanted = names if call % 10 == 0 else [names[call % len(names)]]
        reply = clients[call % len(clients)].get(*wanted)
        assert {key.name: key.value for key in reply.keys} == {
            name: values[name] for name in wanted
        }


@contextlib.contextmanager
def operator(daemon: RunningDaemon, passphrase: bytes) -> Iterator[Client]:
    """Open a connection with operator authority for a while.

    It closes when done, as the command line does.
    """
    client = Client(daemon.socket)
    try:
        if client.status().state == vault_pb2.VAULT_STATE_UNINITIALIZED:
            client.init(passphrase)
        client.authorize(passphrase)
        yield client
    finally:
        client.close()


def left(daemon: RunningDaemon, needles: Mapping[str, bytes]) -> set[str]:
    """Say which needles are still there when the daemon is done with what it was sent.

    What a connection held is given back a moment after it was closed, so this looks again for a
    while. The daemon has nothing to do meanwhile: what is kept until the next call or the next
    collection of garbage stays, and is found.
    """
    until = time.monotonic() + LOOK_SECONDS
    while True:
        found = {each.needle for each in scan(daemon.pid, needles)}
        if not found or time.monotonic() > until:
            return found


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
    needle = bytes(range(1, 33))
    data = bytes(100) + needle[start : start + WINDOW] + bytes(100)
    assert list(windows(data, needle)) == [(100, WINDOW)]


def test_the_scan_leaves_shorter_pieces_alone() -> None:
    needle = bytes(range(1, 33))
    assert not list(windows(bytes(9) + needle[3 : 3 + WINDOW - 1] + bytes(9), needle))


@pytest.mark.timeout(600)
def test_root_finds_no_master_key_no_passphrase_and_no_value(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    passphrase = secrets.token_hex(20).encode()
    # Long values repeat a block, so that two blocks hold every window that they have.
    long_block, longest_block = secrets.token_bytes(64), secrets.token_bytes(64)
    values = {f"K{number}": secrets.token_bytes(32) for number in range(8)}
    values |= {"LONG": long_block * 50, "LONGEST": longest_block * 1024}
    first = Client(daemon.socket)
    first.init(passphrase)
    first.lock()
    first.unlock(passphrase)
    first.close()
    with operator(daemon, passphrase) as client:
        for name, value in values.items():
            client.put(name, value)
        client.grant("*")
    clients = [daemon.client() for _ in range(CONNECTIONS)]
    lease_over_and_over(clients, values)
    copy = shutil.copytree(daemon.home, tmp_path / "copy")
    needles = {
        **values,
        "LONG": long_block * 2,
        "LONGEST": longest_block * 2,
        "master key": asyncio.run(master_key(copy, passphrase)),
        "passphrase": passphrase,
    }
    # What it holds for sure, to show that the right process is looked at.
    control = {"socket path": str(daemon.socket).encode()}
    assert {each.needle for each in scan(daemon.pid, control)} == {"socket path"}
    assert left(daemon, needles) == set()


def test_root_finds_nothing_of_what_a_quiet_open_connection_sent(daemon: RunningDaemon) -> None:
    passphrase, small = secrets.token_hex(20).encode(), secrets.token_bytes(32)
    client = daemon.client()
    client.init(passphrase)
    assert left(daemon, {"passphrase": passphrase}) == set()
    client.authorize(passphrase)
    assert left(daemon, {"passphrase": passphrase}) == set()
    client.put("A", small)
    assert left(daemon, {"passphrase": passphrase, "small": small}) == set()


def test_root_finds_nothing_of_what_a_failed_call_carried(daemon: RunningDaemon) -> None:
    passphrase = secrets.token_hex(20).encode()
    carried = {
        name: secrets.token_hex(20).encode()
        for name in ("second init", "wrong", "wrong current", "unauthorized", "stored", "malformed")
    }
    client = Client(daemon.socket)
    client.init(passphrase)
    failed = [
        failure(lambda: client.init(carried["second init"])),
        failure(lambda: client.put("A", carried["unauthorized"])),
        failure(lambda: client.authorize(carried["wrong"])),
    ]
    client.close()
    with operator(daemon, passphrase) as client:
        client.put("A", secrets.token_bytes(32))
        failed += [
            failure(lambda: client.put("A", carried["stored"])),
            failure(
                lambda: client.channel.unary_unary("/backpack.v1.Keys/PutKeys")(
                    b"\x0a\xff\xff\xff\x7f" + carried["malformed"]
                )
            ),
            failure(
                lambda: client.vault.ChangePassphrase(
                    vault_pb2.ChangePassphraseRequest(
                        current=carried["wrong current"], replacement=passphrase
                    )
                )
            ),
        ]
    assert [reason for _, reason in failed] == [
        "already-initialized",
        "not-authorized",
        "wrong-passphrase",
        "key-exists",
        "malformed-request",
        "wrong-passphrase",
    ]
    assert left(daemon, carried) == set()


def test_root_finds_nothing_of_what_went_to_no_method_or_was_taken_back(
    daemon: RunningDaemon,
) -> None:
    unknown, taken_back = (secrets.token_hex(20).encode() for _ in range(2))
    client = daemon.client()
    client.init()
    call = client.channel.unary_unary("/backpack.v1.Vault/Nothing")
    assert failure(lambda: call(unknown))[0] == "UNIMPLEMENTED"
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(daemon.socket))
        end.settimeout(60)
        # In the middle of its message.
        body = b"\0\0\0\1\0" + taken_back
        end.sendall(START + begin(1, "/backpack.v1.Vault/Authorize") + frame(0, 0, 1, body))
        end.sendall(frame(3, 0, 1, (8).to_bytes(4, "big")))
        end.sendall(begin(3, "/grpc.health.v1.Health/Check") + frame(0, 1, 3, bytes(5)))
        got = b""
        while b"\x08\x01" not in got:
            got += end.recv(65536)
        # Both connections stay open.
        assert left(daemon, {"unknown": unknown, "taken back": taken_back}) == set()


class Mixed:
    """Calls of all kinds, over and over, on connections that stay open.

    Attributes:
        secrets: what the calls carry, in either direction, by what it is.
        name: of a key, which comes with the values and is no secret.
        count: how many calls were made.
    """

    def __init__(self, daemon: RunningDaemon, end: socket.socket) -> None:
        # Two blocks of a long value hold every window of it.
        self.secrets = {name: secrets.token_hex(16).encode() for name in MIXED}
        # That of the vault that was made, which opens in no time: a new one takes what it takes.
        self.secrets["passphrase"] = PASSPHRASE
        self.name = f"KEY_{secrets.token_hex(16).upper()}"
        self.count = 0
        self._operator, self._other = daemon.client(), daemon.client()
        self._end = end
        self._stream = 1
        end.connect(str(daemon.socket))
        end.sendall(START)
        self._operator.unlock()
        self._operator.authorize()
        self._operator.grant("*")
        self._long = long_request(self.name, self.secrets["long value"] * 2048)
        self._names = [key.name for key in self._long.keys]

    def round(self, number: int) -> None:
        """Make a call of every kind."""
        held, operator, other = self.secrets, self._operator, self._other
        put, get = operator.keys.PutKeys, other.leases.GetKeys
        longest = leases_pb2.GetKeysRequest(names=self._names)
        expected: list[tuple[Callable[[], object], str]] = [
            (lambda: operator.authorize(held["wrong passphrase"]), "wrong-passphrase"),
            (lambda: self._change(held["wrong current"], PASSPHRASE), "wrong-passphrase"),
            (lambda: operator.authorize(held["passphrase"]), ""),
            (lambda: other.unlock(held["passphrase"]), ""),
            (lambda: other.authorize(held["long passphrase"] * 32768), "request-too-large"),
            (lambda: operator.put("SMALL", held["value"], replace=True), ""),
            (lambda: other.get("SMALL"), ""),
            (lambda: put(self._long), ""),
            (lambda: get(longest), ""),
            (lambda: other.put("SMALL", held["unauthorized"]), "not-authorized"),
            (lambda: other.put("SMALL", held["long unauthorized"] * 32768), "not-authorized"),
            (lambda: operator.put("SMALL", held["too long value"] * 32768), "invalid-value"),
            (lambda: operator.put("SMALL", held["stored already"]), "key-exists"),
            (lambda: self._malformed(held["malformed"]), "malformed-request"),
            (lambda: self._unknown(held["no method"]), "no-such-method"),
            (lambda: self._export(backup_pb2.ExportKeysRequest(plaintext=True)), ""),
            (lambda: give_up(put, self._long, number), ""),
            (lambda: give_up(get, longest, number), ""),
            (lambda: give_up(operator.vault.Authorize, self._given_up(), number), ""),
            (self._take_back, ""),
        ]
        for call, reason in expected:
            if reason:
                assert failure(call)[1] == reason
            else:
                call()
        self.count += len(expected)

    def rare(self) -> None:
        """Make the calls that take long: new passphrases, a recovery code, a sealed backup."""
        held = self.secrets
        self._change(held["passphrase"], held["new passphrase"])
        self._operator.authorize(held["new passphrase"])
        slots: Any = slots_pb2_grpc.SlotsStub(self._operator.channel)
        code = slots.AddSlot(slots_pb2.AddSlotRequest(kind="recovery")).drawn
        slots.DrillRecovery(slots_pb2.DrillRecoveryRequest(code=code))
        request = backup_pb2.ExportKeysRequest(passphrase=held["backup passphrase"])
        parts = [backup_pb2.ImportKeysRequest(data=data) for data in self._export(request)]
        terms = backup_pb2.ImportTerms(
            passphrase=request.passphrase, on_conflict=backup_pb2.ON_CONFLICT_REPLACE
        )
        backup: Any = backup_pb2_grpc.BackupStub(self._operator.channel)
        backup.ImportKeys(iter([backup_pb2.ImportKeysRequest(terms=terms), *parts]))
        self.secrets["recovery code"] = code
        self.count += 6

    def _change(self, current: bytes, replacement: bytes) -> None:
        self._operator.vault.ChangePassphrase(
            vault_pb2.ChangePassphraseRequest(current=current, replacement=replacement)
        )

    def _malformed(self, carried: bytes) -> None:
        self._operator.channel.unary_unary("/backpack.v1.Keys/PutKeys")(b"\x0a\xff\x7f" + carried)

    def _unknown(self, carried: bytes) -> None:
        self._operator.channel.unary_unary("/backpack.v1.Vault/Nothing")(carried)

    def _export(self, request: backup_pb2.ExportKeysRequest) -> list[bytes]:
        backup: Any = backup_pb2_grpc.BackupStub(self._operator.channel)
        return [response.data for response in backup.ExportKeys(request)]

    def _given_up(self) -> vault_pb2.AuthorizeRequest:
        return vault_pb2.AuthorizeRequest(passphrase=self.secrets["passphrase"])

    def _take_back(self) -> None:
        """Send the beginning of a request, and then that it is not wanted."""
        body = b"\0\0\0\1\0" + self.secrets["taken back"]
        begun = begin(self._stream, "/backpack.v1.Vault/Authorize")
        self._end.sendall(begun + frame(0, 0, self._stream, body))
        self._end.sendall(frame(3, 0, self._stream, (8).to_bytes(4, "big")))
        self._stream += 2


@pytest.mark.usefixtures("cheap_vault")
def test_root_finds_nothing_after_a_thousand_mixed_calls_on_connections_that_stay_open(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        mixed = Mixed(daemon, end)
        for number in range(ROUNDS):
            mixed.round(number)
        mixed.rare()
        assert mixed.count >= 1000
        assert "refused a connection" not in daemon.log_text()
        copy = shutil.copytree(daemon.home, tmp_path / "copy")
        master = asyncio.run(master_key(copy, mixed.secrets["new passphrase"]))
        needles = {name: needle * 2 for name, needle in mixed.secrets.items()}
        # What came in the same messages and is kept openly shows that these are looked for well.
        control = {"name": mixed.name.encode()}
        assert {each.needle for each in scan(daemon.pid, control)} == {"name"}
        assert left(daemon, needles | {"master key": master}) == set()


def test_root_finds_nothing_of_calls_that_their_callers_gave_up(daemon: RunningDaemon) -> None:
    value = secrets.token_bytes(32)
    with operator(daemon, PASSPHRASE) as client:
        client.grant("*")
        for call in range(GIVEN_UP):
            give_up(client.keys.PutKeys, put_request(value), call)
        for call in range(GIVEN_UP):
            give_up(client.leases.GetKeys, leases_pb2.GetKeysRequest(names=["A"]), call)
    assert left(daemon, {"value": value}) == set()


def give_up(method: Any, request: object, call: int) -> None:
    """Call with a deadline between none at all and one that is just enough."""
    with contextlib.suppress(grpc.RpcError):
        method(request, timeout=0.001 * (call % 8))


def long_request(name: str, value: bytes) -> keys_pb2.PutKeysRequest:
    """Make a request of a mebibyte."""
    keys = [keys_pb2.KeyValue(name=f"{name}_{number}", value=value) for number in range(16)]
    return keys_pb2.PutKeysRequest(keys=keys, replace=True)


def put_request(value: bytes) -> keys_pb2.PutKeysRequest:
    key = keys_pb2.KeyValue(name="A", value=value)
    return keys_pb2.PutKeysRequest(keys=[key], replace=True)
