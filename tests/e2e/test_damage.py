"""A vault file that was tampered with, on the real daemon: refused, named, left as it is."""

import base64
import hashlib
import json
import random
import secrets
import sqlite3
import stat
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from backpack_proto.v1 import vault_pb2
from backpackd.core.slots import slots
from daemons import PASSPHRASE, RunningDaemon

NEW_PASSPHRASE = b"nine loud herons fly"

pytestmark = pytest.mark.usefixtures("quick_start")


class Stopped:
    """A stopped daemon's vault, as somebody who can write to the file has it.

    Attributes:
        rows: every row of a key that there ever was, oldest first.
        slots: the slot before the change, and the one after it.
    """

    def __init__(self, daemon: RunningDaemon) -> None:
        self.daemon = daemon
        self.file = daemon.home / "vault.db"
        self.rows: list[tuple[Any, ...]] = []
        self.slots: list[tuple[bytes, bytes]] = []

    def written(self) -> "Stopped":
        """Put K twice, and L; delete GONE; change the passphrase once."""
        daemon = self.daemon
        daemon.start()
        operator = daemon.operator()
        for name, value in (("K", b"old"), ("L", b"l"), ("GONE", b"g")):
            operator.put(name, value)
        operator.grant("*")
        self._stop()
        daemon.start()
        client = daemon.client()
        client.unlock()
        client.authorize()
        client.put("K", b"new", replace=True)
        client.delete("GONE")
        client.vault.ChangePassphrase(
            vault_pb2.ChangePassphraseRequest(current=PASSPHRASE, replacement=NEW_PASSPHRASE)
        )
        self._stop()
        return self

    def copied(self, place: Path) -> "Stopped":
        """Return a copy of it, to be tampered with."""
        copy = Stopped(self.daemon.copied(place))
        copy.rows, copy.slots = self.rows, self.slots
        return copy

    def _stop(self) -> None:
        assert self.daemon.terminate() == 0
        self.rows += self.ask("SELECT * FROM keys")
        self.slots += self.ask("SELECT * FROM slots")

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.file)
        found = connection.execute(statement, values).fetchall()
        connection.commit()
        connection.close()
        return found

    def current(self, number: int) -> tuple[Any, ...]:
        """Return one of the two rows that belong there."""
        return sorted(self.ask("SELECT * FROM keys"))[number]

    def former(self) -> list[tuple[Any, ...]]:
        """Return the rows that once were and are no more: the old K and GONE."""
        here = self.ask("SELECT * FROM keys")
        return [row for row in dict.fromkeys(self.rows) if row not in here]

    def snapshot(self) -> tuple[str, int]:
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return digest, stat.S_IMODE(self.file.stat().st_mode)

    def stored(self) -> tuple[list[tuple[Any, ...]], ...]:
        """Return what the file holds, but for what the audit log gains while a daemon runs."""
        tables = ("vault", "slots", "keys", "audit_keys")
        return tuple(self.ask(f"SELECT * FROM {table}") for table in tables)

    def log(self) -> list[tuple[Any, ...]]:
        return self.ask("SELECT * FROM audit_log ORDER BY number")


@pytest.fixture(scope="module")
def written(made_once: RunningDaemon) -> Stopped:
    return Stopped(made_once).written()


@pytest.fixture
def vault(written: Stopped, tmp_path: Path) -> Iterator[Stopped]:
    copy = written.copied(tmp_path)
    yield copy
    copy.daemon.close()


def plant_trigger(vault: Stopped) -> None:
    vault.ask("CREATE TRIGGER t AFTER INSERT ON keys BEGIN DELETE FROM keys; END")


def open_to_others(vault: Stopped) -> None:
    vault.file.chmod(0o644)


def cut(vault: Stopped) -> None:
    vault.file.write_bytes(vault.file.read_bytes()[:5000])


def empty(vault: Stopped) -> None:
    vault.file.write_bytes(b"")


def date_ahead(vault: Stopped) -> None:
    vault.ask("PRAGMA user_version=99")


def overwrite(vault: Stopped) -> None:
    vault.file.write_bytes(hashlib.shake_256(b"noise").digest(20000))


@pytest.mark.executed
@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (plant_trigger, "triggers"),
        (open_to_others, "chmod 600"),
        (cut, "damaged"),
        (empty, "empty"),
        (date_ahead, "format 99"),
        (overwrite, "damaged"),
    ],
)
def test_a_file_that_is_no_vault_of_ours_keeps_the_daemon_from_starting(
    vault: Stopped, tamper: Callable[[Stopped], None], says: str
) -> None:
    tamper(vault)
    before = vault.snapshot()
    message = vault.daemon.refused()
    assert says in message
    assert "Traceback" not in message
    assert vault.snapshot() == before


@pytest.mark.executed
def test_a_log_without_its_vault_keeps_the_daemon_from_starting(vault: Stopped) -> None:
    vault.file.rename(vault.daemon.home / "vault.db-wal")
    assert "vault.db is missing" in vault.daemon.refused()
    assert not vault.file.exists()


def delete_row(vault: Stopped) -> None:
    vault.ask("DELETE FROM keys WHERE row_index = ?", vault.current(0)[0])


def replay_row(vault: Stopped) -> None:
    (old,) = [row for row in vault.former() if vault.ask(*_by_index(row))]
    vault.ask("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", *old)


def reinsert_row(vault: Stopped) -> None:
    (gone,) = [row for row in vault.former() if not vault.ask(*_by_index(row))]
    vault.ask("INSERT INTO keys VALUES (?, ?, ?, ?)", *gone)


def swap_rows(vault: Stopped) -> None:
    one, other = vault.current(0), vault.current(1)
    vault.ask("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", one[0], *other[1:])
    vault.ask("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", other[0], *one[1:])


def alter_value(vault: Stopped) -> None:
    vault.ask("UPDATE keys SET value = zeroblob(length(value))")


def put_slot_back(vault: Stopped) -> None:
    vault.ask("INSERT INTO slots VALUES (?, ?)", *vault.slots[0])


def swap_wraps(vault: Stopped) -> None:
    """Give the slot the wrap and the signature of another one, made with the same master key."""
    old, new = json.loads(vault.slots[0][1]), json.loads(vault.slots[1][1])
    new |= {"wrap": old["wrap"], "signature": old["signature"]}
    _write_slot(vault, new)


def forge_signature(vault: Stopped) -> None:
    new = json.loads(vault.slots[1][1])
    _write_slot(vault, new | {"signature": base64.b64encode(bytes(64)).decode()})


def wrap_a_foreign_master_key(vault: Stopped) -> None:
    """Wrap a master key of one's own to the slot's public key, with all that the file tells."""
    ((vault_id,),) = vault.ask("SELECT vault_id FROM vault")
    ((slot_id, body),) = vault.ask("SELECT slot_id, body FROM slots")
    slot = slots.Slot.decode(slot_id, body)
    forged = slots.rewrap(
        slot,
        secrets.token_bytes(slots.MASTER_SIZE),
        vault_id=vault_id,
        generation=slot.generation,
        signing_key=secrets.token_bytes(32),
    )
    assert (forged.public, forged.sealed) == (slot.public, slot.sealed)
    vault.ask("UPDATE slots SET body = ? WHERE slot_id = ?", forged.encode(), slot_id)


def break_slot(vault: Stopped) -> None:
    vault.ask("UPDATE slots SET body = substr(body, 2)")


def drop_slots(vault: Stopped) -> None:
    vault.ask("DELETE FROM slots")


def break_authority(vault: Stopped) -> None:
    vault.ask("UPDATE vault SET authority = zeroblob(length(authority))")


def _by_index(row: tuple[Any, ...]) -> tuple[str, object]:
    return "SELECT 1 FROM keys WHERE row_index = ?", row[0]


def _write_slot(vault: Stopped, members: dict[str, Any]) -> None:
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    vault.ask("UPDATE slots SET body = ?", body)


@pytest.mark.parametrize(
    ("tamper", "reason", "says"),
    [
        (delete_row, "rows-changed", "1 of 2 key rows are missing"),
        (replay_row, "rows-changed", "replaced by another"),
        (reinsert_row, "rows-changed", "1 key rows too many"),
        (swap_rows, "rows-changed", "replaced by another"),
        (alter_value, "rows-changed", "replaced by another"),
        (put_slot_back, "slots-changed", "slots"),
        (swap_wraps, "slots-changed", "slot"),
        (forge_signature, "slots-changed", "slot"),
        (wrap_a_foreign_master_key, "slots-changed", "slot"),
        (break_slot, "slots-changed", "slot"),
        (drop_slots, "slots-changed", "no slot"),
        (break_authority, "authority-damaged", "authority record"),
    ],
)
def test_what_the_vault_did_not_write_is_found_named_and_refused_at_unlock(
    vault: Stopped, tamper: Callable[[Stopped], None], reason: str, says: str
) -> None:
    tamper(vault)
    before, log = vault.stored(), vault.log()
    vault.daemon.start()
    client = vault.daemon.client()
    with pytest.raises(grpc.RpcError) as caught:
        client.unlock(NEW_PASSPHRASE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert dict(error.trailing_metadata())["backpack-reason"] == reason
    assert says in error.details()
    assert client.status().state == vault_pb2.VAULT_STATE_LOCKED
    assert vault.daemon.terminate() == 0
    assert vault.stored() == before
    assert vault.log()[: len(log)] == log


def test_a_passphrase_that_was_changed_does_not_come_back_with_its_slot(vault: Stopped) -> None:
    put_slot_back(vault)
    vault.daemon.start()
    client = vault.daemon.client()
    with pytest.raises(grpc.RpcError) as caught:
        client.unlock(PASSPHRASE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert client.status().state == vault_pb2.VAULT_STATE_LOCKED


def test_slots_with_swapped_bodies_do_not_unlock(vault: Stopped) -> None:
    (old_id, old_body), (new_id, new_body) = vault.slots
    vault.ask("UPDATE slots SET body = ? WHERE slot_id = ?", old_body, new_id)
    vault.ask("INSERT INTO slots VALUES (?, ?)", old_id, new_body)
    vault.daemon.start()
    client = vault.daemon.client()
    with pytest.raises(grpc.RpcError):
        client.unlock(NEW_PASSPHRASE)
    assert client.status().state == vault_pb2.VAULT_STATE_LOCKED


def test_an_untouched_vault_unlocks(vault: Stopped) -> None:
    vault.daemon.start()
    client = vault.daemon.client()
    client.unlock(NEW_PASSPHRASE)
    assert client.value("K") == b"new"


def forms(secret: bytes) -> dict[str, bytes]:
    """Return what a value or a name may look like in a file, by the name of the form."""
    text = secret.decode("latin-1")
    found = {"raw": secret, "first half": secret[:16], "second half": secret[16:]}
    for shift in range(3):
        # Base64 looks different at each alignment; what depends on the neighbours is cut off.
        coded = base64.b64encode(b"\0" * shift + secret)
        found[f"base64 at {shift}"] = coded[4:-4]
        found[f"url-safe base64 at {shift}"] = coded[4:-4].translate(bytes.maketrans(b"+/", b"-_"))
    found["hex"] = secret.hex().encode()
    found["HEX"] = secret.hex().upper().encode()
    for order in ("utf-16-le", "utf-16-be"):
        found[order] = text.encode(order)
        found[f"hex in {order}"] = secret.hex().encode(order)
    return found


@pytest.mark.usefixtures("cheap_vault")
def test_a_value_and_its_name_are_found_nowhere(
    daemon: RunningDaemon, chance: random.Random
) -> None:
    value = chance.randbytes(32)
    name = "".join(chance.choices(string.ascii_letters, k=32))
    looked_for = {**forms(value), **{f"name as {k}": v for k, v in forms(name.encode()).items()}}
    operator = daemon.operator()
    operator.put(name, value)
    operator.put(name, value, replace=True)
    operator.grant(name)
    assert operator.value(name) == value
    assert operator.list() == [name]
    operator.delete(name)
    operator.put(name, value)
    _nowhere(daemon, looked_for)
    _private(daemon.home)
    _private(daemon.socket.parent)
    assert daemon.terminate() == 0
    _nowhere(daemon, looked_for)
    _private(daemon.home)
    daemon.start()
    daemon.client().unlock()
    assert daemon.client().value(name) == value
    daemon.kill()
    _nowhere(daemon, looked_for)
    _private(daemon.home)


def _nowhere(daemon: RunningDaemon, looked_for: dict[str, bytes]) -> None:
    paths = [daemon.log, *(path for path in daemon.home.rglob("*") if path.is_file())]
    assert daemon.home / "vault.db" in paths
    for path in paths:
        content = path.read_bytes()
        assert [form for form, data in looked_for.items() if data in content] == [], path


def _private(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path
