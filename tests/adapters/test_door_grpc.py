"""gRPC as clients rely on it: what grpcio's own client sees of calls that the tests play."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.grpc import CODES, escaped
from backpackd.adapters.door.limits import HEADER_BYTES, UNFINISHED_OF_CONNECTION
from backpackd.core.errors import Status
from doors import MIB, Answer, Answers, Setting, answer, at_end, call, first, send, until
from flooding import START, begin, fields, frame, headers


async def failing(awaited: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        await awaited
    return caught.value


def told(error: Any) -> tuple[str, str]:
    metadata = dict(error.trailing_metadata() or ())
    return error.code().name, str(metadata.get("backpack-reason", ""))


def refusal(got: Answer) -> tuple[str, str]:
    return got.fields["grpc-status"], got.fields["backpack-reason"]


async def many(messages: list[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def test_every_status_has_grpcs_number() -> None:
    assert {status.value for status in Status} <= CODES.keys()
    for name, number in CODES.items():
        assert grpc.StatusCode[name].value[0] == number


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 200_000, 8 * MIB])
async def test_a_message_of_any_size_comes_back_whole(setting: Setting, size: int) -> None:
    await setting.open(authorized=lambda _: True)
    message = bytes(range(256)) * (size // 256 + 1)
    async with setting.channel() as channel:
        assert await call(channel, "Echo", message[:size]) == message[:size]


async def test_a_thousand_calls_one_after_the_other_on_one_connection(setting: Setting) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        for number in range(1000):
            assert await call(channel, "Echo", b"%d" % number) == b"%d" % number
        assert len(door.connections()) == 1


async def test_many_calls_at_once_on_one_connection(setting: Setting) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        messages = [b"%d" % number * 100 for number in range(300)]
        answers = await asyncio.gather(*(call(channel, "Echo", one) for one in messages))
        assert list(answers) == messages
        assert len(door.connections()) == 1


async def test_a_stream_of_answers_comes_in_order_and_whole(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        stream = channel.unary_stream("/test/Many")(b"500 5000")
        got = [message async for message in stream]
    assert got == [bytes([number % 256]) * 5000 for number in range(500)]


async def test_a_stream_of_requests_is_read_to_its_end(setting: Setting) -> None:
    await setting.open(authorized=lambda _: True)
    async with setting.channel() as channel:
        messages = [bytes(300_000)] * 40
        got = await channel.stream_unary("/test/Collect")(many(messages))
        assert got == b"40 12000000"
        assert await channel.stream_unary("/test/Collect")(many([])) == b"0 0"


@pytest.mark.parametrize("size", [1, 3, 4, 5, 6, 1000, 16_000])
async def test_messages_are_the_same_however_they_are_cut_into_frames(
    setting: Setting, size: int
) -> None:
    await setting.open()
    lengths = [0, 1, 0, 5, 4, 100, 0, 6, 200, 1, 1, 0]
    sent = b"".join(b"\0" + length.to_bytes(4, "big") + bytes(length) for length in lengths)
    client = setting.connect()
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    frames = [frame(0, 0, 1, piece) for piece in pieces]
    await send(client, START + begin(1, "/test/Chat") + b"".join(frames) + frame(0, 1, 1, b""))
    assert (await answer(client)).data == sent


async def test_both_sides_may_stream(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        chat = channel.stream_stream("/test/Chat")()
        for word in (b"one", b"", b"three"):
            await chat.write(word)
            assert await chat.read() == word
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        assert await chat.code() is grpc.StatusCode.OK


async def test_an_error_arrives_with_status_message_reason_and_facts(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        error = await failing(call(channel, "Deny"))
    assert told(error) == ("PERMISSION_DENIED", "no-grant")
    assert error.details() == "no: 50 % of “it”"
    assert dict(error.trailing_metadata())["backpack-tree-pid"] == "7"


async def test_an_unexpected_exception_is_an_incident_without_its_text(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    await setting.open()
    async with setting.channel() as channel:
        error = await failing(call(channel, "Break"))
        assert await call(channel, "Echo", b"x") == b"x"
    assert told(error) == ("INTERNAL", "internal")
    incident = dict(error.trailing_metadata())["backpack-incident"]
    assert incident in error.details()
    assert f"incident {incident}: ValueError at" in caplog.text
    assert "telltale" not in caplog.text + str(error)


async def test_what_is_announced_comes_ahead_of_the_answer_and_once(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        # As a stream of one, since the library tells of a unary call's metadata only at its end.
        waiting = channel.unary_stream("/test/Person")(b"")
        metadata = dict(await waiting.initial_metadata())
        assert metadata["backpack-request-code"] == "K7QM"
        assert not waiting.done()
        setting.played.go_on.set()
        assert await waiting.read() == b"done"


async def test_calls_that_wait_for_a_person_leave_room_for_more_than_a_share(
    setting: Setting,
) -> None:
    await setting.open()
    async with setting.channel() as channel:
        waiting = [channel.unary_stream("/test/Person")(b"") for _ in range(90)]
        for one in waiting:
            await one.initial_metadata()
        assert await call(channel, "Echo", b"x") == b"x"
        setting.played.go_on.set()
        assert [await one.read() for one in waiting] == [b"done"] * 90


async def test_a_deadline_ends_the_call_and_frees_what_it_held(setting: Setting) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        error = await failing(call(channel, "Wait", timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: len(setting.played.ended) == 1)
        (connection,) = door.connections()
        await until(lambda: not connection.calls)
        assert not door._shared.turns._calls


@pytest.mark.parametrize("deadline", ["50m", "1u", "0S", "00000001n"])
async def test_the_daemon_itself_ends_a_call_whose_deadline_has_passed(
    setting: Setting, deadline: str
) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door)
    request = headers(1, fields("/test/Wait") | {"grpc-timeout": deadline})
    await send(client, START + request + frame(0, 1, 1, bytes(5)))
    assert (await answer(client)).fields["grpc-status"] == "4"


async def test_a_request_that_never_becomes_whole_ends_with_its_deadline(setting: Setting) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    request = headers(1, fields("/test/Echo") | {"grpc-timeout": "50m"})
    await send(client, START + request + frame(0, 0, 1, b"\0\0\0\1\0half"))
    assert (await answer(client)).fields["grpc-status"] == "4"
    assert not connection.calls
    assert door._shared.budget.held == 0


@pytest.mark.parametrize("deadline", ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"])
async def test_a_malformed_deadline_is_an_error_of_the_caller(
    setting: Setting, deadline: str
) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door)
    request = headers(1, fields("/test/Echo") | {"grpc-timeout": deadline})
    await send(client, START + request + frame(0, 1, 1, bytes(5)))
    assert refusal(await answer(client)) == ("3", "malformed-request")
    assert setting.played.calls == []


async def test_a_call_that_is_taken_back_is_cancelled(setting: Setting) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        waiting = channel.unary_unary("/test/Wait")(b"")
        await until(lambda: len(setting.played.calls) == 1)
        waiting.cancel()
        await until(lambda: len(setting.played.ended) == 1)
        (connection,) = door.connections()
        assert not connection.calls
        assert await call(channel, "Echo", b"x") == b"x"


@pytest.mark.parametrize("encoding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_request_is_refused_without_being_expanded(
    setting: Setting, encoding: Any
) -> None:
    await setting.open()
    async with setting.channel() as channel:
        error = await failing(channel.unary_unary("/test/Echo")(bytes(MIB), compression=encoding))
        assert told(error) == ("UNIMPLEMENTED", "compression")
        assert await call(channel, "Echo", b"x") == b"x"
    assert len(setting.played.calls) == 1


async def test_who_compresses_is_told_what_is_taken(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door)
    await send(client, START + headers(1, fields("/test/Echo") | {"grpc-encoding": "gzip"}))
    got = await answer(client)
    assert refusal(got) == ("12", "compression")
    assert got.fields["grpc-accept-encoding"] == "identity"


async def test_a_message_marked_as_compressed_without_an_encoding_is_refused(
    setting: Setting,
) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, first("Echo").replace(bytes(5), b"\1\0\0\0\0"))
    assert refusal(await answer(client)) == ("3", "malformed-request")


async def test_too_long_a_message_is_refused_by_what_it_announces(setting: Setting) -> None:
    door = await setting.open()
    announced = frame(0, 0, 1, b"\0" + (1001).to_bytes(4, "big"))
    client, _ = await setting.connected(door, START + begin(1, "/test/Small") + announced)
    assert refusal(await answer(client)) == ("8", "request-too-large")
    async with setting.channel() as channel:
        assert await call(channel, "Small", bytes(1000)) == bytes(1000)
        assert told(await failing(call(channel, "Small", bytes(1001))))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0\5half",
        b"\0\0\0\0\1xy",
        b"\0\0\0\0\1x\0\0\0\0\1y",
        b"\0\0\0\0\1x\0",
    ],
    ids=["nothing", "part of a prefix", "half", "more", "two", "one and a bit"],
)
async def test_a_unary_request_has_exactly_one_message(setting: Setting, body: bytes) -> None:
    door = await setting.open()
    request = START + begin(1, "/test/Echo") + frame(0, 1, 1, body)
    client, connection = await setting.connected(door, request)
    assert refusal(await answer(client)) == ("3", "malformed-request")
    assert setting.played.calls == []
    assert not connection.calls


async def test_headers_that_end_the_request_make_one_without_a_message(setting: Setting) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door, START + headers(1, fields("/test/Echo"), flags=5))
    assert refusal(await answer(client)) == ("3", "malformed-request")


async def test_what_is_not_there_is_unimplemented(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        assert told(await failing(call(channel, "Nothing"))) == ("UNIMPLEMENTED", "no-such-method")


@pytest.mark.parametrize("path", ["/", "", "test/Echo", "/test/Echo/", "/TEST/Echo", "*"])
async def test_a_path_that_is_almost_one_is_unimplemented(setting: Setting, path: str) -> None:
    door = await setting.open(find={b"/test/Echo": setting.played.find(b"/test/Echo")}.get)
    client, _ = await setting.connected(door)
    await send(client, START + headers(1, fields(path or "/x")) + frame(0, 1, 1, bytes(5)))
    assert refusal(await answer(client)) == ("12", "no-such-method")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({":method": "GET"}, "405"),
        ({":method": "PUT"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": "application/grpcx"}, "415"),
        ({"content-type": "application/grpc-web"}, "415"),
        ({"content-type": "application/grpc+json"}, "415"),
        ({"content-type": "text/application/grpc"}, "415"),
    ],
)
async def test_what_is_not_grpc_is_answered_in_http(
    setting: Setting, changed: dict[str, str], status: str
) -> None:
    door = await setting.open()
    client, connection = await setting.connected(door)
    await send(client, START + headers(1, fields("/test/Echo") | changed))
    assert (await answer(client)).fields == {":status": status}
    await send(client, frame(0, 1, 1, bytes(5)))
    await until(lambda: not connection.calls)
    assert setting.played.calls == []


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]
)
async def test_grpcs_content_types_are_taken(setting: Setting, kind: str) -> None:
    door = await setting.open()
    client, _ = await setting.connected(door)
    request = headers(1, fields("/test/Who") | {"content-type": kind})
    await send(client, START + request + frame(0, 1, 1, bytes(5)))
    assert (await answer(client)).fields["grpc-status"] == "0"


async def test_too_many_bytes_of_headers_are_refused_and_the_connection_goes_on(
    setting: Setting,
) -> None:
    await setting.open()
    async with setting.channel(max_metadata_size=10**6) as channel:
        metadata = (("x-long", "v" * HEADER_BYTES),)
        error = await failing(call(channel, "Echo", metadata=metadata))
        assert told(error) == ("RESOURCE_EXHAUSTED", "limit")
        assert await call(channel, "Echo", b"x") == b"x"


async def test_an_answer_does_not_wait_for_the_rest_of_a_refused_request(setting: Setting) -> None:
    await setting.open()
    async with setting.channel() as channel:
        for _ in range(20):
            error = await failing(call(channel, "Small", bytes(5 * MIB)))
            assert told(error) == ("RESOURCE_EXHAUSTED", "request-too-large")
        assert await call(channel, "Echo", b"x") == b"x"


async def test_without_authority_requests_under_way_hold_a_bounded_number_of_bytes(
    setting: Setting,
) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        much = bytes(UNFINISHED_OF_CONNECTION)
        for _ in range(5):
            assert told(await failing(call(channel, "Echo", much))) == (
                "RESOURCE_EXHAUSTED",
                "limit",
            )
        assert await call(channel, "Echo", much[10:]) == much[10:]
        await until(lambda: door._shared.budget.held == 0)


async def test_when_the_daemon_stops_calls_in_progress_finish_and_others_are_told(
    setting: Setting,
) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        waiting = channel.unary_unary("/test/Wait")(b"")
        watching = channel.unary_stream("/test/Watch")(b"")
        assert await watching.read() == b"first"
        client, _ = await setting.connected(door, first("Echo", b"before"))
        answers = Answers(client)
        await answers.ended()
        await until(lambda: len(setting.played.calls) == 3)
        draining = asyncio.ensure_future(door.drain(60))
        assert told(await failing(watching.read())) == ("UNAVAILABLE", "shutting-down")
        await send(client, begin(3, "/test/Echo") + frame(0, 1, 3, bytes(5)))
        assert refusal(await answers.ended(3)) == ("14", "shutting-down")
        assert not draining.done()
        setting.played.go_on.set()
        assert await waiting == b"done"
        await draining
        await door.close()
        assert await at_end(client)


async def test_stopping_waits_no_longer_than_it_was_told_to(setting: Setting) -> None:
    door = await setting.open()
    async with setting.channel() as channel:
        waiting = channel.unary_unary("/test/Wait")(b"")
        await until(lambda: len(setting.played.calls) == 1)
        await door.drain(0.01)
        await door.close()
        assert (await failing(waiting)).code() is grpc.StatusCode.UNAVAILABLE
    assert len(setting.played.ended) == 1


@given(st.text())
def test_a_message_of_any_text_is_printable_and_decodes_to_itself(text: str) -> None:
    coded = escaped(text)
    assert all(0x20 <= byte <= 0x7E for byte in coded)
    decoded = bytearray()
    at = 0
    while at < len(coded):
        if coded[at : at + 1] == b"%":
            decoded.append(int(coded[at + 1 : at + 3], 16))
            at += 3
        else:
            decoded.append(coded[at])
            at += 1
    assert decoded == text.encode("utf-8", "replace")
