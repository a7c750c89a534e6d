"""Calls for threads, against a daemon that is played by hand."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpack_client.failures import Failure
from backpack_client.wire import Ended
from backpack_client.wire.blocking import Caller
from wire_peer import BEGIN, DENIED, HELLO, OK, PATIENCE, Peer, message, played_peer

METHOD = "/a/B"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with played_peer(tmp_path) as playing:
        yield playing


def test_a_call_gives_the_messages_and_leaves_no_connection(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one") + message(b"two") + OK
    assert Caller(peer.path).call(METHOD, b"", 60) == [b"one", b"two"]
    assert peer.left.wait(PATIENCE)


def test_a_refusal_ends_a_call_with_what_the_daemon_told_of_it(peer: Peer) -> None:
    peer.says = BEGIN + DENIED
    with pytest.raises(Ended) as caught:
        Caller(peer.path).call(METHOD, b"", 60)
    assert caught.value.status == "PERMISSION_DENIED"
    assert caught.value.facts == {"backpack-reason": "no-grant"}
    assert peer.left.wait(PATIENCE)


@pytest.mark.parametrize("says", [b"", HELLO, BEGIN + message(b"half")])
def test_a_daemon_that_goes_silent_is_not_waited_for_for_ever(peer: Peer, says: bytes) -> None:
    peer.says = says
    with pytest.raises(Ended) as caught:
        Caller(peer.path).call(METHOD, b"", 0.2)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    assert peer.left.wait(PATIENCE)


@pytest.mark.parametrize("says", [b"", BEGIN + message(b"half")])
def test_closing_ends_the_call_that_another_thread_waits_for(peer: Peer, says: bytes) -> None:
    peer.says = says
    caller = Caller(peer.path)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(caller.call, METHOD, b"", 3600)
        assert peer.asked.wait(PATIENCE)
        caller.close()
        with pytest.raises(Ended):
            calling.result(PATIENCE)
    with pytest.raises(Ended):
        caller.call(METHOD, b"", 60)


def test_an_error_in_the_callback_ends_the_call(peer: Peer) -> None:
    peer.says = BEGIN

    def on_headers(_: dict[str, str]) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Caller(peer.path).call(METHOD, b"", 60, on_headers)
    assert peer.left.wait(PATIENCE)


def test_a_child_of_a_fork_ends_no_call_of_its_parent(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.says = BEGIN
    stream = Caller(peer.path).follow(METHOD, b"")
    parent = os.getpid()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: parent + 1)
        stream.line.hang_up()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(stream.read)
        assert peer.asked.wait(PATIENCE)
        peer.say(message(b"still there") + OK)
        assert reading.result(PATIENCE) == b"still there"
    stream.close()


def test_a_stream_is_read_as_it_comes(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one")
    stream = Caller(peer.path).follow(METHOD, b"")
    assert stream.read() == b"one"
    peer.say(message(b"two") + message(b"three") + OK)
    assert [stream.read() for _ in range(3)] == [b"two", b"three", None]
    assert peer.left.wait(PATIENCE)


def test_a_stream_is_asked_for_before_it_is_read(peer: Peer) -> None:
    stream = Caller(peer.path).follow(METHOD, b"")
    assert peer.asked.wait(PATIENCE)
    stream.close()


def test_what_came_before_a_refusal_is_read_before_it(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one") + message(b"two") + DENIED
    stream = Caller(peer.path).follow(METHOD, b"")
    assert [stream.read(), stream.read()] == [b"one", b"two"]
    with pytest.raises(Ended, match="PERMISSION_DENIED"):
        stream.read()


def test_a_stream_whose_daemon_is_gone_ends(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one")
    stream = Caller(peer.path).follow(METHOD, b"")
    assert stream.read() == b"one"
    peer.hang_up()
    with pytest.raises(Ended):
        stream.read()
    stream.close()


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_is_closed_by_another_thread(peer: Peer, whole: bool) -> None:
    peer.says = BEGIN
    caller = Caller(peer.path)
    stream = caller.follow(METHOD, b"")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(stream.read)
        assert peer.asked.wait(PATIENCE)
        (caller if whole else stream).close()
        with pytest.raises(Ended):
            reading.result(PATIENCE)
    assert peer.left.wait(PATIENCE)
    stream.close()
    stream.close()


def test_closing_closes_the_stream_that_nobody_reads_any_more(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one")
    caller = Caller(peer.path)
    stream = caller.follow(METHOD, b"")
    assert stream.read() == b"one"
    caller.close()
    assert stream.line.connection.fileno() == -1
    with pytest.raises(Ended):
        stream.read()


def test_a_stream_that_breaks_the_protocol_is_a_failure_and_over(peer: Peer) -> None:
    peer.says = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    stream = Caller(peer.path).follow(METHOD, b"")
    with pytest.raises(Failure):
        stream.read()
    assert peer.left.wait(PATIENCE)
    with pytest.raises(Ended):
        stream.read()


def test_threads_may_call_at_once(peer: Peer) -> None:
    peer.says = BEGIN + message(b"x") + OK
    caller = Caller(peer.path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: caller.call(METHOD, b"", 60), range(32)))
    assert found == [[b"x"]] * 32
    assert threading.active_count() < 32
