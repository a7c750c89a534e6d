"""Stored keys: putting, deleting, listing and opening them in an unlocked vault.

The caller checks who may do this. Every row is compared with what the session knows of it. This
finds rows that were changed, put back or removed without the daemon.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import DamageError, KeyExistsError, KeyUnknownError, LimitError
from backpackd.core.names import check_names, check_value
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.sealing.sealing import SALT_SIZE, OpenError
from backpackd.core.vault import records
from backpackd.core.vault.records import KeyHead
from backpackd.ports import Connection, Store

MOST_AT_ONCE = 1000
MOST_STORED = 100_000
_BATCH = 200
_MISSING_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PutResult:
    """What storing keys did, or would have done in a dry run.

    Attributes:
        created: the number of new keys.
        replaced: the number of keys that got a new value.
        skipped: names that were already stored and were not changed.
    """

    created: int
    replaced: int
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """Values that were read, and the rows that they came from. No repr shows them.

    Attributes:
        values: by name.
        heads: of those rows, to notice that a key was deleted or got another value since.
    """

    values: dict[str, bytes] = field(default_factory=dict, repr=False)
    heads: tuple[RowHead, ...] = ()


class Keys:
    """The keys of one vault."""

    def __init__(self, vault: Vault, store: Store) -> None:
        self._vault = vault
        self._store = store

    async def put(
        self,
        values: Sequence[tuple[str, bytes]],
        *,
        by: Connection | None,
        replace: bool = False,
        skip_existing: bool = False,
        dry_run: bool = False,
    ) -> PutResult:
        """Store keys, all or none, durably before this returns.

        Args:
            values: names and values.
            by: whose doing it is.
            replace: give keys that are stored already the new value.
            skip_existing: leave keys that are stored already alone.
            dry_run: decide, and store nothing.

        Raises:
            InvalidRequestError: a name or a value is not valid, or a name appears twice.
            KeyExistsError: one is already stored, and neither `replace` nor `skip_existing` is set.
        """
        names = check_names([name for name, _ in values], most=MOST_AT_ONCE)
        fresh = {name: check_value(value) for name, (_, value) in zip(names, values, strict=True)}
        result = PutResult(0, 0, ())

        async def draft(session: Session) -> Draft | None:
            nonlocal result
            indexes = _indexes(session, names)
            stored = [name for name in names if indexes[name] in session.rows]
            if stored and not replace and not skip_existing:
                raise KeyExistsError(
                    f"{len(stored)} of the {len(names)} keys are already stored: to give them the "
                    "new value, put them with replace"
                )
            skipped = tuple(stored) if not replace else ()
            replaced = 0 if skipped else len(stored)
            chosen = [name for name in names if name not in skipped]
            result = PutResult(len(chosen) - replaced, replaced, skipped)
            if len(session.rows) + result.created > MOST_STORED:
                raise LimitError(f"a vault holds at most {MOST_STORED} keys: delete some first")
            if dry_run or not chosen:
                return None
            since = await self._created(
                session, {indexes[name]: name for name in stored if replaced}
            )
            now_ms = self._vault.now_ms()
            rows = []
            with session.open_master() as master:
                for name in chosen:
                    before = session.rows.get(indexes[name])
                    row = records.seal_row(
                        master,
                        vault_id=session.vault_id,
                        head=KeyHead(name, since.get(indexes[name], now_ms), now_ms),
                        value=fresh[name],
                        version=before.version + 1 if before else 1,
                        salts=(secrets.token_bytes(SALT_SIZE), secrets.token_bytes(SALT_SIZE)),
                    )
                    rows.append(row)
            event = AuditEvent("put", now_ms, names=tuple(chosen))
            return Draft(session.authority.next(now_ms), put=rows, events=(event,))

        await self._vault.change(draft, by=by)
        return result

    async def delete(
        self,
        wanted: Sequence[str],
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Delete keys, all or none, durably before it returns.

        Args:
            wanted: the names.
            then: see `Vault.change`.
            by: whose doing it is.

        Raises:
            KeyUnknownError: one is not stored.
        """
        names = check_names(list(wanted), most=MOST_AT_ONCE)

        async def draft(session: Session) -> Draft:
            heads = [session.rows.get(index) for index in _indexes(session, names).values()]
            found = [head for head in heads if head is not None]
            if len(found) < len(names):
                raise KeyUnknownError(
                    f"{len(names) - len(found)} of the {len(names)} keys are not stored: nothing "
                    "was deleted"
                )
            now_ms = self._vault.now_ms()
            event = AuditEvent("deleted", now_ms, names=tuple(names))
            return Draft(session.authority.next(now_ms), delete=found, events=(event,))

        await self._vault.change(draft, then, by=by)

    async def list(self, wanted: Callable[[str], bool]) -> list[KeyHead]:
        """Return the heads of the keys whose names are wanted, in order of their names.

        Raises:
            DamageError: a row is not what was sealed.
        """
        session = self._vault.session()
        while True:
            async with self._vault.steady():
                session.check()
                stored = await self._store.sealed_heads()
                if {row.index: row for row, _ in stored} != session.rows:
                    raise _damaged("a key")
                epoch = session.epoch
            found = await self._opened(session, epoch, stored, wanted)
            if found is not None:
                return sorted(found, key=lambda head: head.name)

    async def _opened(
        self,
        session: Session,
        epoch: int,
        stored: Sequence[tuple[RowHead, bytes]],
        wanted: Callable[[str], bool],
    ) -> Sequence[KeyHead] | None:
        """Open the heads of rows; None if another master key has replaced this one."""
        found = []
        for start in range(0, len(stored), _BATCH):
            # Serve other calls in between: ten thousand rows take a good part of a second.
            await asyncio.sleep(0)
            if session.epoch != epoch:
                return None
            with session.open_master() as master:
                for row, sealed in stored[start : start + _BATCH]:
                    try:
                        head = records.open_head(
                            master, vault_id=session.vault_id, row=row, sealed=sealed
                        )
                    except OpenError as error:
                        raise _damaged("a key") from error
                    if wanted(head.name):
                        found.append(head)
        return found

    async def heads(self, names: Sequence[str]) -> Sequence[KeyHead]:
        """Return the heads of the given keys that are stored, in order of their names.

        This reads no other row.

        Raises:
            DamageError: a row is not what the vault wrote last.
        """
        session = self._vault.session()
        while True:
            epoch = session.epoch
            try:
                found = await self._heads(session, names)
            except DamageError:
                # The rows were read during a rotation, see `open`.
                async with self._vault.steady():
                    if session.epoch == epoch:
                        raise
            else:
                # Under another master key, the same names have other places.
                if session.epoch == epoch:
                    return found

    async def _heads(self, session: Session, names: Sequence[str]) -> Sequence[KeyHead]:
        indexes = {
            name: index for name, index in _indexes(session, names).items() if index in session.rows
        }
        expected = {index: session.rows[index] for index in indexes.values()}
        rows = await self._store.rows(expected) if expected else {}
        found = []
        with session.open_master() as master:
            for name in sorted(indexes):
                index = indexes[name]
                now = session.rows.get(index)
                if now is None:
                    # It was deleted during the read. That is not damage.
                    continue
                row = _genuine(rows.get(index), {expected[index], now}, name)
                found.append(_head(master, session, row, name))
        return found

    def missing(self, names: Sequence[str]) -> Sequence[str]:
        """Return the given keys that are not stored, in the given order."""
        session = self._vault.session()
        indexes = _indexes(session, names)
        return [name for name in names if indexes[name] not in session.rows]

    def require(self, session: Session, names: Sequence[str]) -> None:
        """Raise unless all these keys are stored.

        Raises:
            KeyUnknownError: one is not.
        """
        _require(session, _indexes(session, names))

    def are_current(self, session: Session, opened: Opened) -> bool:
        """Tell whether the keys still have the values that were read, in the same rows.

        A key that was deleted may be stored again by now, with another value.
        """
        return all(session.rows.get(head.index) == head for head in opened.heads)

    async def open(self, session: Session, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of keys, as `read` does."""
        return (await self.read(session, names)).values

    async def read(self, session: Session, names: Sequence[str]) -> Opened:
        """Read the values of keys, all or none.

        Args:
            session: the session in which the caller decided; the names are checked.
            names: the keys.

        Raises:
            KeyUnknownError: one is not stored.
            DamageError: a row is not what the vault wrote last.
        """
        while True:
            epoch = session.epoch
            try:
                return await self._read(session, names)
            except (DamageError, KeyUnknownError):
                # The rows were read during a rotation, which changes their places and seals.
                async with self._vault.steady():
                    if session.epoch == epoch:
                        raise

    async def _read(self, session: Session, names: Sequence[str]) -> Opened:
        indexes = _indexes(session, names)
        _require(session, indexes)
        expected = {index: session.rows[index] for index in indexes.values()}
        rows = await self._store.rows(expected)
        values = {}
        heads = []
        with session.open_master() as master:
            # One may have been deleted during the read. That is not damage.
            _require(session, indexes)
            for name in names:
                index = indexes[name]
                row = _genuine(rows.get(index), {expected[index], session.rows[index]}, name)
                heads.append(row.row_head)
                try:
                    values[name] = records.open_value(master, vault_id=session.vault_id, row=row)
                except OpenError as error:
                    raise _damaged(name) from error
        return Opened(values, tuple(heads))

    async def _created(self, session: Session, names: Mapping[bytes, str]) -> dict[bytes, int]:
        """Return when keys were first stored, for those that get a new value.

        A row that is not genuine is found here, before it is overwritten.
        """
        rows = await self._store.rows(names)
        since = {}
        with session.open_master() as master:
            for index, name in names.items():
                row = _genuine(rows.get(index), {session.rows[index]}, name)
                since[index] = _head(master, session, row, name).created_at_ms
        return since


def _head(master: memoryview, session: Session, row: KeyRow, name: str) -> KeyHead:
    try:
        return records.open_head(
            master, vault_id=session.vault_id, row=row.row_head, sealed=row.head
        )
    except OpenError as error:
        raise _damaged(name) from error


def _indexes(session: Session, names: Sequence[str]) -> dict[str, bytes]:
    session.check()
    found = {name: session.indexes[name] for name in names if name in session.indexes}
    if len(found) < len(names):
        with session.open_master() as master:
            for name in names:
                if name not in found:
                    found[name] = records.row_index(master, session.vault_id, name)
                    # Only for stored keys: any caller may ask for names that do not exist.
                    if found[name] in session.rows:
                        session.indexes[name] = found[name]
    return found


def _require(session: Session, indexes: Mapping[str, bytes]) -> None:
    missing = [name for name, index in indexes.items() if index not in session.rows]
    if missing:
        raise KeyUnknownError(
            f"{len(missing)} of the {len(indexes)} keys are not stored",
            facts={"missing": " ".join(missing[:_MISSING_SHOWN])},
        )


def _genuine(row: KeyRow | None, known: AbstractSet[RowHead], name: str) -> KeyRow:
    """Return the given row if it is one that the vault wrote last.

    Args:
        row: as read from the store.
        known: the rows that the session knew before and after the read. A put may have happened
            in between, so both are good.
        name: of the key, which the caller knows to exist.
    """
    if row is None or row.row_head not in known:
        raise _damaged(name)
    return row


def _damaged(what: str) -> DamageError:
    return DamageError(
        f"the stored row of {what} is not the one that the vault wrote: it was changed, put back "
        "or removed without the daemon; restore the vault from a backup",
        reason="row-changed",
    )
