"""A vault whose parts are of two times, as people and a daemon without a person meet it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from audit_client import AuditClient
from backpack_proto.v1 import slots_pb2, slots_pb2_grpc, vault_pb2
from cheap_vaults import make_cheap
from command_line import Run, runner
from daemons import RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("quick_start")

TABLES = ("vault", "slots", "keys")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def daemon(tmp_path: Path) -> RunningDaemon:
    make_cheap(tmp_path / "home")
    return RunningDaemon(tmp_path / "home", tmp_path / "run" / "backpackd.sock")


def older(daemon: RunningDaemon) -> tuple[str, bytes]:
    """Delete a key, and put yesterday's tables beside today's log; return today's head and a key.

    The key is one for unattended use that yesterday's vault has.
    """
    daemon.start()
    operator = daemon.client()
    operator.unlock()
    operator.authorize()
    operator.put("K", b"v")
    operator.grant("K")
    slots = slots_pb2_grpc.SlotsStub(operator.channel)
    key: bytes = slots.AddSlot(slots_pb2.AddSlotRequest(kind="file")).drawn
    daemon.terminate()
    yesterday = daemon.home.parent / "yesterday.db"
    shutil.copyfile(daemon.home / "vault.db", yesterday)
    daemon.start()
    operator = daemon.client()
    operator.unlock()
    operator.authorize()
    operator.delete("K")
    head = AuditClient(operator).head()
    daemon.terminate()
    with closing(sqlite3.connect(daemon.home / "vault.db", isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS other", (str(yesterday),))
        for table in TABLES:
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")
    return head, key


def test_the_command_line_says_what_it_means_and_takes_the_operators_word(
    daemon: RunningDaemon, run: Run
) -> None:
    head, _ = older(daemon)
    daemon.start()
    try:
        for arguments in ((), ("--expect", head)):
            verified = run("audit", "verify", *arguments)
            assert verified.code == 1
            assert "another authority record" in verified.out
        refused = run("unlock", "PASS")
        assert refused.code == 1
        assert "older than its audit log" in refused.err
        assert "unlock --accept-older-vault" in refused.err
        assert run("get", "K").code == 3
        assert run("unlock", "PASS", "--accept-older-vault").code == 0
        assert run("get", "K").out == "v\n"
        assert "older-accepted" in run("audit", "show", "PASS").out
        assert run("audit", "verify", "--expect", head).code == 0
    finally:
        daemon.close()


def test_a_daemon_without_a_person_does_not_unlock_it(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    _, key = older(daemon)
    path = tmp_path / "key"
    path.write_bytes(key)
    path.chmod(0o600)
    settings = daemon.home / "backpackd.toml"
    settings.write_text(f'[unlock]\nfile = "{path}"\n')
    settings.chmod(0o600)
    daemon.start()
    try:
        client = daemon.client()
        assert client.status().state == vault_pb2.VAULT_STATE_LOCKED
        assert "not unlocked by file: the vault is older" in daemon.log_text()
        request = vault_pb2.UnlockRequest(passphrase=key, accept_older=True)
        # It is no passphrase, and with one word more it is none either.
        refused = failure(lambda: client.vault.Unlock(request))
        assert refused == ("UNAUTHENTICATED", "wrong-passphrase")
    finally:
        daemon.close()


@pytest.mark.parametrize("of", ["yesterday", "today"])
def test_a_log_of_writes_beside_a_file_of_another_day_opens_as_one_of_the_two_or_not_at_all(
    daemon: RunningDaemon, of: str
) -> None:
    """SQLite's write-ahead log is a file of its own, so two days can be mixed by copying files."""
    days: dict[str, Path] = {}
    for day in ("yesterday", "today"):
        daemon.start()
        operator = daemon.client()
        operator.unlock()
        operator.authorize()
        for number in range(20):
            operator.put(f"{day}{number}", b"v" * 3000)
        if day == "today":
            operator.delete("yesterday0")
        daemon.kill()
        days[day] = daemon.home.parent / day
        shutil.copytree(daemon.home, days[day])
    other = days["yesterday" if of == "today" else "today"]
    shutil.copyfile(days[of] / "vault.db", daemon.home / "vault.db")
    shutil.copyfile(other / "vault.db-wal", daemon.home / "vault.db-wal")
    (daemon.home / "vault.db-shm").unlink(missing_ok=True)
    try:
        try:
            daemon.start()
        except AssertionError:
            assert "vault" in daemon.log_text()
            return
        client = daemon.client()
        try:
            client.unlock()
        except Exception:  # noqa: BLE001 - whatever is refused, it must be by design
            status, reason = failure(client.unlock)
            assert (status, bool(reason)) == ("DATA_LOSS", True)
            return
        client.authorize()
        names = set(client.list())
        yesterdays = {f"yesterday{number}" for number in range(20)}
        todays = yesterdays | {f"today{number}" for number in range(20)}
        assert names in (yesterdays, todays - {"yesterday0"})
    finally:
        daemon.close()
