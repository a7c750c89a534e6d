"""Cutting frames: whole ones only, few at a time, and not too many that carry nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.frames import PREFACE, FrameError, Frames
from backpackd.adapters.door.limits import (
    BYTES_FOR_ONE_FRAME,
    FRAMES_A_SECOND,
    FRAMES_FOR_A_REQUEST,
    FRAMES_FOR_AN_ANSWER,
    FRAMES_SPARE,
    LONGEST_FRAME,
)
from flooding import frame

PING = frame(6, 0, 0, bytes(8))
DATA = frame(0, 0, 1, bytes(10_000))
HEADERS = frame(1, 4, 1, bytes(50))
GOAWAY = frame(7, 0, 0, bytes(8))


def begun(now: float = 0) -> Frames:
    frames = Frames(now)
    frames.feed(PREFACE)
    assert frames.cut(10, now) == PREFACE
    return frames


def everything(frames: Frames, most: int = 64, now: float = 0) -> list[bytes]:
    pieces = []
    while frames.ready:
        pieces.append(frames.cut(most, now))
    return pieces


@given(st.lists(st.sampled_from([PING, DATA, HEADERS]), max_size=20), st.data())
def test_however_the_bytes_come_the_frames_come_whole_and_in_order(
    sent: list[bytes], data: st.DataObject
) -> None:
    stream = PREFACE + b"".join(sent)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, got = Frames(0), []
    for begin, end in zip([0, *places], [*places, len(stream)], strict=True):
        frames.feed(stream[begin:end])
        while piece := frames.cut(3, 0):
            got.append(piece)
    assert b"".join(got) == stream
    boundaries = {0, len(PREFACE)}
    for one in sent:
        boundaries.add(max(boundaries) + len(one))
    at = 0
    for piece in got:
        at += len(piece)
        assert at in boundaries


def test_no_more_frames_are_cut_than_were_asked_for() -> None:
    frames = begun()
    frames.feed(PING * 10)
    assert everything(frames, most=4) == [PING * 4, PING * 4, PING * 2]


def test_a_part_of_a_frame_is_not_ready_and_is_not_cut() -> None:
    frames = begun()
    for byte in PING[:-1]:
        frames.feed(bytes([byte]))
        assert not frames.ready
        assert frames.cut(10, 0) == b""
    frames.feed(PING[-1:])
    assert frames.cut(10, 0) == PING


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\0", b"PRI * HTTP/1", b"\x16\x03\1"])
def test_what_is_no_http2_is_found_out_at_its_first_bytes(said: bytes) -> None:
    frames = Frames(0)
    frames.feed(said)
    with pytest.raises(FrameError, match="HTTP/2"):
        frames.cut(10, 0)


def test_too_long_a_frame_is_found_out_by_its_head() -> None:
    frames = begun()
    frames.feed(frame(0, 0, 1, bytes(LONGEST_FRAME + 1))[:9])
    with pytest.raises(FrameError, match="too long"):
        frames.cut(10, 0)


def test_the_longest_frame_is_cut() -> None:
    frames = begun()
    longest = frame(0, 0, 1, bytes(LONGEST_FRAME))
    frames.feed(longest)
    assert frames.cut(10, 0) == longest


def test_goaway_frames_are_left_out_and_counted() -> None:
    frames = begun()
    frames.feed(PING + GOAWAY + GOAWAY + HEADERS + GOAWAY)
    assert b"".join(everything(frames)) == PING + HEADERS
    assert frames._spare == FRAMES_SPARE + FRAMES_FOR_A_REQUEST - 4


def spend(frames: Frames, count: int, one: bytes = PING, now: float = 0) -> None:
    frames.feed(one * count)
    everything(frames, now=now)


@pytest.mark.parametrize(
    "one",
    [PING, frame(4, 0, 0, b""), frame(0, 0, 1, b""), frame(3, 0, 1, bytes(4)), frame(9, 0, 1, b"")],
    ids=["ping", "settings", "data", "reset", "continuation"],
)
def test_frames_that_carry_nothing_are_at_most_so_many(one: bytes) -> None:
    frames = begun()
    spend(frames, FRAMES_SPARE, one)
    with pytest.raises(FrameError, match="too many"):
        spend(frames, 1, one)


def test_a_flood_is_given_up_before_its_frames_are_handed_over() -> None:
    frames = begun()
    frames.feed(PING * 1_000_000)
    for _ in range(FRAMES_SPARE // 64):
        assert frames.cut(64, 0) == PING * 64
    with pytest.raises(FrameError):
        frames.cut(64, 0)


def test_a_request_brings_frames_and_is_free() -> None:
    frames = begun()
    for _ in range(100):
        spend(frames, 1, HEADERS)
        spend(frames, FRAMES_FOR_A_REQUEST)
    with pytest.raises(FrameError):
        spend(frames, FRAMES_SPARE + FRAMES_FOR_A_REQUEST + 1)


def test_content_brings_frames_by_its_bytes() -> None:
    frames = begun()
    small = frame(0, 0, 1, bytes(BYTES_FOR_ONE_FRAME))
    spend(frames, 20 * FRAMES_SPARE, small)
    tiny = frame(0, 0, 1, b"x")
    with pytest.raises(FrameError):
        spend(frames, 2 * FRAMES_SPARE, tiny)


def test_answers_and_time_bring_frames() -> None:
    frames = begun()
    spend(frames, FRAMES_SPARE)
    frames.earn(2 * FRAMES_FOR_AN_ANSWER)
    spend(frames, 2 * FRAMES_FOR_AN_ANSWER)
    spend(frames, 3 * FRAMES_A_SECOND, now=3)
    with pytest.raises(FrameError):
        spend(frames, 1, now=3)


def test_nothing_is_saved_up_beyond_the_spare() -> None:
    frames = begun()
    frames.earn(100_000)
    with pytest.raises(FrameError):
        spend(frames, FRAMES_SPARE + FRAMES_A_SECOND + 1, now=1_000_000)
