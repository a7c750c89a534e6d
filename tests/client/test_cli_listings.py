"""What listings look like, as JSON with its promised names and as text."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import grants_pb2, keys_pb2, leases_pb2, vault_pb2
from command_line import Run, runner
from fake_daemon import FakeDaemon, fake_daemon, handout, lease, refuse, status

LEASE_ID = "0123456789abcdef" * 2
GRANT_ID = "0123456789abcdef"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    with fake_daemon(tmp_path) as running:
        monkeypatch.setenv("BACKPACK_SOCKET", running.path)
        running.answers["Authorize"] = lambda _: vault_pb2.AuthorizeResponse()
        running.answers["ListKeys"] = lambda _: [
            keys_pb2.ListKeysResponse(
                keys=[keys_pb2.KeyEntry(name="K", created_at_ms=1000, updated_at_ms=2000)]
            )
        ]
        running.answers["ListGrants"] = lambda _: grants_pb2.ListGrantsResponse(
            grants=[
                grants_pb2.Grant(
                    id="grant-1",
                    patterns=["K", "A*"],
                    selector="tree:66",
                    max_ttl_seconds=3600,
                    created_at_ms=1000,
                    reason="why",
                )
            ]
        )
        running.answers["ListLeases"] = lambda _: leases_pb2.ListLeasesResponse(leases=[lease()])
        yield running


def test_the_status_as_json(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Status"] = lambda _: status(
        protections=[vault_pb2.Protection(name="scrubbing", on=True, detail="how")],
        slot_kinds=["passphrase", "recovery"],
        recovery_drilled_at_ms=1_700_000_000_000,
        audit_broken_at_ms=1_700_000_001_000,
        home=b"/home/of/the/vault",
    )
    document = json.loads(run("status", "--json").out)
    version = document.pop("client_version")
    assert isinstance(version, str)
    assert document == {
        "state": "unlocked",
        "socket": fake.path,
        "home": "/home/of/the/vault",
        "daemon_version": "9.9.9",
        "daemon_pid": 77,
        "supervised": False,
        "started_at_ms": 1_700_000_000_000,
        "tree_pid": 66,
        "leases_of_tree": 0,
        "slots": ["passphrase", "recovery"],
        "recovery_drilled_at_ms": 1_700_000_000_000,
        "audit_broken_at_ms": 1_700_000_001_000,
        "protections": [{"name": "scrubbing", "on": True, "detail": "how"}],
    }


def test_a_protection_that_is_off_stands_out(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Status"] = lambda _: status(
        protections=[vault_pb2.Protection(name="scrubbing", on=False, detail="why")]
    )
    assert "OFF scrubbing  why" in run("status").out


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        (vault_pb2.VAULT_STATE_UNINITIALIZED, "backpack-client init"),
        (vault_pb2.VAULT_STATE_LOCKED, "backpack-client unlock"),
    ],
)
def test_the_status_says_what_to_do_next(
    run: Run, fake: FakeDaemon, state: vault_pb2.VaultState, hint: str
) -> None:
    fake.answers["Status"] = lambda _: status(state=state)
    ran = run("status")
    assert ran.code == 0
    assert hint in ran.err
    assert hint not in ran.out


def test_keys_as_json_and_as_text(run: Run, fake: FakeDaemon) -> None:
    assert json.loads(run("list", "--json").out) == {
        "keys": [{"name": "K", "created_at_ms": 1000, "updated_at_ms": 2000}]
    }
    assert [line.split()[0] for line in run("list").out.splitlines()] == ["NAME", "K"]


def test_grants_as_json_and_as_text(run: Run, fake: FakeDaemon) -> None:
    assert json.loads(run("grants", "--json").out) == {
        "grants": [
            {
                "id": "grant-1",
                "patterns": ["K", "A*"],
                "selector": "tree:66",
                "max_ttl_seconds": 3600,
                "expires_at_ms": None,
                "uses_left": None,
                "created_at_ms": 1000,
                "reason": "why",
            }
        ]
    }
    assert "grant-1  K A*  tree:66  1h            until taken back  why" in run("grants").out


def test_leases_as_json_and_as_text(run: Run, fake: FakeDaemon) -> None:
    assert json.loads(run("leases", "--json").out) == {
        "leases": [
            {
                "id": "lease-1",
                "names": ["K"],
                "holder_pid": 66,
                "grant_ids": ["grant-1"],
                "issued_at_ms": 1_700_000_000_000,
                "expires_at_ms": 1_700_000_900_000,
                "max_expires_at_ms": 1_700_086_400_000,
                "remaining_seconds": 900,
            }
        ]
    }
    assert "lease-1  K     tree:66" in run("leases").out


@pytest.mark.parametrize("command", ["list", "grants", "leases"])
def test_without_all_nobody_is_asked_for_a_passphrase(
    run: Run, fake: FakeDaemon, command: str
) -> None:
    assert run(command).code == 0
    assert fake.requests("Authorize") == []
    assert not fake.seen[-1][1].all


@pytest.mark.parametrize("command", ["list", "grants", "leases"])
def test_all_authorizes_first(run: Run, fake: FakeDaemon, command: str) -> None:
    assert run(command, "--all", "PASS").code == 0
    assert [name for name, _ in fake.seen][:2] == ["Status", "Authorize"]
    assert fake.seen[-1][1].all


@pytest.mark.parametrize("command", ["list", "grants", "leases"])
def test_an_empty_listing_says_so_on_standard_error(
    run: Run, fake: FakeDaemon, command: str
) -> None:
    fake.answers["ListKeys"] = lambda _: []
    fake.answers["ListGrants"] = lambda _: grants_pb2.ListGrantsResponse()
    fake.answers["ListLeases"] = lambda _: leases_pb2.ListLeasesResponse()
    ran = run(command)
    assert (ran.code, ran.out) == (0, "")
    assert "--all" in ran.err
    assert json.loads(run(command, "--json").out) in ({"keys": []}, {"grants": []}, {"leases": []})


def test_get_prints_the_value_and_a_newline(run: Run, fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"K": b"v"})
    ran = run("get", "K", "--ttl", "5m", "--reason", "why")
    assert (ran.code, ran.out, ran.err) == (0, "v\n", "")
    request = fake.requests("GetKeys")[0]
    assert (list(request.names), request.ttl_seconds, request.reason) == (["K"], 300, "why")


def test_get_as_json_and_for_a_shell(run: Run, fake: FakeDaemon) -> None:
    fake.answers["GetKeys"] = handout({"A": b"it's", "B": b"2"})
    document = json.loads(run("get", "A", "B", "--json").out)
    assert document == {
        "keys": {"A": "it's", "B": "2"},
        "lease": {
            "id": "lease-1",
            "expires_at_ms": 1_700_000_900_000,
            "remaining_seconds": 900,
        },
    }
    assert run("get", "A", "B", "--export").out == "export A='it'\\''s'\nexport B='2'\n"


def test_revoking_needs_no_passphrase(run: Run, fake: FakeDaemon) -> None:
    fake.answers["RevokeLeases"] = lambda _: leases_pb2.RevokeLeasesResponse(ended=2)
    for arguments, field in (
        ([LEASE_ID], "lease_id"),
        (["--key", "K"], "key"),
        (["--tree", "66"], "tree_pid"),
        (["--all"], "all"),
    ):
        ran = run("revoke", *arguments)
        assert ran.code == 0
        assert fake.seen[-1][1].WhichOneof("what") == field
    assert fake.requests("Authorize") == []


@pytest.mark.parametrize(
    ("state", "exit_code"),
    [(vault_pb2.VAULT_STATE_LOCKED, 3), (vault_pb2.VAULT_STATE_UNINITIALIZED, 3)],
)
def test_nobody_is_asked_for_a_passphrase_that_could_not_be_used(
    run: Run, fake: FakeDaemon, state: vault_pb2.VaultState, exit_code: int
) -> None:
    fake.answers["Status"] = lambda _: status(state=state)
    for command in ("delete K", "grant K --to uid:0", f"ungrant {GRANT_ID}", "list --all"):
        assert run(*command.split(), "--passphrase-file", "/nonexistent").code == exit_code
    assert run("put", "K", "--passphrase-file", "/nonexistent", stdin=None).code == exit_code
    assert fake.requests("Authorize") == []


def test_a_wrong_passphrase_changes_nothing(run: Run, fake: FakeDaemon) -> None:
    fake.answers["Authorize"] = refuse("UNAUTHENTICATED", "wrong-passphrase")
    assert run("delete", "K", "PASS").code == 8
    assert fake.requests("DeleteKeys") == []


@pytest.mark.parametrize(
    ("selector", "warned"),
    [
        ("exe:/usr/bin/python3.11", True),
        ("exe:/usr/bin/python3", True),
        ("exe:/usr/local/bin/node", True),
        ("exe:/bin/bash", True),
        ("exe:/opt/agent", False),
        ("exe:/usr/bin/nodejsish", False),
        ("tree:66", False),
        ("uid:0", False),
    ],
)
def test_granting_to_an_interpreter_warns(
    run: Run, fake: FakeDaemon, selector: str, *, warned: bool
) -> None:
    fake.answers["AddGrant"] = lambda request: grants_pb2.AddGrantResponse(
        grant=grants_pb2.Grant(id="g", patterns=request.patterns, selector=request.selector)
    )
    ran = run("grant", "K", "--to", selector, "PASS")
    assert ran.code == 0
    assert ("runs any program" in ran.err) is warned


def test_granting_to_a_link_names_the_file_behind_it(
    run: Run, fake: FakeDaemon, tmp_path: Path
) -> None:
    fake.answers["AddGrant"] = lambda _: grants_pb2.AddGrantResponse()
    (tmp_path / "agent").touch()
    (tmp_path / "link").symlink_to("agent")
    assert (
        f"exe:{tmp_path / 'agent'}" in run("grant", "K", "--to", f"exe:{tmp_path}/link", "PASS").err
    )


def test_of_several_keys_none_is_asked_for_when_one_is_stored_already(
    run: Run, fake: FakeDaemon
) -> None:
    ran = run("put", "A", "K", "B", "PASS", stdin=None)
    assert (ran.code, "K is stored already" in ran.err) == (1, True)
    assert fake.requests("PutKeys") == []
