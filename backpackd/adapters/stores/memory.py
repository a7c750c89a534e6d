"""The store's in-memory twin, for tests: the same rules, no disk, and faults on demand."""

from collections.abc import Iterable, Sequence

from backpackd.core.audit.chain import MOST_NUMBER
from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    DamageError,
    StoreError,
)
from backpackd.core.rows import (
    AuditPublic,
    AuditRow,
    Change,
    KeyRow,
    RowHead,
    SlotRow,
    StoredVault,
)


class MemoryStore:
    """Implements `ports.Store` in dictionaries.

    Attributes:
        keys: the rows by index. A test may alter them as an attacker with the file would.
        slots: the slots by id, likewise.
        vault_id: of the stored vault; None without one.
        authority: the stored authority record.
        audit: the rows of the audit log, by number.
        audit_public: the public half of the audit keys.
        faults: errors that the next writes raise instead of happening, first one first; None lets
            one happen.
        writes: how many writes have happened.
        aside: the rows that were set aside, by index.
    """

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyRow] = {}
        self.slots: dict[bytes, bytes] = {}
        self.vault_id: bytes | None = None
        self.authority = b""
        self.audit: dict[int, AuditRow] = {}
        self.audit_public: AuditPublic | None = None
        self.faults: list[BackpackError | None] = []
        self.writes = 0
        self.aside: dict[bytes, KeyRow] = {}

    async def load(self) -> StoredVault | None:
        """See `ports.Store`."""
        if self.vault_id is None:
            return None
        slots = tuple(SlotRow(*item) for item in sorted(self.slots.items()))
        return StoredVault(self.vault_id, self.authority, slots, self.audit_public)

    async def create(self, vault: StoredVault) -> None:
        """See `ports.Store`."""
        if self.vault_id is not None:
            raise AlreadyInitializedError("there is a vault already")
        self._write()
        self.vault_id, self.authority = vault.vault_id, vault.authority
        self.slots = {slot.slot_id: slot.body for slot in vault.slots}

    async def heads(self) -> list[RowHead]:
        """See `ports.Store`."""
        self._require()
        return [row.row_head for row in self.keys.values()]

    async def rows(self, indexes: Iterable[bytes]) -> dict[bytes, KeyRow]:
        """See `ports.Store`."""
        self._require()
        return {index: self.keys[index] for index in indexes if index in self.keys}

    async def sealed_heads(self) -> list[tuple[RowHead, bytes]]:
        """See `ports.Store`."""
        self._require()
        return [(row.row_head, row.head) for row in self.keys.values()]

    async def commit(self, change: Change) -> None:
        """See `ports.Store`."""
        self._require()
        self._write()
        if self.authority != change.before:
            raise DamageError("changed behind the daemon's back", reason="changed-underneath")
        if change.aside is not None and change.aside != len(self.aside):
            raise StoreError("rows that were set aside are missing")
        self._append(change.audit)
        if change.audit_public is not None:
            self.audit_public = change.audit_public
        self.authority = change.authority
        for index in change.delete:
            self.keys.pop(index, None)
        if change.aside is not None:
            kept = {} if change.nothing_else else self.keys
            self.keys = {**kept, **self.aside}
        for row in change.put:
            self.keys[row.index] = row
        for slot_id in change.delete_slots:
            self.slots.pop(slot_id, None)
        for slot in change.put_slots:
            self.slots[slot.slot_id] = slot.body

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """See `ports.Store`."""
        self._require()
        self._write()
        self._append(rows)

    async def audit_rows(self, after: int, most: int) -> list[AuditRow]:
        """See `ports.Store`."""
        self._require()
        return [self.audit[number] for number in sorted(self.audit) if number > after][:most]

    async def audit_last(
        self, kind: int | None = None, before: int | None = None
    ) -> AuditRow | None:
        """See `ports.Store`."""
        self._require()
        last = MOST_NUMBER if before is None else before - 1
        rows = [row for row in self.audit.values() if 1 <= row.number <= last]
        numbers = [row.number for row in rows if kind in {None, row.kind}]
        return self.audit[max(numbers)] if numbers else None

    async def set_aside(self, rows: Sequence[KeyRow]) -> None:
        """See `ports.Store`."""
        self._require()
        self._write()
        self.aside.update({row.index: row for row in rows})

    async def drop_aside(self) -> None:
        """See `ports.Store`."""
        self.aside = {}

    async def purge(self) -> None:
        """See `ports.Store`."""
        self._require()
        self._write()

    async def close(self) -> None:
        """See `ports.Store`."""

    def _append(self, rows: Sequence[AuditRow]) -> None:
        if any(row.number in self.audit for row in rows):
            raise StoreError("there is a row of that number")
        self.audit.update({row.number: row for row in rows})

    def _require(self) -> None:
        if self.vault_id is None:
            raise StoreError("there is no vault file")

    def _write(self) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.writes += 1
