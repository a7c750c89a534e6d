from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.access.grants import LONGEST_TTL, Grant
from backpackd.core.access.policy import DEFAULTS, LISTINGS, DenyRule, Policy
from backpackd.core.access.selectors import parse
from backpackd.core.errors import DamageError
from backpackd.core.rows import RowHead
from backpackd.core.sealing.canonical import context, encode
from backpackd.core.sealing.sealing import pad, seal
from backpackd.core.slots import slots
from backpackd.core.slots.slots import Argon2idParameters, Slot
from backpackd.core.vault import authority as authorities
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import RowSet

MASTER = bytes(range(32))
VAULT_ID = b"v" * 16
SIGNING_KEY = b"g" * 32
SALT = b"s" * 32


def made_slot(number: int, *, secret: bytes = b"s" * 32) -> Slot:
    return slots.make(
        MASTER,
        vault_id=VAULT_ID,
        slot_id=bytes([number]) * 16,
        generation=1,
        stretching=Argon2idParameters(b"a" * 16, iterations=1, lanes=1, memory_kib=8),
        secret=secret,
        signing_key=SIGNING_KEY,
    )


ONE, TWO, THREE = made_slot(1), made_slot(2), made_slot(3)
SWAPPED = [replace(ONE, slot_id=TWO.slot_id), replace(TWO, slot_id=ONE.slot_id)]


DEFAULT = Policy()
POLICY = DEFAULT.encode()


def digests(*listed: Slot) -> dict[str, str]:
    return {slot.slot_id.hex(): slot.digest for slot in listed}


def grant(grant_id: str, *, uses: int | None = None, reason: str = "") -> Grant:
    return Grant(grant_id, ("A_*",), parse("uid:1000"), 60, None, uses, 1, reason)


def record(
    *,
    generation: int = 1,
    rows: RowSet | None = None,
    listed: Mapping[str, str] | None = None,
    latest_ms: int = 1000,
    grants: tuple[Grant, ...] = (),
    policy: Policy = DEFAULT,
) -> Authority:
    return Authority(
        generation,
        master_generation=1,
        rows=rows or RowSet(),
        slots=digests(ONE, TWO) if listed is None else listed,
        signing_key=b"sealed elsewhere",
        latest_ms=latest_ms,
        grants={given.id: given for given in grants},
        policy=policy,
    )


RULES = [
    DenyRule(("A",)),
    DenyRule(("B_*", "*"), parse("uid:1000")),
    DenyRule(("*",), parse("exe:/usr/bin/python3")),
]
SEALED = record().seal(MASTER, VAULT_ID, SALT)


@given(
    st.integers(1, 2**60),
    st.integers(0, 2**256 - 1),
    st.integers(0, 2**40),
    st.builds(
        Policy,
        st.sampled_from(DEFAULTS),
        st.sampled_from(LISTINGS),
        st.lists(st.sampled_from(RULES), max_size=3, unique=True).map(tuple),
        st.integers(1, LONGEST_TTL),
    ),
    st.lists(
        st.builds(
            lambda number, uses, reason: grant(f"{number:016x}", uses=uses, reason=reason),
            st.integers(0, 2**64 - 1),
            st.none() | st.integers(0, 10),
            st.text(max_size=20),
        ),
        max_size=4,
    ),
)
def test_what_was_sealed_opens(
    generation: int, total: int, latest_ms: int, policy: Policy, grants: list[Grant]
) -> None:
    written = record(
        generation=generation,
        rows=RowSet(generation, total),
        latest_ms=latest_ms,
        grants=tuple(grants),
        policy=policy,
    )
    assert Authority.open(MASTER, VAULT_ID, written.seal(MASTER, VAULT_ID, SALT)) == written


def test_every_changed_byte_is_damage() -> None:
    for place in range(len(SEALED)):
        changed = bytearray(SEALED)
        changed[place] ^= 1
        with pytest.raises(DamageError) as caught:
            Authority.open(MASTER, VAULT_ID, bytes(changed))
        assert caught.value.reason == "authority-damaged"


@pytest.mark.parametrize("length", [0, 31, 48, 300, len(SEALED) - 1])
def test_a_record_cut_short_is_damage(length: int) -> None:
    with pytest.raises(DamageError):
        Authority.open(MASTER, VAULT_ID, SEALED[:length])


def test_the_record_of_another_vault_is_damage() -> None:
    with pytest.raises(DamageError):
        Authority.open(MASTER, b"w" * 16, SEALED)


def test_a_record_under_another_master_key_is_damage() -> None:
    with pytest.raises(DamageError):
        Authority.open(bytes(32), VAULT_ID, SEALED)


def test_a_sealed_thing_of_another_kind_is_no_record() -> None:
    sealed = authorities.seal_signing_key(MASTER, VAULT_ID, SIGNING_KEY, SALT)
    with pytest.raises(DamageError):
        Authority.open(MASTER, VAULT_ID, sealed)


@pytest.mark.parametrize(
    "change",
    [
        {"generation": "1"},
        {"generation": True},
        {"rows": 0},
        {"rows": "not hexadecimal"},
        {"slots": []},
        {"grants": {}},
        {"grants": [{}]},
        {"signing_key": "not base64"},
        {"policy": None},
        {"policy": {}},
        {"policy": {**POLICY, "default": "allow-all"}},
        {"policy": {**POLICY, "max_ttl": 0}},
        {"policy": {**POLICY, "deny": [{"patterns": ["A"], "selector": "tree:1"}]}},
        {"more": 1},
    ],
)
def test_a_record_of_another_form_is_damage_even_when_it_is_sealed(
    change: dict[str, object],
) -> None:
    form = {
        "policy": POLICY,
        "generation": 1,
        "grants": [],
        "latest": 1,
        "master_generation": 1,
        "row_count": 0,
        "rows": "0" * 64,
        "signing_key": "",
        "slots": {},
    }

    def sealed(data: dict[str, object]) -> bytes:
        bound_to = context(VAULT_ID)
        return seal(MASTER, pad(encode(data)), kind="authority", bound_to=bound_to, salt=SALT)

    assert Authority.open(MASTER, VAULT_ID, sealed({**form})).policy == Policy()
    with pytest.raises(DamageError):
        Authority.open(MASTER, VAULT_ID, sealed({**form, **change}))


def test_the_next_record_has_the_next_generation() -> None:
    assert record(generation=7).next(2000).generation == 8


def test_the_latest_time_moves_forward() -> None:
    assert record(latest_ms=1000).next(2000).latest_ms == 2000


def test_a_clock_that_is_set_back_does_not_move_the_latest_time_back() -> None:
    assert record(latest_ms=1000).next(1).latest_ms == 1000


def test_the_next_record_keeps_what_was_not_changed() -> None:
    before = record(grants=(grant("a" * 16),))
    after = before.next(2000, policy=Policy(default="deny"))
    assert after == replace(before, generation=2, latest_ms=2000, policy=Policy(default="deny"))


def test_grants_are_added_and_replaced_by_their_ids() -> None:
    kept, old, new = grant("a" * 16), grant("b" * 16, uses=2), grant("b" * 16, uses=1)
    added = grant("c" * 16)
    found = record(grants=(kept, old)).with_grants([new, added])
    assert found == {kept.id: kept, new.id: new, added.id: added}


def test_the_slots_that_the_record_names_are_accepted_in_any_order() -> None:
    record().check_slots([TWO, ONE])


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param([ONE, made_slot(2)], id="an old slot put back under its own id"),
        pytest.param([ONE, replace(TWO, wrap=ONE.wrap)], id="a wrap of another slot"),
        pytest.param(SWAPPED, id="two swapped"),
        pytest.param([ONE], id="one removed"),
        pytest.param([], id="all removed"),
        pytest.param([ONE, TWO, THREE], id="one added"),
        pytest.param([ONE, THREE], id="one put in place of another"),
        pytest.param([ONE, TWO, TWO], id="one there twice"),
        pytest.param([made_slot(2), ONE, TWO], id="an old one before the current one of its id"),
    ],
)
def test_slots_that_the_record_does_not_name_are_damage(stored: list[Slot]) -> None:
    with pytest.raises(DamageError) as caught:
        record().check_slots(stored)
    assert caught.value.reason == "slots-changed"


def test_every_changed_byte_of_a_slot_is_damage_or_no_slot() -> None:
    authority = record(listed=digests(ONE))
    body = ONE.encode()
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        try:
            slot = Slot.decode(ONE.slot_id, bytes(changed))
        except slots.SlotError:
            continue
        with pytest.raises(DamageError):
            authority.check_slots([slot])


def rows_of(*numbers: int) -> RowSet:
    heads = [RowHead(bytes([number]) * 32, 1, bytes(32)) for number in numbers]
    return RowSet().change(MASTER, VAULT_ID, add=heads, drop=())


def test_the_rows_that_the_record_names_are_accepted() -> None:
    record(rows=rows_of(1, 2)).check_rows(rows_of(2, 1))


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ((1,), "2 of 3 key rows are missing"),
        ((), "3 of 3 key rows are missing"),
        ((1, 2, 3, 4), "there are 1 key rows too many"),
        ((1, 2, 3, 3), "there are 1 key rows too many"),
        ((1, 2, 4), "a key row was replaced by another"),
    ],
)
def test_rows_that_the_record_does_not_name_are_damage_that_says_how(
    stored: tuple[int, ...], told: str
) -> None:
    with pytest.raises(DamageError, match=told) as caught:
        record(rows=rows_of(1, 2, 3)).check_rows(rows_of(*stored))
    assert caught.value.reason == "rows-changed"


def test_an_older_record_does_not_vouch_for_newer_rows_and_slots() -> None:
    older = Authority.open(MASTER, VAULT_ID, SEALED)
    with pytest.raises(DamageError):
        older.check_rows(rows_of(1))
    with pytest.raises(DamageError):
        older.check_slots([THREE])


def test_the_signing_key_opens_where_it_was_sealed() -> None:
    sealed = authorities.seal_signing_key(MASTER, VAULT_ID, SIGNING_KEY, SALT)
    assert authorities.open_signing_key(MASTER, VAULT_ID, sealed) == SIGNING_KEY


def test_every_changed_byte_of_the_sealed_signing_key_is_damage() -> None:
    sealed = authorities.seal_signing_key(MASTER, VAULT_ID, SIGNING_KEY, SALT)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(DamageError):
            authorities.open_signing_key(MASTER, VAULT_ID, bytes(changed))


def test_the_signing_key_of_another_vault_is_damage() -> None:
    sealed = authorities.seal_signing_key(MASTER, VAULT_ID, SIGNING_KEY, SALT)
    with pytest.raises(DamageError):
        authorities.open_signing_key(MASTER, b"w" * 16, sealed)


def test_the_record_is_no_signing_key() -> None:
    with pytest.raises(DamageError):
        authorities.open_signing_key(MASTER, VAULT_ID, SEALED)
