"""Calls for tasks, against a daemon that is played by hand."""

import asyncio
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client.address import connect
from backpack_client.failures import Failure
from backpack_client.wire import Ended, asynchronous
from backpack_client.wire.asynchronous import Caller
from wire_peer import BEGIN, DENIED, HELLO, OK, PATIENCE, Peer, message, played_peer

METHOD = "/a/B"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with played_peer(tmp_path) as playing:
        yield playing


async def happened(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, PATIENCE)


async def test_a_call_gives_the_messages_and_leaves_no_connection(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one") + message(b"two") + OK
    assert await Caller(peer.path).call(METHOD, b"", 60) == [b"one", b"two"]
    assert await happened(peer.left)


async def test_a_refusal_ends_a_call_with_what_the_daemon_told_of_it(peer: Peer) -> None:
    peer.says = BEGIN + DENIED
    with pytest.raises(Ended) as caught:
        await Caller(peer.path).call(METHOD, b"", 60)
    assert caught.value.status == "PERMISSION_DENIED"
    assert caught.value.facts == {"backpack-reason": "no-grant"}


@pytest.mark.parametrize("says", [b"", HELLO, BEGIN + message(b"half")])
async def test_a_daemon_that_goes_silent_is_not_waited_for_for_ever(
    peer: Peer, says: bytes
) -> None:
    peer.says = says
    with pytest.raises(Ended) as caught:
        await Caller(peer.path).call(METHOD, b"", 0.2)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    assert await happened(peer.left)


async def test_a_task_that_is_cancelled_ends_its_call(peer: Peer) -> None:
    caller = Caller(peer.path)
    calling = asyncio.create_task(caller.call(METHOD, b"", 3600))
    assert await happened(peer.asked)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await happened(peer.left)


async def test_a_connection_that_comes_after_its_task_was_cancelled_is_closed(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: str, patience: float) -> object:
        begun.set()
        assert go_on.wait(PATIENCE)
        return connect(path, patience)

    monkeypatch.setattr(asynchronous, "connect", slowly)
    calling = asyncio.create_task(Caller(peer.path).call(METHOD, b"", 3600))
    assert await happened(begun)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    go_on.set()
    assert await happened(peer.left)


async def test_closing_ends_the_call_that_another_task_waits_for(peer: Peer) -> None:
    caller = Caller(peer.path)
    calling = asyncio.create_task(caller.call(METHOD, b"", 3600))
    assert await happened(peer.asked)
    caller.close()
    with pytest.raises(Ended):
        await calling
    with pytest.raises(Ended):
        await caller.call(METHOD, b"", 60)


async def test_an_error_in_the_callback_ends_the_call(peer: Peer) -> None:
    peer.says = BEGIN

    def on_headers(_: dict[str, str]) -> None:
        # Not taken for the end of the call's own time.
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await Caller(peer.path).call(METHOD, b"", 60, on_headers)
    assert await happened(peer.left)


async def test_a_stream_is_read_as_it_comes(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one")
    stream = await Caller(peer.path).follow(METHOD, b"")
    assert await stream.read() == b"one"
    peer.say(message(b"two") + message(b"three") + OK)
    assert [await stream.read() for _ in range(3)] == [b"two", b"three", None]
    assert await happened(peer.left)


async def test_what_came_before_a_refusal_is_read_before_it(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one") + message(b"two") + DENIED
    stream = await Caller(peer.path).follow(METHOD, b"")
    assert [await stream.read(), await stream.read()] == [b"one", b"two"]
    with pytest.raises(Ended, match="PERMISSION_DENIED"):
        await stream.read()


async def test_a_read_that_is_cancelled_loses_nothing(peer: Peer) -> None:
    peer.says = BEGIN
    stream = await Caller(peer.path).follow(METHOD, b"")
    reading = asyncio.create_task(stream.read())
    assert await happened(peer.asked)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    peer.say(message(b"one"))
    assert await stream.read() == b"one"
    stream.close()


async def test_a_read_that_is_cancelled_as_the_bytes_come_loses_none(peer: Peer) -> None:
    stream = await Caller(peer.path).follow(METHOD, b"")
    reading = asyncio.create_task(stream.read())
    assert await happened(peer.asked)
    peer.say(BEGIN + message(b"one"))
    assert select.select([stream.line.connection], [], [], PATIENCE)[0]
    # The loop sees the bytes in the first round, and the reading task would run in the second.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await stream.read() == b"one"
    stream.close()


@pytest.mark.parametrize("whole", [False, True])
async def test_a_stream_is_closed_while_a_task_reads_it(peer: Peer, whole: bool) -> None:
    peer.says = BEGIN
    caller = Caller(peer.path)
    stream = await caller.follow(METHOD, b"")
    reading = asyncio.create_task(stream.read())
    assert await happened(peer.asked)
    (caller if whole else stream).close()
    with pytest.raises(Ended):
        await reading
    assert await happened(peer.left)
    stream.close()
    stream.close()


async def test_closing_closes_the_stream_that_nobody_reads_any_more(peer: Peer) -> None:
    peer.says = BEGIN + message(b"one")
    caller = Caller(peer.path)
    stream = await caller.follow(METHOD, b"")
    assert await stream.read() == b"one"
    caller.close()
    assert stream.line.connection.fileno() == -1
    with pytest.raises(Ended):
        await stream.read()


async def test_a_stream_that_breaks_the_protocol_is_a_failure_and_over(peer: Peer) -> None:
    peer.says = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    stream = await Caller(peer.path).follow(METHOD, b"")
    with pytest.raises(Failure):
        await stream.read()
    assert await happened(peer.left)
    with pytest.raises(Ended):
        await stream.read()


async def test_the_loop_goes_on_while_a_call_waits(peer: Peer) -> None:
    calling = asyncio.create_task(Caller(peer.path).call(METHOD, b"", 3600))
    assert await happened(peer.asked)
    peer.say(BEGIN + message(b"x") + OK)
    assert await calling == [b"x"]
