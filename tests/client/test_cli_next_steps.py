"""What commands say beyond that they are done, and mistakes that are told before the passphrase."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import grants_pb2, keys_pb2, leases_pb2, vault_pb2
from command_line import PASSPHRASE, Run, runner
from fake_daemon import FakeDaemon, fake_daemon, refuse
from pseudo_terminal import Terminal

GRANT_ID = "0123456789abcdef"
COMMAND = ["-m", "backpack_client"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        running.answers["ListKeys"] = lambda _: [
            keys_pb2.ListKeysResponse(keys=[keys_pb2.KeyEntry(name="OLD")])
        ]
        running.answers["PutKeys"] = lambda _: keys_pb2.PutKeysResponse(created=1)
        yield running


def test_granting_a_key_that_is_not_stored_says_so(run: Run, fake: FakeDaemon) -> None:
    fake.answers["AddGrant"] = lambda _: grants_pb2.AddGrantResponse(not_stored=["K"])
    for arguments in ((), ("--json",)):
        ran = run("grant", "K", "L", "--to", "uid:0", *arguments, "PASS")
        assert ran.code == 0
        assert "granted; note: K is not stored yet" in ran.err


@pytest.mark.parametrize(
    ("left", "said"),
    [(1, "1 grant still names"), (2, "2 grants still name what was deleted")],
)
def test_deleting_says_which_grants_would_allow_the_key_again(
    run: Run, fake: FakeDaemon, left: int, said: str
) -> None:
    fake.answers["DeleteKeys"] = lambda _: keys_pb2.DeleteKeysResponse(deleted=1, grants_left=left)
    ran = run("delete", "K", "PASS")
    assert said in ran.err
    assert "backpack-client grants --all" in ran.err


def test_deleting_a_key_that_no_grant_names_says_nothing_of_grants(
    run: Run, fake: FakeDaemon
) -> None:
    fake.answers["DeleteKeys"] = lambda _: keys_pb2.DeleteKeysResponse(deleted=1)
    assert "grant" not in run("delete", "K", "PASS").err


def test_revoking_says_that_standing_grants_stand(run: Run, fake: FakeDaemon) -> None:
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse()
    assert "backpack-client ungrant ID" in run("revoke", "--all").err


@pytest.mark.parametrize(
    "command",
    [
        "revoke OPENAI_API_KEY",
        "ungrant OPENAI_API_KEY",
        f"ungrant {GRANT_ID[:-1]}",
        "approve K-7",
        "deny K-7",
    ],
)
def test_what_can_be_no_id_is_told_before_a_passphrase_is_asked_for(
    run: Run, fake: FakeDaemon, command: str
) -> None:
    ran = run(*command.split(), *([] if command.startswith("revoke") else ["PASS"]))
    assert ran.code == 2
    assert "backpack-client: not a " in ran.err
    assert fake.seen == []


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        ([], "exists   OLD\nnew      NEW\n"),
        (["--replace"], "replace  OLD\nnew      NEW\n"),
        (["--skip-existing"], "keep     OLD\nnew      NEW\n"),
    ],
)
def test_a_dry_run_lists_what_an_import_would_do(
    run: Run, fake: FakeDaemon, tmp_path: Path, arguments: list[str], listed: str
) -> None:
    (tmp_path / ".env").write_text("OLD=marker\nNEW=marker\n")
    ran = run("import", str(tmp_path / ".env"), "--dry-run", *arguments, "PASS")
    assert (ran.code, ran.out) == (0, listed)
    assert [request.dry_run for request in fake.requests("PutKeys")] == [True]


def test_a_dry_run_of_an_import_that_would_be_refused_is_refused_after_the_list(
    run: Run, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers["PutKeys"] = refuse("ALREADY_EXISTS", "key-exists")
    (tmp_path / ".env").write_text("OLD=marker\n")
    ran = run("import", str(tmp_path / ".env"), "--dry-run", "PASS")
    assert (ran.code, ran.out) == (1, "exists   OLD\n")


def test_a_value_that_is_piped_in_without_saying_so_is_a_mistake(
    run: Run, fake: FakeDaemon
) -> None:
    ran = run("put", "K", "PASS", stdin=b"marker")
    assert ran.code == 2
    assert "add --value-file -" in ran.err
    assert fake.seen == []


def test_a_key_that_is_stored_is_told_of_before_its_value_is_typed(fake: FakeDaemon) -> None:
    with Terminal([*COMMAND, "put", "OLD"]) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE.encode() + b"\n")
        code, said = terminal.end()
    assert code == 1
    assert b"OLD is stored already" in said
    assert b"--replace" in said
    assert fake.requests("PutKeys") == []


def test_a_key_that_is_to_be_replaced_is_asked_for(fake: FakeDaemon) -> None:
    with Terminal([*COMMAND, "put", "OLD", "--replace"]) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(PASSPHRASE.encode() + b"\n")
        terminal.expect(b"value of OLD: ")
        terminal.type(b"v\n")
        assert terminal.end()[0] == 0
    assert fake.requests("PutKeys")[0].replace
