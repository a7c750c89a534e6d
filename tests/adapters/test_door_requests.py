"""Which frames go on and which wait, in any pieces, and what is put between them."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.frames import FloodError
from backpackd.adapters.door.opening import PREFACE
from backpackd.adapters.door.requests import (
    BYTES_FOR_ONE,
    FILLER_BYTES,
    LONG_RINSE,
    MOST_FRAMES,
    MOST_WAITING,
    SHORT_RINSE,
    SPARE,
    SPARE_FOR_REQUEST,
    Requests,
)

DATA, HEADERS, RST, PING, WINDOW_UPDATE, CONTINUATION, FILLER = 0, 1, 3, 6, 8, 9, 0xF0
CUTS = st.lists(st.integers(1, 40), max_size=40)


def frame(kind: int, stream: int, payload: bytes = b"payload", flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def headers(stream: int) -> bytes:
    return frame(HEADERS, stream, b"headers", flags=4)


def opened(requests: Requests) -> Requests:
    assert requests.feed(PREFACE) == PREFACE
    return requests


def closed_after(count: int) -> Requests:
    """Let `count` requests begin and the others wait."""
    begun: list[int] = []

    def begin(stream: int) -> bool:
        begun.append(stream)
        return len(begun) <= count

    return opened(Requests(begin))


def fed(requests: Requests, data: bytes, cuts: list[int]) -> bytes:
    out = b""
    for cut in cuts:
        out += requests.feed(data[:cut])
        data = data[cut:]
    return out + requests.feed(data)


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """Take whole frames apart: kind, stream, payload."""
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end
        found.append((data[3], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


@given(CUTS)
def test_with_room_everything_goes_on_unchanged_however_it_is_cut(cuts: list[int]) -> None:
    data = PREFACE + frame(PING, 0) + headers(1) + frame(DATA, 1) + headers(3) + frame(RST, 1)
    assert fed(Requests(), data, cuts) == data


@given(CUTS)
def test_only_new_requests_wait_and_what_a_call_in_progress_needs_goes_past_them(
    cuts: list[int],
) -> None:
    requests = closed_after(1)
    going = [headers(1), frame(DATA, 1), frame(PING, 0), frame(WINDOW_UPDATE, 1), frame(RST, 1)]
    held = [headers(3), frame(DATA, 3), headers(5), frame(WINDOW_UPDATE, 3), frame(DATA, 5)]
    mixed = b"".join(
        [going[0], held[0], going[1], held[1], held[2], going[2], held[3], *going[3:], held[4]]
    )
    assert fed(requests, mixed, cuts) == b"".join(going)
    assert requests.waiting == 2
    assert requests.let_go() == 3
    assert requests.due() == held[0] + held[1] + held[3]
    assert requests.let_go() == 5
    assert requests.due() == held[2] + held[4]
    assert (requests.waiting, requests.cost) == (0, 0)


@given(CUTS, st.integers(0, 60), st.integers(0, 60))
def test_whenever_requests_are_let_go_every_frame_arrives_once_and_whole(
    cuts: list[int], first: int, second: int
) -> None:
    requests = closed_after(1)
    sent = headers(1) + headers(3) + frame(DATA, 1) + frame(DATA, 3) + headers(5) + frame(DATA, 5)
    data, out = sent, b""
    for step, cut in enumerate([*cuts, len(sent)]):
        out += requests.feed(data[:cut])
        data = data[cut:]
        if step in (first, second) and requests.waiting:
            requests.let_go()
            out += requests.due()
    while requests.waiting:
        requests.let_go()
        out += requests.due()
    assert sorted(frames(out)) == sorted(frames(sent))
    assert [stream for kind, stream, _ in frames(out) if kind == HEADERS] == [1, 3, 5]


def test_a_request_let_go_in_the_middle_of_another_frame_follows_its_end() -> None:
    requests = closed_after(1)
    body = frame(DATA, 1, bytes(100))
    assert requests.feed(headers(1) + headers(3) + body[:50]) == headers(1) + body[:50]
    requests.let_go()
    assert requests.due() == b""
    assert requests.feed(body[50:]) == body[50:] + headers(3)


def test_a_header_block_is_never_interrupted() -> None:
    requests = opened(Requests())
    begun = frame(HEADERS, 1, b"part")
    assert requests.feed(begun) == begun
    requests.rinse()
    assert requests.due() == b""
    more = frame(CONTINUATION, 1, b"part")
    assert requests.feed(more) == more
    last = frame(CONTINUATION, 1, b"part", flags=4)
    found = frames(requests.feed(last))
    assert [kind for kind, _, _ in found] == [CONTINUATION, *[FILLER] * SHORT_RINSE]


def test_the_rest_of_a_header_block_follows_a_request_that_was_let_go_in_part() -> None:
    requests = closed_after(0)
    begun, last = frame(HEADERS, 1, b"part"), frame(CONTINUATION, 1, b"part", flags=4)
    assert requests.feed(begun) == b""
    requests.let_go()
    requests.rinse()
    assert requests.due() == begun
    found = frames(requests.feed(last))
    assert [kind for kind, _, _ in found] == [CONTINUATION, *[FILLER] * SHORT_RINSE]


def test_trailers_stay_behind_the_headers_that_came_before_them() -> None:
    requests = closed_after(1)
    requests.feed(headers(1) + headers(3))
    assert requests.feed(headers(1)) == b""
    requests.let_go()
    assert requests.due() == headers(3) + headers(1)


def test_a_request_taken_back_while_it_waited_is_told_of_when_it_goes() -> None:
    reset: list[int] = []
    requests = opened(Requests(lambda _: False, reset.append))
    requests.feed(headers(1) + frame(RST, 1))
    assert reset == []
    requests.let_go()
    assert requests.due() == headers(1) + frame(RST, 1)
    assert reset == [1]


def test_rinsing_is_whole_frames_that_mean_nothing_on_no_stream() -> None:
    requests = opened(Requests())
    requests.rinse()
    assert frames(requests.due()) == [(FILLER, 0, bytes(FILLER_BYTES))] * SHORT_RINSE
    assert requests.due() == b""


def test_rinsing_many_times_before_a_frame_has_ended_is_rinsing_once() -> None:
    requests = opened(Requests())
    requests.feed(headers(1)[:-1])
    for _ in range(100):
        requests.rinse()
    assert len(requests.feed(headers(1)[-1:])) == 1 + SHORT_RINSE * (9 + FILLER_BYTES)


def test_more_is_rinsed_after_long_requests_and_less_again_after_short_ones() -> None:
    requests = opened(Requests())
    requests.feed(headers(1) + frame(DATA, 1, bytes(LONG_RINSE * FILLER_BYTES)))
    requests.rinse()
    assert len(requests.due()) == LONG_RINSE * (9 + FILLER_BYTES)
    requests.rinse()
    assert len(requests.due()) == SHORT_RINSE * (9 + FILLER_BYTES)


def test_frames_without_content_count_as_kept() -> None:
    requests = closed_after(0)
    requests.feed(headers(1))
    before = requests.cost
    requests.feed(frame(DATA, 1, b"") * 100)
    assert requests.cost >= before + 100 * 64


@given(st.binary(max_size=400), CUTS)
def test_any_bytes_are_taken_and_none_is_lost_or_made_up(data: bytes, cuts: list[int]) -> None:
    requests = opened(Requests(lambda stream: stream % 3 == 0))
    try:
        out = fed(requests, data, cuts)
    except FloodError:
        # The connection is closed for that.
        return
    while requests.waiting:
        requests.let_go()
        out += requests.due()
    assert len(data) - 8 <= len(out) <= len(data)


def told(begun: list[int]) -> Callable[[int], bool]:
    """Let every request begin, and write down which."""

    def begin(stream: int) -> bool:
        begun.append(stream)
        return True

    return begin


LITTLE = {
    "ping": frame(PING, 0, bytes(8)),
    "unknown": frame(FILLER, 0, b""),
    "unknown and long": frame(FILLER, 0, bytes(600)),
    "window": frame(WINDOW_UPDATE, 1, bytes(4)),
    "reset": frame(RST, 1, bytes(4)),
    "empty": frame(DATA, 1, b""),
    "nearly empty": frame(DATA, 1, bytes(BYTES_FOR_ONE - 10)),
    "trailers": headers(1),
}


@pytest.mark.parametrize("little", LITTLE.values(), ids=LITTLE.keys())
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_frames_that_carry_little_are_as_many_as_a_client_needs_and_no_more(
    little: bytes, size: int
) -> None:
    requests = opened(Requests())
    requests.feed(headers(1))
    for at in range(0, len(little * SPARE), size):
        requests.feed((little * SPARE)[at : at + size])
    with pytest.raises(FloodError):
        requests.feed(little)


def test_requests_and_what_is_earned_otherwise_allow_for_more_up_to_a_bound() -> None:
    requests = opened(Requests())
    ping = LITTLE["ping"]
    requests.feed(headers(1) + ping * SPARE)
    requests.feed(headers(3) + ping * SPARE_FOR_REQUEST)
    requests.earn(5)
    requests.feed(ping * 5)
    for stream in range(5, 2005, 2):
        requests.feed(headers(stream))
    requests.earn(10 * SPARE)
    requests.feed(ping * SPARE)
    with pytest.raises(FloodError):
        requests.feed(ping)


@pytest.mark.parametrize("piece", [16 * 1024, 32 * 1024, 64 * 1024])
def test_a_long_request_in_frames_of_16_kib_with_a_small_rest_is_none(piece: int) -> None:
    # As libraries cut messages of a power of two and nine bytes around them.
    requests = opened(Requests())
    requests.feed(headers(1))
    message = frame(DATA, 1, bytes(16 * 1024)) * (piece // (16 * 1024)) + frame(DATA, 1, bytes(9))
    for _ in range(2 * SPARE):
        requests.feed(message)


def test_frames_of_a_middling_length_are_as_many_as_may_be() -> None:
    requests = opened(Requests())
    requests.feed(headers(1))
    body = frame(DATA, 1, bytes(BYTES_FOR_ONE))
    for _ in range(10 * SPARE):
        assert requests.feed(body) == body


def test_a_piece_of_more_frames_than_any_client_sends_is_not_even_looked_at() -> None:
    begun: list[int] = []
    requests = opened(Requests(told(begun)))
    with pytest.raises(FloodError):
        requests.feed(b"".join(headers(2 * n + 1) for n in range(MOST_FRAMES + 1)))
    assert begun == []


def test_so_many_requests_wait_and_no_more() -> None:
    requests = closed_after(0)
    for number in range(MOST_WAITING):
        requests.feed(headers(2 * number + 1))
    with pytest.raises(FloodError):
        requests.feed(headers(2 * MOST_WAITING + 1))


@pytest.mark.parametrize("stream", [2, 4, 0x7FFFFFFE])
def test_a_request_on_a_stream_of_the_servers_is_none(stream: int) -> None:
    begun: list[int] = []
    requests = opened(Requests(told(begun)))
    with pytest.raises(FloodError):
        requests.feed(headers(stream))
    assert begun == []
