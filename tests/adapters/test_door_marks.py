"""The mark that the door puts behind the headers of every request, in any pieces."""

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.marks import field
from backpackd.adapters.door.opening import PREFACE
from backpackd.adapters.door.requests import SHORT_RINSE, Requests

DATA, HEADERS, PUSHED, CONTINUATION, FILLER = 0, 1, 6, 9, 0xF0
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20
MARK = b"the mark"
CUTS = st.lists(st.integers(1, 40), max_size=60)
FLAGS = st.sampled_from([0, END_STREAM, PADDED, PRIORITY, PADDED | PRIORITY | END_STREAM])

Frame = tuple[int, int, int, bytes]


def frame(kind: int, stream: int, payload: bytes = b"payload", flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[Frame]:
    """Take whole frames apart: kind, flags, stream, payload."""
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


def marking(begin: bool = True) -> Requests:
    requests = Requests(lambda _: begin, mark=MARK)
    assert requests.feed(PREFACE) == PREFACE
    return requests


def fed(requests: Requests, data: bytes, cuts: list[int]) -> bytes:
    out = b""
    for cut in cuts:
        out += requests.feed(data[:cut])
        data = data[cut:]
    return out + requests.feed(data)


@given(CUTS, FLAGS, st.lists(st.binary(max_size=30), max_size=3), st.booleans())
def test_the_mark_is_the_end_of_a_requests_headers_however_they_are_cut(
    cuts: list[int], flags: int, more: list[bytes], waits: bool
) -> None:
    blocks = [b"first", *more]
    sent = frame(HEADERS, 1, blocks[0], flags | (0 if more else END_HEADERS))
    expected: list[Frame] = [(HEADERS, flags, 1, b"first")]
    for place, block in enumerate(more, 1):
        sent += frame(CONTINUATION, 1, block, END_HEADERS if place == len(more) else 0)
        expected.append((CONTINUATION, 0, 1, block))
    expected += [(CONTINUATION, END_HEADERS, 1, MARK), (DATA, END_STREAM, 1, b"body")]
    requests = marking(begin=not waits)
    out = fed(requests, sent + frame(DATA, 1, b"body", END_STREAM), cuts)
    if waits:
        assert out == b""
        requests.let_go()
        out = requests.due()
    assert frames(out) == expected


@given(CUTS, st.integers(0, 60))
def test_a_request_let_go_in_the_middle_of_its_headers_is_marked_once(
    cuts: list[int], moment: int
) -> None:
    requests = marking(begin=False)
    data = frame(HEADERS, 1, b"head" * 5) + frame(CONTINUATION, 1, b"more" * 5, END_HEADERS)
    out = b""
    for step, cut in enumerate([*cuts, len(data)]):
        out += requests.feed(data[:cut])
        data = data[cut:]
        if step == moment and requests.waiting:
            requests.let_go()
            out += requests.due()
    if requests.waiting:
        requests.let_go()
    out += requests.due()
    assert frames(out) == [
        (HEADERS, 0, 1, b"head" * 5),
        (CONTINUATION, 0, 1, b"more" * 5),
        (CONTINUATION, END_HEADERS, 1, MARK),
    ]


@given(CUTS)
def test_the_headers_of_two_requests_are_both_marked_and_nothing_else_is(cuts: list[int]) -> None:
    trailers = frame(HEADERS, 1, b"trailers", END_HEADERS | END_STREAM)
    sent = frame(HEADERS, 1, b"a", END_HEADERS) + frame(DATA, 1, b"body")
    sent += trailers + frame(HEADERS, 3, b"b", END_HEADERS) + frame(DATA, 3, b"body")
    assert frames(fed(marking(), sent, cuts)) == [
        (HEADERS, 0, 1, b"a"),
        (CONTINUATION, END_HEADERS, 1, MARK),
        (DATA, 0, 1, b"body"),
        (HEADERS, END_HEADERS | END_STREAM, 1, b"trailers"),
        (HEADERS, 0, 3, b"b"),
        (CONTINUATION, END_HEADERS, 3, MARK),
        (DATA, 0, 3, b"body"),
    ]


def test_trailers_in_two_frames_are_not_marked() -> None:
    requests = marking()
    requests.feed(frame(HEADERS, 1, b"a", END_HEADERS))
    trailers = frame(HEADERS, 1, b"t", END_STREAM) + frame(CONTINUATION, 1, b"u", END_HEADERS)
    assert requests.feed(trailers) == trailers


@given(CUTS)
def test_rinsing_waits_for_the_mark(cuts: list[int]) -> None:
    requests = marking()
    data = frame(HEADERS, 1, b"headers", END_HEADERS)
    out = requests.feed(data[:1])
    requests.rinse()
    out += requests.due() + fed(requests, data[1:], cuts)
    kinds = [kind for kind, *_ in frames(out)]
    start = [FILLER] * SHORT_RINSE
    assert kinds in ([HEADERS, CONTINUATION, *start], [*start, HEADERS, CONTINUATION])


@given(st.binary(max_size=400), CUTS)
def test_any_bytes_come_out_with_marks_and_nothing_else_added(data: bytes, cuts: list[int]) -> None:
    plain, requests = Requests(), marking()
    plain.feed(PREFACE)
    expected, out = plain.feed(data), fed(requests, data, cuts)
    cost = len(frame(CONTINUATION, 1, MARK))
    assert (len(out) - len(expected)) % cost == 0
    assert (len(out) - len(expected)) // cost == out.count(MARK) - expected.count(MARK)


def test_the_field_changes_no_table_and_is_the_header_that_was_asked_for() -> None:
    # 0001 0000: a literal that is never indexed, with a name of its own (RFC 7541, 6.2.3).
    assert field("name", "value") == b"\x10\x04name\x05value"
