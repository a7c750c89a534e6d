"""Header fields of one call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import Failure
from backpack_client.wire import Unknown, hpack

ascii_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=300)
field_lists = st.lists(st.tuples(ascii_text, ascii_text), max_size=8)


@given(field_lists)
def test_what_is_encoded_decodes_to_itself(fields: list[tuple[str, str]]) -> None:
    assert hpack.decode(hpack.encode(fields)) == fields


def test_the_example_of_the_rfc_for_a_literal_without_indexing_decodes() -> None:
    # RFC 7541, appendix C.2.2.
    block = bytes.fromhex("040c2f73616d706c652f70617468")
    assert hpack.decode(block) == [(":path", "/sample/path")]


def test_the_example_of_the_rfc_for_a_literal_with_indexing_decodes() -> None:
    # RFC 7541, appendix C.2.1. A table of size 0 keeps nothing of it.
    block = bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")
    assert hpack.decode(block) == [("custom-key", "custom-header")]


def test_the_example_of_the_rfc_for_a_literal_never_indexed_decodes() -> None:
    # RFC 7541, appendix C.2.3.
    block = bytes.fromhex("100870617373776f726406736563726574")
    assert hpack.decode(block) == [("password", "secret")]


@pytest.mark.parametrize(
    ("index", "field"),
    [(2, (":method", "GET")), (8, (":status", "200")), (61, ("www-authenticate", ""))],
)
def test_an_index_means_the_static_table(index: int, field: tuple[str, str]) -> None:
    assert hpack.decode(bytes((0x80 | index,))) == [field]


def test_a_table_size_of_nothing_at_the_start_is_taken() -> None:
    assert hpack.decode(b"\x20\x88") == [(":status", "200")]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\xbe", id="an index into the dynamic table"),
        pytest.param(b"\x7f\x00\x01a", id="a name from the dynamic table"),
        pytest.param(bytes.fromhex("0482639d"), id="a Huffman coded value"),
    ],
)
def test_what_is_legal_and_not_known_here_is_told_apart(block: bytes) -> None:
    with pytest.raises(Unknown):
        hpack.decode(block)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x80", id="index 0"),
        pytest.param(b"\x00", id="no name"),
        pytest.param(b"\x00\x01", id="a name cut short"),
        pytest.param(b"\x00\x01a", id="no value"),
        pytest.param(b"\x00\x01a\x05b", id="a value cut short"),
        pytest.param(b"\x00\x01a\x85b", id="a Huffman coded value cut short"),
        pytest.param(b"\xff", id="a number cut short"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\x7f", id="a number without end"),
        pytest.param(b"\x21", id="a dynamic table that was declined"),
        pytest.param(b"\x88\x20", id="a table size after a field"),
        pytest.param(b"\x88" * 1000, id="more fields than the limit"),
    ],
)
def test_what_is_broken_is_a_failure(block: bytes) -> None:
    with pytest.raises(Failure):
        hpack.decode(block)


@given(st.binary(max_size=400))
def test_any_bytes_are_fields_or_not_known_or_a_failure(block: bytes) -> None:
    try:
        fields = hpack.decode(block)
    except (Unknown, Failure):
        return
    assert sum(len(name) + len(value) for name, value in fields) <= hpack.LIST_LIMIT
