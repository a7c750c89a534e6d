"""Rotation: replaces the master key everywhere by a new one, in one step.

Rows are sealed again a few at a time, into a place beside the vault, while leases and requests go
on. Only changes wait. Then one transaction makes the rows, the slots and the authority record
current. If anything ends the rotation before that, the old master key stays fully valid.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from backpackd.application.vault.session import Renewal, Session
from backpackd.application.vault.vault import Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import DamageError, StoreError
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.sealing.sealing import OpenError
from backpackd.core.slots import slots
from backpackd.core.slots.slots import Slot
from backpackd.core.vault import authority as authorities
from backpackd.core.vault import rekeying
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import RowSet
from backpackd.ports import Connection, SecretArena, SecretSlot, Store

_READ = 200
"""Rows that are read and set aside at a time."""
_SLICE = 20
"""Rows that are sealed again before other calls get their turn: a few milliseconds of work."""

Tell = Callable[[int, int], None]
"""Is called with the number of finished rows, and of all rows."""
LockFiles = Callable[[Authority], tuple[str, ...]]
"""Returns the agent.lock files that a vault knows, according to its authority record."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did.

    Attributes:
        keys: the number of rows that were sealed again.
        slots: the number of slots that have the new master key.
        purged: whether the old sealed bytes are already removed from the files. If not, there was
            no room for that, and the next start of the daemon does it.
        lock_files: agent.lock files that were wrapped for the vault; their owners must act.
    """

    keys: int
    slots: int
    purged: bool
    lock_files: tuple[str, ...] = field(default=())


class Rotation:
    """Gives one vault a new master key.

    Args:
        vault: the vault.
        store: where it is kept.
        arena: where the new master key waits while rows are sealed under it.
        lock_files: returns the agent.lock files that the vault knows.
    """

    def __init__(
        self,
        vault: Vault,
        store: Store,
        arena: SecretArena,
        lock_files: LockFiles = lambda _: (),
    ) -> None:
        self._vault = vault
        self._store = store
        self._arena = arena
        self._lock_files = lock_files

    async def rotate(
        self,
        tell: Tell,
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> Rotated:
        """Replace the master key by a new one. The secrets of slots stay the same.

        Args:
            tell: is told of the progress.
            then: called in the moment in which the new key is in force.
            by: whose doing it is.

        Raises:
            DamageError: a row or slot is not what the vault wrote; nothing was changed.
            LockedError: the vault was locked during this; nothing was changed.
            StoreError: nothing was changed.
        """
        rekeying.check_complete()
        done = Rotated(0, 0, purged=False)

        async def prepare(session: Session) -> Renewal:
            nonlocal done
            waiting = self._arena.store(secrets.token_bytes(slots.MASTER_SIZE))
            try:
                rows, row_set = await self._reseal(session, waiting, tell)
                renewal = self._renewal(session, waiting, rows, row_set)
            finally:
                waiting.wipe()
            found = self._lock_files(session.authority)
            done = Rotated(len(rows), len(renewal.slots), purged=False, lock_files=found)
            return renewal

        await self._vault.renew(prepare, then, by=by)
        try:
            await self._store.purge()
        except StoreError:
            return done
        return Rotated(done.keys, done.slots, purged=True, lock_files=done.lock_files)

    async def _reseal(
        self, session: Session, new: SecretSlot, tell: Tell
    ) -> tuple[dict[bytes, RowHead], RowSet]:
        """Set every row aside, sealed under the new master key; return the new heads and set."""
        known = list(session.rows.values())
        made: dict[bytes, RowHead] = {}
        rows = RowSet()
        tell(0, len(known))
        for start in range(0, len(known), _READ):
            heads = known[start : start + _READ]
            stored = await self._store.rows([head.index for head in heads])
            fresh: list[KeyRow] = []
            for at in range(0, len(heads), _SLICE):
                # Serve other calls in between. If one of them is a lock or a panic, it ends this.
                await asyncio.sleep(0)
                fresh += _carried(session, new, heads[at : at + _SLICE], stored)
            await self._store.set_aside(fresh)
            session.check()
            anew = [row.row_head for row in fresh]
            with new.open() as master:
                rows = rows.change(master, session.vault_id, add=anew, drop=())
            made |= {head.index: head for head in anew}
            tell(len(made), len(known))
        return made, rows

    def _renewal(
        self, session: Session, new: SecretSlot, rows: dict[bytes, RowHead], row_set: RowSet
    ) -> Renewal:
        record, now_ms = session.authority, self._vault.now_ms()
        generation = record.master_generation + 1
        with session.open_master() as old, new.open() as fresh:
            move = rekeying.Move(old, fresh, session.vault_id, secrets.token_bytes)
            signing_key = authorities.open_signing_key(old, session.vault_id, record.signing_key)
            wrapped: list[Slot] = [
                slots.rewrap(
                    slot,
                    fresh,
                    vault_id=session.vault_id,
                    generation=generation,
                    signing_key=signing_key,
                )
                for slot in session.slots.values()
            ]
            carried = rekeying.carry(
                record,
                move,
                master_generation=generation,
                rows=row_set,
                slots={slot.slot_id.hex(): slot.digest for slot in wrapped},
            )
            event = AuditEvent("operator-act", now_ms, reason="rotated")
            return Renewal(bytes(fresh), carried.next(now_ms), rows, wrapped, (event,))


def _carried(
    session: Session, new: SecretSlot, heads: list[RowHead], stored: dict[bytes, KeyRow]
) -> list[KeyRow]:
    fresh = []
    with session.open_master() as old, new.open() as master:
        move = rekeying.Move(old, master, session.vault_id, secrets.token_bytes)
        for head in heads:
            row = stored.get(head.index)
            if row is None or row.row_head != head:
                raise _damaged()
            try:
                fresh.append(rekeying.carry_row(row, move))
            except OpenError as error:
                raise _damaged() from error
    return fresh


def _damaged() -> DamageError:
    return DamageError(
        "the stored row of a key is not the one that the vault wrote: nothing was rotated; stop "
        "the daemon, and run backpackd --check to find the row",
        reason="row-changed",
    )
