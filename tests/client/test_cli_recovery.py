"""Slots, recovery, rotation and backups from the command line, on a real daemon."""

import json
import os
import re
import stat
from pathlib import Path

import pytest

from command_line import Run, runner
from daemons import RunningDaemon, failure
from pseudo_terminal import Terminal

pytestmark = pytest.mark.usefixtures("quick_start")

SEAL, NEW = "thirteen slow camels", "eleven calm badgers"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def code(cheap_vault: None, daemon: RunningDaemon, run: Run, tmp_path: Path) -> Path:
    """Give a vault a recovery code, and return the file with the code."""
    path = tmp_path / "code"
    assert run("unlock", "PASS").code == 0
    assert run("add-slot", "--kind", "recovery", "--secret-file", str(path), "PASS").code == 0
    return path


def private(path: Path, text: str) -> str:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def get(run: Run, name: str) -> str:
    return run("get", name).out


def put(run: Run, name: str, value: bytes) -> None:
    assert run("put", name, "--value-file", "-", "PASS", stdin=value).code == 0


def grant(run: Run) -> None:
    assert run("grant", "*", "--to", f"uid:{os.geteuid()}", "PASS").code == 0


def test_init_writes_the_code_into_a_new_private_file_and_nowhere_else(
    daemon: RunningDaemon, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "code"
    ran = run("init", "PASS", "--recovery-code-file", str(path))
    code = path.read_text().strip()
    assert len(code.replace("-", "")) == 30
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert code not in ran.out + ran.err + daemon.log_text()


def test_init_overwrites_no_file_and_makes_no_vault_then(
    daemon: RunningDaemon, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    path.write_text("mine")
    ran = run("init", "PASS", "--recovery-code-file", str(path))
    assert ran.code == 1
    assert path.read_text() == "mine"
    assert json.loads(run("status", "--json").out)["state"] == "uninitialized"


def test_an_init_that_fails_leaves_no_file(code: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other"
    assert run("init", "PASS", "--recovery-code-file", str(path)).code == 1
    assert not path.exists()


@pytest.mark.parametrize("flags", [["--no-recovery-code"], []])
def test_init_without_a_terminal_makes_a_code_only_where_asked_for(
    daemon: RunningDaemon, run: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpack_client.console.terminal.has_terminal", lambda: False)
    ran = run("init", "PASS", *flags)
    assert ran.code == 0
    assert ("add-slot --kind recovery" in ran.err) == (not flags)
    assert json.loads(run("status", "--json").out)["slots"] == ["passphrase"]


def test_a_lost_passphrase_is_replaced_with_the_code(code: Path, run: Run, tmp_path: Path) -> None:
    put(run, "K", b"v")
    grant(run)
    run("lock")
    new = private(tmp_path / "new", NEW)
    ran = run("recover", "--recovery-code-file", str(code), "--new-passphrase-file", new)
    assert ran.code == 0
    assert get(run, "K") == "v\n"
    assert run("slots", "PASS").code == 8
    assert run("slots", "--passphrase-file", new).code == 0


def test_a_drill_is_noted_and_status_tells(code: Path, run: Run) -> None:
    assert "never proven" in run("status").out
    assert run("recover", "--drill", "--recovery-code-file", str(code)).code == 0
    assert "last proven" in run("status").out
    assert json.loads(run("status", "--json").out)["recovery_drilled_at_ms"]


def test_a_mistyped_code_is_told_from_a_wrong_one(code: Path, run: Run, tmp_path: Path) -> None:
    text = code.read_text().strip()
    slip = private(tmp_path / "slip", text[:-1] + ("0" if text[-1] != "0" else "1"))
    assert run("recover", "--drill", "--recovery-code-file", slip).code == 2
    wrong = private(tmp_path / "wrong", "00000-00000-00000-00000-00000-0" + "0000")
    assert run("recover", "--drill", "--recovery-code-file", wrong).code in (2, 8)


def test_slots_are_added_listed_and_removed(code: Path, run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    ran = run("add-slot", "--kind", "file", "--secret-file", str(key), "PASS")
    assert ran.code == 0
    assert "every program of yours can open this vault" in ran.err
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() not in ran.err + ran.out
    listed = json.loads(run("slots", "--json", "PASS").out)
    assert [slot["kind"] for slot in listed] == sorted(
        ["passphrase", "recovery", "file"], key=[slot["kind"] for slot in listed].index
    )
    assert "every program of yours can open this vault" in run("status").out
    (file_slot,) = [slot["id"] for slot in listed if slot["kind"] == "file"]
    assert run("remove-slot", file_slot[:12], "PASS").code == 0
    assert len(json.loads(run("slots", "--json", "PASS").out)) == 2
    assert "can open this vault" not in run("status").out


def test_the_last_slot_that_authorizes_stays(code: Path, run: Run) -> None:
    for slot in json.loads(run("slots", "--json", "PASS").out):
        if slot["kind"] == "recovery":
            assert run("remove-slot", slot["id"], "PASS").code == 0
    (last,) = json.loads(run("slots", "--json", "PASS").out)
    ran = run("remove-slot", last["id"], "PASS")
    assert ran.code == 1
    assert "last slot that gives authority" in ran.err


def test_a_rotation_says_what_it_did_and_leases_end_only_when_asked(code: Path, run: Run) -> None:
    put(run, "K", b"v")
    grant(run)
    assert get(run, "K") == "v\n"
    ran = run("rotate", "PASS")
    assert ran.code == 0
    assert "1 key sealed again, 2 slots re-wrapped" in ran.err
    assert get(run, "K") == "v\n"
    told = json.loads(run("rotate", "--end-leases", "--json", "PASS").out)
    assert told["purged"] is True
    assert told["keys"] == 1


def test_after_a_rotation_no_old_sealed_byte_is_in_any_file_of_the_home(
    code: Path, daemon: RunningDaemon, run: Run
) -> None:
    import sqlite3  # noqa: PLC0415 - only here

    names = [f"K{number}" for number in range(40)]
    for name in names[:5]:
        put(run, name, name.encode() * 2000)
    daemon.terminate()
    with sqlite3.connect(daemon.home / "vault.db") as connection:
        old = [
            part
            for row in connection.execute("SELECT row_index, head, value FROM keys")
            for part in row
        ]
        old += [row[0] for row in connection.execute("SELECT authority FROM vault")]
        bodies = [json.loads(row[0]) for row in connection.execute("SELECT body FROM slots")]
    # What opens a slot stays as it is; the wrap of the old master key does not.
    old += [body[part].encode() for body in bodies for part in ("wrap", "signature")]
    connection.close()
    daemon.start()
    assert run("unlock", "PASS").code == 0
    assert run("rotate", "PASS").code == 0
    files = b"".join(path.read_bytes() for path in daemon.home.rglob("*") if path.is_file())
    windows = [part[at : at + 24] for part in old for at in range(0, len(part) - 24, 97)]
    plain = [window for window in windows if b'"' not in window]
    assert len(plain) > 100
    assert [window for window in plain if window in files] == []


def test_a_backup_goes_into_a_new_home_and_back(
    code: Path, daemon: RunningDaemon, run: Run, tmp_path: Path
) -> None:
    put(run, "K", b"v")
    grant(run)
    seal = private(tmp_path / "seal", SEAL)
    file = tmp_path / "backup"
    ran = run("export", str(file), "--backup-passphrase-file", seal, "PASS")
    assert ran.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("export", str(file), "--backup-passphrase-file", seal, "PASS").code == 1
    taking = ("import-vault", str(file), "--backup-passphrase-file", seal, "PASS")
    assert run(*taking).code == 1
    assert "1 kept" in run(*taking, "--on-conflict", "keep").err
    daemon.terminate()
    for path in daemon.home.iterdir():
        if path.is_file():
            path.unlink()
    daemon.start()
    assert run(*taking).code == 3
    assert run("init", "PASS", "--no-recovery-code").code == 0
    dry = run(*taking, "--dry-run")
    assert "would be stored" in dry.err
    assert f"K to uid:{os.geteuid()}" not in dry.err
    done = run(*taking, "--with-grants", "--yes")
    assert done.code == 0
    assert f"* to uid:{os.geteuid()}" in done.err
    assert get(run, "K") == "v\n"


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:300], "cut short"),
        (lambda data: b"PK" + data, "not a backup"),
    ],
)
def test_a_broken_backup_is_refused_with_its_reason(
    code: Path, run: Run, tmp_path: Path, alter: object, says: str
) -> None:
    put(run, "K", b"v")
    seal = private(tmp_path / "seal", SEAL)
    file = tmp_path / "backup"
    assert run("export", str(file), "--backup-passphrase-file", seal, "PASS").code == 0
    file.write_bytes(alter(file.read_bytes()))  # type: ignore[operator]
    ran = run("import-vault", str(file), "--backup-passphrase-file", seal, "PASS")
    assert ran.code == 1
    assert says in ran.err


def test_plain_text_comes_with_a_warning_and_into_a_private_file(
    code: Path, run: Run, tmp_path: Path
) -> None:
    put(run, "K", b"v")
    file = tmp_path / "plain"
    ran = run("export", str(file), "--plaintext", "--yes", "PASS")
    assert ran.code == 0
    assert "warning" in ran.err
    assert json.loads(file.read_text()) == {"name": "K", "value": "v"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_export_that_fails_leaves_no_file(
    code: Path, daemon: RunningDaemon, run: Run, tmp_path: Path
) -> None:
    seal = private(tmp_path / "seal", "short")
    file = tmp_path / "backup"
    assert run("export", str(file), "--backup-passphrase-file", seal, "PASS").code == 1
    assert not file.exists()


def test_only_the_operator_may(code: Path, daemon: RunningDaemon) -> None:
    from backpack_proto.v1 import (  # noqa: PLC0415 - only here
        backup_pb2,
        backup_pb2_grpc,
        slots_pb2,
        slots_pb2_grpc,
    )

    channel = daemon.client().channel
    slots, backups = slots_pb2_grpc.SlotsStub(channel), backup_pb2_grpc.BackupStub(channel)
    terms = backup_pb2.ImportKeysRequest(terms=backup_pb2.ImportTerms())
    for call in (
        lambda: slots.ListSlots(slots_pb2.ListSlotsRequest()),
        lambda: slots.AddSlot(slots_pb2.AddSlotRequest(kind="file")),
        lambda: slots.RemoveSlot(slots_pb2.RemoveSlotRequest(id="00")),
        lambda: list(slots.RotateMasterKey(slots_pb2.RotateMasterKeyRequest())),
        lambda: list(backups.ExportKeys(backup_pb2.ExportKeysRequest(plaintext=True))),
        lambda: backups.ImportKeys(iter([terms])),
    ):
        assert failure(call) == ("UNAUTHENTICATED", "not-authorized")


def test_on_a_terminal_the_code_is_shown_there(
    daemon: RunningDaemon, run: Run, tmp_path: Path
) -> None:
    right = str(tmp_path / "passphrase")
    with Terminal(["-m", "backpack_client", "init", "--passphrase-file", right]) as at:
        at.expect(b"recovery code, shown this once:")
        found = re.search(rb"((?:[0-9A-Z]{5}-){5}[0-9A-Z]{5})", at.shown)
        while found is None:
            at.shown += os.read(at.screen, 4096)
            found = re.search(rb"((?:[0-9A-Z]{5}-){5}[0-9A-Z]{5})", at.shown)
        at.expect(b"\n")
    code = private(tmp_path / "code", found[1].decode().lower())
    assert run("recover", "--drill", "--recovery-code-file", code).code == 0
