"""Reading and verifying the audit log: page by page, while the daemon goes on serving.

Verifying needs no passphrase and opens nothing. Reading opens entries with the vault's private
audit keys, which only an unlocked vault has; who may read is not decided here.

A row that was altered or is gone may have held anything, so no filter leaves it out: an answer that
may lack something never reads like one that is whole.
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
"""The event that an entry is shown as of which nothing can be told, not even when it was."""
_LEAST = -(2**63)
"""Below every number that a row can have: somebody may have planted one in front of the first."""
_PAGE = 200
"""Rows that are looked at before others get their turn: some milliseconds of work."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted, besides the damaged. What is empty or 0 does not matter.

    Attributes:
        name: of a key that the entry names.
        pid: of the process, or of the root of its tree.
        kinds: of events.
        since_ms: not before, Unix milliseconds.
        until_ms: not after.
        newest: only so many, from the end; damaged ones among them are not counted.
    """

    name: str = ""
    pid: int = 0
    kinds: frozenset[str] = frozenset()
    since_ms: int = 0
    until_ms: int = 0
    newest: int = 0

    def wants(self, event: AuditEvent) -> bool:
        """Tell whether an event is wanted."""
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
    """One row of the log, read.

    Attributes:
        number: of the row.
        event: what it says; of a checkpoint `checkpoint`, and `damaged` where it does not open, is
            not the one that its neighbours know, or is missing.
    """

    number: int
    event: AuditEvent

    @property
    def damaged(self) -> bool:
        """Whether what it said cannot be told."""
        return self.event.kind == DAMAGED


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a verification has come, and at its end what it found.

    Attributes:
        checked: how many rows were looked at.
        total: of how many.
        done: whether this is the end; only then the rest means anything.
        head: the end of the log.
        signed: number of the last row that a signature vouches for; 0 for none.
        vouched: number of the last row that anything vouches for; 0 for none.
        anchor: what was relied on, a stable word: `vault`, `file` or `expected`.
        problem: the first thing that is wrong; a break before an expected head is none.
        broken: a break that the vault recorded: the first one behind the expected head, or the last
            one before it.
        later: the first thing that is wrong after it.
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
        """Open the entries that are wanted, oldest first.

        Raises:
            LockedError: the vault was locked meanwhile.
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
        # What is older than all that are shown was not asked for, whatever it said.
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
            expected: a head that somebody kept elsewhere.
        """
        writer = self._audit_log.writer
        total, own = writer.head.number, writer.own
        if writer.public is None:
            problem = None
            if expected is not None or total:
                problem = Problem(1, "is missing: the vault file holds no audit log")
            yield Verified(0, 0, done=True, problem=problem)
            return
        known = [Known(writer.head, "the running daemon")]
        if expected is not None:
            known.append(Known(expected, "whoever kept the head that was expected"))
        reached = expected.number if expected is not None else 0
        # Whoever kept a head from behind a break knows of the break.
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
            # Before an unlock, whoever can write the file could have put a key of his own there.
            reached = max(reached, verifier.signed)
        if own and reached and own <= reached + 1:
            # The rest was written by this daemon, which remembers its end.
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
        """Read the log, and last, without rows, the authority record that was in force at its end.

        A change puts a record and its rows there in one step. So a record that was read before no
        further row was found is the one that the rows so far speak of.
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
    """Opens rows in their order: the ratchet has to be turned through every one of a segment.

    An entry opens only with the hash of the row before it that it was written to. So each one holds
    its predecessor to what it was, also where somebody put a row there that reads well.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._state: bytes | None = None
        self._before = Head()
        self._doubted = 0

    def read(self, row: AuditRow) -> list[Entry]:
        """Return what a row says, after what it shows to be damaged before it.

        The header of a segment says nothing, nor does the checkpoint of a change.
        """
        event = self._event(row)
        bad = event is not None and event.kind == DAMAGED
        # What a row that does not open says of the one before it is nobody's word.
        told = self._gap(row.number, None if bad else row.previous)
        self._before = chain.head_of(self._session.vault_id, row)
        if event is not None:
            told.append(Entry(row.number, event))
        if bad:
            self._doubted = row.number
        return told

    def finish(self, end: Head) -> list[Entry]:
        """Return what the end of the log, as the daemon knows it, shows to be damaged before it."""
        return self._gap(end.number + 1, end.digest)

    def _gap(self, number: int, previous: bytes | None) -> list[Entry]:
        """Hold the row before `number` to its hash. Of many that are missing one is told."""
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
                # One that comes with a change says nothing that the entry of the change does not.
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
            # Wrapped to somebody else's key. Verifying says what is wrong with it.
            return None


def _damaged(number: int) -> Entry:
    return Entry(number, AuditEvent(DAMAGED, 0))


def _told(checkpoint: Checkpoint) -> AuditEvent:
    details = {"known": checkpoint.known} if checkpoint.known else {}
    return AuditEvent("checkpoint", checkpoint.at_ms, reason=checkpoint.why, details=details)
