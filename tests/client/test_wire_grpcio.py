"""The fast path against grpcio itself as the server."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.address import connect
from backpack_client.failures import Failure, printable
from backpack_client.fastpath import get
from backpack_client.wire import Ended, Unknown, conversation
from backpack_client.wire.messages import (
    GET_KEYS_REQUEST,
    GET_KEYS_RESPONSE,
    Message,
    decode,
    encode,
)
from backpack_proto.v1 import leases_pb2

Handler = Callable[[leases_pb2.GetKeysRequest, grpc.ServicerContext], leases_pb2.GetKeysResponse]

NAMES_AT_MOST = [f"KEY_{number}" for number in range(64)]
VALUE_AT_MOST = bytes(range(256)) * 256


@contextlib.contextmanager
def serving(
    directory: Path, handler: Handler, options: tuple[tuple[str, int], ...] = ()
) -> Iterator[str]:
    """Serve GetKeys by grpcio on a Unix socket; yields the socket's path."""
    methods = {
        "GetKeys": grpc.unary_unary_rpc_method_handler(
            handler,
            leases_pb2.GetKeysRequest.FromString,
            leases_pb2.GetKeysResponse.SerializeToString,
        )
    }
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("backpack.v1.Leases", methods),)
    )
    server.add_insecure_port(f"unix:{directory / 's'}")
    server.start()
    try:
        yield str(directory / "s")
    finally:
        server.stop(0).wait()


def ask(
    path: str, names: list[str], *, ttl: int = 0, reason: str = "", seconds: int = 60
) -> Message:
    request = encode(GET_KEYS_REQUEST, names=names, ttl_seconds=ttl, reason=reason)
    with contextlib.closing(connect(path)) as connection:
        try:
            answer = conversation.call(connection, get.METHOD, request, seconds)
        except Ended as ended:
            raise ended.failure({"backpack-names": " ".join(names)}) from None
    return decode(GET_KEYS_RESPONSE, answer)


def echo(
    request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
) -> leases_pb2.GetKeysResponse:
    """Answer with what was asked for, each value the request itself."""
    value = request.SerializeToString()
    return leases_pb2.GetKeysResponse(
        lease=leases_pb2.Lease(id="lease", expires_at_ms=12, remaining_seconds=900),
        keys=[leases_pb2.LeasedKey(name=name, value=value) for name in request.names],
    )


def large(
    request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
) -> leases_pb2.GetKeysResponse:
    return leases_pb2.GetKeysResponse(
        keys=[leases_pb2.LeasedKey(name=name, value=VALUE_AT_MOST) for name in request.names]
    )


def refusing(
    code: grpc.StatusCode,
    details: str,
    trailers: tuple[tuple[str, str], ...] = (),
    *,
    headers_first: bool = False,
) -> Handler:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        if headers_first:
            context.send_initial_metadata((("x-early", "yes"),))
        context.set_trailing_metadata(trailers)
        context.abort(code, details)

    return handler


def test_an_answer_of_grpcio_is_understood(tmp_path: Path) -> None:
    with serving(tmp_path, echo) as path:
        answer = ask(path, ["A", "B"], ttl=90, reason="größe")
    assert [key.name for key in answer.keys] == ["A", "B"]
    assert leases_pb2.GetKeysRequest.FromString(answer.keys[0].value) == leases_pb2.GetKeysRequest(
        names=["A", "B"], ttl_seconds=90, reason="größe"
    )
    told = answer.lease
    assert (told.id, told.expires_at_ms, told.remaining_seconds) == ("lease", 12, 900)


def test_the_deadline_reaches_the_server(tmp_path: Path) -> None:
    left: list[float] = []

    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        left.append(context.time_remaining() or 0)
        return leases_pb2.GetKeysResponse()

    with serving(tmp_path, handler) as path:
        ask(path, ["A"], seconds=4000)
    assert 3000 < left[0] <= 4001


def test_the_largest_answer_there_is_comes_whole(tmp_path: Path) -> None:
    with serving(tmp_path, large) as path:
        answer = ask(path, NAMES_AT_MOST)
    assert [(key.name, key.value) for key in answer.keys] == [
        (name, VALUE_AT_MOST) for name in NAMES_AT_MOST
    ]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
@pytest.mark.parametrize("headers_first", [False, True])
def test_every_status_comes_with_its_message_and_reason(
    code: grpc.StatusCode, headers_first: bool, tmp_path: Path
) -> None:
    trailers = (("backpack-reason", "some-reason"), ("backpack-tree-pid", "12"))
    handler = refusing(code, "it is so", trailers, headers_first=headers_first)
    with serving(tmp_path, handler) as path, pytest.raises(Failure) as caught:
        ask(path, ["A"])
    assert caught.value.message == "it is so"
    assert caught.value.reason == "some-reason"


@pytest.mark.parametrize("headers_first", [False, True])
def test_a_missing_grant_comes_with_the_line_that_would_allow_it(
    headers_first: bool, tmp_path: Path
) -> None:
    handler = refusing(
        grpc.StatusCode.PERMISSION_DENIED,
        "no grant covers it",
        (("backpack-reason", "no-grant"), ("backpack-tree-pid", "4711")),
        headers_first=headers_first,
    )
    with serving(tmp_path, handler) as path, pytest.raises(Failure) as caught:
        ask(path, ["A"])
    assert caught.value.exit_code == 5
    assert "--to tree:4711" in caught.value.hint


def test_any_status_message_comes_as_it_was_said(tmp_path: Path) -> None:
    said = [""]

    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        context.abort(grpc.StatusCode.INTERNAL, said[0])

    with serving(tmp_path, handler) as path:

        @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
        def check(text: str) -> None:
            said[0] = text
            with pytest.raises(Failure) as caught:
                ask(path, ["A"])
            assert caught.value.message == printable(text, 1024)

        check()


def test_trailers_longer_than_a_frame_come_whole(tmp_path: Path) -> None:
    trailers = tuple((f"x-filler-{number}", "y" * 1000) for number in range(20))
    handler = refusing(grpc.StatusCode.INTERNAL, "long", (*trailers, ("backpack-reason", "r")))
    options = (("grpc.max_metadata_size", 65536), ("grpc.absolute_max_metadata_size", 65536))
    with serving(tmp_path, handler, options) as path, pytest.raises(Failure) as caught:
        ask(path, ["A"])
    assert (caught.value.message, caught.value.reason) == ("long", "r")


def test_an_exception_in_the_server_is_a_failure(tmp_path: Path) -> None:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        raise RuntimeError("oops")

    with serving(tmp_path, handler) as path, pytest.raises(Failure) as caught:
        ask(path, ["A"])
    assert caught.value.exit_code == 1


def test_a_method_that_the_server_does_not_have_points_at_the_versions(tmp_path: Path) -> None:
    with (
        serving(tmp_path, echo) as path,
        contextlib.closing(connect(path)) as connection,
        pytest.raises(Ended) as caught,
    ):
        conversation.call(connection, "/backpack.v1.Leases/NotThere", b"", 60)
    assert "different versions" in caught.value.failure({}).hint


def test_a_server_that_takes_too_long_is_given_up_after_the_wait(tmp_path: Path) -> None:
    started = time.monotonic()

    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        done = futures.Future[None]()
        context.add_callback(lambda: done.set_result(None))
        done.result(60)
        return leases_pb2.GetKeysResponse()

    with serving(tmp_path, handler) as path, pytest.raises(Failure) as caught:
        ask(path, ["A"], seconds=1)
    assert caught.value.exit_code == 7
    assert time.monotonic() - started < 30


def test_a_server_that_stops_during_the_call_is_no_daemon(tmp_path: Path) -> None:
    stop: list[Callable[[], object]] = []

    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        done = futures.Future[None]()
        context.add_callback(lambda: done.set_result(None))
        stop[0]()
        done.result(60)
        return leases_pb2.GetKeysResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {
        "GetKeys": grpc.unary_unary_rpc_method_handler(
            handler,
            leases_pb2.GetKeysRequest.FromString,
            leases_pb2.GetKeysResponse.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("backpack.v1.Leases", methods),)
    )
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    stop.append(lambda: server.stop(0))
    server.start()
    with pytest.raises(Failure) as caught:
        ask(str(tmp_path / "s"), ["A"])
    server.stop(0).wait()
    assert caught.value.exit_code == 7


def test_what_a_server_compresses_is_not_known(tmp_path: Path) -> None:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        context.set_compression(grpc.Compression.Gzip)
        return large(request, context)

    with serving(tmp_path, handler) as path, pytest.raises(Unknown, match="compressed"):
        ask(path, ["A"])


def test_a_key_is_asked_for_once_even_where_the_answer_is_not_known(tmp_path: Path) -> None:
    asked: list[str] = []

    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        asked.extend(request.names)
        context.set_compression(grpc.Compression.Gzip)
        return large(request, context)

    with serving(tmp_path, handler) as path:
        done = subprocess.run(
            [sys.executable, "-m", "backpack_client", "get", "A"],
            env={**os.environ, "BACKPACK_SOCKET": path},
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"a compressed message" in done.stderr
    # To ask again would be a second lease.
    assert asked == ["A"]


def test_get_prints_the_value_and_a_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with serving(tmp_path, large) as path:
        monkeypatch.setenv("BACKPACK_SOCKET", path)
        arguments = get.parse(["A", "--ttl", "15m", "--wait=30s"])
        assert arguments is not None
        assert get.run(arguments) == 0
    assert capfdbinary.readouterr() == (VALUE_AT_MOST + b"\n", b"")


def test_get_prints_json_that_json_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        return leases_pb2.GetKeysResponse(
            lease=leases_pb2.Lease(id="abc", expires_at_ms=5, remaining_seconds=7),
            keys=[leases_pb2.LeasedKey(name=n, value=b'a"\n' + n.encode()) for n in request.names],
        )

    with serving(tmp_path, handler) as path:
        monkeypatch.setenv("BACKPACK_SOCKET", path)
        arguments = get.parse(["A", "B", "--json"])
        assert arguments is not None
        assert get.run(arguments) == 0
    assert json.loads(capfdbinary.readouterr().out) == {
        "keys": {"A": 'a"\nA', "B": 'a"\nB'},
        "lease": {"id": "abc", "expires_at_ms": 5, "remaining_seconds": 7},
    }


def test_keys_that_were_not_asked_for_are_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        return leases_pb2.GetKeysResponse(keys=[leases_pb2.LeasedKey(name="PATH", value=b"v")])

    with serving(tmp_path, handler) as path:
        monkeypatch.setenv("BACKPACK_SOCKET", path)
        arguments = get.parse(["A", "--export"])
        assert arguments is not None
        assert get.run(arguments) == 1
    out, err = capfdbinary.readouterr()
    assert out == b""
    assert b"other keys" in err
