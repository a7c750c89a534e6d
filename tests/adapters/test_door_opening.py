"""The first bytes of a connection, in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.opening import MOST_FRAMES, PREFACE, Opening, OpeningError

SETTINGS = b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\1"
PING = b"\0\0\x08\6\0\0\0\0\0" + b"12345678"
HEADERS = b"\0\0\5\1\4\0\0\0\1" + b"hello"
LIMIT = 64 * 1024


def fed(data: bytes, limit: int = LIMIT) -> Opening:
    opening = Opening(limit)
    opening.feed(data)
    return opening


def test_a_headers_frame_is_the_first_request() -> None:
    assert fed(PREFACE + SETTINGS + HEADERS).started


def test_settings_and_pings_are_no_request() -> None:
    assert not fed(PREFACE + SETTINGS + PING * 3).started


@given(st.lists(st.integers(1, 7), max_size=60))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int]) -> None:
    data = PREFACE + SETTINGS + PING + HEADERS
    opening = Opening(LIMIT)
    for cut in cuts:
        opening.feed(data[:cut])
        data = data[cut:]
    opening.feed(data)
    assert opening.started


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0",
        b"\x16\x03\x01\x02\0\x01\0",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ],
)
def test_what_is_not_http2_is_refused_at_its_first_wrong_byte(data: bytes) -> None:
    with pytest.raises(OpeningError, match="does not speak"):
        fed(data)


def test_a_large_frame_of_another_kind_counts_towards_the_limit() -> None:
    opening = fed(PREFACE + b"\x10\0\0\4\0\0\0\0\0")
    with pytest.raises(OpeningError, match="too many bytes"):
        opening.feed(bytes(LIMIT))


def test_so_many_frames_may_come_before_the_first_request_and_no_more() -> None:
    opening = fed(PREFACE + PING * MOST_FRAMES, limit=10**6)
    with pytest.raises(OpeningError, match="too many frames"):
        opening.feed(PING)
    assert not opening.started
    assert fed(PREFACE + PING * (MOST_FRAMES - 1) + HEADERS, limit=10**6).started


def test_the_size_of_the_request_itself_does_not_count() -> None:
    assert fed(PREFACE + SETTINGS + HEADERS + bytes(4 * LIMIT)).started


def test_a_request_behind_the_limit_comes_too_late() -> None:
    with pytest.raises(OpeningError, match="too many bytes"):
        fed(PREFACE + SETTINGS + HEADERS, limit=len(PREFACE))


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused_and_nothing_else_happens(data: bytes) -> None:
    for start in (data, PREFACE + data):
        try:
            fed(start, limit=100)
        except OpeningError as error:
            assert str(error).isascii()  # noqa: PT017  # either outcome is right
