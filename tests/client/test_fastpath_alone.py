"""The command line where there is nothing but the package without dependencies."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import __main__ as entry
from backpack_client.fastpath import alone
from backpack_proto.v1 import vault_pb2
from fake_daemon import FakeDaemon, fake_daemon, refuse


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Panic"] = lambda _: vault_pb2.PanicResponse(
            leases_ended=3, requests_ended=2
        )
        running.answers["Lock"] = lambda _: vault_pb2.LockResponse(leases_ended=3)
        yield running


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("panic", "the vault is locked; leases ended: 3, requests ended: 2\n"),
        ("lock", "the vault is locked; leases ended: 3\n"),
    ],
)
def test_what_ends_everything_is_done(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], command: str, told: str
) -> None:
    assert alone.run([command]) == 0
    assert capsys.readouterr() == ("", told)


def test_a_refusal_is_told(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["Lock"] = refuse("FAILED_PRECONDITION", "locked")
    assert alone.run(["lock"]) == 3
    assert "unlock" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["status"], ["--help"], ["panic", "--report"]])
def test_everything_else_says_what_to_install(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As an import of what is not there: this raises ImportError.
    monkeypatch.setitem(sys.modules, "backpack_client.cli.main", None)
    monkeypatch.setattr(sys, "argv", ["backpack-client", *arguments])
    assert entry.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "install backpackd" in err
