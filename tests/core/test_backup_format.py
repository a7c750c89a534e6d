"""The backup's file: every fault its own error, and any bytes a backup or an error of ours."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.access import selectors
from backpackd.core.access.grants import Grant
from backpackd.core.access.policy import Policy
from backpackd.core.backup import backup, backup_contents
from backpackd.core.backup.backup import CHUNK, Header, Opener, Sealer
from backpackd.core.backup.backup_contents import Reader, StoredKey, Summary
from backpackd.core.errors import BackupError, InvalidRequestError
from backpackd.core.sealing import hybrid
from backpackd.core.slots.slots import Argon2idParameters
from backpackd.core.vault.records import KeyHead

FILE_KEY, SECRET = b"f" * 32, b"s" * 32
CHEAP = Argon2idParameters(b"a" * 16, iterations=1, lanes=1, memory_kib=8)
WAY = backup.passphrase_way(FILE_KEY, SECRET, CHEAP)
HEADER = Header(b"v" * 16, 1_700_000_000_000, (WAY,))
CONTENTS = bytes(range(256)) * 700
SEALED = CHUNK + 16


def written(contents: bytes = CONTENTS) -> bytes:
    sealer = Sealer(FILE_KEY, HEADER)
    return sealer.head + sealer.add(contents) + sealer.finish()


FILE = written()
BODY = len(FILE) - len(CONTENTS) - 3 * 16


def read(file: bytes, piece: int = 1000) -> bytes:
    opener, locked, found = Opener(), True, b""
    for at in range(0, len(file), piece):
        found += opener.feed(file[at : at + piece])
        if locked and opener.header is not None:
            opener.unlock(FILE_KEY)
            locked = False
            found += opener.feed(b"")
    return found + opener.finish()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("piece", [7, 65536, 10_000_000])
def test_what_was_written_is_read_in_pieces_of_any_size(size: int, piece: int) -> None:
    contents = (CONTENTS * 2)[:size]
    assert read(written(contents), max(piece, size // 50 or 1)) == contents


def test_it_says_of_itself_what_it_is() -> None:
    opener = Opener()
    opener.feed(FILE[:BODY])
    assert opener.header == HEADER
    assert FILE.startswith(b"backpack-backup\n")


def test_it_opens_for_the_passphrase_and_for_no_other() -> None:
    assert backup.open_by_secret(WAY, SECRET) == FILE_KEY
    assert backup.open_by_secret(WAY, b"o" * 32) is None


def test_it_opens_for_its_recipient_and_for_no_other() -> None:
    private, public = hybrid.generate()
    way = backup.recipient_way(FILE_KEY, public)
    assert backup.open_by_private(way, private) == FILE_KEY
    assert backup.open_by_private(way, hybrid.generate()[0]) is None
    with pytest.raises(InvalidRequestError):
        backup.recipient_way(FILE_KEY, public[:-1])


def swapped(file: bytes) -> bytes:
    first, second = file[BODY : BODY + SEALED], file[BODY + SEALED : BODY + 2 * SEALED]
    return file[:BODY] + second + first + file[BODY + 2 * SEALED :]


def with_header(**changes: object) -> bytes:
    size = int.from_bytes(FILE[16:20], "big")
    data = {**json.loads(FILE[20 : 20 + size]), **changes}
    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    return FILE[:16] + len(text).to_bytes(4, "big") + text + FILE[20 + size :]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda: b"", "backup-truncated"),
        (lambda: b"PK\3\4" + FILE, "not-a-backup"),
        (lambda: FILE[:10], "backup-truncated"),
        (lambda: FILE[: BODY - 1], "backup-truncated"),
        (lambda: FILE[:BODY], "backup-truncated"),
        (lambda: FILE[: BODY + SEALED], "backup-truncated"),
        (lambda: FILE[: BODY + 2 * SEALED], "backup-truncated"),
        (lambda: FILE[:-1], "backup-damaged"),
        (lambda: FILE + b"\0", "backup-damaged"),
        (lambda: swapped(FILE), "backup-damaged"),
        (lambda: FILE[:BODY] + FILE[BODY + SEALED :], "backup-damaged"),
        (lambda: with_header(version=2), "backup-from-the-future"),
        (lambda: with_header(version=2, surprise=1), "backup-from-the-future"),
        (lambda: with_header(version=0), "backup-damaged"),
        (lambda: with_header(surprise=1), "backup-damaged"),
        (lambda: with_header(created=5), "backup-damaged"),
        (lambda: with_header(vault="00" * 16), "backup-damaged"),
        (lambda: with_header(vault="zz"), "backup-damaged"),
        (lambda: with_header(ways=[]), "backup-damaged"),
        (lambda: with_header(ways=[WAY.encode(), WAY.encode()]), "backup-damaged"),
        (lambda: with_header(ways=[{"kind": "door"}]), "backup-damaged"),
        (lambda: FILE[:16] + b"\xff" * 4 + FILE[20:], "backup-damaged"),
    ],
)
def test_every_fault_has_its_own_error(fault: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(BackupError) as caught:
        read(fault())
    assert caught.value.reason == reason


def test_every_bit_counts() -> None:
    small = written(b"something")
    for place in range(len(small)):
        altered = small[:place] + bytes([small[place] ^ 1]) + small[place + 1 :]
        with pytest.raises(BackupError):
            read(altered)


def test_costs_out_of_bounds_are_refused_before_anything_is_stretched() -> None:
    way = WAY.encode()
    stretching = {**CHEAP.encode(), "memory_kib": 2**30}
    with pytest.raises(BackupError):
        read(with_header(ways=[{**way, "stretching": stretching}]))


@settings(max_examples=300)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_a_backup_or_an_error_of_ours(data: bytes, begins_well: bool) -> None:
    try:
        read(FILE[:BODY] + data if begins_well else data)
    except BackupError:
        return
    raise AssertionError("nobody could have made that")


KEY = StoredKey(KeyHead("K", 1, 2), b"value")
GRANT = Grant(
    id="0123456789abcdef",
    patterns=("K",),
    selector=selectors.parse("uid:1000"),
    max_ttl=60,
    expires_at_ms=None,
    uses_left=None,
    created_at_ms=1,
    reason="",
)
WHOLE: list[backup_contents.Record] = [Summary(1, 1), Policy(), GRANT, KEY]


def contents(*records: backup_contents.Record, end: bool = True) -> bytes:
    text = b"".join(backup_contents.encode(record) for record in records)
    return text + backup_contents.encode_end() if end else text


def taken(data: bytes) -> list[backup_contents.Record]:
    reader = Reader()
    found = [record for byte in data for record in reader.feed(bytes([byte]))]
    reader.finish()
    return found


def test_the_contents_come_back_as_they_were() -> None:
    assert taken(contents(*WHOLE)) == WHOLE


@pytest.mark.parametrize(
    "data",
    [
        contents(*WHOLE, end=False),
        contents(),
        contents(Summary(0, 0)),
        contents(Policy(), Summary(0, 0)),
        contents(Summary(2, 1), Policy(), GRANT, KEY),
        contents(Summary(1, 0), Policy(), GRANT, KEY),
        contents(Summary(2, 0), Policy(), KEY, KEY),
        contents(Summary(1, 1), Policy(), KEY, GRANT),
        contents(Summary(0, 0), Policy(), Policy()),
        contents(Summary(1, 0), Policy(), StoredKey(KeyHead("9 bad", 1, 2), b"v")),
        contents(Summary(1, 0), Policy(), StoredKey(KeyHead("K", -1, 2), b"v")),
        contents(Summary(1, 0), Policy(), StoredKey(KeyHead("K", 1, 2**70), b"v")),
        contents(Summary(1, 0), Policy(), StoredKey(KeyHead("K", 1, 2), b"")),
        contents(Summary(1, 0), Policy(), StoredKey(KeyHead("K", 1, 2), b"v" * 65537)),
        contents(*WHOLE) + contents(KEY),
        contents(*WHOLE) + b"\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\2[]",
    ],
)
def test_contents_that_nobody_of_us_wrote_are_refused(data: bytes) -> None:
    with pytest.raises(BackupError):
        taken(data)


def test_an_error_holds_nothing_of_what_was_read() -> None:
    bad = contents(Summary(1, 0), Policy(), StoredKey(KeyHead("9 telltale", 1, 2), b"telltale"))
    with pytest.raises(BackupError) as caught:
        taken(bad)
    assert caught.value.__context__ is None
    assert "telltale" not in str(caught.value)
