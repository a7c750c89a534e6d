"""An unlocked vault during one session, and descriptions of its changes.

These are values for the application. `stored_vault` opens what is stored, and `vault` carries out
the changes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import LockedError
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.slots.slots import Slot
from backpackd.core.vault.authority import Authority
from backpackd.ports import SecretSlot


@dataclass(slots=True, eq=False)
class Session:
    """An unlocked vault.

    Attributes:
        vault_id: 16 bytes.
        master: the master key in the arena.
        authority: the authority record, opened.
        sealed: the same record as it is stored.
        rows: what is known of every stored key, by row index.
        slots: by slot id.
        unlocked_at: boot-clock seconds.
        used_at: boot-clock seconds of the last use.
        opened_by: the slot that unlocked it; None: the vault was just created.
        over: True once the vault was locked.
        epoch: increases with every new master key; what was read under another one no longer fits.
        indexes: row indexes of stored keys by name, for names that were asked for in this epoch.
            The indexes are no secret: everybody who can read the file sees them.
    """

    vault_id: bytes
    master: SecretSlot
    authority: Authority
    sealed: bytes
    rows: dict[bytes, RowHead]
    slots: dict[bytes, Slot]
    unlocked_at: float
    used_at: float
    opened_by: Slot | None = None
    over: bool = False
    epoch: int = 0
    indexes: dict[str, bytes] = field(default_factory=dict)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its slots."""
        return frozenset(slot.kind for slot in self.slots.values())

    @contextmanager
    def open_master(self) -> Iterator[memoryview]:
        """Lend the master key for one operation, without an `await` inside.

        Raises:
            LockedError: the vault was locked since the session began.
        """
        self.check()
        with self.master.open() as view:
            yield view

    def renew(
        self, master: SecretSlot, authority: Authority, sealed: bytes, renewal: "Renewal"
    ) -> None:
        """Continue under a new master key, and drop what belongs to the old one."""
        self.master.wipe()
        self.master, self.authority, self.sealed = master, authority, sealed
        self.rows = renewal.rows
        self.slots = {slot.slot_id: slot for slot in renewal.slots}
        self.epoch += 1
        self.indexes.clear()

    def check(self) -> None:
        """Raise unless this session still has the vault unlocked.

        Raises:
            LockedError: it was locked in the meantime.
        """
        if self.over:
            raise LockedError("the vault was locked in the meantime: unlock it first")

    def take(self, draft: "Draft", authority: Authority, sealed: bytes) -> None:
        """Take a change in that is durable now, with the record that was sealed for it."""
        self.authority, self.sealed = authority, sealed
        for row in draft.delete:
            del self.rows[row.index]
        for head in draft.fresh:
            self.rows[head.index] = head
        for gone in draft.delete_slots:
            del self.slots[gone.slot_id]
        for slot in draft.put_slots:
            self.slots[slot.slot_id] = slot


@dataclass(frozen=True, slots=True)
class Draft:
    """A planned change. `Vault.change` adds the authority record and makes it durable.

    Attributes:
        authority: the record's next generation; `change` updates its rows.
        put: rows to store.
        delete: rows to remove.
        put_slots: slots to store.
        delete_slots: slots to remove.
        events: entries for the audit log, in the same step.
        aside: heads of rows that were set aside in the store, and that also become current.
    """

    authority: Authority
    put: Sequence[KeyRow] = ()
    delete: Sequence[RowHead] = ()
    put_slots: Sequence[Slot] = ()
    delete_slots: Sequence[Slot] = ()
    events: Sequence[AuditEvent] = ()
    aside: Sequence[RowHead] = ()

    @property
    def fresh(self) -> list[RowHead]:
        """The heads of the rows that there are afterwards and were not before."""
        return [*(row.row_head for row in self.put), *self.aside]


@dataclass(frozen=True, slots=True)
class Renewal:
    """A vault under a new master key: `Vault.renew` makes it durable, then current.

    All its rows were set aside in the store.

    Attributes:
        master: the new master key, 32 bytes.
        authority: the record's next generation, complete, with its sealed parts under the new key.
        rows: what is known of every row set aside, by its new index.
        slots: every slot, with the new master key in it.
        events: entries for the audit log, in the same step.
    """

    master: bytes = field(repr=False)
    authority: Authority
    rows: dict[bytes, RowHead]
    slots: Sequence[Slot]
    events: Sequence[AuditEvent] = ()
