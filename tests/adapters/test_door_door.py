"""The door on real sockets: who is let in, for how long, and what it costs."""

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest

from backpackd.adapters.door import http2
from backpackd.adapters.processes.credentials import Credentials
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.core.errors import ProcessGoneError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Peer
from descriptors import descriptors
from doors import (
    UID,
    Answers,
    Puppet,
    Setting,
    answer,
    at_end,
    first,
    send,
    until,
)
from flooding import START

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


# --- who is let in


async def test_a_connection_is_the_peer(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, first("Who"))
    assert (await answer(client)).data[5:] == b"%d" % os.getpid()
    assert door.connections() == [connection]
    assert (connection.peer.uid, connection.peer.gid) == (UID, os.getegid())
    assert connection.tree == ProcessId(1, 0)
    assert setting.played.calls[0].connection is connection


async def test_two_processes_are_told_apart(setting: Setting) -> None:
    await setting.open()
    script = """
import grpc, os, sys
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    print(os.getpid(), channel.unary_unary("/test/Who")(b"").decode())
"""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, setting.path, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in running:
        own, told = (await process.communicate())[0].split()
        assert own == told


async def test_a_foreign_uid_never_gets_as_far_as_its_process(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    def no_pin(pid: int, fd: int) -> PidfdProcess:
        raise AssertionError("pinned")

    told: list[int] = []
    await setting.open(uid=UID + 1, pin=no_pin, on_foreign=told.append)
    assert await at_end(setting.connect())
    assert told == [UID]
    assert caplog.messages == [f"refused a connection of uid {UID}"]


async def test_a_peer_that_ended_during_attestation_is_refused(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[Peer] = []

    def gone(peer: Peer) -> ProcessId:
        held.append(peer)
        raise ProcessGoneError

    await setting.open(tree_of=gone)
    assert await at_end(setting.connect())
    assert caplog.messages == ["refused a connection of a process that has ended"]
    assert not held[0].process.alive()


async def test_a_failing_pin_gives_the_descriptor_back(setting: Setting) -> None:
    pidfd = os.pidfd_open(os.getpid())

    def no_pin(pid: int, fd: int) -> PidfdProcess:
        raise ProcessGoneError

    await setting.open(
        pin=no_pin, credentials=lambda _sock, uid: Credentials(uid, 0, os.getpid(), pidfd)
    )
    assert await at_end(setting.connect())
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pidfd)


async def test_nothing_from_outside_gets_into_the_log(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(peer: Peer) -> ProcessId:
        raise OSError(errno.EIO, "line\nbreak \x1b[31m")

    await setting.open(tree_of=failing)
    assert await at_end(setting.connect())
    assert caplog.messages == ["refused a connection: EIO"]


async def test_refusing_and_closing_leave_no_descriptor_behind(setting: Setting) -> None:
    door = await setting.open()
    before = descriptors()
    client, _ = await setting.connected(door, first("Wait"))
    await until(lambda: len(setting.played.calls) == 1)
    client.close()
    await until(lambda: not door.connections())
    door._tree_of = lambda _: (_ for _ in ()).throw(ProcessGoneError)
    refused = setting.connect()
    assert await at_end(refused)
    refused.close()
    assert descriptors() <= before


async def test_a_peer_that_has_hung_up_already_is_not_even_looked_at(setting: Setting) -> None:
    looked: list[Peer] = []

    def tree_of(peer: Peer) -> ProcessId:
        looked.append(peer)
        return ProcessId(1, 0)

    door = await setting.open(start=False, tree_of=tree_of)
    for _ in range(300):
        setting.connect().close()
    door.start()
    client, _ = await setting.connected(door, first("Echo", b"x"))
    await answer(client)
    assert len(looked) == 1


# --- the end of a connection


async def test_a_closed_connection_is_out_of_the_table_and_its_callbacks_run_once_in_order(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    called: list[int] = []
    connection.on_close += [lambda: called.append(1), lambda: called.append(2)]
    client.close()
    await until(lambda: not door.connections())
    connection.close()
    await door.close()
    assert called == [1, 2]
    assert door._trees == {}
    assert not connection.peer.process.alive()


async def test_a_failing_callback_does_not_keep_the_others_from_running(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    called: list[int] = []

    def failing() -> None:
        raise ValueError("from outside\n")

    connection.on_close += [failing, lambda: called.append(2)]
    client.close()
    await until(lambda: not door.connections())
    assert called == [2]
    assert caplog.messages == ["a callback for a closed connection failed: ValueError"]


async def test_a_connection_ends_with_the_process_that_opened_it_though_a_child_holds_it(
    setting: Setting, puppet: Puppet
) -> None:
    door = await setting.open()
    await puppet.tell("connect")
    await until(lambda: len(door.connections()) == 1)
    assert door.connections()[0].peer.process.pid == puppet.process.pid
    assert await puppet.tell("fork") == "done"
    await until(lambda: not door.connections())
    assert await puppet.tell("read") == "end"


async def test_a_child_of_the_peer_does_not_end_the_connection_by_ending(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "pass", pass_fds=[client.fileno()]
    )
    await child.wait()
    await send(client, first("Echo", b"still there"))
    assert (await answer(client)).data[5:] == b"still there"
    assert door.connections() == [connection]


async def test_calls_under_way_are_cancelled_when_their_connection_closes(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, first("Wait"))
    await until(lambda: len(setting.played.calls) == 1)
    client.close()
    await until(lambda: len(setting.played.ended) == 1)
    assert not connection.calls
    assert not door._shared.turns._calls


# --- the first request


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0\xff rubbish", bytes(range(255, 0, -1))],
)
async def test_what_does_not_speak_http2_is_refused(
    setting: Setting, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, data)
    assert await at_end(client)
    assert door.connections() == []
    assert caplog.messages == ["refused a connection: it does not speak HTTP/2"]


async def test_too_many_bytes_before_the_first_request_end_the_connection(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http2, "FIRST_REQUEST_BYTES", 1000)
    door = await setting.open()
    unknown = b"\0\0\x78\xf1\0\0\0\0\0" + bytes(0x78)
    client, _ = await setting.connected(door, START + unknown * 10)
    assert await at_end(client)
    assert caplog.messages == ["refused a connection: no request in its first bytes"]


async def test_bytes_that_come_with_the_first_request_are_not_counted(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "FIRST_REQUEST_BYTES", 1000)
    door = await setting.open()
    client, _ = await setting.connected(door, first("Echo", bytes(10_000)))
    assert (await answer(client)).data[5:] == bytes(10_000)


@pytest.mark.parametrize("said", [b"", START[:24], START])
async def test_a_client_without_a_request_is_closed_after_the_time_for_one(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: bytes,
) -> None:
    monkeypatch.setattr(http2, "FIRST_REQUEST_SECONDS", 0.05)
    await setting.open()
    # Not waited for until it is let in: on a busy machine it may be closed before anybody looks.
    client = setting.connect()
    client.send(said)
    assert await at_end(client)
    assert caplog.messages == ["refused a connection: no request in time"]


async def test_a_client_that_made_a_request_may_be_silent_after_it(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, first("Echo", b"x"))
    await answer(client)
    assert connection._deadline is None
    assert connection._patience is None


# --- stopping


async def test_stopping_leaves_nothing_but_the_lock(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, first("Echo", b"x"))
    await answer(client)
    await door.drain(1)
    await door.close()
    assert await at_end(client)
    assert door.connections() == []
    assert sorted(path.name for path in Path(setting.path).parent.iterdir()) == ["s.lock"]


async def test_what_was_answered_is_still_delivered_when_the_daemon_stops(
    setting: Setting,
) -> None:
    door = await setting.open(authorized=lambda _: True)
    size = 8 * 1024 * 1024
    client, connection = await setting.connected(door)
    # Windows wide open, and a reader that begins late.
    wide = b"\0\0\6\4\0\0\0\0\0" + b"\0\4\x7f\xff\xff\xff"
    wider = b"\0\0\4\x08\0\0\0\0\0" + (2**30).to_bytes(4, "big")
    request = first("Many", b"1 %d" % size)
    await send(client, request[: len(START)] + wide + wider + request[len(START) :])
    await until(lambda: connection.unread)
    reading = asyncio.ensure_future(Answers(client).ended())
    await door.drain(60)
    await door.close()
    assert len((await reading).data) == size + 5
