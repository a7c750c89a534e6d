"""Writes the rows of the audit log in order. Each row counts only when it is durable.

There is one write at a time. Items that arrive during it are written in the next one, in the order
of their arrival. The ratchet's state is in the secret arena. It is replaced and the old state
overwritten when the rows sealed under it are on the disk. A failed write leaves the old state, and
nothing in the log. The callers decide what gets an entry.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from backpackd.core.audit import chain, keys, ratchet
from backpackd.core.audit.chain import Checkpoint, Head, Header
from backpackd.core.audit.events import AuditEvent
from backpackd.core.audit.record_state import RecordState
from backpackd.core.errors import BackpackError, DamageError, StoreError
from backpackd.core.rows import AuditPublic, AuditRow, Change
from backpackd.core.sealing import hybrid
from backpackd.ports import SecretArena, SecretSlot, Store

_LOG = logging.getLogger("backpackd.audit")

MOST_NOTED = 10_000
"""The most notes that wait in memory while nothing can be written. More are only counted."""
_MOST_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Signing:
    """A checkpoint to be written.

    Attributes:
        why: see `core.audit.chain`.
        key: the signing key in the arena.
        known: for a log that was found broken, the head that the vault knew.
    """

    why: str
    key: SecretSlot
    known: str = ""


@dataclass(slots=True, eq=False)
class Item:
    """Something to be written in one step.

    Attributes:
        events: become entries.
        change: becomes durable in the same step.
        record: names the authority record in the change.
        public: the audit keys that are used from this change on.
        signing: a checkpoint that follows the entries.
        done: tells the waiting caller the result; None: nobody waits, and the item is kept until it
            is written.
    """

    events: Sequence[AuditEvent] = ()
    change: Change | None = None
    record: RecordState | None = None
    public: AuditPublic | None = None
    signing: Signing | None = None
    done: "asyncio.Future[None] | None" = None


@dataclass(slots=True)
class _Batch:
    """What one write makes durable, and the state after it.

    Attributes:
        head: of the last row.
        entries: the number of rows after the last checkpoint.
        segment: number of the segment.
        state: the ratchet's state after the rows; None: unchanged.
        rows: sealed.
        heads: of the checkpoints among them, with why they were written.
    """

    head: Head
    entries: int
    segment: int
    state: SecretSlot | None = None
    rows: list[AuditRow] = field(default_factory=list)
    heads: list[tuple[Head, str]] = field(default_factory=list)


class AuditWriter:
    """The only writer of the audit log.

    Attributes:
        vault_id: the vault's 16 bytes; empty without a vault.
        public: the public audit keys; None before the vault has any. Until then, notes wait here.
        head: the end of the log, as far as it is on the disk.
        record: the authority record that this daemon wrote last; None: it has written none.
        own: number of the first row that this daemon wrote; 0 if it has written none.
        entries: the number of rows after the last checkpoint that this daemon wrote.
        on_written: called after every write.

    Args:
        store: where the log is kept.
        arena: where the ratchet's state is kept.
        now_ms: the time, in Unix milliseconds.
    """

    def __init__(self, store: Store, arena: SecretArena, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._arena = arena
        self._now_ms = now_ms
        self.vault_id = b""
        self.public: AuditPublic | None = None
        self.head = Head()
        self.record: RecordState | None = None
        self.own = 0
        self.entries = 0
        self._segment = 0
        self._state: SecretSlot | None = None
        self._waiting: deque[Item] = deque()
        self._notes = 0
        self._lost = 0
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self.on_written: Callable[[], None] = _nothing

    async def load(self) -> None:
        """Find the end of an existing log.

        Raises:
            StoreError: it cannot be read.
        """
        stored = await self._store.load()
        if stored is None:
            return
        self.vault_id, self.public = stored.vault_id, stored.audit
        last = await self._store.audit_last()
        header = await self._store.audit_last(chain.HEADER)
        if self.own:
            # It was written to during the reads: what was read may be older than what is known.
            return
        if last is not None:
            self.head = chain.head_of(self.vault_id, last)
        if header is not None:
            # A planted header has no valid number to continue from. A verification reports it.
            with contextlib.suppress(chain.ChainError):
                self._segment = Header.decode(header.body).segment

    async def write(self, item: Item) -> None:
        """Write an item, durably before returning. It is written even if the caller disconnects.

        Raises:
            StoreError: it could not be written, and will not be written later.
            DamageError: the change was for another state of the vault.
        """
        item.done = asyncio.get_running_loop().create_future()
        self._add(item)
        await item.done

    def note(self, event: AuditEvent) -> None:
        """Write an entry as soon as possible, and keep it until then."""
        if self._notes >= MOST_NOTED:
            self._lost += 1
            return
        self._notes += 1
        self._add(Item((event,)))

    async def close(self) -> None:
        """Write what can still be written, and overwrite the ratchet's state."""
        while self._task is not None:
            await asyncio.wait([self._task])
        # Without a vault there is no log, so nothing can be missing from it.
        if self._waiting and self.vault_id:
            _LOG.error("%d audit entries could not be written", len(self._waiting))
        if self._state is not None:
            self._state.wipe()
            self._state = None

    def _add(self, item: Item) -> None:
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._write_all()
        finally:
            # In the same step as the last write, so that the next item starts a new task.
            self._task = None

    async def _write_all(self) -> None:
        while self._waiting:
            if self.public is None and not any(item.public for item in self._waiting):
                self._fail_without_log()
                return
            items = self._take()
            try:
                await self._write(items)
            except BackpackError as error:
                if not self._failed(items, error):
                    return
                continue
            except Exception as error:  # noqa: BLE001 - waiting callers must learn of any failure
                _LOG.error("internal error in the audit log: %s", type(error).__name__)
                for item in items:
                    self._is_done(item, StoreError("the audit log cannot be written"))
                continue
            for item in items:
                self._is_done(item, None)
            self.on_written()

    def _fail_without_log(self) -> None:
        """Keep what can wait for the first unlock, and fail the rest."""
        _fail(self._take_waited_for(), no_log())

    def _take_waited_for(self) -> list[Item]:
        """Take out the items that somebody waits for, from any position."""
        taken = [item for item in self._waiting if item.done is not None]
        self._waiting = deque(item for item in self._waiting if item.done is None)
        return taken

    def _take(self) -> list[Item]:
        """Take the items for one write. A change is the last item of its write."""
        items: list[Item] = []
        most = _MOST_AT_ONCE if self.public is not None else len(self._waiting)
        while self._waiting and len(items) < most:
            items.append(self._waiting.popleft())
            if items[-1].change is not None:
                break
        return items

    def _failed(self, items: Sequence[Item], error: BackpackError) -> bool:
        """Fail the items with a waiting caller, and put back the rest; return whether to continue.

        If there was a change, it may be the cause: it fails alone, and the others are tried again.
        """
        *others, last = items
        if last.change is not None:
            self._waiting.extendleft(reversed(others))
            failing = [last]
        else:
            self._waiting.extendleft(reversed(items))
            # All of them: an item behind a thousand notes would wait until there is room.
            failing = self._take_waited_for()
        for item in failing:
            self._is_done(item, error)
        if not self._failing:
            # Logged once, not for every event of a night on a full disk.
            self._failing = True
            _LOG.error("the audit log cannot be written: %s", error.message)
        return any(item.done is not None for item in self._waiting)

    def _is_done(self, item: Item, error: BackpackError | None) -> None:
        if item.done is None:
            self._notes -= 1
        elif error is not None:
            _fail([item], error)
        elif not item.done.done():
            item.done.set_result(None)

    async def _write(self, items: Sequence[Item]) -> None:
        lost, change = self._lost, items[-1].change
        if lost:
            items = [Item((AuditEvent("not-recorded", self._now_ms(), count=lost),)), *items]
        batch = self._seal(items)
        try:
            if change is not None:
                await self._store.commit(replace(change, audit=batch.rows))
            elif batch.rows:
                await self._store.append(batch.rows)
        except BaseException:
            if batch.state is not None:
                batch.state.wipe()
            raise
        self._lost -= lost
        self._failing = False
        self._settle(batch, items[-1])

    def _settle(self, batch: _Batch, last: Item) -> None:
        """Take over what is on the disk, and overwrite the old state of the ratchet."""
        if last.public is not None:
            self.public = last.public
        if last.record is not None:
            self.record = last.record
        if self._state is None and batch.state is not None:
            self.own = batch.rows[0].number
        self.head, self.entries, self._segment = batch.head, batch.entries, batch.segment
        if batch.state is not None:
            old, self._state = self._state, batch.state
            if old is not None:
                old.wipe()
        for head, why in batch.heads:
            _LOG.info("audit head %s (%s)", head.text, why)

    def _seal(self, items: Sequence[Item]) -> _Batch:
        """Seal the rows of some items, after the header of a segment if none has begun."""
        batch = _Batch(self.head, self.entries, self._segment)
        if not any(item.events or item.signing for item in items):
            return batch
        rows = _Rows(self.vault_id, self.head)
        with contextlib.ExitStack() as stack:
            if self._state is not None:
                rows.state = stack.enter_context(self._state.open())
            else:
                batch.segment += 1
                rows.begin(items[-1].public or self.public, batch.segment)
            for item in items:
                for event in item.events:
                    rows.entry(event.encode())
                    batch.entries += 1
                # A checkpoint names the current record. If this daemon has written none yet, the
                # lock came before the unlock's own entry: there is nothing to confirm.
                record = item.record or self.record
                if item.signing is not None and record is not None:
                    rows.checkpoint(item.signing, batch.segment, self._now_ms(), record)
                    batch.entries = 0
                    batch.heads.append((rows.head, item.signing.why))
            batch.rows, batch.head = rows.sealed, rows.head
            batch.state = self._arena.store(rows.state)
        return batch


class _Rows:
    """Seals rows one after another, each under the state after the row before it."""

    def __init__(self, vault_id: bytes, head: Head) -> None:
        self._vault_id = vault_id
        self.head = head
        self.state: bytes | memoryview = b""
        self.sealed: list[AuditRow] = []

    def begin(self, public: AuditPublic | None, segment: int) -> None:
        assert public is not None
        self.state = secrets.token_bytes(ratchet.STATE_SIZE)
        name = keys.fingerprint(public)
        try:
            wrap = ratchet.wrap(
                self.state,
                public.wrap,
                vault_id=self._vault_id,
                segment=segment,
                fingerprint=name,
            )
        except hybrid.UnwrapError as error:
            raise keys_changed() from error
        self._put(chain.HEADER, Header(segment, name, public.verify, wrap).encode())

    def entry(self, plaintext: bytes) -> None:
        sealed = ratchet.seal_entry(
            self.state,
            plaintext,
            vault_id=self._vault_id,
            number=self.head.number + 1,
            previous=self.head.digest,
            salt=secrets.token_bytes(ratchet.SALT_SIZE),
        )
        self._put(chain.ENTRY, sealed)
        self.state = ratchet.advance(self.state)

    def checkpoint(self, signing: Signing, segment: int, now_ms: int, record: RecordState) -> None:
        plain = Checkpoint(segment, now_ms, signing.why, signing.known, record)
        with signing.key.open() as key:
            signed = plain.signed(key, self._vault_id, self.head)
        self._put(chain.CHECKPOINT, signed.encode())
        self.state = ratchet.advance(self.state)

    def _put(self, kind: int, body: bytes) -> None:
        row, self.head = self.head.next(self._vault_id, kind, body)
        self.sealed.append(row)


def keys_changed() -> DamageError:
    """Create the error for public audit keys in the file that are not the vault's."""
    return DamageError(
        "the audit keys in the vault file are not the vault's: somebody replaced them, and can "
        "read what was recorded while the vault was locked; restore the file from a backup",
        reason="audit-keys-changed",
    )


def no_log() -> StoreError:
    """Create the error for a log that does not exist yet."""
    return StoreError("the audit log is still being created: try again", retry_after=1.0)


def _fail(items: Sequence[Item], error: BackpackError) -> None:
    for item in items:
        if item.done is not None and not item.done.done():
            item.done.set_exception(error)
            # Retrieved here, so that asyncio does not log it if the caller has disconnected.
            item.done.exception()


def _nothing() -> None:
    """Do nothing."""
