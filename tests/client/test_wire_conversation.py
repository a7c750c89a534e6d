"""One call over a socket, against a peer that is played by hand."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import Failure
from backpack_client.wire import Ended, Unknown, conversation, hpack


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


HELLO = frame(4)
GRPC = hpack.encode([(":status", "200"), ("content-type", "application/grpc+proto")])
BEGIN = HELLO + frame(1, 4, 1, GRPC)


def ending(*fields: tuple[str, str]) -> bytes:
    return frame(1, 5, 1, hpack.encode(list(fields)))


def message(content: bytes, flag: int = 0) -> bytes:
    return frame(0, 0, 1, bytes((flag,)) + len(content).to_bytes(4, "big") + content)


OK = ending(("grpc-status", "0"))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def call(answer: bytes, *, hang_up: bool = True, seconds: int = 60) -> bytes:
    """Make a call that `answer` is the answer to, laid out before the question."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        if hang_up:
            theirs.shutdown(socket.SHUT_WR)
        return ask(ours, seconds)


def ask(connection: Any, seconds: float = 60, message: bytes = b"request") -> bytes:
    """Make a call; what ends it is a failure, as a command tells it."""
    try:
        return conversation.call(connection, "/a/B", message, seconds)
    except Ended as ended:
        raise ended.failure({"backpack-names": "A"}) from None


def test_the_answer_is_the_message() -> None:
    assert call(BEGIN + message(b"response") + OK) == b"response"


def test_the_request_is_sent_in_one_piece_with_its_deadline(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    theirs.sendall(BEGIN + message(b"") + OK)
    ask(ours, 7)
    sent = theirs.recv(65536)
    assert sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"\x0cgrpc-timeout\x027S" in sent
    assert sent.endswith(b"\0\0\0\0\x07request")


def test_a_ping_gets_its_answer_while_the_call_waits(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    seen = bytearray()

    def play() -> None:
        theirs.sendall(HELLO + frame(6, 0, 0, b"pingpong"))
        # The answer comes only after the client has answered the ping.
        while frame(6, 1, 0, b"pingpong") not in seen:
            seen.extend(theirs.recv(65536))
        theirs.sendall(frame(1, 4, 1, GRPC) + message(b"late") + OK)

    thread = threading.Thread(target=play)
    thread.start()
    assert ask(ours, message=b"") == b"late"
    thread.join()
    assert frame(4, 1) in seen


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="at once"),
        pytest.param(HELLO, id="after hello"),
        pytest.param(BEGIN + message(b"response"), id="before the trailers"),
        pytest.param(BEGIN + frame(7, payload=b"\0\0\0\1\0\0\0\2"), id="after a goodbye"),
    ],
)
def test_a_peer_that_hangs_up_is_no_daemon(answer: bytes) -> None:
    with pytest.raises(Failure, match="closed the connection") as caught:
        call(answer)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("refused", ["sendall", "recv", "settimeout"])
def test_a_sandbox_that_refuses_to_send_or_receive_is_named(
    ends: tuple[socket.socket, socket.socket], refused: str, error: int
) -> None:
    class Refused:
        def __getattr__(self, name: str) -> Any:
            if name == refused:
                raise OSError(error, os.strerror(error))
            return getattr(ends[0], name)

    connection: Any = Refused()
    with pytest.raises(Failure, match="this sandbox forbids Unix sockets") as caught:
        conversation.call(connection, "/a/B", b"", 60)
    assert (caught.value.exit_code, caught.value.reason) == (7, "sockets-forbidden")


def test_an_answer_before_the_peer_hung_up_is_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    theirs.sendall(BEGIN + message(b"response") + OK)
    theirs.close()
    assert ask(ours) == b"response"


def test_an_answer_that_came_with_a_hang_up_while_settings_were_acknowledged_is_read() -> None:
    ours, theirs = socket.socketpair()

    class HangsUp:
        """Answers in two pieces, and is gone when the acknowledgement is sent."""

        def __init__(self) -> None:
            self.received = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

        def recv(self, size: int) -> bytes:
            self.received += 1
            if self.received > 1:
                return ours.recv(size)
            data = ours.recv(len(HELLO))
            theirs.close()
            return data

    with ours:
        theirs.sendall(BEGIN + message(b"response") + OK)
        connection: Any = HangsUp()
        assert ask(connection) == b"response"


def test_a_peer_that_is_gone_before_the_request_is_no_daemon() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(Failure, match="closed the connection"):
        ask(ours, message=b"")


@pytest.mark.parametrize("answer", [b"", HELLO, BEGIN + message(b"x")])
def test_a_peer_that_goes_silent_is_waited_for_no_longer_than_asked(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, *(0.9999,) * 4])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 2.0))
    with pytest.raises(Failure, match="did not answer in time") as caught:
        call(answer, hang_up=False, seconds=1)
    assert (caught.value.exit_code, caught.value.reason) == (7, "no-answer")


def test_a_peer_that_keeps_talking_is_waited_for_no_longer_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 0.5, 0.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 2.0))
    with pytest.raises(Failure, match="did not answer in time"):
        call(HELLO, hang_up=False, seconds=1)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(BEGIN + message(b"x", flag=1) + OK, id="a compressed message"),
        pytest.param(
            HELLO + ending((":status", "404"), ("content-type", "text/html")), id="another status"
        ),
        pytest.param(
            HELLO
            + frame(
                1, 4, 1, hpack.encode([(":status", "103"), ("content-type", "application/grpc")])
            )
            + OK,
            id="early hints",
        ),
        pytest.param(
            HELLO
            + frame(1, 4, 1, hpack.encode([(":status", "200"), ("content-type", "text/html")]))
            + OK,
            id="another content type",
        ),
        pytest.param(HELLO + frame(7, payload=bytes(8)), id="a goodbye before the request"),
    ],
)
def test_what_is_legal_and_not_known_here_is_told_apart(answer: bytes) -> None:
    with pytest.raises(Unknown):
        call(answer)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(BEGIN + message(b"x") + ending(("x", "y")), id="no status"),
        pytest.param(BEGIN + message(b"x") + ending(("grpc-status", "-0")), id="no number"),
        pytest.param(BEGIN + message(b"x") + ending(("grpc-status", "0" * 9)), id="a long number"),
        pytest.param(BEGIN + OK, id="no message"),
        pytest.param(BEGIN + message(b"x") + message(b"y") + OK, id="two messages"),
        pytest.param(BEGIN + frame(0, 0, 1, b"\0\0\0\0\5abc") + OK, id="half a message"),
        pytest.param(BEGIN + frame(0, 0, 1, b"\0\xff\xff\xff\xff"), id="an absurd length"),
    ],
)
def test_what_breaks_the_protocol_is_a_failure(answer: bytes) -> None:
    with pytest.raises(Failure) as caught:
        call(answer)
    assert caught.value.reason == "protocol"


def test_too_large_a_message_is_refused_at_its_first_bytes() -> None:
    length = (conversation.MESSAGE_LIMIT + 1).to_bytes(4, "big")
    with pytest.raises(Failure, match="too large"):
        call(BEGIN + frame(0, 0, 1, b"\0" + length), hang_up=False)


def test_what_the_daemon_says_goes_before_what_the_caller_knows() -> None:
    no_grant = (("grpc-status", "7"), ("backpack-reason", "no-grant"))
    with pytest.raises(Failure) as caught:
        call(HELLO + ending((":status", "200"), *no_grant, ("backpack-names", "B")))
    assert "grant B --to" in caught.value.hint
    with pytest.raises(Failure) as caught:
        call(HELLO + ending((":status", "200"), *no_grant))
    assert "grant A --to" in caught.value.hint


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("plain", "plain"),
        ("a%20b", "a b"),
        ("%C3%a4", "ä"),
        ("100%", "100%"),
        ("%", "%"),
        ("%2", "%2"),
        ("%zz", "%zz"),
        ("%+1", "%+1"),
        ("% 1", "% 1"),
        ("%_1", "%_1"),
        ("%%41", "%A"),
        ("%ff", "\ufffd"),
    ],
)
def test_a_status_message_is_percent_decoded(encoded: str, text: str) -> None:
    assert conversation.percent_decoded(encoded) == text


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_status_message_decodes(text: str) -> None:
    assert isinstance(conversation.percent_decoded(text), str)


pieces = st.sampled_from(
    [HELLO, BEGIN, OK, message(b"x"), frame(6, 0, 0, bytes(8)), frame(1, 1, 1, GRPC)]
)


@given(st.lists(st.one_of(pieces, st.binary(max_size=60)), max_size=8))
def test_any_peer_ends_in_an_answer_or_not_known_or_a_failure(said: list[bytes]) -> None:
    try:
        answer = call(b"".join(said))
    except (Unknown, Failure):
        return
    assert isinstance(answer, bytes)
