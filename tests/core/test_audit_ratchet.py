"""The ratchet of the audit log: forward only."""

import pytest

from audit_logs import VAULT_ID, Log
from backpackd.core.audit import keys, ratchet
from backpackd.core.sealing.sealing import OpenError


def opens(state: bytes, log: Log, place: int) -> bool:
    row = log.rows[place]
    try:
        ratchet.open_entry(
            state, row.body, vault_id=VAULT_ID, number=row.number, previous=row.previous
        )
    except OpenError:
        return False
    return True


def test_a_state_opens_its_own_entry_and_what_comes_later_and_nothing_before() -> None:
    log = Log().begin().entries(20)
    taken = log.states[10]
    state = taken
    for place in range(10, 21):
        assert opens(state, log, place)
        state = ratchet.advance(state)
    # Whoever took it can turn it forward as often as they like.
    state = taken
    for _ in range(40):
        assert not any(opens(state, log, place) for place in range(1, 10))
        state = ratchet.advance(state)


def test_an_entry_opens_in_its_place_only() -> None:
    log = Log().begin().entries(2)
    state, row = log.states[1], log.rows[1]
    good = {"vault_id": VAULT_ID, "number": row.number, "previous": row.previous}
    assert ratchet.open_entry(state, row.body, **good)  # type: ignore[arg-type]
    for change in ({"vault_id": b"w" * 16}, {"number": 3}, {"previous": bytes(32)}):
        with pytest.raises(OpenError):
            ratchet.open_entry(state, row.body, **{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 31])
def test_what_is_too_short_is_no_entry(length: int) -> None:
    with pytest.raises(OpenError):
        ratchet.open_entry(b"s" * 32, b"x" * length, vault_id=VAULT_ID, number=1, previous=b"")


def test_the_same_state_with_another_salt_seals_under_another_key() -> None:
    place = {"vault_id": VAULT_ID, "number": 1, "previous": bytes(32)}
    one, other = (
        ratchet.seal_entry(b"s" * 32, b"m" * 64, salt=salt * 16, **place)  # type: ignore[arg-type]
        for salt in (b"a", b"b")
    )
    # Under one key and nonce the two streams would cancel out, and equal texts with them.
    assert one[16:] != other[16:]


def test_a_segment_unwraps_for_its_vault_number_and_keys_only() -> None:
    pair = keys.generate()
    good = {"vault_id": VAULT_ID, "segment": 3, "fingerprint": "ab"}
    wrapped = ratchet.wrap(b"s" * 32, pair.public.wrap, **good)  # type: ignore[arg-type]
    assert ratchet.unwrap(wrapped, pair.private, **good) == b"s" * 32  # type: ignore[arg-type]
    for change in ({"vault_id": b"w" * 16}, {"segment": 4}, {"fingerprint": "cd"}):
        with pytest.raises(OpenError):
            ratchet.unwrap(wrapped, pair.private, **{**good, **change})  # type: ignore[arg-type]
    with pytest.raises(OpenError):
        ratchet.unwrap(wrapped, keys.generate().private, **good)  # type: ignore[arg-type]


def test_entries_of_short_events_are_of_one_length() -> None:
    log = Log().begin().entry()
    place = {"vault_id": VAULT_ID, "number": 1, "previous": bytes(32), "salt": b"s" * 16}
    lengths = {
        len(ratchet.seal_entry(log.states[1], b"m" * size, **place))  # type: ignore[arg-type]
        for size in range(1, 252)
    }
    assert len(lengths) == 1
