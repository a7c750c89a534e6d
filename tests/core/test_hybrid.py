import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.sealing import hybrid
from backpackd.core.sealing.hybrid import OVERHEAD, PRIVATE_SIZE, PUBLIC_SIZE, UnwrapError

KEY = b"k" * 32
INFO = b"place"
PRIVATE, PUBLIC = hybrid.generate()
WRAPPED = hybrid.wrap(KEY, PUBLIC, info=INFO)


def test_a_wrapped_key_unwraps() -> None:
    assert hybrid.unwrap(WRAPPED, PRIVATE, info=INFO) == KEY


def test_a_view_of_a_key_can_be_wrapped() -> None:
    assert hybrid.unwrap(hybrid.wrap(memoryview(KEY), PUBLIC, info=b""), PRIVATE, info=b"") == KEY


def test_sizes_are_the_documented_ones() -> None:
    sizes = (len(PRIVATE), len(PUBLIC), len(WRAPPED) - len(KEY))
    assert sizes == (PRIVATE_SIZE, PUBLIC_SIZE, OVERHEAD)


def test_no_two_key_pairs_are_alike() -> None:
    assert len({hybrid.generate() for _ in range(20)}) == 20


def test_no_two_wraps_of_a_key_are_alike() -> None:
    assert hybrid.wrap(KEY, PUBLIC, info=INFO) != WRAPPED


@pytest.mark.parametrize("bit", [0, 7])
def test_every_changed_byte_of_a_wrap_is_found(bit: int) -> None:
    for place in range(len(WRAPPED)):
        changed = bytearray(WRAPPED)
        changed[place] ^= 1 << bit
        with pytest.raises(UnwrapError):
            hybrid.unwrap(bytes(changed), PRIVATE, info=INFO)


@pytest.mark.parametrize("length", [0, 1, 1088, 1120, OVERHEAD - 1, OVERHEAD, len(WRAPPED) - 1])
def test_a_wrap_cut_short_is_refused(length: int) -> None:
    with pytest.raises(UnwrapError):
        hybrid.unwrap(WRAPPED[:length], PRIVATE, info=INFO)


@given(st.binary(max_size=1300))
def test_bytes_that_nobody_wrapped_do_not_unwrap(data: bytes) -> None:
    with pytest.raises(UnwrapError):
        hybrid.unwrap(data, PRIVATE, info=INFO)


@pytest.mark.parametrize("info", [b"", b"plac", b"place\0"])
def test_a_wrap_does_not_unwrap_for_another_place(info: bytes) -> None:
    with pytest.raises(UnwrapError):
        hybrid.unwrap(WRAPPED, PRIVATE, info=info)


def test_a_wrap_does_not_unwrap_with_another_private_key() -> None:
    with pytest.raises(UnwrapError):
        hybrid.unwrap(WRAPPED, hybrid.generate()[0], info=INFO)


def test_half_of_the_right_private_key_does_not_unwrap() -> None:
    other = hybrid.generate()[0]
    for private in (PRIVATE[:64] + other[64:], other[:64] + PRIVATE[64:]):
        with pytest.raises(UnwrapError):
            hybrid.unwrap(WRAPPED, private, info=INFO)


@pytest.mark.parametrize("length", [0, 64, PRIVATE_SIZE - 1, PRIVATE_SIZE + 1])
def test_a_private_key_of_another_size_is_refused(length: int) -> None:
    with pytest.raises(UnwrapError):
        hybrid.unwrap(WRAPPED, PRIVATE.ljust(length, b"\0")[:length], info=INFO)


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PUBLIC[:-1], id="cut"),
        pytest.param(PUBLIC + b"\0", id="a byte more"),
        pytest.param(PUBLIC[:1184] + bytes(32), id="X25519 point of low order: 0"),
        pytest.param(PUBLIC[:1184] + b"\1" + bytes(31), id="X25519 point of low order: 1"),
        pytest.param(b"\xff" * 1184 + PUBLIC[1184:], id="ML-KEM coefficients out of range"),
    ],
)
def test_bytes_that_are_no_public_key_are_refused(public: bytes) -> None:
    with pytest.raises(UnwrapError):
        hybrid.wrap(KEY, public, info=INFO)


def test_a_planted_point_of_low_order_does_not_unwrap() -> None:
    planted = WRAPPED[:1088] + bytes(32) + WRAPPED[1120:]
    with pytest.raises(UnwrapError):
        hybrid.unwrap(planted, PRIVATE, info=INFO)
