"""A vault of the first format, as the version before the audit log wrote it, in use today.

The vector is a vault with the keys K and L and the passphrase of `daemons`, made by that version.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit_client import AuditClient
from backpack_proto.v1 import vault_pb2
from daemons import PASSPHRASE, RunningDaemon, failure

VECTOR = Path(__file__).resolve().parents[1] / "vectors" / "vault-format-1" / "vault.db"

pytestmark = pytest.mark.usefixtures("quick_start")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "vault.db").touch(0o600)
    (home / "vault.db").write_bytes(VECTOR.read_bytes())
    running = RunningDaemon(home, tmp_path / "run" / "s.sock")
    running.start()
    yield running
    running.close()


def test_it_opens_and_has_a_log_from_its_first_unlock_on(daemon: RunningDaemon) -> None:
    client = daemon.client()
    audit = AuditClient(client)
    assert (audit.head(), audit.verify().problem) == ("", "")
    # What happens before there are keys to seal it to waits in memory.
    assert failure(lambda: client.unlock(b"not the passphrase"))[1] == "wrong-passphrase"
    client.unlock(PASSPHRASE)
    client.authorize()
    assert sorted(client.list()) == ["K", "L"]
    client.grant("K")
    assert client.value("K") == b"k"
    found = audit.verify()
    assert (found.problem, found.vouched_until) == ("", int(found.head.partition("-")[0]))
    assert audit.events()[:3] == ["started", "wrong-passphrase", "unlocked"]
    daemon.kill()
    daemon.start()
    again = daemon.client()
    again.unlock()
    assert AuditClient(again).verify().problem == ""


def test_its_record_beside_the_log_that_it_has_since_is_refused(daemon: RunningDaemon) -> None:
    client = daemon.client()
    client.unlock()
    client.authorize()
    client.delete("K")
    daemon.kill()
    with closing(sqlite3.connect(daemon.home / "vault.db", isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS other", (f"file:{VECTOR}?immutable=1",))
        for table in ("vault", "slots", "keys"):
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")
    daemon.start()
    client = daemon.client()
    assert failure(client.unlock) == ("DATA_LOSS", "vault-stepped-back")
    # Its keys cannot be those of the log, which goes on under new ones where that was meant.
    client.vault.Unlock(vault_pb2.UnlockRequest(passphrase=PASSPHRASE, accept_older=True))
    client.authorize()
    assert sorted(client.list()) == ["K", "L"]
    assert AuditClient(client).verify().problem


def test_its_file_is_of_the_newest_format_afterwards(daemon: RunningDaemon) -> None:
    daemon.terminate()
    connection = sqlite3.connect(daemon.home / "vault.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT count(*) FROM audit_log").fetchone() == (0,)
    connection.close()


def test_the_vector_is_of_the_first_format() -> None:
    connection = sqlite3.connect(f"file:{VECTOR}?immutable=1", uri=True)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
