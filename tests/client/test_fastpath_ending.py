"""Panic and lock by hand, against grpcio itself as the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client.failures import Failure
from backpack_client.fastpath import ending
from backpack_client.wire import Unknown
from backpack_proto.v1 import vault_pb2
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Panic"] = lambda _: vault_pb2.PanicResponse(
            leases_ended=300, requests_ended=2
        )
        running.answers["Lock"] = lambda _: vault_pb2.LockResponse(leases_ended=300)
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


def test_what_ended_is_told(fake: FakeDaemon) -> None:
    assert ending.panic(fake.path) == (300, 2)
    assert ending.lock(fake.path) == 300
    assert [name for name, _ in fake.seen] == ["Panic", "Lock"]


def test_nothing_ended_is_told_as_nothing(fake: FakeDaemon) -> None:
    fake.answers["Panic"] = lambda _: vault_pb2.PanicResponse()
    assert ending.panic(fake.path) == (0, 0)


def test_a_refusal_is_a_failure(fake: FakeDaemon) -> None:
    fake.answers["Panic"] = refuse("FAILED_PRECONDITION", "uninitialized")
    with pytest.raises(Failure) as caught:
        ending.panic(fake.path)
    assert caught.value.reason == "uninitialized"


def test_without_a_daemon_there_is_nothing_to_end(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        ending.lock(str(tmp_path / "none"))
    assert caught.value.reason == "no-daemon"


@pytest.mark.parametrize(
    ("command", "told"),
    [("panic", "300 leases and 2 requests ended"), ("lock", "300 leases ended")],
)
def test_what_is_not_known_here_is_done_by_grpc(
    run: Run, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch, command: str, told: str
) -> None:
    def unknown(path: str) -> None:
        raise Unknown(path)

    monkeypatch.setattr(ending, command, unknown)
    ran = run(command)
    assert ran.code == 0
    assert told in ran.err
    assert [name for name, _ in fake.seen] == [command.capitalize()]
