"""Vault files that are put together from tables of two moments, all subsets of them.

Somebody who can write the file has yesterday's copy. Whatever tables of it he puts in place, the
vault opens as it is today or is refused. Only the whole of yesterday opens as yesterday.
"""

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from audit_worlds import shown, verdict, written
from backpackd.adapters.stores.inspection import Inspection
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.application.unattended import unlock_unattended
from backpackd.application.vault.damage_report import check
from backpackd.core.audit.chain import ACCEPTED, CHECKPOINT, Head
from backpackd.core.errors import BackpackError, DamageError
from backpackd.core.slots.slots import AUTHORIZING
from backpackd.core.vault.states import State
from fakes import GOOD, OTHER, World, state_of

TABLES = ("vault", "slots", "keys", "audit_keys", "audit_log")
SAME = {"audit_keys"}
"""Never changes once it is there."""
SUBSETS = [
    frozenset(chosen) for size in range(len(TABLES) + 1)
    for chosen in itertools.combinations(TABLES, size)
]  # fmt: skip
REFUSALS = {"slots-changed", "rows-changed", "authority-damaged", "vault-stepped-back"}


class Files:
    """Copies of one vault file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.head = Head()
        self.key = b""

    def home(self, name: str) -> Path:
        return self._path / name

    def copy(self, of: str, name: str) -> Path:
        shutil.copytree(self.home(of), self.home(name))
        return self.home(name)

    def mixed(self, older: Collection[str], base: str = "today", of: str = "yesterday") -> Path:
        """Copy today's file and put the tables of yesterday into it."""
        made = self.copy(base, "mixed " + "-".join(sorted(older)))
        with closing(sqlite3.connect(made / "vault.db", isolation_level=None)) as connection:
            connection.execute("ATTACH ? AS other", (str(self.home(of) / "vault.db"),))
            connection.execute("BEGIN")
            for table in older:
                connection.execute(f"DELETE FROM main.{table}")
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")
            connection.execute("COMMIT")
        return made


async def opened(home: Path) -> World:
    """Start a daemon's parts on a file."""
    world = World(store=SqliteStore(home))
    await world.vault.open()
    await world.audit_log.begin()
    return world


async def unlocked(world: World, passphrase: bytes, *, accept_older: bool = False) -> str:
    """Unlock, and return the reason where that is refused."""
    try:
        await world.vault.unlock(passphrase, world.tree(), accept_older=accept_older, by=None)
        await world.audit_log.ready()
    except BackpackError as error:
        assert state_of(world) is State.LOCKED
        return error.reason
    return ""


async def closed(world: World) -> None:
    if state_of(world) is State.UNLOCKED:
        world.vault.lock(by=None)
    await world.audit_log.close()
    await world.store.close()


async def names(world: World) -> list[str]:
    return sorted([key.name for key in await world.keys.list(lambda _: True)])


async def replaced(world: World) -> None:
    """Take back all that somebody could want to have again."""
    await world.slots.change_passphrase(GOOD, OTHER, world.tree(), by=None)
    for grant in list(world.vault.session().authority.grants):
        await world.standing_grants.remove(grant, by=None)
    await world.access.delete_keys(["K"], by=None)


async def rotated(world: World) -> None:
    """The same, and a new master key."""
    await replaced(world)
    await world.rotation.rotate(lambda _, __: None, by=None)


async def revoked(world: World) -> None:
    """Change the record alone, and without an entry of its own."""
    lease = await world.lease("K")
    world.revocation.lease(lease.id, by=None)
    await world.revocation.keep()


History = Callable[[World], Awaitable[None]]


async def made(path: Path, history: History) -> Files:
    """Make yesterday's file and today's."""
    files = Files(path)
    files.home("today").mkdir(mode=0o700)
    world = World(store=SqliteStore(files.home("today")))
    await world.audit_log.begin()
    await world.unlocked()
    await world.keys.put([("K", b"k"), ("L", b"l")], by=None)
    await world.grant("K", "L")
    files.key = (await world.slots.add("file", b"", world.tree(), by=None)).secret
    await closed(world)
    files.copy("today", "yesterday")
    world = await opened(files.home("today"))
    assert await unlocked(world, GOOD) == ""
    await history(world)
    await closed(world)
    world = await opened(files.home("today"))
    await written(world)
    files.head = world.reading.head
    await closed(world)
    return files


@pytest.mark.parametrize("history", [replaced, rotated])
async def test_no_subset_of_yesterdays_tables_brings_back_what_was_taken_back(
    tmp_path: Path, history: History
) -> None:
    files = await made(tmp_path, history)
    opens = set()
    for older in SUBSETS:
        told = set()
        for passphrase in (GOOD, OTHER):
            home = files.mixed(older)
            world = await opened(home)
            reason = await unlocked(world, passphrase)
            told.add(reason)
            if not reason:
                opens.add(older - SAME)
                whole = older >= set(TABLES) - SAME
                assert (passphrase, await names(world)) == (
                    (GOOD, ["K", "L"]) if whole else (OTHER, ["L"])
                )
                assert bool(world.audit_log.broken_ms) == (older - SAME == {"audit_log"})
                if not whole:
                    with pytest.raises(BackpackError):
                        await world.get("K", "L")
            if "audit_log" in older:
                # With a head that was kept elsewhere, the log of yesterday is always known.
                assert (await verdict(world, files.head)).problem is not None
            await closed(world)
            shutil.rmtree(home)
        assert told <= {*REFUSALS, "wrong-passphrase", ""}, older
        assert told & {*REFUSALS, ""}, older
    everything = frozenset(TABLES) - SAME
    assert opens == {frozenset(), frozenset({"audit_log"}), everything}


async def test_all_but_the_log_is_refused_and_reported_whatever_changed_meanwhile(
    tmp_path: Path,
) -> None:
    """The attack: what was revoked, without a change of keys or slots, is in force again."""
    files = await made(tmp_path, revoked)
    for older in ({"vault"}, {"vault", "slots", "keys"}, {"vault", "audit_keys"}):
        home = files.mixed(older)
        world = await opened(home)
        for expected in (None, files.head):
            problem = (await verdict(world, expected)).problem
            assert problem is not None
            assert "another authority record" in problem.what
        assert await unlocked(world, GOOD) == "vault-stepped-back"
        with pytest.raises(BackpackError):
            await world.get("K")
        for expected in (None, files.head):
            assert (await verdict(world, expected)).problem is not None
        await closed(world)
        shutil.rmtree(home)


async def test_the_operator_says_that_the_older_one_was_meant_and_the_log_says_so(
    tmp_path: Path,
) -> None:
    files = await made(tmp_path, replaced)
    home = files.mixed(set(TABLES) - {"audit_log"})
    world = await opened(home)
    assert await unlocked(world, OTHER, accept_older=True) == "wrong-passphrase"
    assert await unlocked(world, GOOD, accept_older=True) == ""
    assert await names(world) == ["K", "L"]
    entries = await shown(world)
    (accepted,) = [entry for entry in entries if entry.event.kind == "older-accepted"]
    told = [each.event.reason for each in entries if each.number > accepted.number]
    assert ACCEPTED in told
    assert 0 < int(accepted.event.details["older"]) < accepted.event.generation
    assert (await verdict(world, files.head)).problem is None
    await closed(world)
    # Said once, for this copy. It counts for no other one, the newer one among them.
    files.copy("mixed " + "-".join(sorted(set(TABLES) - {"audit_log"})), "accepted")
    world = await opened(files.home("accepted"))
    assert await unlocked(world, GOOD) == ""
    await closed(world)
    shutil.rmtree(home)
    for of in ("today", "yesterday"):
        home = files.mixed({"vault", "slots", "keys"}, base="accepted", of=of)
        world = await opened(home)
        passphrase = OTHER if of == "today" else GOOD
        assert await unlocked(world, passphrase) == "vault-stepped-back"
        await closed(world)
        shutil.rmtree(home)


async def test_what_unlocks_without_a_person_never_accepts_an_older_vault(tmp_path: Path) -> None:
    files = await made(tmp_path, replaced)
    world = await opened(files.mixed({"vault", "slots", "keys"}))
    said = await unlock_unattended(
        world.vault, world.audit_log, "file", lambda: files.key, world.tree()
    )
    assert "older than its audit log" in said
    assert state_of(world) is State.LOCKED
    # Nor where a caller would have it so.
    for kinds in ({"file"}, {"file", *AUTHORIZING}):
        with pytest.raises(DamageError):
            await world.vault.unlock(
                files.key, world.tree(), kinds=kinds, accept_older=True, by=None
            )
    await closed(world)


async def test_a_drill_of_an_older_vault_is_refused_and_does_not_make_it_the_newest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    world = World(store=SqliteStore(path))
    await world.audit_log.begin()
    code = (await world.vault.init(GOOD, world.tree(), recovery=True, by=None)).encode()
    await world.audit_log.ready()
    await closed(world)
    files = Files(tmp_path)
    files.copy("home", "yesterday")
    world = await opened(path)
    await world.recovery.drill(code, world.tree(), by=None)
    assert (await verdict(world)).problem is None
    assert await unlocked(world, GOOD) == ""
    assert not world.audit_log.broken_ms
    await closed(world)
    world = await opened(files.mixed({"vault"}, base="home"))
    with pytest.raises(DamageError):
        await world.recovery.drill(code, world.tree(), by=None)
    assert await unlocked(world, GOOD) == "vault-stepped-back"
    await closed(world)


async def test_a_log_cut_by_the_last_change_alone_is_a_break(tmp_path: Path) -> None:
    """The record knows the place before its own entries, the log's newest word knows the record."""
    files = await made(tmp_path, replaced)
    path = files.home("today") / "vault.db"
    with closing(sqlite3.connect(path)) as connection:
        (last,) = connection.execute(
            "SELECT max(number) FROM audit_log "
            "WHERE kind = 3 AND instr(body, CAST('change' AS BLOB))"
        ).fetchone()
        connection.execute("DELETE FROM audit_log WHERE number >= ?", (last - 1,))
        connection.commit()
    world = await opened(files.home("today"))
    assert (await verdict(world)).problem is not None
    assert await unlocked(world, OTHER) == ""
    assert world.audit_log.broken_ms
    problem = (await verdict(world)).problem
    assert problem is not None
    assert "cut or altered" in problem.what
    await closed(world)


async def test_yesterdays_tables_beside_a_selection_of_todays_rows_do_not_open_unnoticed(
    tmp_path: Path,
) -> None:
    files = await made(tmp_path, replaced)
    with closing(sqlite3.connect(files.home("yesterday") / "vault.db")) as connection:
        (known,) = connection.execute("SELECT max(number) FROM audit_log").fetchone()
    with closing(sqlite3.connect(files.home("today") / "vault.db")) as connection:
        (newest,) = connection.execute("SELECT max(number) FROM audit_log").fetchone()
        (signed,) = connection.execute(
            "SELECT min(number) FROM audit_log WHERE number > ? AND kind = ?", (known, CHECKPOINT)
        ).fetchone()
    # Without one row, without all from one on, and without all signatures from one on.
    selections = [f"number = {row}" for row in range(1, newest + 1)]
    selections += [f"number >= {row}" for row in range(1, newest + 1)]
    selections += [f"number >= {row} AND kind = {CHECKPOINT}" for row in range(1, newest + 1)]
    unnoticed = []
    for selection in selections:
        home = files.mixed(set(TABLES) - {"audit_log"})
        with closing(sqlite3.connect(home / "vault.db", isolation_level=None)) as connection:
            connection.execute(f"DELETE FROM audit_log WHERE {selection}")
        world = await opened(home)
        reason = await unlocked(world, GOOD)
        assert reason in {"", "vault-stepped-back", "audit-keys-changed"}
        if not reason and not world.audit_log.broken_ms:
            unnoticed.append(selection)
        await closed(world)
        shutil.rmtree(home)
    # With the log up to what yesterday's record knows, or a part of what nobody signed after that:
    # all of it is an older copy of the whole.
    assert f"number >= {known + 1}" in unnoticed
    assert set(unnoticed) <= {f"number >= {row}" for row in range(1, signed + 1)}


async def test_a_log_that_was_emptied_when_the_vault_was_new_is_a_break(tmp_path: Path) -> None:
    """Its first record knows no place of the log, only that the log knew it."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    world = World(store=SqliteStore(home))
    await world.audit_log.begin()
    await world.unlocked()
    await closed(world)
    with closing(sqlite3.connect(home / "vault.db")) as connection:
        connection.execute("DELETE FROM audit_log")
        connection.commit()
    world = await opened(home)
    assert await unlocked(world, GOOD) == ""
    assert world.audit_log.broken_ms
    problem = (await verdict(world)).problem
    assert problem is not None
    assert "cut or altered" in problem.what
    await closed(world)


async def test_rows_that_nobody_signed_do_not_keep_the_operator_out(tmp_path: Path) -> None:
    files = await made(tmp_path, replaced)
    home = files.home("today")
    with closing(sqlite3.connect(home / "vault.db")) as connection:
        (body,) = connection.execute(
            "SELECT body FROM audit_log WHERE kind = 3 ORDER BY number DESC LIMIT 1"
        ).fetchone()
        (last,) = connection.execute("SELECT max(number) FROM audit_log").fetchone()
        forged = body.replace(b'"generation":', b'"generation":9')
        assert forged != body
        for number, planted in ((last + 1, body), (last + 2, forged)):
            connection.execute(
                "INSERT INTO audit_log VALUES (?, 3, zeroblob(32), ?)", (number, planted)
            )
        connection.commit()
    world = await opened(home)
    assert await unlocked(world, OTHER) == ""
    assert await names(world) == ["L"]
    await closed(world)


async def test_a_file_that_is_put_back_under_a_locked_daemon_is_known_without_its_log() -> None:
    world = await World().stocked()
    world.vault.lock(by=None)
    await written(world)
    held = world.store
    kept = (held.authority, dict(held.slots), dict(held.keys), dict(held.audit))
    assert await unlocked(world, GOOD) == ""
    await world.access.delete_keys(["K"], by=None)
    world.vault.lock(by=None)
    await written(world)
    held.authority, held.slots, held.keys, held.audit = kept
    assert await unlocked(world, GOOD) == "vault-stepped-back"


@pytest.mark.parametrize("passphrase", [GOOD, None])
async def test_the_check_without_a_daemon_names_an_older_record(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    files = await made(tmp_path, replaced)
    for home, good in (
        (files.mixed({"vault", "slots", "keys"}), False),
        (files.home("today"), True),
    ):
        typed = OTHER if good and passphrase else passphrase
        inspection = Inspection(home)
        world = World()
        try:
            report = await check(inspection, typed, world.stretcher, world.tree())
        finally:
            inspection.close()
        bad = [finding for finding in report.findings if not finding.good]
        assert [finding.part for finding in bad] == ([] if good else ["authority record"])


@pytest.mark.parametrize("turns", range(6))
async def test_what_an_unlock_found_is_not_signed_away_by_a_lock_that_follows_at_once(
    tmp_path: Path, turns: int
) -> None:
    files = await made(tmp_path, replaced)
    for older, accepted, passphrase in (
        ({"audit_log"}, False, OTHER),
        ({"vault", "slots", "keys"}, True, GOOD),
    ):
        home = files.mixed(older)
        world = await opened(home)
        if turns == 0:
            world.vault.on_unlock.append(partial(world.vault.lock, by=None))
        await world.vault.unlock(passphrase, world.tree(), accept_older=accepted, by=None)
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns:
            world.vault.lock(by=None)
        with suppress(BackpackError):
            await world.audit_log.ready()
        await closed(world)
        world = await opened(home)
        reason = await unlocked(world, passphrase)
        if accepted and not reason:
            kinds = [entry.event.kind for entry in await shown(world)]
            assert "older-accepted" in kinds
        elif not accepted:
            assert reason == ""
            problem = (await verdict(world)).problem
            assert problem is not None
            assert "cut or altered" in problem.what
        else:
            assert reason == "vault-stepped-back"
        await closed(world)
        shutil.rmtree(home)
