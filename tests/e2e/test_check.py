"""`backpackd --check` on a vault that was damaged: what is wrong, and what can still be read."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backpack_proto.v1 import backup_pb2, backup_pb2_grpc, slots_pb2, slots_pb2_grpc
from backpackd.core.audit import keys
from daemons import PASSPHRASE, RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

Tamper = Callable[[RunningDaemon], None]


def check(daemon: RunningDaemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "backpackd", "--check", "--home", str(daemon.home), *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.fixture
def opened(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\n")
    path.chmod(0o600)
    return "--passphrase-file", str(path)


@pytest.fixture
def stopped(daemon: RunningDaemon) -> RunningDaemon:
    operator = daemon.operator()
    for name in ("ALPHA", "BETA", "GAMMA"):
        operator.put(name, b"value of " + name.encode())
    operator.grant("*")
    assert daemon.terminate() == 0
    return daemon


def ask(daemon: RunningDaemon, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(daemon.home / "vault.db")
    found = connection.execute(statement, values).fetchall()
    connection.commit()
    connection.close()
    return found


def files(daemon: RunningDaemon) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in daemon.home.iterdir()
        if path.is_file() and path.name != "backpackd.lock"
    }


def alter_value(daemon: RunningDaemon) -> None:
    index, value = ask(daemon, "SELECT row_index, value FROM keys LIMIT 1")[0]
    bad = value[:60] + bytes([value[60] ^ 1]) + value[61:]
    ask(daemon, "UPDATE keys SET value = ? WHERE row_index = ?", bad, index)


def alter_head(daemon: RunningDaemon) -> None:
    index, head = ask(daemon, "SELECT row_index, head FROM keys LIMIT 1")[0]
    ask(daemon, "UPDATE keys SET head = ? WHERE row_index = ?", head[:-1] + b"x", index)


def delete_row(daemon: RunningDaemon) -> None:
    ask(daemon, "DELETE FROM keys WHERE rowid = (SELECT min(rowid) FROM keys)")


def alter_authority(daemon: RunningDaemon) -> None:
    (authority,) = ask(daemon, "SELECT authority FROM vault")[0]
    ask(daemon, "UPDATE vault SET authority = ?", authority[:-1] + b"x")


def alter_log(daemon: RunningDaemon) -> None:
    ask(daemon, "UPDATE audit_log SET body = zeroblob(length(body)) WHERE number = 3")


def plant_slot(daemon: RunningDaemon) -> None:
    ask(daemon, "INSERT INTO slots VALUES (?, ?)", b"p" * 16, b"{}")


def delete_audit_keys(daemon: RunningDaemon) -> None:
    ask(daemon, "DELETE FROM audit_keys")


def plant_audit_keys(daemon: RunningDaemon) -> None:
    public = keys.generate().public
    ask(daemon, "UPDATE audit_keys SET wrap = ?, verify = ?", public.wrap, public.verify)


def plant_trigger(daemon: RunningDaemon) -> None:
    ask(daemon, "CREATE TRIGGER t AFTER INSERT ON keys BEGIN DELETE FROM keys; END")


def test_a_good_vault_is_good_with_and_without_the_passphrase(
    stopped: RunningDaemon, opened: tuple[str, str]
) -> None:
    before = files(stopped)
    without = check(stopped)
    assert without.returncode == 0, without.stdout + without.stderr
    assert "3 of 3 are well-formed" in without.stdout
    found = check(stopped, *opened)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 of 3 can be read" in found.stdout
    assert "audit log" in found.stdout
    assert files(stopped) == before


@pytest.mark.parametrize(
    ("tamper", "says", "readable"),
    [
        (alter_value, "its value does not open", 2),
        (alter_head, "its name does not open", 2),
        (delete_row, "key rows are missing", 2),
        (alter_authority, "authority record", 3),
        (alter_log, "audit log", 3),
        (delete_audit_keys, "audit keys: are missing", 3),
        (plant_audit_keys, "audit keys: are not the vault's", 3),
        (plant_slot, "is malformed", 3),
        (plant_trigger, "triggers", 3),
    ],
)
def test_damage_is_named_and_hides_nothing_else(
    stopped: RunningDaemon, opened: tuple[str, str], tamper: Tamper, says: str, readable: int
) -> None:
    tamper(stopped)
    before = files(stopped)
    found = check(stopped, *opened)
    assert found.returncode == 1
    damaged = [line for line in found.stdout.splitlines() if line.startswith("DAMAGED")]
    assert any(says in line for line in damaged), found.stdout + found.stderr
    assert f"{readable} keys can still be read" in found.stdout
    assert files(stopped) == before
    assert "value of" not in found.stdout + found.stderr


def test_what_can_be_read_is_saved_and_goes_into_a_new_vault(
    stopped: RunningDaemon, opened: tuple[str, str], tmp_path: Path
) -> None:
    alter_value(stopped)
    alter_authority(stopped)
    saved = tmp_path / "saved"
    found = check(stopped, *opened, "--salvage", str(saved))
    assert "2 keys saved" in found.stdout, found.stdout + found.stderr
    assert saved.stat().st_mode & 0o777 == 0o600
    assert b"value of" not in saved.read_bytes()
    again = check(stopped, *opened, "--salvage", str(saved))
    assert again.returncode == 1
    assert "cannot be created" in again.stderr
    for path in stopped.home.iterdir():
        path.unlink() if path.is_file() else None
    stopped.start()
    operator = stopped.operator()
    terms = backup_pb2.ImportTerms(passphrase=PASSPHRASE, on_conflict=backup_pb2.ON_CONFLICT_FAIL)
    requests = [
        backup_pb2.ImportKeysRequest(terms=terms),
        backup_pb2.ImportKeysRequest(data=saved.read_bytes()),
    ]
    backup_pb2_grpc.BackupStub(operator.channel).ImportKeys(iter(requests))
    assert len(operator.list()) == 2


def test_bad_pages_of_the_file_hide_only_what_is_on_them(
    daemon: RunningDaemon, opened: tuple[str, str]
) -> None:
    operator = daemon.operator()
    for number in range(60):
        operator.put(f"K{number}", os.urandom(500))
    assert daemon.terminate() == 0
    path = daemon.home / "vault.db"
    data = bytearray(path.read_bytes())
    (page,) = {
        row[0] for row in ask(daemon, "SELECT rootpage FROM sqlite_schema WHERE name = 'keys'")
    }
    # A page far behind the table's root: one of its leaves, or of its index.
    leaf = next(
        at
        for at in range(len(data) // 4096 * 4096 - 4096, page * 4096, -4096)
        if data[at] == 0x0D and data.count(b"\0", at, at + 4096) < 1500
    )
    data[leaf : leaf + 16] = b"\xff" * 16
    path.write_bytes(data)
    found = check(daemon, *opened)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    lines = [line for line in found.stdout.splitlines() if "can be read" in line]
    readable = int(lines[0].split(": ")[1].split(" of ")[0])
    assert 30 <= readable <= 60, found.stdout


def test_a_bad_page_of_one_slot_hides_neither_other_slots_nor_keys(
    daemon: RunningDaemon, opened: tuple[str, str]
) -> None:
    operator = daemon.operator()
    operator.put("ALPHA", b"value")
    added = slots_pb2_grpc.SlotsStub(operator.channel).AddSlot(
        slots_pb2.AddSlotRequest(kind="recovery")
    )
    assert daemon.terminate() == 0
    ((body,),) = ask(daemon, "SELECT body FROM slots WHERE hex(slot_id) = ?", added.id.upper())
    path = daemon.home / "vault.db"
    data = bytearray(path.read_bytes())
    # Its last bytes lie on a page of its own, which begins with the number of the next one.
    page = data.index(body[-64:]) // 4096 * 4096
    data[page : page + 4] = b"\xff" * 4
    path.write_bytes(data)
    found = check(daemon, *opened)
    assert found.returncode == 1
    assert "opens with slot" in found.stdout, found.stdout + found.stderr
    assert "1 of 1" in found.stdout, found.stdout


@pytest.mark.parametrize("lacking", [1, 5])
def test_a_file_that_was_cut_short_hides_only_what_was_cut(
    daemon: RunningDaemon, opened: tuple[str, str], lacking: int
) -> None:
    operator = daemon.operator()
    for number in range(60):
        operator.put(f"K{number}", os.urandom(500))
    assert daemon.terminate() == 0
    path = daemon.home / "vault.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - lacking * 4096])
    before = files(daemon)
    found = check(daemon, *opened)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert f"it was cut short: {lacking} of" in found.stdout
    lines = [line for line in found.stdout.splitlines() if "can be read" in line]
    readable = int(lines[0].split(": ")[1].split(" of ")[0])
    assert 20 <= readable <= 60, found.stdout
    assert files(daemon) == before
    # What is shown can be looked at; used it is not.
    assert "damaged" in daemon.refused()


def test_audit_keys_that_are_gone_are_missed_without_the_passphrase(
    stopped: RunningDaemon,
) -> None:
    delete_audit_keys(stopped)
    found = check(stopped)
    assert found.returncode == 1
    assert "audit keys: are missing" in found.stdout


def test_a_vault_that_is_not_there_is_not_called_good(
    stopped: RunningDaemon, opened: tuple[str, str], tmp_path: Path
) -> None:
    (stopped.home / "vault.db").rename(tmp_path / "elsewhere")
    without = check(stopped)
    assert without.returncode == 0
    assert "vault.db: does not exist" in without.stdout
    for arguments in (opened, (*opened, "--salvage", str(tmp_path / "saved"))):
        found = check(stopped, *arguments)
        assert found.returncode == 1
        assert "vault.db does not exist" in found.stderr
    (stopped.home / "vault.db-wal").write_bytes(b"left over")
    found = check(stopped)
    assert found.returncode == 1
    assert "put the vault file back" in found.stderr


def test_it_refuses_the_home_of_a_live_daemon(daemon: RunningDaemon) -> None:
    daemon.operator()
    found = check(daemon)
    assert found.returncode == 1
    assert f"another backpackd (pid {daemon.pid}) uses the home" in found.stderr
    config = subprocess.run(
        [sys.executable, "-m", "backpackd", "--check", "config", "--home", str(daemon.home)],
        capture_output=True,
        check=False,
    )
    assert config.returncode == 0


def test_a_wrong_passphrase_is_told(stopped: RunningDaemon, tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    path.write_text("not the passphrase")
    path.chmod(0o600)
    found = check(stopped, "--passphrase-file", str(path))
    assert found.returncode == 1
    assert "wrong passphrase, or its slot is damaged" in found.stdout
    # What needs none of it is looked at all the same.
    assert "audit log" in found.stdout
    saved = tmp_path / "saved"
    found = check(stopped, "--passphrase-file", str(path), "--salvage", str(saved))
    assert (found.returncode, saved.exists()) == (1, False)
    assert "nothing is saved" in found.stdout
    path.chmod(0o644)
    assert "chmod 600" in check(stopped, "--passphrase-file", str(path)).stderr


def test_saving_takes_the_passphrase(stopped: RunningDaemon, tmp_path: Path) -> None:
    found = check(stopped, "--salvage", str(tmp_path / "saved"))
    assert found.returncode == 1
    assert "add --passphrase-file" in found.stderr
