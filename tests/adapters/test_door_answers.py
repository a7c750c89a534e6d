"""Where the door's own answers stand between the server's frames, in any pieces."""

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.answers import Answers

DATA, HEADERS, RST, CONTINUATION = 0, 1, 3, 9
END_STREAM, END_HEADERS = 0x1, 0x4
CUTS = st.lists(st.integers(1, 40), max_size=60)

SENT = [
    (HEADERS, END_HEADERS, 1, b"initial"),
    (DATA, 0, 1, b"message"),
    (HEADERS, END_STREAM, 1, b"trail"),
    (CONTINUATION, 0, 1, b"ers, "),
    (CONTINUATION, END_HEADERS, 1, b"long"),
    (DATA, 0, 5, b""),
    (RST, 0, 5, b"1234"),
]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


@given(CUTS, st.integers(0, 60))
def test_an_answer_is_two_whole_frames_outside_of_every_header_block(
    cuts: list[int], moment: int
) -> None:
    answers, data, out = Answers(), b"".join(frame(*one) for one in SENT), b""
    ended: list[int] = []
    for step, cut in enumerate([*cuts, len(data)]):
        if step == min(moment, len(cuts)):
            out += answers.refuse(7)
        passed, streams = answers.feed(data[:cut])
        out += passed
        ended += streams
        data = data[cut:]
    found = frames(out)
    assert [one for one in found if one[2] != 7] == SENT
    own = [place for place, one in enumerate(found) if one[2] == 7]
    assert [found[place][0] for place in own] == [HEADERS, RST]
    assert own[1] == own[0] + 1
    before = found[own[0] - 1] if own[0] else None
    assert before is None or before[0] not in (HEADERS, CONTINUATION) or before[1] & END_HEADERS
    assert ended == [1, 5]


@given(CUTS)
def test_without_an_answer_of_the_doors_all_goes_on_as_it_came(cuts: list[int]) -> None:
    answers, data, out = Answers(), b"".join(frame(*one) for one in SENT), b""
    for cut in [*cuts, len(data)]:
        out += answers.feed(data[:cut])[0]
        data = data[cut:]
    assert out == b"".join(frame(*one) for one in SENT)


def test_what_the_server_has_begun_to_answer_gets_trailers_only() -> None:
    fresh, begun = Answers(), Answers()
    begun.feed(frame(HEADERS, END_HEADERS, 7, b"initial"))
    (whole, _), (trailers, _) = frames(fresh.refuse(7)), frames(begun.refuse(7))
    assert whole[3].startswith(b"\x88")
    assert whole[3].endswith(trailers[3])
    assert not trailers[3].startswith(b"\x88")
    begun.forget(7)
    assert begun.left_open == set()
