import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.sealing import canonical, hybrid
from backpackd.core.slots import slots
from backpackd.core.slots.slots import Argon2idParameters, Slot, SlotError, WrongSecretError

VAULT_ID = b"v" * 16
SLOT_ID, OTHER_ID = b"1" * 16, b"2" * 16
MASTER = bytes(range(32))
SECRET, OTHER_SECRET = b"s" * 32, b"o" * 32
SIGNING_KEY = b"g" * 32
CHEAP = Argon2idParameters(b"a" * 16, iterations=1, lanes=1, memory_kib=8)


def made(
    slot_id: bytes = SLOT_ID,
    *,
    master: bytes = MASTER,
    secret: bytes = SECRET,
    generation: int = 1,
    stretching: Argon2idParameters = CHEAP,
) -> Slot:
    return slots.make(
        master,
        vault_id=VAULT_ID,
        slot_id=slot_id,
        generation=generation,
        stretching=stretching,
        secret=secret,
        signing_key=SIGNING_KEY,
    )


def opened(slot: Slot, *, secret: bytes = SECRET, vault_id: bytes = VAULT_ID) -> bytes:
    return slots.open_slot(slot, vault_id=vault_id, secret=secret)


SLOT = made()


def test_a_slot_gives_its_master_key_to_its_secret() -> None:
    assert opened(SLOT) == MASTER


def test_a_slot_gives_its_master_key_after_being_stored() -> None:
    assert opened(Slot.decode(SLOT_ID, SLOT.encode())) == MASTER


def test_a_view_of_a_master_key_makes_a_slot() -> None:
    slot = slots.make(
        memoryview(MASTER),
        vault_id=VAULT_ID,
        slot_id=SLOT_ID,
        generation=1,
        stretching=CHEAP,
        secret=SECRET,
        signing_key=SIGNING_KEY,
    )
    assert opened(slot) == MASTER


def test_a_passphrase_that_was_stretched_opens_its_slot() -> None:
    def stretched(passphrase: bytes) -> bytes:
        return Argon2id(
            salt=CHEAP.salt,
            length=32,
            iterations=CHEAP.iterations,
            lanes=CHEAP.lanes,
            memory_cost=CHEAP.memory_kib,
        ).derive(passphrase)

    slot = made(secret=stretched(b"first"))
    assert opened(slot, secret=stretched(b"first")) == MASTER
    with pytest.raises(WrongSecretError):
        opened(slot, secret=stretched(b"second"))


def test_another_secret_does_not_open_a_slot() -> None:
    with pytest.raises(WrongSecretError):
        opened(SLOT, secret=OTHER_SECRET)


def test_a_stored_slot_holds_no_secret_part() -> None:
    slot = made()
    inner = AESGCM(SECRET).decrypt(
        bytes(12), slot.sealed, slots._blob_context(VAULT_ID, SLOT_ID, CHEAP)
    )
    private = inner[: hybrid.PRIVATE_SIZE]
    stored = b"".join((slot.public, slot.sealed, slot.wrap, slot.signature))
    for secret in (MASTER, SECRET, SIGNING_KEY, private[:32], private[32:64], private[64:]):
        assert secret not in stored


# What somebody can do who writes the file but knows no secret: everything public, any key of
# their own, any part of this or another slot or of an older file.

ATTACKER_MASTER = b"A" * 32
ATTACKER_SIGNER = Ed25519PrivateKey.from_private_bytes(b"B" * 32)


def attacker_wrap(public: bytes = SLOT.public, generation: int = 1) -> bytes:
    info = slots._wrap_context(VAULT_ID, SLOT_ID, generation)
    return hybrid.wrap(ATTACKER_MASTER, public, info=info)


def attacker_signature(wrap: bytes, public: bytes = SLOT.public) -> bytes:
    return ATTACKER_SIGNER.sign(slots._statement(VAULT_ID, SLOT_ID, 1, public, wrap))


def wrap_alone() -> Slot:
    return replace(SLOT, wrap=attacker_wrap())


def wrap_with_a_signature_of_their_own() -> Slot:
    wrap = attacker_wrap()
    return replace(SLOT, wrap=wrap, signature=attacker_signature(wrap))


def wrap_with_no_signature() -> Slot:
    return replace(SLOT, wrap=attacker_wrap(), signature=bytes(64))


def wrap_with_the_signature_of_a_key_of_low_order() -> Slot:
    # R is the identity and S is 0: verifies under keys of low order, where they are not refused.
    return replace(SLOT, wrap=attacker_wrap(), signature=b"\1" + bytes(63))


def wrap_to_a_key_of_their_own() -> Slot:
    _, public = hybrid.generate()
    wrap = attacker_wrap(public)
    return replace(
        SLOT, public=public, wrap=wrap, signature=attacker_signature(wrap, public=public)
    )


def wrap_of_the_next_generation() -> Slot:
    return replace(SLOT, wrap=attacker_wrap(generation=2), generation=2)


@pytest.mark.parametrize(
    "attack",
    [
        wrap_alone,
        wrap_with_a_signature_of_their_own,
        wrap_with_no_signature,
        wrap_with_the_signature_of_a_key_of_low_order,
        wrap_to_a_key_of_their_own,
        wrap_of_the_next_generation,
    ],
)
def test_a_wrap_of_an_attackers_master_key_made_from_the_file_alone_is_refused(
    attack: Callable[[], Slot],
) -> None:
    planted = Slot.decode(SLOT_ID, attack().encode())
    with pytest.raises(SlotError, match="not the one that was signed"):
        opened(planted)


def test_a_planted_wrap_would_unwrap_but_for_its_signature() -> None:
    # What makes the test above one of the signature: HPKE itself has nothing against this wrap.
    inner = AESGCM(SECRET).decrypt(
        bytes(12), SLOT.sealed, slots._blob_context(VAULT_ID, SLOT_ID, CHEAP)
    )
    info = slots._wrap_context(VAULT_ID, SLOT_ID, 1)
    private = inner[: hybrid.PRIVATE_SIZE]
    assert hybrid.unwrap(attacker_wrap(), private, info=info) == ATTACKER_MASTER


def test_a_whole_slot_of_an_attacker_does_not_open_with_the_users_secret() -> None:
    planted = slots.make(
        ATTACKER_MASTER,
        vault_id=VAULT_ID,
        slot_id=SLOT_ID,
        generation=1,
        stretching=CHEAP,
        secret=b"a guess that is wrong, 32 bytes.",
        signing_key=ATTACKER_SIGNER.private_bytes_raw(),
    )
    with pytest.raises(WrongSecretError):
        opened(planted)


@pytest.mark.parametrize(
    "parts",
    [
        ("wrap",),
        ("signature",),
        ("public",),
        ("wrap", "signature"),
        ("wrap", "signature", "public"),
    ],
)
def test_parts_swapped_between_two_slots_are_refused(parts: tuple[str, ...]) -> None:
    other = made(OTHER_ID, secret=OTHER_SECRET)
    swapped: dict[str, Any] = {part: getattr(other, part) for part in parts}
    with pytest.raises(SlotError):
        opened(replace(SLOT, **swapped))


@pytest.mark.parametrize(
    "parts", [("wrap",), ("wrap", "signature"), ("wrap", "signature", "public")]
)
def test_parts_of_an_older_wrap_of_the_same_slot_are_refused(parts: tuple[str, ...]) -> None:
    newer = made(generation=2, master=b"n" * 32)
    older: dict[str, Any] = {part: getattr(SLOT, part) for part in parts}
    with pytest.raises(SlotError):
        opened(replace(newer, **older))


@pytest.mark.parametrize("generation", [2, 3, 2**63 - 1])
def test_a_wrap_is_refused_under_another_generation(generation: int) -> None:
    with pytest.raises(SlotError):
        opened(replace(SLOT, generation=generation))


def test_a_slot_does_not_open_in_another_vault() -> None:
    with pytest.raises(WrongSecretError):
        opened(SLOT, vault_id=b"w" * 16)


def test_a_slot_does_not_open_under_another_id() -> None:
    with pytest.raises(WrongSecretError):
        opened(replace(SLOT, slot_id=OTHER_ID))


def test_a_blob_of_another_slot_with_the_same_secret_does_not_open() -> None:
    other = made(OTHER_ID)
    with pytest.raises(WrongSecretError):
        opened(replace(SLOT, sealed=other.sealed))


@pytest.mark.parametrize(
    "change", [{"iterations": 2}, {"lanes": 2, "memory_kib": 16}, {"memory_kib": 9}]
)
def test_a_slot_does_not_open_with_other_stretching_written_beside_it(
    change: dict[str, Any],
) -> None:
    with pytest.raises(WrongSecretError):
        opened(replace(SLOT, stretching=replace(CHEAP, **change)))


def gives_a_key(slot_id: bytes, body: bytes) -> bool:
    try:
        opened(Slot.decode(slot_id, body))
    except (SlotError, WrongSecretError):
        return False
    return True


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20])
def test_every_changed_byte_of_a_stored_slot_is_refused(mask: int) -> None:
    body = SLOT.encode()
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= mask
        assert not gives_a_key(SLOT_ID, bytes(changed)), place


def test_every_cut_of_a_stored_slot_is_refused() -> None:
    body = SLOT.encode()
    for length in range(len(body)):
        with pytest.raises(SlotError):
            Slot.decode(SLOT_ID, body[:length])


@given(st.binary() | st.from_regex(r"\A\{[\"a-z:,0-9{}]*\}\Z").map(str.encode))
def test_bytes_that_nobody_encoded_raise_slot_error_and_nothing_else(body: bytes) -> None:
    with pytest.raises(SlotError):
        Slot.decode(SLOT_ID, body)


def test_decoding_gives_back_what_was_encoded() -> None:
    assert Slot.decode(SLOT_ID, SLOT.encode()) == SLOT


def changed_body(path: str, value: object) -> bytes:
    body = json.loads(SLOT.encode())
    *outer, last = path.split(".")
    place = body
    for name in outer:
        place = place[name]
    place[last] = value
    return canonical.encode(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "keychain"),
        ("kind", None),
        ("generation", 0),
        ("generation", -1),
        ("generation", True),
        ("generation", "1"),
        ("generation", 2**63),
        ("generation", 2**64),
        ("public", canonical.to_text(bytes(1215))),
        ("public", ""),
        ("sealed", canonical.to_text(bytes(143))),
        ("sealed", canonical.to_text(bytes(145))),
        ("wrap", canonical.to_text(bytes(hybrid.OVERHEAD))),
        ("wrap", canonical.to_text(bytes(hybrid.OVERHEAD + 33))),
        ("signature", canonical.to_text(bytes(63))),
        ("stretching", []),
        ("stretching", {}),
        ("stretching.name", "scrypt"),
        ("stretching.name", "argon2i"),
        ("stretching.more", 1),
        ("more", 1),
    ],
)
def test_a_stored_slot_of_another_form_is_refused(path: str, value: object) -> None:
    with pytest.raises(SlotError):
        Slot.decode(SLOT_ID, changed_body(path, value))


# A planted slot is stretched before anything in it can be verified, so this is all that stands
# between the file and the memory of the machine.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stretching.iterations", 0),
        ("stretching.iterations", -1),
        ("stretching.iterations", 17),
        ("stretching.iterations", 2**32 - 1),
        ("stretching.iterations", True),
        ("stretching.lanes", 0),
        ("stretching.lanes", 17),
        ("stretching.lanes", 2**24),
        ("stretching.memory_kib", 0),
        ("stretching.memory_kib", 7),
        ("stretching.memory_kib", 1024 * 1024 + 1),
        ("stretching.memory_kib", 2**32 - 1),
        ("stretching.memory_kib", 10**400),
        ("stretching.salt", ""),
        ("stretching.salt", canonical.to_text(bytes(15))),
        ("stretching.salt", canonical.to_text(bytes(17))),
    ],
)
def test_parameters_out_of_bounds_are_refused_before_any_stretching(
    path: str, value: object
) -> None:
    with pytest.raises(SlotError):
        Slot.decode(SLOT_ID, changed_body(path, value))


@pytest.mark.parametrize(("lanes", "memory_kib"), [(2, 15), (16, 127)])
def test_less_memory_than_the_lanes_need_is_refused(lanes: int, memory_kib: int) -> None:
    with pytest.raises(SlotError):
        Argon2idParameters(b"a" * 16, iterations=1, lanes=lanes, memory_kib=memory_kib)


@pytest.mark.parametrize(
    ("iterations", "memory_kib"), [(5, 1024 * 1024), (16, 262_145), (9, 500_000)]
)
def test_the_time_of_stretching_is_bounded_and_not_only_passes_and_memory_alone(
    iterations: int, memory_kib: int
) -> None:
    with pytest.raises(SlotError):
        replace(CHEAP, iterations=iterations, memory_kib=memory_kib)
    replace(CHEAP, iterations=iterations, memory_kib=4 * 1024 * 1024 // iterations)


@pytest.mark.parametrize(
    "largest", [{"iterations": 16}, {"lanes": 16, "memory_kib": 128}, {"memory_kib": 1024 * 1024}]
)
def test_parameters_at_the_bounds_are_accepted(largest: dict[str, Any]) -> None:
    parameters = replace(CHEAP, **largest)
    assert Argon2idParameters.decode(parameters.encode()) == parameters


def test_new_slots_get_the_second_recommended_parameters_of_rfc_9106() -> None:
    parameters = slots.rfc_9106_low_memory(b"a" * 16)
    found = (parameters.iterations, parameters.lanes, parameters.memory_kib)
    assert found == (3, 4, 65536)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_slot_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(SlotError):
        Slot.decode(bytes(size), SLOT.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"slot_id": OTHER_ID},
        {"generation": 2},
        {"stretching": replace(CHEAP, iterations=2)},
        {"public": bytes(1216)},
        {"sealed": bytes(144)},
        {"wrap": bytes(1168)},
        {"signature": bytes(64)},
    ],
)
def test_every_part_of_a_slot_shows_in_its_digest(change: dict[str, Any]) -> None:
    assert replace(SLOT, **change).digest != SLOT.digest


def test_master_keys_are_told_apart() -> None:
    assert slots.same_master(memoryview(MASTER), bytes(MASTER))
    assert not slots.same_master(MASTER, MASTER[:-1] + b"\0")
    assert not slots.same_master(MASTER, MASTER[:-1])


def test_a_slot_of_the_first_version_without_its_id_opens_and_keeps_its_digest() -> None:
    old = replace(SLOT, named=False)
    assert b'"id"' not in old.encode()
    found = Slot.decode(SLOT_ID, old.encode())
    assert opened(found) == MASTER
    assert found.digest == old.digest


def test_a_body_under_the_id_of_another_slot_is_told_before_any_secret() -> None:
    with pytest.raises(SlotError):
        Slot.decode(OTHER_ID, SLOT.encode())


@pytest.mark.parametrize("kind", slots.KINDS[1:])
def test_a_slot_of_one_kind_does_not_open_as_another(kind: str) -> None:
    slot = slots.make(
        MASTER,
        vault_id=VAULT_ID,
        slot_id=SLOT_ID,
        generation=1,
        stretching=slots.HkdfParameters(b"a" * 16),
        secret=SECRET,
        signing_key=SIGNING_KEY,
        kind=kind,
    )
    assert opened(Slot.decode(SLOT_ID, slot.encode())) == MASTER
    with pytest.raises(WrongSecretError):
        opened(replace(slot, kind="passphrase"))


def test_a_slot_that_was_wrapped_anew_opens_with_the_same_secret_to_the_new_key() -> None:
    anew = slots.rewrap(SLOT, b"n" * 32, vault_id=VAULT_ID, generation=2, signing_key=SIGNING_KEY)
    assert opened(anew) == b"n" * 32
    assert (anew.sealed, anew.public) == (SLOT.sealed, SLOT.public)
    with pytest.raises(SlotError):
        opened(replace(anew, wrap=SLOT.wrap))
