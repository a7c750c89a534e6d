"""The reader of one call's answer, fed by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import EXIT_NO_DAEMON, Failure
from backpack_client.wire import Ended, Unknown, hpack, http2
from backpack_client.wire.http2 import Exchange

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

STATUS = hpack.encode([(":status", "200"), ("content-type", "application/grpc")])
TRAILERS = hpack.encode([("grpc-status", "0")])


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


HELLO = frame(SETTINGS, payload=b"\0\3\0\0\0\x64")
BEGIN = HELLO + frame(HEADERS, 4, 1, STATUS)
END = frame(HEADERS, 5, 1, TRAILERS)


def begun(body: bytes = b"request", *, endless: bool = False) -> Exchange:
    """Make an exchange whose request was sent, as far as the peer takes it unasked."""
    reply = Exchange([(":path", "/")], body, endless=endless)
    reply.outgoing.clear()
    return reply


def fed(data: bytes) -> Exchange:
    reply = begun()
    reply.feed(data)
    return reply


def test_an_answer_is_headers_then_a_body_then_trailers() -> None:
    reply = fed(BEGIN + frame(DATA, 0, 1, b"ab") + frame(DATA, 0, 1, b"c") + END)
    assert reply.headers == hpack.decode(STATUS)
    assert reply.body == b"abc"
    assert reply.trailers == [("grpc-status", "0")]


def test_an_answer_that_comes_byte_by_byte_is_the_same() -> None:
    reply = begun()
    for byte in BEGIN + frame(DATA, 0, 1, b"abc") + END:
        assert reply.trailers is None
        reply.feed(bytes((byte,)))
    assert (bytes(reply.body), reply.trailers) == (b"abc", [("grpc-status", "0")])


def test_an_answer_of_trailers_only_has_no_headers() -> None:
    reply = fed(HELLO + frame(HEADERS, 5, 1, STATUS + TRAILERS))
    assert reply.headers is None
    assert reply.trailers is not None
    assert reply.trailers[-1] == ("grpc-status", "0")


def test_settings_are_acknowledged_once() -> None:
    assert fed(HELLO + frame(SETTINGS, 1)).outgoing == frame(SETTINGS, 1)


def test_a_ping_is_answered_with_its_own_bytes() -> None:
    outgoing = fed(HELLO + frame(PING, 0, 0, b"12345678")).outgoing
    assert outgoing == frame(SETTINGS, 1) + frame(PING, 1, 0, b"12345678")


def test_the_answer_to_a_ping_is_not_answered() -> None:
    assert fed(HELLO + frame(PING, 1, 0, b"12345678")).outgoing == frame(SETTINGS, 1)


def test_padding_and_priority_are_taken_off() -> None:
    headers = frame(HEADERS, 4 | 8 | 0x20, 1, b"\3" + bytes(5) + STATUS + bytes(3))
    data = frame(DATA, 8, 1, b"\2" + b"abc" + bytes(2))
    reply = fed(HELLO + headers + data + END)
    assert reply.headers == hpack.decode(STATUS)
    assert reply.body == b"abc"


def test_a_header_block_may_be_continued() -> None:
    first, rest = TRAILERS[:3], TRAILERS[3:]
    reply = fed(BEGIN + frame(HEADERS, 1, 1, first))
    assert reply.trailers is None
    reply.feed(frame(CONTINUATION, 0, 1, b"") + frame(CONTINUATION, 4, 1, rest))
    assert reply.trailers == [("grpc-status", "0")]


@pytest.mark.parametrize(
    "ignored",
    [
        pytest.param(frame(PRIORITY, 0, 1, bytes(5)), id="priority"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, b"\0\0\1\0"), id="a window of the connection"),
        pytest.param(frame(WINDOW_UPDATE, 0, 1, b"\0\0\1\0"), id="a window of the stream"),
        pytest.param(frame(0xEE, 0xFF, 77, b"anything"), id="a kind of a later version"),
        pytest.param(frame(SETTINGS, payload=b"\x77\x77\0\0\0\1"), id="an unknown setting"),
        pytest.param(frame(GOAWAY, payload=b"\0\0\0\1\0\0\0\0bye"), id="a goodbye after the call"),
    ],
)
def test_what_does_not_concern_the_call_is_ignored(ignored: bytes) -> None:
    reply = fed(HELLO + ignored + BEGIN + ignored + frame(DATA, 0, 1, b"abc") + ignored + END)
    assert (bytes(reply.body), reply.trailers) == (b"abc", [("grpc-status", "0")])


def test_what_comes_after_the_trailers_is_not_read() -> None:
    assert fed(BEGIN + END + b"\xff" * 100).trailers == [("grpc-status", "0")]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="HTTP/1"),
        pytest.param(frame(PING, 0, 0, bytes(8)), id="no settings first"),
        pytest.param(frame(SETTINGS, 1), id="an acknowledgement first"),
        pytest.param(HELLO + frame(SETTINGS, payload=b"12345"), id="settings of no whole size"),
        pytest.param(
            HELLO + frame(SETTINGS, 1, 0, bytes(6)), id="an acknowledgement with settings"
        ),
        pytest.param(HELLO + frame(SETTINGS, 0, 1), id="settings on a stream"),
        pytest.param(HELLO + frame(PING, 0, 0, b"1234567"), id="a short ping"),
        pytest.param(HELLO + frame(PING, 0, 1, bytes(8)), id="a ping on a stream"),
        pytest.param(HELLO + frame(GOAWAY, payload=b"1234567"), id="a short goodbye"),
        pytest.param(HELLO + frame(WINDOW_UPDATE, payload=b"123"), id="a short window update"),
        pytest.param(HELLO + frame(RST_STREAM, 0, 1, b"123"), id="a short reset"),
        pytest.param(HELLO + frame(RST_STREAM, 0, 3, bytes(4)), id="a reset of another stream"),
        pytest.param(HELLO + frame(PUSH_PROMISE, 4, 1, bytes(8)), id="a push"),
        pytest.param(HELLO + frame(HEADERS, 4, 2, STATUS), id="headers on another stream"),
        pytest.param(HELLO + frame(DATA, 0, 1, b"abc"), id="data before headers"),
        pytest.param(BEGIN + frame(DATA, 0, 3, b"abc"), id="data on another stream"),
        pytest.param(BEGIN + frame(DATA, 8, 1, b"\4abc"), id="nothing but padding and more"),
        pytest.param(BEGIN + frame(DATA, 8, 1, b""), id="padding without its length"),
        pytest.param(BEGIN + frame(DATA, 1, 1, b"abc"), id="data that ends the answer"),
        pytest.param(BEGIN + frame(HEADERS, 4, 1, TRAILERS), id="trailers that do not end it"),
        pytest.param(HELLO + frame(HEADERS, 0x24, 1, b"123"), id="half a priority"),
        pytest.param(HELLO + frame(CONTINUATION, 4, 1, STATUS), id="a continuation of nothing"),
        pytest.param(
            HELLO + frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, bytes(8)),
            id="a header block interrupted",
        ),
        pytest.param(
            HELLO + frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(16384)) * 3,
            id="a header block without end",
        ),
        pytest.param(BEGIN + b"\x00\x40\x01" + bytes(6), id="a frame above the limit"),
    ],
)
def test_what_breaks_the_protocol_ends_the_call(broken: bytes) -> None:
    with pytest.raises(Failure) as caught:
        fed(broken)
    assert caught.value.reason == "protocol"


def test_data_beyond_the_window_ends_the_call() -> None:
    reply = fed(BEGIN)
    full = frame(DATA, 0, 1, bytes(http2.FRAME_LIMIT))
    for _ in range(http2.WINDOW // http2.FRAME_LIMIT):
        reply.feed(full)
    with pytest.raises(Failure, match="data that nobody asked for"):
        reply.feed(frame(DATA, 0, 1, b"x"))


def test_a_peer_that_never_stops_pinging_ends_the_call() -> None:
    reply = fed(BEGIN)
    ping = frame(PING, 1, 0, bytes(8))
    most = http2.TOTAL_LIMIT // len(ping)
    reply.feed(ping * (most - len(BEGIN) // len(ping) - 1))
    with pytest.raises(Failure, match="endless"):
        reply.feed(ping * 9)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, "internal"), (2, "internal"), (7, "no-daemon"), (8, "no-daemon"), (11, "failed")],
)
def test_a_reset_is_a_failure_by_its_code(code: int, reason: str) -> None:
    with pytest.raises(Ended) as caught:
        fed(HELLO + frame(RST_STREAM, 0, 1, code.to_bytes(4, "big")))
    failure = caught.value.failure({})
    assert f"HTTP/2 error {code}" in failure.message
    assert failure.reason == reason
    assert (failure.exit_code == EXIT_NO_DAEMON) == (code in (7, 8))


def test_a_goodbye_before_the_request_was_taken_is_not_known() -> None:
    with pytest.raises(Unknown):
        fed(HELLO + frame(GOAWAY, payload=bytes(8)))


def test_a_header_of_more_than_one_frame_is_not_known() -> None:
    with pytest.raises(Unknown):
        Exchange([(":path", "/" * http2.FRAME_LIMIT)], b"x")


def sent(data: bytes) -> tuple[bytes, list[int]]:
    """Return what the DATA frames among the bytes that were sent hold, and their flags."""
    body, flags, at = b"", [], 0
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == DATA:
            body += data[at + 9 : end]
            flags.append(data[at + 4])
        at = end
    return body, flags


LONG = bytes(range(256)) * 400  # 102,400 bytes: more than the 65,535 that a peer takes unasked


def opened(body: bytes) -> tuple[Exchange, bytes]:
    exchange = Exchange([(":path", "/")], body)
    first, _ = sent(bytes(exchange.outgoing[24:]))
    exchange.outgoing.clear()
    return exchange, first


def test_a_long_request_is_sent_in_frames_as_the_peer_takes_it() -> None:
    exchange, first = opened(LONG)
    assert first == LONG[:65535]
    exchange.feed(HELLO + frame(WINDOW_UPDATE, 0, 1, (2**20).to_bytes(4, "big")))
    # The window of the connection is its own.
    assert sent(bytes(exchange.outgoing)) == (b"", [])
    exchange.feed(frame(WINDOW_UPDATE, 0, 0, (20_000).to_bytes(4, "big")))
    part, flags = sent(bytes(exchange.outgoing))
    assert part == LONG[65535:85535]
    assert 1 not in flags
    exchange.outgoing.clear()
    exchange.feed(frame(WINDOW_UPDATE, 0, 0, (2**20).to_bytes(4, "big")))
    last, flags = sent(bytes(exchange.outgoing))
    assert (first + part + last, flags[-1]) == (LONG, 1)


def window(size: int) -> bytes:
    return frame(SETTINGS, payload=b"\0\4" + size.to_bytes(4, "big"))


def test_settings_move_the_window_of_the_stream_that_is_open() -> None:
    exchange, first = opened(LONG)
    exchange.feed(window(10) + frame(WINDOW_UPDATE, 0, 0, (2**20).to_bytes(4, "big")))
    # It is below zero now by what was sent: as much has to be granted first.
    exchange.feed(frame(WINDOW_UPDATE, 0, 1, (65525).to_bytes(4, "big")))
    assert sent(bytes(exchange.outgoing)) == (b"", [])
    exchange.feed(window(2**20))
    assert first + sent(bytes(exchange.outgoing))[0] == LONG


def test_an_answer_before_the_request_is_sent_is_read() -> None:
    exchange, _ = opened(LONG)
    exchange.feed(HELLO + frame(HEADERS, 5, 1, STATUS + TRAILERS))
    assert exchange.trailers is not None


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(frame(WINDOW_UPDATE, 0, 0, bytes(4)), id="no more"),
        pytest.param(frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), id="a large stream"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), id="too large in all"),
        pytest.param(window(2**31), id="settings above the limit"),
    ],
)
def test_a_window_of_no_size_that_there_is_ends_the_call(broken: bytes) -> None:
    with pytest.raises(Failure) as caught:
        fed(HELLO + broken)
    assert caught.value.reason == "protocol"


def test_an_endless_answer_is_granted_more_as_it_comes() -> None:
    exchange = begun(endless=True)
    exchange.feed(BEGIN)
    exchange.outgoing.clear()
    piece = frame(DATA, 0, 1, bytes(http2.FRAME_LIMIT))
    granted = 0
    for _ in range(3 * http2.TOTAL_LIMIT // http2.FRAME_LIMIT):
        exchange.feed(piece)
        exchange.body.clear()
        updates = bytes(exchange.outgoing)
        exchange.outgoing.clear()
        if updates:
            assert updates[:13] == frame(WINDOW_UPDATE, 0, 0, updates[9:13])
            assert updates[13:] == frame(WINDOW_UPDATE, 0, 1, updates[9:13])
            granted += int.from_bytes(updates[9:13], "big")
    assert granted > 2 * http2.TOTAL_LIMIT
    # And never more than the window: what is not read is not granted.
    assert granted <= 3 * http2.TOTAL_LIMIT


frames = st.builds(
    frame,
    kind=st.integers(0, 10),
    flags=st.integers(0, 255),
    stream=st.integers(0, 2),
    payload=st.one_of(st.binary(max_size=40), st.just(STATUS), st.just(TRAILERS)),
)


@given(
    st.sampled_from([b"", HELLO, BEGIN]),
    st.lists(st.one_of(frames, st.binary(max_size=30)), max_size=12),
    st.integers(1, 50),
)
def test_any_bytes_are_an_answer_or_its_end_or_not_known_or_a_failure(
    start: bytes, parts: list[bytes], step: int
) -> None:
    data = start + b"".join(parts)
    reply = begun()
    try:
        for position in range(0, len(data), step):
            reply.feed(data[position : position + step])
    except (Unknown, Ended, Failure):
        pass
