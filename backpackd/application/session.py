"""An unlocked vault while it is unlocked, and what a change of it is to do.

Values that the application hands around. How a vault comes to be unlocked stands in `opening`, what
becomes of a change in `vault`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backpackd.core.audit.events import AuditEvent
from backpackd.core.authority import Authority
from backpackd.core.errors import LockedError
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.slots import Slot
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
        over: True once the vault was locked.
    """

    vault_id: bytes
    master: SecretSlot
    authority: Authority
    sealed: bytes
    rows: dict[bytes, RowHead]
    slots: dict[bytes, Slot]
    unlocked_at: float
    used_at: float
    over: bool = False

    @contextmanager
    def open_master(self) -> Iterator[memoryview]:
        """Lend the master key for one operation, without an `await` inside.

        Raises:
            LockedError: the vault was locked since the session began.
        """
        self.check()
        with self.master.open() as view:
            yield view

    def check(self) -> None:
        """Return if the vault is still unlocked by this session.

        Raises:
            LockedError: it was locked meanwhile.
        """
        if self.over:
            raise LockedError("the vault was locked meanwhile: unlock it first")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a change is to do; `Vault.change` adds the authority record and makes it durable.

    Attributes:
        authority: the record's next generation; its rows are brought up to date by `change`.
        put: rows to store.
        delete: rows to remove.
        put_slots: slots to store.
        delete_slots: slots to remove.
        events: what the audit log says of it, in the same step.
    """

    authority: Authority
    put: Sequence[KeyRow] = ()
    delete: Sequence[RowHead] = ()
    put_slots: Sequence[Slot] = ()
    delete_slots: Sequence[Slot] = ()
    events: Sequence[AuditEvent] = ()
