import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from backpackd.core.agentlock import content, locks
from backpackd.core.agentlock.document import LockFile, read
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.versions import version_of
from backpackd.core.errors import Status
from lockfiles import ANN, BEN, CONTENTS, DRAW, altered, shared

LOCK = shared()
DOCUMENT = LOCK.encode()
# One recipient and a memory that was written after the signing: only opening can judge it.
SMALL = locks.update_memory(
    locks.create(CONTENTS, author=ANN, draw=DRAW), ANN, {"later": True}, draw=DRAW
)

Change = Callable[[dict[str, Any]], object]


def reason_of(document: bytes) -> str:
    with pytest.raises(LockFileError) as caught:
        read(document)
    assert caught.value.status is Status.DATA_LOSS
    return caught.value.reason


def refused(document: bytes) -> bool:
    """Tell whether a file is refused, at reading or at the latest at opening."""
    try:
        locks.open_lock(read(document), ANN)
    except LockFileError:
        return True
    return False


def changed_bytes(document: bytes) -> Iterator[bytes]:
    for place, byte in enumerate(document):
        # A neighbour in base64 and hexadecimal, a bit that leaves ASCII, another kind of space.
        for other in {byte ^ 1, byte ^ 0x80, 0x20, 0x30, 0x41} - {byte}:
            yield document[:place] + bytes([other]) + document[place + 1 :]


def test_a_lock_is_read_from_the_bytes_that_it_was_written_to() -> None:
    assert read(DOCUMENT) == LOCK
    assert version_of(DOCUMENT) == "2.0"
    assert not refused(SMALL.encode())


def test_a_change_of_any_single_byte_is_refused() -> None:
    assert [data for data in changed_bytes(SMALL.encode()) if not refused(data)] == []


def test_losing_or_doubling_any_single_byte_is_refused() -> None:
    document = SMALL.encode()
    for place in range(len(document)):
        head, byte, tail = document[:place], document[place : place + 1], document[place + 1 :]
        assert refused(head + tail)
        assert refused(head + byte + byte + tail)


def test_a_change_of_any_byte_is_refused_without_a_key_when_nothing_was_written_since() -> None:
    document = LOCK.encode()
    start = document.index(b'"layers": {\n    "credentials": {\n      "count": 1,\n      "sealed"')
    for place in range(start, len(document), 3):
        changed = bytearray(document)
        changed[place] ^= 1
        assert reason_of(bytes(changed))


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda data: json.dumps(data).encode(), id="on one line"),
        pytest.param(lambda data: json.dumps(data, indent=2).encode(), id="no line end"),
        pytest.param(lambda data: json.dumps(data, indent=4).encode() + b"\n", id="four spaces"),
        pytest.param(
            lambda data: json.dumps(data, indent=2, sort_keys=True).encode() + b"\n", id="sorted"
        ),
        pytest.param(lambda _: DOCUMENT.replace(b"\n", b"\r\n"), id="other line ends"),
        pytest.param(lambda _: DOCUMENT + b"\n", id="a line more"),
        pytest.param(lambda _: b" " + DOCUMENT, id="a space before"),
        pytest.param(
            lambda _: DOCUMENT.replace(b'"author"', b'"\\u0061uthor"'), id="an escaped letter"
        ),
        pytest.param(
            lambda _: DOCUMENT.replace(b'"version"', b'"version":"2.0","version"'), id="twice"
        ),
        pytest.param(
            lambda _: DOCUMENT.replace(b'"generation": 1', b'"generation": 01'), id="a zero before"
        ),
    ],
)
def test_the_same_data_in_other_bytes_is_refused(again: Callable[[Any], bytes]) -> None:
    assert reason_of(again(json.loads(DOCUMENT))) in {"lock-not-canonical", "lock-not-json"}


def header(**fields: Any) -> Change:
    return lambda data: data["header"].update(fields)


def recipient(**fields: Any) -> Change:
    return lambda data: data["header"]["recipients"][0].update(fields)


def layer(name: str, **fields: Any) -> Change:
    return lambda data: data["layers"][name].update(fields)


def drop(*path: Any) -> Change:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(header(lock_id="0" * 31), "lock-shape", id="a short id"),
        pytest.param(header(lock_id="A" * 32), "lock-shape", id="capital digits"),
        pytest.param(header(lock_id="\N{ARABIC-INDIC DIGIT ONE}" * 32), "lock-shape", id="digits"),
        pytest.param(header(generation=0), "lock-shape", id="generation zero"),
        pytest.param(header(generation=-1), "lock-shape", id="a negative generation"),
        pytest.param(header(generation=2**53), "lock-shape", id="a generation too high"),
        pytest.param(header(generation=True), "lock-shape", id="a generation that is true"),
        pytest.param(header(generation="1"), "lock-shape", id="a generation as text"),
        pytest.param(header(generation=None), "lock-shape", id="no generation"),
        pytest.param(header(generation=2), "lock-shape", id="the second of nothing"),
        pytest.param(header(previous="1" * 64), "lock-shape", id="the first of something"),
        pytest.param(header(author="0" * 64), "lock-shape", id="an author who is no recipient"),
        pytest.param(header(author=BEN.public.fingerprint), "lock-signature", id="another author"),
        pytest.param(header(lock_key="0" * 64), "lock-signature", id="another lock key"),
        pytest.param(header(lock_id="0" * 32), "lock-signature", id="another lock"),
        pytest.param(header(more=1), "lock-shape", id="more in the header"),
        pytest.param(header(recipients={}), "lock-shape", id="recipients are no list"),
        pytest.param(header(recipients=[]), "lock-shape", id="no recipients"),
        pytest.param(header(recipients=[1]), "lock-shape", id="a recipient that is a number"),
        pytest.param(header(recipients=[{}] * 65), "lock-shape", id="too many recipients"),
        pytest.param(header(layers={}), "lock-shape", id="no anchors"),
        pytest.param(
            lambda data: data["header"]["recipients"].reverse(), "lock-signature", id="reordered"
        ),
        pytest.param(
            lambda data: data["header"]["recipients"].append(data["header"]["recipients"][1]),
            "lock-shape",
            id="a recipient twice",
        ),
        pytest.param(drop("header", "recipients", 1), "lock-signature", id="a recipient less"),
        pytest.param(recipient(wrap="AAAA"), "lock-encoding", id="a short wrap"),
        pytest.param(recipient(wrap="!"), "lock-encoding", id="a wrap of bad base64"),
        pytest.param(recipient(identity="AAAA"), "lock-encoding", id="a short identity"),
        pytest.param(recipient(identity="/" * 1664), "lock-shape", id="no public keys"),
        pytest.param(recipient(name="Ann"), "lock-shape", id="more in a recipient"),
        pytest.param(layer("memory", count=0), "lock-shape", id="memory never written"),
        pytest.param(layer("memory", sealed=None), "lock-shape", id="memory is null"),
        pytest.param(layer("memory", sealed="A"), "lock-encoding", id="memory of bad base64"),
        pytest.param(layer("memory", sealed=""), "lock-layer-changed", id="memory is empty"),
        pytest.param(layer("memory", more=1), "lock-shape", id="more in a layer"),
        pytest.param(layer("credentials", count=2), "lock-layer-changed", id="a higher count"),
        pytest.param(layer("personality", sealed=""), "lock-layer-changed", id="nothing sealed"),
        pytest.param(drop("layers", "memory"), "lock-layer-missing", id="no memory"),
        pytest.param(drop("layers", "credentials"), "lock-layer-missing", id="no credentials"),
        pytest.param(drop("layers"), "lock-shape", id="no layers"),
        pytest.param(drop("signature"), "lock-shape", id="no signature"),
        pytest.param(lambda d: d.update(signature="AAAA"), "lock-encoding", id="short signature"),
        pytest.param(
            lambda d: d.update(signature="A" * 86 + "=="), "lock-signature", id="zero signature"
        ),
        pytest.param(lambda d: d.update(more=1), "lock-shape", id="more in the file"),
        pytest.param(lambda d: d.update(version="1.0"), "lock-version", id="version 1"),
        pytest.param(lambda d: d.update(version="2.1"), "lock-version", id="a later version"),
        pytest.param(lambda d: d.update(version=2.0), "lock-not-json", id="version with a point"),
    ],
)
def test_every_fault_is_refused_with_its_reason(change: Change, reason: str) -> None:
    assert reason_of(altered(DOCUMENT, change)) == reason


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        pytest.param(b"", "lock-not-json", id="nothing"),
        pytest.param(DOCUMENT[: len(DOCUMENT) // 2], "lock-not-json", id="half a file"),
        pytest.param(b"[" * 500_000, "lock-not-json", id="nested without end"),
        pytest.param(b'{"a":' * 100_000, "lock-not-json", id="nested objects"),
        pytest.param(b'{"version":"2.0","n":' + b"9" * 9999, "lock-not-json", id="a long number"),
        pytest.param(b'{"version":"2.0"}', "lock-shape", id="nothing but a version"),
        pytest.param(b"7", "lock-shape", id="a number"),
        pytest.param(b'{"version":"2.0","n":NaN}', "lock-not-json", id="not a number"),
        pytest.param(b'{"version":["2.0"]}', "lock-shape", id="version is a list"),
        pytest.param(
            DOCUMENT + b" " * content.MAX_DOCUMENT, "lock-too-large", id="larger than a file may be"
        ),
    ],
)
def test_what_is_no_lock_is_refused_with_its_reason(document: bytes, reason: str) -> None:
    assert reason_of(document) == reason


NAMES = ("credentials", "personality", "memory")


def with_layers(lock: LockFile, **layers: Any) -> bytes:
    return replace(lock, sealed={**lock.sealed, **layers}).encode()


@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_swapping_two_layers_is_refused(one: str, other: str) -> None:
    if one != other:
        swapped = {one: LOCK.sealed[other], other: LOCK.sealed[one]}
        assert refused(with_layers(LOCK, **swapped))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_of_another_file_is_refused(name: str) -> None:
    assert refused(with_layers(LOCK, **{name: shared().sealed[name]}))
    assert refused(with_layers(SMALL, **{name: shared().sealed[name]}))


def test_a_later_memory_of_another_file_is_refused_at_opening() -> None:
    other = locks.update_memory(shared(), ANN, {"a": 1}, draw=DRAW)
    document = with_layers(LOCK, memory=other.sealed["memory"])
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(read(document), ANN)
    assert caught.value.reason == "lock-layer-changed"


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_of_an_earlier_generation_is_refused(name: str) -> None:
    later = locks.update_memory(LOCK, ANN, {"a": 1}, draw=DRAW)
    later = locks.edit(later, ANN, draw=DRAW, credentials={}, personality={})
    assert not refused(later.encode())
    wanted = "lock-memory-older" if name == "memory" else "lock-layer-changed"
    assert reason_of(with_layers(later, **{name: LOCK.sealed[name]})) == wanted
    assert refused(with_layers(LOCK, **{name: later.sealed[name]})) == (name != "memory")


def test_memory_from_before_a_rewrap_does_not_come_back() -> None:
    written = locks.update_memory(LOCK, ANN, {"a": 1}, draw=DRAW)
    written = locks.update_memory(written, ANN, {"a": 2}, draw=DRAW)
    rewrapped = locks.rewrap(LOCK, ANN, draw=DRAW)
    assert written.memory_counter > rewrapped.memory_counter
    assert refused(with_layers(rewrapped, memory=written.sealed["memory"]))


def test_a_memory_with_only_its_count_raised_is_refused_at_opening() -> None:
    raised = replace(LOCK.sealed["memory"], count=9)
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(read(with_layers(LOCK, memory=raised)), BEN)
    assert caught.value.reason == "lock-layer-changed"


def test_memory_written_on_one_branch_joins_an_edit_of_another() -> None:
    edited = locks.edit(LOCK, ANN, draw=DRAW, personality={"tone": "new"})
    written = locks.update_memory(LOCK, BEN, {"a": 1}, draw=DRAW)
    merged = read(with_layers(edited, memory=written.sealed["memory"]))
    found = locks.open_lock(merged, BEN).contents
    assert (found.personality, found.memory) == ({"tone": "new"}, {"a": 1})
