"""Reading and verifying the audit log page by page, while the daemon continues to serve.

Verifying needs no passphrase and opens nothing. Reading opens entries with the vault's private
audit keys, which exist only while the vault is unlocked. The caller checks who may read.

A row that was altered or removed may have contained anything. So no filter leaves it out: an
answer that may be incomplete must never look complete.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.vault.session import Session
from backpackd.core.audit import chain, ratchet
from backpackd.core.audit.chain import ChainError, Checkpoint, Head, Header
from backpackd.core.audit.events import AuditEvent, EventError
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.audit.verify import Known, Problem, Verifier
from backpackd.core.errors import DamageError
from backpackd.core.rows import AuditRow
from backpackd.core.sealing.sealing import OpenError
from backpackd.ports import Store

DAMAGED = "damaged"
"""The event for an entry about which nothing is known, not even its time."""
_LEAST = -(2**63)
"""Below every possible number of a row: somebody may have planted one before the first."""
_PAGE = 200
"""Rows that are processed before other calls get their turn: a few milliseconds of work."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries to return, besides the damaged ones. An empty value or 0 does not filter.

    Attributes:
        name: of a key that the entry names.
        pid: of the process, or of the root of its tree.
        kinds: of events.
        since_ms: not before this time, in Unix milliseconds.
        until_ms: not after this time.
        newest: only so many, from the end; damaged ones among them are not counted.
    """

    name: str = ""
    pid: int = 0
    kinds: frozenset[str] = frozenset()
    since_ms: int = 0
    until_ms: int = 0
    newest: int = 0

    def wants(self, event: AuditEvent) -> bool:
        """Return whether the filter selects an event."""
        who = event.who
        return (
            (not self.kinds or event.kind in self.kinds)
            and (not self.name or self.name in event.names)
            and (not self.pid or (who is not None and self.pid in {who.pid, who.root_pid}))
            and event.at_ms >= self.since_ms
            and (not self.until_ms or event.at_ms <= self.until_ms)
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log that was read.

    Attributes:
        number: of the row.
        event: its content. For a checkpoint it is `checkpoint`. It is `damaged` if the row does not
            open, is not the row that its neighbours know, or is missing.
    """

    number: int
    event: AuditEvent

    @property
    def damaged(self) -> bool:
        """Whether its content is lost."""
        return self.event.kind == DAMAGED


@dataclass(frozen=True, slots=True)
class Verified:
    """The progress of a verification, and at the end its result.

    Attributes:
        checked: how many rows were checked.
        total: the number of rows.
        done: whether this is the end. Only then the rest has a meaning.
        head: the end of the log.
        signed: number of the last row that a signature covers; 0 for none.
        vouched: number of the last row that is confirmed in any way; 0 for none.
        anchor: what the result relies on, a stable word: `vault`, `file` or `expected`.
        problem: the first fault. A break before an expected head does not count.
        broken: a break that the vault recorded: the first one after the expected head, or the last
            one before it.
        later: the first fault after it.
    """

    checked: int
    total: int
    done: bool = False
    head: Head = Head()  # noqa: RUF009 - frozen, and without arguments it is the empty log's
    signed: int = 0
    vouched: int = 0
    anchor: str = ""
    problem: Problem | None = None
    broken: Problem | None = None
    later: Problem | None = None


class AuditReader:
    """Reads the audit log of one vault."""

    def __init__(self, store: Store, audit_log: AuditLog) -> None:
        self._store = store
        self._audit_log = audit_log

    @property
    def head(self) -> Head:
        """The end of the log."""
        return self._audit_log.writer.head

    async def entries(self, session: Session, wanted: Filter) -> AsyncIterator[Entry]:
        """Open the entries that match, oldest first.

        Raises:
            LockedError: the vault was locked during this.
            DamageError: the private audit keys do not open.
        """
        if not wanted.newest:
            async for entry in self._matching(session, wanted):
                yield entry
            return
        kept: deque[Entry] = deque(maxlen=wanted.newest)
        damaged: deque[Entry] = deque(maxlen=wanted.newest)
        async for entry in self._matching(session, wanted):
            (damaged if entry.damaged else kept).append(entry)
        # Damaged entries older than all shown ones were not asked for, whatever they contained.
        oldest = kept[0].number if len(kept) == wanted.newest else 0
        among = [entry for entry in damaged if entry.number > oldest]
        for entry in sorted([*kept, *among], key=lambda entry: entry.number):
            yield entry

    async def _matching(self, session: Session, wanted: Filter) -> AsyncIterator[Entry]:
        reader, end = _Reader(session), self.head
        async for page in self._pages(0, end.number):
            for row in page:
                for entry in reader.read(row):
                    if entry.damaged or wanted.wants(entry.event):
                        yield entry
        for entry in reader.finish(end):
            yield entry

    async def verify(self, expected: Head | None) -> AsyncIterator[Verified]:
        """Verify the whole log.

        Args:
            expected: a head that was kept elsewhere.
        """
        writer = self._audit_log.writer
        total, own = writer.head.number, writer.own
        if writer.public is None:
            problem = None
            if expected is not None or total:
                problem = Problem(1, "is missing: the vault file contains no audit log")
            yield Verified(0, 0, done=True, problem=problem)
            return
        known = [Known(writer.head, "the running daemon")]
        if expected is not None:
            known.append(Known(expected, "the keeper of the expected head"))
        reached = expected.number if expected is not None else 0
        # Somebody who kept a head from after a break knows of the break.
        verifier = Verifier(writer.vault_id, writer.public.verify, known, accepted=reached)
        async for page, record in self._settled_pages():
            for row in page:
                verifier.feed(row)
            if record is not None:
                verifier.hold_record(record)
                break
            total = max(total, verifier.head.number)
            yield Verified(verifier.head.number, total)
        problem = verifier.finish()
        if self._audit_log.verified:
            # Before an unlock, anybody who can write the file could have put their own key there.
            reached = max(reached, verifier.signed)
        if own and reached and own <= reached + 1:
            # This daemon wrote the rest, and remembers its end.
            reached = verifier.head.number
        yield Verified(
            verifier.head.number,
            total,
            done=True,
            head=verifier.head,
            signed=verifier.signed,
            vouched=reached,
            anchor=self._anchor(expected),
            problem=problem,
            broken=verifier.broken,
            later=verifier.later,
        )

    def _anchor(self, expected: Head | None) -> str:
        if self._audit_log.verified:
            return "vault"
        return "file" if expected is None else "expected"

    async def _settled_pages(self) -> AsyncIterator[tuple[list[AuditRow], bytes | None]]:
        """Read the log, and last, without rows, the authority record at its end.

        A change stores a record and its rows in one step. So if the record is read first, and no
        further row is found after that, the rows so far belong to this record.
        """
        after, record = _LEAST, None
        while True:
            page = await self._store.audit_rows(after, _PAGE)
            if not page and record is not None:
                yield [], record
                return
            if page:
                yield page, None
                after = page[-1].number
            if len(page) < _PAGE:
                stored = await self._store.load()
                record = stored.authority if stored is not None else b""
            await asyncio.sleep(0)

    async def _pages(self, after: int, last: int) -> AsyncIterator[list[AuditRow]]:
        while after < last:
            page = await self._store.audit_rows(after, _PAGE)
            if not page:
                return
            yield [row for row in page if row.number <= last]
            after = page[-1].number
            await asyncio.sleep(0)


class _Reader:
    """Opens rows in order, because the ratchet must be advanced through every row of a segment.

    An entry opens only with the hash of the row before it. So each entry proves its predecessor,
    even if somebody put another readable row there.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._state: bytes | None = None
        self._before = Head()
        self._doubted = 0

    def read(self, row: AuditRow) -> list[Entry]:
        """Return the content of a row, after any damage before it that it reveals.

        The header of a segment has no content to show. The checkpoint of a change has none, either.
        """
        event = self._event(row)
        bad = event is not None and event.kind == DAMAGED
        # If a row does not open, what it says of the row before it is worth nothing.
        told = self._gap(row.number, None if bad else row.previous)
        self._before = chain.head_of(self._session.vault_id, row)
        if event is not None:
            told.append(Entry(row.number, event))
        if bad:
            self._doubted = row.number
        return told

    def finish(self, end: Head) -> list[Entry]:
        """Return the damage before the end of the log, as the daemon knows this end."""
        return self._gap(end.number + 1, end.digest)

    def _gap(self, number: int, previous: bytes | None) -> list[Entry]:
        """Compare the row before `number` with its hash. Many missing rows are reported as one."""
        before = self._before
        if number != before.number + 1:
            return [_damaged(before.number + 1)]
        if previous in {None, before.digest} or before.number in {0, self._doubted}:
            return []
        return [_damaged(before.number)]

    def _event(self, row: AuditRow) -> AuditEvent | None:
        if row.kind == chain.HEADER:
            self._state = self._first(row)
            return None if self._state is not None else AuditEvent(DAMAGED, 0)
        state, self._state = self._state, self._state and ratchet.advance(self._state)
        try:
            if row.kind == chain.CHECKPOINT:
                checkpoint = Checkpoint.decode(row.body)
                # A checkpoint of a change adds nothing to the entry of the change.
                return _told(checkpoint) if checkpoint.why != chain.CHANGE else None
            if state is None:
                return AuditEvent(DAMAGED, 0)
            opened = ratchet.open_entry(
                state,
                row.body,
                vault_id=self._session.vault_id,
                number=row.number,
                previous=row.previous,
            )
            return AuditEvent.decode(opened)
        except (OpenError, EventError, ChainError, OverflowError):
            return AuditEvent(DAMAGED, 0)

    def _first(self, row: AuditRow) -> bytes | None:
        anchor = self._session.authority.audit
        try:
            header = Header.decode(row.body)
            assert anchor is not None
            with self._session.open_master() as master:
                keys = AuditKeys.open(master, self._session.vault_id, anchor.keys)
        except ChainError:
            return None
        except OpenError as error:
            raise DamageError(
                "the audit keys in the authority record do not open", reason="authority-damaged"
            ) from error
        try:
            return ratchet.unwrap(
                header.wrap,
                keys.private,
                vault_id=self._session.vault_id,
                segment=header.segment,
                fingerprint=header.keys,
            )
        except OpenError:
            # Wrapped to somebody else's key. A verification says what is wrong with it.
            return None


def _damaged(number: int) -> Entry:
    return Entry(number, AuditEvent(DAMAGED, 0))


def _told(checkpoint: Checkpoint) -> AuditEvent:
    details = {"known": checkpoint.known} if checkpoint.known else {}
    return AuditEvent("checkpoint", checkpoint.at_ms, reason=checkpoint.why, details=details)
