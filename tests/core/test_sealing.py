from itertools import pairwise

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.sealing.sealing import OpenError, derive, open_sealed, pad, seal, unpad

MASTER = bytes(range(32))
SALT = b"s" * 32
MESSAGE = b"message"
STEPS = [256, 512, 1024, 2048, 4096, 8192, 12288, 16384]


def sealed_message() -> bytes:
    return seal(MASTER, MESSAGE, kind="note", bound_to=b"place", salt=SALT)


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=64), st.sampled_from(["a", "b-c"]))
def test_derive_is_hkdf_of_rfc_5869(secret: bytes, salt: bytes, purpose: str) -> None:
    info = b"backpack/v1/" + purpose.encode()
    expected = HKDF(hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)
    assert derive(secret, salt=salt, purpose=purpose) == expected


@given(st.binary(max_size=500), st.binary(max_size=40), st.binary(min_size=32, max_size=32))
def test_what_was_sealed_opens(message: bytes, place: bytes, salt: bytes) -> None:
    sealed = seal(MASTER, message, kind="note", bound_to=place, salt=salt)
    assert open_sealed(MASTER, sealed, kind="note", bound_to=place) == message


def test_a_view_of_the_master_key_does_as_well_as_bytes() -> None:
    sealed = seal(memoryview(MASTER), MESSAGE, kind="note", bound_to=b"place", salt=SALT)
    assert open_sealed(memoryview(MASTER), sealed, kind="note", bound_to=b"place") == MESSAGE


def test_every_changed_bit_is_found() -> None:
    sealed = sealed_message()
    for place in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            with pytest.raises(OpenError):
                open_sealed(MASTER, bytes(changed), kind="note", bound_to=b"place")


def test_every_cut_is_found() -> None:
    sealed = sealed_message()
    for length in range(len(sealed)):
        with pytest.raises(OpenError):
            open_sealed(MASTER, sealed[:length], kind="note", bound_to=b"place")


@pytest.mark.parametrize("more", [b"\0", b"x" * 16, SALT])
def test_bytes_added_are_found(more: bytes) -> None:
    for changed in (sealed_message() + more, more + sealed_message()):
        with pytest.raises(OpenError):
            open_sealed(MASTER, changed, kind="note", bound_to=b"place")


@given(st.binary(max_size=200))
def test_bytes_that_nobody_sealed_do_not_open(data: bytes) -> None:
    with pytest.raises(OpenError):
        open_sealed(MASTER, data, kind="note", bound_to=b"place")


@pytest.mark.parametrize("kind", ["", "not", "notes", "NOTE"])
def test_a_blob_of_one_kind_does_not_open_as_another(kind: str) -> None:
    with pytest.raises(OpenError):
        open_sealed(MASTER, sealed_message(), kind=kind, bound_to=b"place")


def test_the_kind_cannot_lend_a_byte_to_the_place() -> None:
    with pytest.raises(OpenError):
        open_sealed(MASTER, sealed_message(), kind="not", bound_to=b"eplace")


@pytest.mark.parametrize("place", [b"", b"plac", b"place\0", b"Place"])
def test_a_blob_of_one_place_does_not_open_in_another(place: bytes) -> None:
    with pytest.raises(OpenError):
        open_sealed(MASTER, sealed_message(), kind="note", bound_to=place)


def test_a_blob_does_not_open_under_another_master_key() -> None:
    with pytest.raises(OpenError):
        open_sealed(bytes(32), sealed_message(), kind="note", bound_to=b"place")


def test_each_salt_gives_a_key_of_its_own() -> None:
    one = seal(MASTER, MESSAGE, kind="note", bound_to=b"place", salt=b"1" * 32)
    other = seal(MASTER, MESSAGE, kind="note", bound_to=b"place", salt=b"2" * 32)
    assert one[32:] != other[32:]


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_salt_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal(MASTER, MESSAGE, kind="note", bound_to=b"", salt=bytes(size))


@given(st.binary(max_size=9000))
def test_padding_comes_off_again(message: bytes) -> None:
    assert unpad(pad(message)) == message


@pytest.mark.parametrize("step", STEPS)
def test_a_message_that_just_fits_takes_that_step(step: int) -> None:
    assert len(pad(bytes(step - 4))) == step


@pytest.mark.parametrize(("step", "following"), list(pairwise(STEPS)))
def test_a_message_one_byte_longer_takes_the_next_step(step: int, following: int) -> None:
    assert len(pad(bytes(step - 3))) == following


def test_lengths_within_a_step_cannot_be_told_apart() -> None:
    assert len({len(pad(bytes(length))) for length in range(253)}) == 1


@given(
    st.builds(
        lambda length, size, mark: length.to_bytes(4, "big") + bytes(size) + mark,
        st.integers(0, 10_000),
        st.sampled_from([0, 1, 251, 252, 253, 508, 4092, 8188]),
        st.sampled_from([b"", b"x"]),
    )
    | st.binary(max_size=300)
)
def test_whatever_unpads_is_what_padding_writes(padded: bytes) -> None:
    try:
        message = unpad(padded)
    except OpenError:
        return
    assert pad(message) == padded


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0\0\0", id="less than a length"),
        pytest.param(pad(b"m")[:-1], id="cut"),
        pytest.param(pad(b"m") + b"\0", id="a zero more"),
        pytest.param(pad(b"m") + bytes(256), id="a larger step than needed"),
        pytest.param(pad(b"m")[:-1] + b"x", id="not zeros"),
        pytest.param(b"\xff\xff\xff\xff" + bytes(252), id="a length beyond the end"),
        pytest.param(b"\0\0\0\xfd" + bytes(252), id="a length one beyond the end"),
    ],
)
def test_padding_of_another_form_is_refused(padded: bytes) -> None:
    with pytest.raises(OpenError):
        unpad(padded)
