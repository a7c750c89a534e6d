"""Backups of one moment of the vault, and their import into a vault, all or nothing.

A backup is written to a spool while changes wait. This takes only as long as sealing it. It is sent
after that, so a slow reader blocks nobody. It is read twice, first to verify all of it. The caller
checks who may do this.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence, Sized
from dataclasses import dataclass, field, replace

from backpackd.application.access.grants import event as grant_event
from backpackd.application.access.policy import told
from backpackd.application.vault.session import Draft, Session
from backpackd.application.vault.vault import Vault
from backpackd.core.access.grants import Grant, check_room
from backpackd.core.access.policy import Policy
from backpackd.core.audit.events import MOST_NAMES, AuditEvent
from backpackd.core.backup import backup, backup_contents
from backpackd.core.backup.backup import Header, Opener, PassphraseWay, Sealer, Way
from backpackd.core.backup.backup_contents import Reader, Record, StoredKey, Summary
from backpackd.core.errors import (
    BackupError,
    DamageError,
    InvalidRequestError,
    KeyExistsError,
    LimitError,
    WrongPassphraseError,
)
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.sealing import canonical
from backpackd.core.sealing.sealing import SALT_SIZE, OpenError
from backpackd.core.slots import passphrases, slots
from backpackd.core.vault import records
from backpackd.core.vault.records import KeyHead
from backpackd.ports import Connection, Spool, Store, Stretcher

KEEP, REPLACE, FAIL = "keep", "replace", "fail"
RULES = (KEEP, REPLACE, FAIL)
"""What happens to a key that is already stored."""
_READ = 200
_SLICE = 20

Spooling = Callable[[], Spool]
Identity = Callable[[Session], Sequence[bytes]]
"""Returns the private keys to which a backup for this vault may have been sealed."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A backup that is ready to be sent.

    Attributes:
        keys: the number of keys in it.
        grants: the number of grants in it.
        spool: the file, for the receiver to close.
        file_key: opens it.
    """

    keys: int
    grants: int
    spool: Spool
    file_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """How to import a backup.

    Attributes:
        passphrase: of the backup; empty: it was sealed to this vault.
        on_conflict: one of `RULES`.
        dry_run: decide, but store nothing.
        with_grants: also import grants and policy.
    """

    passphrase: bytes = field(repr=False)
    on_conflict: str = FAIL
    dry_run: bool = False
    with_grants: bool = False


@dataclass(slots=True)
class Imported:
    """What an import did, or would have done in a dry run.

    Attributes:
        header: the backup's header.
        created: the number of new keys.
        replaced: the number of keys that got the backup's value.
        kept: the number of stored keys that kept their value.
        grants: those in the backup, except `tree:` grants, whose processes are gone.
        policy: the one in the backup.
        grants_added: the number of imported grants.
    """

    header: Header
    created: int = 0
    replaced: int = 0
    kept: int = 0
    grants: list[Grant] = field(default_factory=list)
    policy: Policy = field(default_factory=Policy)
    grants_added: int = 0


class Backup:
    """Writes and reads backups of one vault.

    Attributes:
        on_policy: called when a backup's policy was taken over, with the sealed one before it and
            with whose doing it is.
    """

    def __init__(
        self,
        vault: Vault,
        store: Store,
        stretcher: Stretcher,
        spooling: Spooling,
        identity: Identity = lambda _: (),
    ) -> None:
        self._vault = vault
        self._store = store
        self._stretcher = stretcher
        self.spooling = spooling
        self._identity = identity
        self.on_policy: list[Callable[[Policy, Connection | None], None]] = []

    async def export(
        self,
        passphrase: bytes,
        recipients: Sequence[bytes],
        tree: ProcessId,
        *,
        by: Connection | None,
    ) -> Exported:
        """Write a backup of this moment to a spool.

        Args:
            passphrase: opens the backup; empty: it is only for recipients.
            recipients: public keys.
            tree: whose turn the stretching takes.
            by: whose doing it is.

        Raises:
            InvalidRequestError: nobody could open it, or the passphrase is too weak.
            DamageError: a row is not what the vault wrote.
            DiskFullError: there is no room for it.
        """
        session = self._vault.session()
        file_key = secrets.token_bytes(backup.FILE_KEY_SIZE)
        check_recipients(recipients)
        if not passphrase and not recipients:
            raise InvalidRequestError("a backup needs a passphrase or a recipient")
        ways: list[Way] = [backup.recipient_way(file_key, public) for public in recipients]
        if passphrase:
            normal = passphrases.check_new(passphrase)
            stretching = slots.rfc_9106_low_memory(secrets.token_bytes(16))
            secret = await self._stretcher.stretch(normal, stretching, tree)
            ways.append(backup.passphrase_way(file_key, secret, stretching))
        return await self._write(session, file_key, ways, "exported", by)

    async def export_plain(self, *, by: Connection | None) -> Exported:
        """Write a backup whose only key is in memory: for sending it in plain, see `plain`."""
        file_key = secrets.token_bytes(backup.FILE_KEY_SIZE)
        # A passphrase that nobody has: the format does not allow a file without one.
        stretching = slots.rfc_9106_low_memory(secrets.token_bytes(16))
        way = backup.passphrase_way(file_key, secrets.token_bytes(32), stretching)
        return await self._write(self._vault.session(), file_key, [way], "exported-in-plain", by)

    async def plain(self, exported: Exported) -> AsyncIterator[bytes]:
        """Yield the keys of an `export_plain` backup in plain, as lines of JSON."""
        opener = Opener()
        async for record in _records(exported.spool, opener, exported.file_key):
            if isinstance(record, StoredKey):
                yield _line(record)

    async def _write(
        self,
        session: Session,
        file_key: bytes,
        ways: Sequence[Way],
        act: str,
        by: Connection | None,
    ) -> Exported:
        spool = self.spooling()
        names: list[str] = []
        try:
            # Nothing changes during this, so the backup is a state that existed.
            async with self._vault.steady():
                session.check()
                record, heads = session.authority, list(session.rows.values())
                header = Header(session.vault_id, self._vault.now_ms(), tuple(ways))
                sealer = Sealer(file_key, header)
                await spool.append(sealer.head)
                first: list[Record] = [Summary(len(heads), len(record.grants)), record.policy]
                first += record.grants.values()
                for each in first:
                    await _append(spool, sealer.add(backup_contents.encode(each)))
                for start in range(0, len(heads), _READ):
                    names += await self._write_keys(
                        session, heads[start : start + _READ], sealer, spool
                    )
                end = sealer.add(backup_contents.encode_end())
                await spool.append(end + sealer.finish())
            await self._record(session, act, names, by)
        except BaseException:
            spool.close()
            raise
        return Exported(len(heads), len(record.grants), spool, file_key)

    async def _record(
        self, session: Session, act: str, names: Sequence[str], by: Connection | None
    ) -> None:
        """Say in the audit log which keys are about to leave, durably, before any does."""
        now_ms = self._vault.now_ms()
        parts = [names[at : at + MOST_NAMES] for at in range(0, len(names), MOST_NAMES)] or [()]
        events = [
            AuditEvent("operator-act", now_ms, names=tuple(part), reason=act) for part in parts
        ]

        async def draft(now: Session) -> Draft:
            session.check()
            return Draft(now.authority.next(now_ms), events=events)

        await self._vault.change(draft, by=by)

    async def _write_keys(
        self, session: Session, heads: Sequence[RowHead], sealer: Sealer, spool: Spool
    ) -> list[str]:
        names = []
        rows = await self._store.rows([head.index for head in heads])
        for at in range(0, len(heads), _SLICE):
            # Serve other calls in between.
            await asyncio.sleep(0)
            sealed = b""
            with session.open_master() as master:
                for head in heads[at : at + _SLICE]:
                    key = open_key(master, session.vault_id, rows.get(head.index), head)
                    sealed += sealer.add(backup_contents.encode(key))
                    names.append(key.head.name)
            await _append(spool, sealed)
        return names

    async def take(
        self, spool: Spool, terms: Terms, tree: ProcessId, *, by: Connection | None
    ) -> Imported:
        """Take the keys of a backup into the vault, all or none.

        Args:
            spool: the whole file.
            terms: how.
            tree: whose turn the stretching takes.
            by: whose doing it is.

        Raises:
            BackupError: it is not a backup, or not what was written.
            WrongPassphraseError: the passphrase is not the backup's.
            KeyExistsError: a key is already stored, and the rule is to fail.
            LimitError: there would be too many keys or grants.
        """
        if terms.on_conflict not in RULES:
            raise InvalidRequestError("choose what happens to keys that are already stored")
        session = self._vault.session()
        opener = Opener()
        header = await _header(spool, opener)
        file_key = await self._file_key(session, header, terms, tree)
        # All of it is verified before any part is used.
        found = Imported(header)
        async for record in _records(spool, Opener(), file_key):
            if isinstance(record, Grant) and record.selector.process is None:
                found.grants.append(record)
            elif isinstance(record, Policy):
                found.policy = record
        result, before = found, session.authority.policy

        async def draft(now: Session) -> Draft | None:
            nonlocal result, before
            before = now.authority.policy
            result = replace(found)
            return await self._draft(now, spool, file_key, result, terms)

        def then() -> None:
            if terms.with_grants:
                for callback in self.on_policy:
                    callback(before, by)

        await self._vault.change(draft, then, by=by, sets_aside=True)
        return result

    async def _file_key(
        self, session: Session, header: Header, terms: Terms, tree: ProcessId
    ) -> bytes:
        if terms.passphrase:
            normal = passphrases.normalise(terms.passphrase)
            for way in header.ways:
                if isinstance(way, PassphraseWay):
                    secret = await self._stretcher.stretch(normal, way.stretching, tree)
                    opened = backup.open_by_secret(way, secret)
                    if opened is not None:
                        return opened
            raise WrongPassphraseError("this passphrase does not open the backup")
        for private in self._identity(session):
            for way in header.ways:
                if not isinstance(way, PassphraseWay):
                    opened = backup.open_by_private(way, private)
                    if opened is not None:
                        return opened
        raise BackupError(
            "this backup was not sealed to this vault: give the passphrase that it was sealed with",
            reason="backup-not-for-us",
        )

    async def _draft(
        self, session: Session, spool: Spool, file_key: bytes, result: Imported, terms: Terms
    ) -> Draft | None:
        heads: list[RowHead] = []
        names: list[str] = []
        waiting: list[KeyRow] = []
        conflicts = 0
        async for record in _records(spool, Opener(), file_key):
            if not isinstance(record, StoredKey):
                continue
            row, before = _sealed(session, record)
            if before is not None and terms.on_conflict != REPLACE:
                conflicts += 1
                continue
            result.replaced += before is not None
            result.created += before is None
            heads.append(row.row_head)
            names.append(record.head.name)
            waiting.append(row)
            if len(waiting) >= _READ and not terms.dry_run:
                await self._store.set_aside(waiting)
                waiting = []
                session.check()
        if conflicts and terms.on_conflict == FAIL:
            raise KeyExistsError(
                f"{conflicts} keys of the backup are already stored: choose whether to keep or "
                "to replace their values"
            )
        result.kept = conflicts
        if len(session.rows) + result.created > backup_contents.MOST_KEYS:
            raise LimitError(f"a vault holds at most {backup_contents.MOST_KEYS} keys")
        now_ms = self._vault.now_ms()
        changes, acts = _taken_over(session, result, terms, now_ms)
        if terms.dry_run or not (heads or changes):
            return None
        if waiting:
            await self._store.set_aside(waiting)
        events = [
            AuditEvent("put", now_ms, names=tuple(names[at : at + MOST_NAMES]), reason="imported")
            for at in range(0, len(names), MOST_NAMES)
        ]
        return Draft(
            session.authority.next(now_ms, **changes), aside=heads, events=[*events, *acts]
        )


def open_key(
    master: memoryview | bytes, vault_id: bytes, row: KeyRow | None, known: RowHead
) -> StoredKey:
    """Open a complete stored key.

    Raises:
        DamageError: it is not the row that the vault wrote.
    """
    if row is not None and row.row_head == known:
        try:
            head = records.open_head(master, vault_id=vault_id, row=known, sealed=row.head)
            return StoredKey(head, records.open_value(master, vault_id=vault_id, row=row))
        except OpenError:
            pass
    raise DamageError(
        "the stored row of a key is not the one that the vault wrote: nothing was exported; stop "
        "the daemon, and run backpackd --check to find the row and to save the other keys",
        reason="row-changed",
    )


def describe_grant(grant: Grant) -> str:
    """Describe for people what a grant allows."""
    ends = "" if grant.expires_at_ms is None else ", for a time"
    uses = "" if grant.uses_left is None else f", {grant.uses_left} uses"
    return f"{' '.join(grant.patterns)} to {grant.selector.text}, {grant.max_ttl} s{uses}{ends}"


def describe_policy(policy: Policy) -> list[str]:
    """Describe a policy for people."""
    rules = [
        f"deny {' '.join(rule.patterns)} to {rule.selector.text if rule.selector else 'everybody'}"
        for rule in policy.deny
    ]
    return [
        f"default {policy.default}",
        f"listing {policy.listing}",
        f"max ttl {policy.max_ttl} s",
        *rules,
    ]


def _sealed(session: Session, key: StoredKey) -> tuple[KeyRow, RowHead | None]:
    with session.open_master() as master:
        index = records.row_index(master, session.vault_id, key.head.name)
        before = session.rows.get(index)
        row = records.seal_row(
            master,
            vault_id=session.vault_id,
            head=KeyHead(key.head.name, key.head.created_at_ms, key.head.updated_at_ms),
            value=key.value,
            version=before.version + 1 if before else 1,
            salts=(secrets.token_bytes(SALT_SIZE), secrets.token_bytes(SALT_SIZE)),
        )
    return row, before


def check_recipients(recipients: Sized) -> None:
    """Raise if there are too many recipients. Called before any of them is parsed.

    Raises:
        InvalidRequestError: there are too many.
    """
    if len(recipients) > backup.MAX_RECIPIENTS:
        raise InvalidRequestError(f"at most {backup.MAX_RECIPIENTS} recipients at a time")


def _taken_over(
    session: Session, result: Imported, terms: Terms, now_ms: int
) -> tuple[dict[str, object], list[AuditEvent]]:
    """Return what a backup changes besides keys, and what is to be recorded of it.

    What is as in the backup already is no change, and not recorded as one.
    """
    changes: dict[str, object] = {}
    acts: list[AuditEvent] = []
    if not terms.with_grants:
        return changes, acts
    new = [grant for grant in result.grants if grant.id not in session.authority.grants]
    check_room([*session.authority.grants.values(), *new])
    result.grants_added = len(new)
    if new:
        changes["grants"] = session.authority.with_grants(new)
        acts += [grant_event("granted", grant, now_ms) for grant in new]
    if result.policy != session.authority.policy:
        changes["policy"] = result.policy
        acts.append(
            AuditEvent("policy-changed", now_ms, reason="imported", details=told(result.policy))
        )
    return changes, acts


async def _append(spool: Spool, data: bytes) -> None:
    if data:
        await spool.append(data)


async def _header(spool: Spool, opener: Opener) -> Header:
    async for piece in spool.pieces():
        opener.feed(piece)
        if opener.header is not None:
            return opener.header
    raise BackupError("this backup is cut short: find a complete copy", reason="backup-truncated")


async def _records(spool: Spool, opener: Opener, file_key: bytes) -> AsyncIterator[Record]:
    """Yield the records of a backup. Its end is verified before the iteration ends."""
    reader, locked, count = Reader(), True, 0
    async for piece in spool.pieces():
        plain = opener.feed(piece)
        if locked and opener.header is not None:
            opener.unlock(file_key)
            locked = False
            plain = opener.feed(b"")
        for record in reader.feed(plain):
            yield record
            count += 1
            if count % _SLICE == 0:
                # Serve other calls in between.
                await asyncio.sleep(0)
    for record in reader.feed(opener.finish()):
        yield record
    reader.finish()


def _line(key: StoredKey) -> bytes:
    try:
        value = {"value": key.value.decode("utf-8")}
    except UnicodeDecodeError:
        value = {"value_base64": canonical.to_text(key.value)}
    return json.dumps({"name": key.head.name, **value}).encode("ascii") + b"\n"
