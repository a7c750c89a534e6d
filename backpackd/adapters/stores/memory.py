"""The store's in-memory twin, for tests: the same rules, no disk, and faults on demand."""

from collections.abc import Iterable

from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    DamageError,
    StoreError,
)
from backpackd.core.rows import Change, KeyRow, RowHead, SlotRow, StoredVault


class MemoryStore:
    """Implements `ports.Store` in dictionaries.

    Attributes:
        keys: the rows by index. A test may alter them as an attacker with the file would.
        slots: the slots by id, likewise.
        vault_id: of the stored vault; None without one.
        authority: the stored authority record.
        faults: errors that the next writes raise instead of happening, first one first.
        writes: how many writes have happened.
    """

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyRow] = {}
        self.slots: dict[bytes, bytes] = {}
        self.vault_id: bytes | None = None
        self.authority = b""
        self.faults: list[BackpackError] = []
        self.writes = 0

    async def load(self) -> StoredVault | None:
        """See `ports.Store`."""
        if self.vault_id is None:
            return None
        slots = tuple(SlotRow(*item) for item in sorted(self.slots.items()))
        return StoredVault(self.vault_id, self.authority, slots)

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
        self.authority = change.authority
        for index in change.delete:
            self.keys.pop(index, None)
        for row in change.put:
            self.keys[row.index] = row
        for slot_id in change.delete_slots:
            self.slots.pop(slot_id, None)
        for slot in change.put_slots:
            self.slots[slot.slot_id] = slot.body

    async def close(self) -> None:
        """See `ports.Store`."""

    def _require(self) -> None:
        if self.vault_id is None:
            raise StoreError("there is no vault file")

    def _write(self) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.writes += 1
