"""The audit log as somebody who writes the vault file leaves it, and what is found of that."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_client import AuditClient
from backpack_proto.v1 import audit_pb2
from backpackd.core.audit import chain, keys, ratchet
from backpackd.core.audit.chain import Head, Header
from backpackd.core.rows import AuditPublic, AuditRow
from cheap_vaults import make_cheap
from daemons import Client, RunningDaemon, failure

VAULT, FILE = audit_pb2.AUDIT_ANCHOR_VAULT, audit_pb2.AUDIT_ANCHOR_FILE
pytestmark = pytest.mark.usefixtures("quick_start")

EXPECTED = audit_pb2.AUDIT_ANCHOR_EXPECTED


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    make_cheap(tmp_path / "home")
    running = RunningDaemon(tmp_path / "home", tmp_path / "run" / "s.sock")
    yield running
    running.close()


def unlocked(daemon: RunningDaemon) -> Client:
    """Start a daemon and return an operator's connection."""
    daemon.start()
    client = daemon.client()
    client.unlock()
    client.authorize()
    return client


def used(daemon: RunningDaemon, gets: int = 5) -> str:
    """Use a daemon, ending with so many leases, kill it, and return its last head."""
    client = unlocked(daemon)
    client.put("K", b"v")
    client.grant("K")
    client.put("L", b"v")
    for _ in range(gets):
        client.get("K", ttl=60)
    head = AuditClient(client).head()
    daemon.kill()
    return head


def alter(daemon: RunningDaemon, statement: str, *values: object) -> None:
    connection = sqlite3.connect(daemon.home / "vault.db")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def rows(daemon: RunningDaemon) -> list[AuditRow]:
    connection = sqlite3.connect(daemon.home / "vault.db")
    found = connection.execute("SELECT number, kind, previous, body FROM audit_log ORDER BY number")
    made = [AuditRow(*row) for row in found]
    connection.close()
    return made


def number(head: str) -> int:
    return int(head.partition("-")[0])


def test_a_good_log_says_what_it_relies_on_locked_and_unlocked(daemon: RunningDaemon) -> None:
    head = used(daemon)
    daemon.start()
    client = daemon.client()
    audit = AuditClient(client)
    locked = audit.verify()
    assert (locked.problem, locked.anchor, locked.vouched_until) == ("", FILE, 0)
    expected = audit.verify(head)
    # What the daemon wrote since it began it remembers, and what was before is expected.
    assert (expected.problem, expected.anchor) == ("", EXPECTED)
    assert expected.vouched_until == number(expected.head) > number(head)
    client.unlock()
    opened = audit.verify()
    assert (opened.problem, opened.anchor) == ("", VAULT)
    assert opened.vouched_until == number(opened.head)
    client.lock()
    again = audit.verify()
    assert (again.problem, again.anchor, again.vouched_until) == ("", VAULT, number(again.head))


def test_a_tail_cut_before_what_the_vault_knows_is_found_after_a_kill_and_a_restart(
    daemon: RunningDaemon,
) -> None:
    used(daemon)
    alter(daemon, "DELETE FROM audit_log WHERE number > 3")
    client = unlocked(daemon)
    found = AuditClient(client).verify()
    assert "cut or altered" in found.problem
    assert "the audit log was cut or altered: the vault knows entry" in daemon.log_text()
    # For good: nobody forgets it with the next unlock.
    daemon.kill()
    assert "cut or altered" in AuditClient(unlocked(daemon)).verify().problem


def test_what_is_done_after_a_break_is_found_and_a_head_from_behind_it_accepts_it(
    daemon: RunningDaemon,
) -> None:
    used(daemon)
    alter(daemon, "DELETE FROM audit_log WHERE number > 3")
    client = unlocked(daemon)
    assert client.status().audit_broken_at_ms > 0
    audit = AuditClient(client)
    head = audit.head()
    known = audit.verify(head)
    assert (known.problem, known.vouched_until) == ("", number(known.head))
    assert "cut or altered" in known.broken
    for _ in range(5):
        client.put("K", b"v", replace=True)
    client.lock()
    daemon.kill()
    bad = number(head) + 2
    alter(daemon, "UPDATE audit_log SET body = zeroblob(length(body)) WHERE number = ?", bad)
    client = unlocked(daemon)
    assert client.status().audit_broken_at_ms == 0
    audit = AuditClient(client)
    found = audit.verify()
    assert "cut or altered" in found.problem
    assert (found.bad_entry, found.later_bad_entry) == (found.broken_entry, bad)
    assert audit.verify(head).bad_entry == bad


def test_a_tail_cut_behind_what_the_vault_knows_is_found_with_a_copy_only(
    daemon: RunningDaemon,
) -> None:
    head = used(daemon)
    alter(daemon, "DELETE FROM audit_log WHERE number > ?", number(head) - 3)
    audit = AuditClient(unlocked(daemon))
    assert audit.verify().problem == ""
    found = audit.verify(head)
    assert found.bad_entry == number(head)
    assert "is not the one that the keeper of the expected head" in found.problem


def test_yesterdays_whole_file_is_found_with_a_copy_only(daemon: RunningDaemon) -> None:
    used(daemon)
    yesterday = daemon.home.parent / "yesterday"
    shutil.copytree(daemon.home, yesterday)
    head = used_again(daemon)
    shutil.rmtree(daemon.home)
    shutil.copytree(yesterday, daemon.home)
    daemon.home.chmod(0o700)
    audit = AuditClient(unlocked(daemon))
    assert audit.verify().problem == ""
    assert audit.verify(head).problem != ""


def used_again(daemon: RunningDaemon) -> str:
    client = unlocked(daemon)
    for _ in range(5):
        client.get("K")
    head = AuditClient(client).head()
    daemon.kill()
    return head


def test_a_changed_entry_is_named(daemon: RunningDaemon) -> None:
    used(daemon)
    alter(daemon, "UPDATE audit_log SET body = zeroblob(length(body)) WHERE number = 5")
    daemon.start()
    client = daemon.client()
    found = AuditClient(client).verify()
    assert (found.bad_entry, found.problem[:11]) == (5, "was altered")
    client.unlock()
    client.authorize()
    # And the rest can be read.
    events = AuditClient(client).events()
    assert events.count("damaged") == 1
    assert "granted" in events


def test_planted_audit_keys_are_found_at_unlock_and_nothing_is_unlocked(
    daemon: RunningDaemon,
) -> None:
    used(daemon)
    planted = keys.generate().public
    alter(daemon, "UPDATE audit_keys SET wrap = ?", planted.wrap)
    daemon.start()
    client = daemon.client()
    assert failure(client.unlock) == ("DATA_LOSS", "audit-keys-changed")
    assert failure(client.list) == ("FAILED_PRECONDITION", "locked")


@pytest.mark.parametrize(
    "statement", ["DELETE FROM audit_keys", "UPDATE audit_keys SET wrap=x'00'"]
)
def test_audit_keys_that_are_gone_or_no_keys_are_found_at_unlock(
    daemon: RunningDaemon, statement: str
) -> None:
    used(daemon)
    alter(daemon, statement)
    daemon.start()
    assert failure(daemon.client().unlock) == ("DATA_LOSS", "audit-keys-changed")


def test_a_whole_log_of_somebody_elses_is_found_at_unlock(daemon: RunningDaemon) -> None:
    used(daemon)
    forged = keys.generate()
    public = forged.public
    alter(daemon, "DELETE FROM audit_log")
    alter(daemon, "UPDATE audit_keys SET wrap = ?, verify = ?", public.wrap, public.verify)
    daemon.start()
    client = daemon.client()
    # While locked nobody can tell, and nobody says more than that.
    locked = AuditClient(client).verify()
    assert (locked.problem, locked.anchor, locked.vouched_until) == ("", FILE, 0)
    assert failure(client.unlock) == ("DATA_LOSS", "audit-keys-changed")


def test_a_log_that_was_emptied_is_found_at_unlock(daemon: RunningDaemon) -> None:
    used(daemon)
    alter(daemon, "DELETE FROM audit_log")
    assert "cut or altered" in AuditClient(unlocked(daemon)).verify().problem


def test_a_segment_rebuilt_from_public_material_is_found_up_to_what_is_known(
    daemon: RunningDaemon,
) -> None:
    head = used(daemon)
    written = rows(daemon)
    connection = sqlite3.connect(daemon.home / "vault.db")
    (vault_id,) = connection.execute("SELECT vault_id FROM vault").fetchone()
    public = AuditPublic(*connection.execute("SELECT wrap, verify FROM audit_keys").fetchone())
    connection.execute("DELETE FROM audit_log")
    at = Head()
    for row in rebuilt(vault_id, public, at, len(written)):
        connection.execute(
            "INSERT INTO audit_log VALUES (?, ?, ?, ?)",
            (row.number, row.kind, row.previous, row.body),
        )
    connection.commit()
    connection.close()
    daemon.start()
    client = daemon.client()
    audit = AuditClient(client)
    assert audit.verify().vouched_until == 0
    assert "is not the one" in audit.verify(head).problem
    client.unlock()
    assert "cut or altered" in audit.verify().problem


def rebuilt(vault_id: bytes, public: AuditPublic, head: Head, count: int) -> list[AuditRow]:
    """Write a segment as anybody can who has the file."""
    state, name = b"s" * 32, keys.fingerprint(public)
    wrap = ratchet.wrap(state, public.wrap, vault_id=vault_id, segment=1, fingerprint=name)
    row, head = head.next(vault_id, chain.HEADER, Header(1, name, public.verify, wrap).encode())
    made = [row]
    for _ in range(count - 1):
        body = ratchet.seal_entry(
            state,
            b"{}",
            vault_id=vault_id,
            number=head.number + 1,
            previous=head.digest,
            salt=b"s" * 16,
        )
        row, head = head.next(vault_id, chain.ENTRY, body)
        made.append(row)
        state = ratchet.advance(state)
    return made


@pytest.mark.parametrize("planted", [2**61, 2**63 - 1, -5, 0])
def test_a_row_with_an_absurd_number_stops_nothing_and_is_found(
    daemon: RunningDaemon, planted: int
) -> None:
    used(daemon)
    alter(daemon, "INSERT INTO audit_log VALUES (?, 300, x'', x'')", planted)
    client = unlocked(daemon)
    assert client.value("K") == b"v"
    assert AuditClient(client).verify().problem != ""


def test_failed_unlocks_are_recorded_while_locked_and_readable_after_it(
    daemon: RunningDaemon,
) -> None:
    used(daemon)
    daemon.start()
    client = daemon.client()
    for _ in range(2):
        assert failure(lambda: client.unlock(b"not the passphrase"))[1] == "wrong-passphrase"
    daemon.kill()
    audit = AuditClient(unlocked(daemon))
    wrong = audit.show(events=["wrong-passphrase"])
    assert len(wrong) == 2
    assert wrong[0].actor.executable
    assert audit.verify().problem == ""
