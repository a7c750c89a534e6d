"""What the fast path must not load: every import is paid for on every `get`."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from fake_daemon import fake_daemon

# What the whole of a `get` may load besides what Python itself loads to start.
ALLOWED = {
    "_socket",
    "errno",
    "backpack_client",
    "backpack_client.__main__",
    "backpack_client.address",
    "backpack_client.durations",
    "backpack_client.failures",
    "backpack_client.fastpath",
    "backpack_client.fastpath.get",
    "backpack_client.fastpath.output",
    "backpack_client.wire",
    "backpack_client.wire.conversation",
    "backpack_client.wire.hpack",
    "backpack_client.wire.http2",
    "backpack_client.wire.messages",
}

GET = "import sys; from backpack_client.__main__ import main; sys.exit(main())"


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    def handler(
        request: leases_pb2.GetKeysRequest, context: grpc.ServicerContext
    ) -> leases_pb2.GetKeysResponse:
        if request.names == ["REFUSED"]:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return leases_pb2.GetKeysResponse(
            keys=[leases_pb2.LeasedKey(name=name, value=b"v") for name in request.names]
        )

    methods = {
        "GetKeys": grpc.unary_unary_rpc_method_handler(
            handler,
            leases_pb2.GetKeysRequest.FromString,
            leases_pb2.GetKeysResponse.SerializeToString,
        )
    }
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("backpack.v1.Leases", methods),)
    )
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    yield tmp_path / "s"
    server.stop(0).wait()


def imported(program: str, *arguments: str, socket_path: Path) -> tuple[int, set[str]]:
    """Run a program; give its exit code and the names of all modules it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *arguments],
        env={"BACKPACK_SOCKET": str(socket_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    )
    lines = done.stderr.decode().splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return done.returncode, names


def test_the_entry_point_loads_nothing_heavy(tmp_path: Path) -> None:
    _, bare = imported("pass", socket_path=tmp_path)
    code, names = imported("import backpack_client.__main__", socket_path=tmp_path)
    assert code == 0
    assert "backpack_client.wire.conversation" in names
    assert names - bare <= ALLOWED


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["A"], 0),
        (["A", "B", "--json", "--ttl=5m", "--wait", "30"], 0),
        (["A", "B", "--export", "--reason", "why"], 0),
        (["REFUSED"], 5),
    ],
)
def test_a_whole_get_loads_nothing_more(
    arguments: list[str], exit_code: int, socket_path: Path
) -> None:
    _, bare = imported("pass", socket_path=socket_path)
    code, names = imported(GET, "get", *arguments, socket_path=socket_path)
    assert code == exit_code
    assert "backpack_client.wire.conversation" in names
    assert names - bare <= ALLOWED


def test_a_get_without_a_daemon_loads_nothing_more(tmp_path: Path) -> None:
    _, bare = imported("pass", socket_path=tmp_path)
    code, names = imported(GET, "get", "A", socket_path=tmp_path / "none")
    assert code == 7
    assert "backpack_client.wire.conversation" in names
    assert names - bare <= ALLOWED


@pytest.mark.parametrize("command", ["panic", "lock"])
def test_what_ends_everything_loads_no_grpc(command: str, tmp_path: Path) -> None:
    with fake_daemon(tmp_path) as fake:
        fake.answers["Panic"] = lambda _: vault_pb2.PanicResponse()
        fake.answers["Lock"] = lambda _: vault_pb2.LockResponse()
        code, names = imported(GET, command, socket_path=Path(fake.path))
    assert code == 0
    assert "backpack_client.fastpath.ending" in names
    assert not names & {"grpc", "google.protobuf"}


def test_python_itself_loads_none_of_what_is_to_be_avoided(tmp_path: Path) -> None:
    # Otherwise the tests above would prove nothing.
    _, bare = imported("pass", socket_path=tmp_path)
    heavy = ("grpc", "google.protobuf", "click", "re", "json", "socket", "pathlib", "typing")
    assert not bare & set(heavy)
