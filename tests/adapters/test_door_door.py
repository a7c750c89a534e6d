"""The door on real sockets: who is let in, and for how long."""

import asyncio
import errno
import os
import sys

import pytest

from backpackd.adapters.door.credentials import Credentials
from backpackd.adapters.door.limits import Limits
from backpackd.adapters.door.opening import PREFACE
from backpackd.adapters.door.relay import Relay
from backpackd.adapters.processes.linux import PidfdProcess
from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.ports import Peer
from descriptors import descriptors
from doors import (
    PING,
    REQUEST,
    UID,
    Puppet,
    Setting,
    at_end,
    marked,
    received,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# --- who is let in


async def test_a_connection_is_in_the_table_under_the_name_that_the_server_sees(
    setting: Setting,
) -> None:
    door = await setting.open()
    _, connection = await setting.connected(door)
    assert connection.name in setting.server.ends
    assert door.find(connection.name) is connection
    assert (connection.peer.uid, connection.peer.gid) == (UID, os.getegid())
    assert connection.peer.process.pid == os.getpid()
    assert connection.tree == ProcessId(1, 0)


async def test_a_name_that_was_never_given_finds_nothing(setting: Setting) -> None:
    door = await setting.open()
    await setting.connected(door)
    assert door.find("backpack-" + "f" * 32) is None
    assert door.find("") is None


async def test_a_connection_is_in_the_table_before_any_byte_of_it_moves(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await setting.open()
    registered: list[int] = []
    start = Relay.start

    def watched(self: Relay) -> None:
        registered.append(len(door.connections()))
        start(self)

    monkeypatch.setattr(Relay, "start", watched)
    await setting.connected(door)
    assert registered == [1]


async def test_bytes_reach_the_server_and_its_answer_the_peer(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, request=False)
    await asyncio.get_running_loop().sock_sendall(client, REQUEST + PING)
    server = setting.server.ends[connection.name]
    assert await received(server) == marked(connection, REQUEST) + PING
    await asyncio.get_running_loop().sock_sendall(server, b"answer")
    assert await received(client) == b"answer"


async def test_a_foreign_uid_never_gets_as_far_as_its_process_or_the_server(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    def no_pin(pid: int, fd: int) -> PidfdProcess:
        raise AssertionError("pinned")

    told: list[int] = []
    await setting.open(uid=UID + 1, pin=no_pin, on_foreign=told.append)
    assert await at_end(setting.connect())
    assert setting.server.ends == {}
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


async def test_a_server_that_takes_no_more_means_a_refusal(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.server.failure = BlockingIOError(errno.EAGAIN, "full")
    door = await setting.open()
    assert await at_end(setting.connect())
    assert door.connections() == ()
    assert caplog.messages == ["refused a connection: EAGAIN"]


async def test_nothing_from_outside_gets_into_the_log(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.server.failure = OSError(errno.EIO, "line\nbreak \x1b[31m")
    await setting.open()
    assert await at_end(setting.connect())
    assert caplog.messages == ["refused a connection: EIO"]


async def test_refusing_and_closing_leave_no_descriptor_behind(setting: Setting) -> None:
    door = await setting.open()
    before = descriptors()
    client, connection = await setting.connected(door)
    client.close()
    setting.server.ends[connection.name].close()
    await until(lambda: not door.connections())
    setting.server.failure = OSError(errno.EIO, "")
    refused = setting.connect()
    assert await at_end(refused)
    refused.close()
    assert descriptors() <= before


async def test_a_relay_that_cannot_start_leaves_nothing_in_the_table(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Relay) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    door = await setting.open()
    monkeypatch.setattr(Relay, "start", failing)
    assert await at_end(setting.connect())
    assert door.connections() == ()


# --- the end of a connection


async def test_a_closed_connection_is_out_of_the_table_and_its_callbacks_run_once_in_order(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    called: list[int] = []
    connection.on_close += [lambda: called.append(1), lambda: called.append(2)]
    client.close()
    setting.server.ends[connection.name].close()
    await until(lambda: door.find(connection.name) is None)
    await door.close()
    assert called == [1, 2]
    assert door._trees == {}
    assert not connection.peer.process.alive()


async def test_a_failing_callback_does_not_keep_the_others_from_running(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open()
    _, connection = await setting.connected(door)
    called: list[int] = []

    def failing() -> None:
        raise ValueError("from outside\n")

    connection.on_close += [failing, lambda: called.append(2)]
    setting.server.ends[connection.name].close()
    await until(lambda: door.find(connection.name) is None)
    assert called == [2]
    assert caplog.messages == ["a callback for a closed connection failed: ValueError"]


async def test_a_connection_ends_with_the_process_that_opened_it_though_a_child_holds_it(
    setting: Setting, puppet: Puppet
) -> None:
    door = await setting.open()
    await puppet.tell("connect")
    await until(lambda: len(door.connections()) == 1)
    (connection,) = door.connections()
    assert connection.peer.process.pid == puppet.process.pid
    assert await puppet.tell("fork") == "done"
    await until(lambda: not door.connections())
    assert await at_end(setting.server.ends[connection.name])
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
    await asyncio.get_running_loop().sock_sendall(client, PING)
    assert await received(setting.server.ends[connection.name]) == PING
    assert door.find(connection.name) is connection


# --- the first request


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0\xff rubbish", bytes(range(255, 0, -1))],
)
async def test_what_does_not_speak_http2_is_refused_and_never_reaches_the_server(
    setting: Setting, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door, request=False)
    await asyncio.get_running_loop().sock_sendall(client, data)
    assert await at_end(client)
    assert await received(setting.server.ends[connection.name]) == b""
    assert door.connections() == ()
    assert caplog.messages == ["refused a connection: it does not speak HTTP/2"]


async def test_too_many_bytes_before_the_first_request_end_the_connection(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    door = await setting.open(limits=Limits(first_request_bytes=1000))
    client, _ = await setting.connected(door, request=False)
    unknown = b"\0\0\x78\xf1\0\0\0\0\0" + bytes(0x78)
    await asyncio.get_running_loop().sock_sendall(client, PREFACE + unknown * 10)
    assert await at_end(client)
    assert caplog.messages == ["refused a connection: too many bytes before the first request"]


async def test_after_the_first_request_bytes_are_no_longer_counted(setting: Setting) -> None:
    door = await setting.open(limits=Limits(first_request_bytes=100))
    client, connection = await setting.connected(door)
    await asyncio.get_running_loop().sock_sendall(client, PING * 300)
    assert await received(setting.server.ends[connection.name]) == PING * 300


@pytest.mark.parametrize("said", [b"", PREFACE, PREFACE + b"\0\0\0\4\0\0\0\0\0"])
async def test_a_client_without_a_request_is_closed_after_the_time_for_one(
    setting: Setting, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    await setting.open(limits=Limits(first_request_seconds=0.05))
    # Not waited for until it is let in: on a busy machine it may be closed before anybody looks.
    client = setting.connect()
    client.send(said)
    assert await at_end(client)
    assert caplog.messages == ["refused a connection: no request in time"]


async def test_a_connection_that_closed_early_is_not_told_to_be_late(setting: Setting) -> None:
    door = await setting.open()
    _, connection = await setting.connected(door, request=False)
    deadline = door._entries[connection.name].deadline
    setting.server.ends[connection.name].close()
    await until(lambda: not door.connections())
    assert deadline.cancelled()


async def test_a_client_that_made_a_request_may_be_silent_after_it(setting: Setting) -> None:
    door = await setting.open()
    silent, connection = await setting.connected(door)
    assert door._entries[connection.name].deadline.cancelled()
    silent.send(PING)
    assert await received(setting.server.ends[connection.name]) == PING
