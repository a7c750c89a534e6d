from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.errors import DamageError
from backpackd.core.names import MAX_VALUE
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.sealing import canonical
from backpackd.core.sealing.sealing import OpenError, pad, seal
from backpackd.core.vault import records
from backpackd.core.vault.records import KeyHead, RowSet

MASTER = bytes(range(32))
VAULT_ID = b"v" * 16
HEAD = KeyHead("API_KEY", created_at_ms=1, updated_at_ms=2)
VALUE = b"the value"


def sealed_row(
    name: str = "API_KEY", value: bytes = VALUE, *, version: int = 1, salt: bytes = b"12"
) -> KeyRow:
    return records.seal_row(
        MASTER,
        vault_id=VAULT_ID,
        head=replace(HEAD, name=name),
        value=value,
        version=version,
        salts=(salt[:1] * 32, salt[1:] * 32),
    )


def opened_head(row: KeyRow, *, master: bytes = MASTER, vault_id: bytes = VAULT_ID) -> KeyHead:
    return records.open_head(master, vault_id=vault_id, row=row.row_head, sealed=row.head)


def opened_value(row: KeyRow, *, master: bytes = MASTER, vault_id: bytes = VAULT_ID) -> bytes:
    return records.open_value(master, vault_id=vault_id, row=row)


def refused(row: KeyRow, *, master: bytes = MASTER, vault_id: bytes = VAULT_ID) -> bool:
    """Tell whether both parts of a row are refused."""
    with pytest.raises(OpenError):
        opened_head(row, master=master, vault_id=vault_id)
    with pytest.raises(OpenError):
        opened_value(row, master=master, vault_id=vault_id)
    return True


ROW = sealed_row()


@given(
    st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z"),
    st.binary(min_size=1, max_size=5000),
    st.integers(1, 2**63 - 1),
)
def test_what_was_sealed_opens(name: str, value: bytes, version: int) -> None:
    row = sealed_row(name, value, version=version)
    assert opened_head(row) == replace(HEAD, name=name)
    assert opened_value(row) == value


@pytest.mark.parametrize("size", [1, MAX_VALUE])
def test_the_shortest_and_the_longest_value_open(size: int) -> None:
    assert opened_value(sealed_row(value=bytes(size))) == bytes(size)


def test_a_row_is_found_by_its_name() -> None:
    assert ROW.index == records.row_index(MASTER, VAULT_ID, "API_KEY")


@pytest.mark.parametrize(
    ("master", "vault_id", "name"),
    [
        (bytes(32), VAULT_ID, "API_KEY"),
        (MASTER, b"w" * 16, "API_KEY"),
        (MASTER, VAULT_ID, "API_KEy"),
    ],
)
def test_an_index_depends_on_master_key_vault_and_name(
    master: bytes, vault_id: bytes, name: str
) -> None:
    assert records.row_index(master, vault_id, name) != ROW.index


def test_a_row_shows_neither_its_name_nor_its_value() -> None:
    stored = ROW.index + ROW.head + ROW.value
    assert b"API_KEY" not in stored
    assert VALUE not in stored


def test_values_of_one_step_are_stored_in_one_length() -> None:
    assert len({len(sealed_row(value=bytes(size)).value) for size in (1, 20, 252)}) == 1


def test_names_of_any_length_are_stored_in_one_length() -> None:
    assert len({len(sealed_row("A" * size).head) for size in (1, 20, 128)}) == 1


def test_every_changed_byte_of_a_head_is_found() -> None:
    for place in range(len(ROW.head)):
        changed = bytearray(ROW.head)
        changed[place] ^= 1
        with pytest.raises(OpenError):
            opened_head(replace(ROW, head=bytes(changed)))


def test_every_changed_byte_of_a_value_is_found() -> None:
    for place in range(len(ROW.value)):
        changed = bytearray(ROW.value)
        changed[place] ^= 1
        with pytest.raises(OpenError):
            opened_value(replace(ROW, value=bytes(changed)))


@pytest.mark.parametrize("length", [0, 16, 47, 48, 255])
def test_a_part_cut_short_is_found(length: int) -> None:
    assert refused(replace(ROW, head=ROW.head[:length], value=ROW.value[:length]))


def test_an_older_version_put_back_under_the_current_number_is_refused() -> None:
    assert refused(replace(ROW, version=2))


@pytest.mark.parametrize("version", [0, -1, -(2**63), 2**63, 2**64, 2**64 + 1])
def test_a_version_that_no_row_has_is_refused(version: int) -> None:
    assert refused(replace(ROW, version=version))


def test_the_row_of_another_name_is_refused() -> None:
    other = sealed_row("OTHER", b"other value")
    assert refused(replace(other, index=ROW.index))


def test_the_head_of_another_version_is_refused() -> None:
    newer = sealed_row(version=2, salt=b"34")
    with pytest.raises(OpenError):
        opened_head(replace(newer, head=ROW.head))


def test_the_value_of_another_version_is_refused() -> None:
    newer = sealed_row(version=2, salt=b"34")
    with pytest.raises(OpenError):
        opened_value(replace(newer, value=ROW.value))


def test_head_and_value_cannot_change_places() -> None:
    assert refused(replace(ROW, head=ROW.value, value=ROW.head))


def test_a_row_does_not_open_in_another_vault() -> None:
    assert refused(ROW, vault_id=b"w" * 16)


def test_a_row_does_not_open_under_another_master_key() -> None:
    assert refused(ROW, master=bytes(32))


def sealed_as(kind: str, message: bytes) -> bytes:
    place = canonical.context(VAULT_ID, ROW.index, (1).to_bytes(8, "big"))
    return seal(MASTER, pad(message), kind=kind, bound_to=place, salt=b"s" * 32)


@pytest.mark.parametrize(
    "described",
    [
        b"",
        b"{}",
        b'{"created":1,"name":"API_KEY"}',
        b'{"created":1,"name":"API KEY","updated":2}',
        b'{"created":"1","name":"API_KEY","updated":2}',
        b'{"created":1, "name":"API_KEY","updated":2}',
        b'{"created":1,"name":"API_KEY","owner":3,"updated":2}',
    ],
)
def test_a_head_of_another_form_is_refused_even_when_it_is_sealed(described: bytes) -> None:
    with pytest.raises(OpenError):
        opened_head(replace(ROW, head=sealed_as("key-head", described)))


@pytest.mark.parametrize("value", [b"", bytes(MAX_VALUE + 1)])
def test_a_value_of_another_size_is_refused_even_when_it_is_sealed(value: bytes) -> None:
    with pytest.raises(OpenError):
        opened_value(replace(ROW, value=sealed_as("key-value", value)))


# The hash over the set of rows.

HEADS = st.builds(
    RowHead,
    st.binary(min_size=32, max_size=32),
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)


def hash_of(*heads: RowHead, master: bytes = MASTER, vault_id: bytes = VAULT_ID) -> RowSet:
    return RowSet().change(master, vault_id, add=heads, drop=())


def head_of(number: int, *, version: int = 1) -> RowHead:
    return RowHead(bytes([number]) * 32, version, bytes([number, version]) * 16)


@given(st.lists(HEADS, max_size=4))
def test_the_order_of_rows_does_not_matter(heads: list[RowHead]) -> None:
    assert len({hash_of(*order) for order in permutations(heads)}) == 1


@given(st.lists(HEADS, max_size=6), st.lists(HEADS, max_size=6))
def test_what_was_added_and_dropped_leaves_no_trace(
    kept: list[RowHead], passing: list[RowHead]
) -> None:
    before = hash_of(*kept)
    grown = before.change(MASTER, VAULT_ID, add=passing, drop=())
    assert grown.change(MASTER, VAULT_ID, add=(), drop=passing) == before


@given(st.lists(HEADS, max_size=8, unique=True), st.data())
def test_changing_step_by_step_agrees_with_computing_anew(
    heads: list[RowHead], data: st.DataObject
) -> None:
    found, present = RowSet(), set[RowHead]()
    for head in data.draw(st.lists(st.sampled_from(heads), max_size=12)) if heads else []:
        if head in present:
            found = found.change(MASTER, VAULT_ID, add=(), drop=[head])
        else:
            found = found.change(MASTER, VAULT_ID, add=[head], drop=())
        present ^= {head}
    assert found == hash_of(*present)


@given(st.lists(HEADS, max_size=4, unique=True), st.lists(HEADS, max_size=4, unique=True))
def test_two_different_sets_of_rows_differ(some: list[RowHead], others: list[RowHead]) -> None:
    assert (hash_of(*some) == hash_of(*others)) == (set(some) == set(others))


def test_a_row_that_is_there_twice_counts_twice() -> None:
    assert hash_of(head_of(1), head_of(1)) != hash_of(head_of(1))


def test_a_row_put_back_in_its_older_version_shows() -> None:
    assert hash_of(head_of(1, version=1)) != hash_of(head_of(1, version=2))


@pytest.mark.parametrize(
    "change", [{"index": bytes(32)}, {"version": 2}, {"tags": bytes(31) + b"x"}]
)
def test_every_part_of_a_row_shows(change: dict[str, Any]) -> None:
    assert hash_of(replace(head_of(1), **change)) != hash_of(head_of(1))


def test_parts_swapped_between_rows_show() -> None:
    one, other = head_of(1), head_of(2)
    swapped = (replace(one, tags=other.tags), replace(other, tags=one.tags))
    assert hash_of(*swapped) != hash_of(one, other)


def test_the_hash_is_keyed_by_master_key_and_vault() -> None:
    hashes = {
        hash_of(head_of(1)),
        hash_of(head_of(1), master=bytes(32)),
        hash_of(head_of(1), vault_id=b"w" * 16),
    }
    assert len(hashes) == 3


def test_a_row_whose_boundaries_were_moved_cannot_stand_for_the_true_one() -> None:
    # The same bytes, cut elsewhere: the key would be gone, and the set of rows still whole.
    true = ROW.row_head
    version = true.version.to_bytes(8, "big")
    moved = RowHead(
        true.index + version[:1],
        int.from_bytes(version[1:] + true.tags[:1], "big"),
        true.tags[1:],
    )
    with pytest.raises(DamageError) as caught:
        hash_of(moved)
    assert caught.value.reason == "rows-changed"


@pytest.mark.parametrize(
    "change",
    [
        {"index": b""},
        {"index": bytes(31)},
        {"index": bytes(33)},
        {"version": 0},
        {"version": -1},
        {"version": 2**63},
        {"version": 2**64},
        {"tags": b""},
        {"tags": bytes(31)},
        {"tags": bytes(33)},
    ],
)
def test_what_cannot_be_a_row_is_damage(change: dict[str, bytes | int]) -> None:
    head = RowHead(**{"index": bytes(32), "version": 1, "tags": bytes(32), **change})  # type: ignore[arg-type]
    with pytest.raises(DamageError) as caught:
        hash_of(head)
    assert caught.value.reason == "rows-changed"


@given(st.lists(HEADS, max_size=3))
def test_a_hash_is_written_as_64_hexadecimal_digits(heads: list[RowHead]) -> None:
    found = hash_of(*heads)
    assert len(found.encode()) == 64
    assert int(found.encode(), 16) == found.total
