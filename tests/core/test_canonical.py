from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.sealing.canonical import (
    CanonicalError,
    context,
    decode,
    encode,
    from_text,
    members,
    to_text,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
# Bytes at random are hardly ever JSON; these nearly are.
NEARLY_JSON = st.text(alphabet='{}[]",:0123456789.-+eE\\u/tfn \nab').map(str.encode)
PARTS = st.lists(st.binary(max_size=6), max_size=5)


@given(PLAIN)
def test_decoding_gives_back_what_was_encoded(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary() | NEARLY_JSON)
def test_any_bytes_decode_to_what_encodes_to_them_or_raise_canonical_error(data: bytes) -> None:
    try:
        value = decode(data)
    except CanonicalError:
        return
    assert encode(value) == data


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_in_which_members_were_added_does_not_show(value: dict[str, int]) -> None:
    assert encode(value) == encode(dict(reversed(value.items())))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"a": 1}', id="space"),
        pytest.param(b'{"a":1}\n', id="line end after it"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param(b'{"a":1,"a":1}', id="repeated member"),
        pytest.param(b'{"a":1,"a":2}', id="repeated member of another value"),
        pytest.param(b'{"b":1,"a":2}', id="members out of order"),
        pytest.param(b"[1,]", id="comma at the end"),
        pytest.param(b"01", id="leading zero"),
        pytest.param(b"-0", id="minus zero"),
        pytest.param(b"+1", id="plus"),
        pytest.param(b"1.0", id="point"),
        pytest.param(b"1.5", id="fraction"),
        pytest.param(b"1e3", id="exponent"),
        pytest.param(b"NaN", id="not a number"),
        pytest.param(b"-Infinity", id="infinity"),
        pytest.param(b"9" * 5000, id="more digits than Python reads"),
        pytest.param(b'"\\u0041"', id="needless escape"),
        pytest.param(b'"\\u00E9"', id="escape in capitals"),
        pytest.param(b'"\\/"', id="escaped slash"),
        pytest.param('"\N{LATIN SMALL LETTER E WITH ACUTE}"'.encode(), id="not ASCII"),
        pytest.param(b'"\n"', id="raw control character"),
        pytest.param(b"[" * 100_000, id="nested beyond measure"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="nested beyond measure and closed"),
    ],
)
def test_what_encoding_would_not_have_written_is_refused(data: bytes) -> None:
    with pytest.raises(CanonicalError):
        decode(data)


@pytest.mark.parametrize(
    "data", [b'{"name":"MARKER"', b'["MARKER\xff"]', b'{"name": "MARKER"}', b"[MARKER]"]
)
def test_an_error_of_decoding_holds_nothing_of_the_data(data: bytes) -> None:
    with pytest.raises(CanonicalError) as caught:
        decode(data)
    assert "MARKER" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_members_returns_an_object_of_exactly_these_members() -> None:
    value = {"a": 1, "b": "x", "c": None}
    assert members(value, a=int, b=str, c=type(None)) is value


def test_a_member_may_be_called_value() -> None:
    assert members({"value": 1}, value=int) == {"value": 1}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"a": 1}, id="one missing"),
        pytest.param({"a": 1, "b": "x", "c": 1}, id="one too many"),
        pytest.param({"a": 1, "B": "x"}, id="another name"),
        pytest.param({"a": "1", "b": "x"}, id="another type"),
        pytest.param({"a": True, "b": "x"}, id="true for a number"),
        pytest.param({"a": None, "b": "x"}, id="null"),
        pytest.param([["a", 1], ["b", "x"]], id="a list"),
        pytest.param(None, id="nothing"),
        pytest.param("ab", id="text"),
    ],
)
def test_members_refuses_any_other_shape(value: object) -> None:
    with pytest.raises(CanonicalError):
        members(value, a=int, b=str)


@given(st.binary())
def test_bytes_come_back_from_text(data: bytes) -> None:
    assert from_text(to_text(data)) == data


@given(st.text() | st.text(alphabet="AQRgw=+/-_\n "))
def test_any_text_is_what_bytes_encode_to_or_raises_canonical_error(text: str) -> None:
    try:
        data = from_text(text)
    except CanonicalError:
        return
    assert to_text(data) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("QR==", id="bits that nothing stands for"),
        pytest.param("QQ=", id="half the padding"),
        pytest.param("QQ", id="no padding"),
        pytest.param("QQ==QQ==", id="padding in the middle"),
        pytest.param("QQ==\n", id="line end"),
        pytest.param("Q Q==", id="space"),
        pytest.param("-_8=", id="the alphabet of URLs"),
        pytest.param("\uff31Q==", id="wide letter"),
    ],
)
def test_base64_that_to_text_would_not_have_written_is_refused(text: str) -> None:
    with pytest.raises(CanonicalError):
        from_text(text)


@pytest.mark.parametrize("size", [0, 2, 4])
def test_bytes_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(CanonicalError):
        from_text(to_text(b"abc"), size=size)


def test_an_error_of_reading_text_holds_nothing_of_the_text() -> None:
    with pytest.raises(CanonicalError) as caught:
        from_text("MARKER\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(PARTS, PARTS)
def test_two_different_lists_of_parts_never_give_the_same_context(
    some: list[bytes], others: list[bytes]
) -> None:
    assert (context(*some) == context(*others)) == (some == others)


@given(st.binary(), st.binary(), st.binary(min_size=1))
def test_a_byte_cannot_move_from_one_part_of_a_context_to_the_next(
    before: bytes, after: bytes, moved: bytes
) -> None:
    assert context(before + moved, after) != context(before, moved + after)


@given(PARTS, PARTS)
def test_a_context_inside_a_context_is_not_the_flat_one(
    some: list[bytes], others: list[bytes]
) -> None:
    nested = [context(*some), *others]
    assert (context(*nested) == context(*some, *others)) == (nested == [*some, *others])
