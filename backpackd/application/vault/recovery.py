"""Recovery: what the holder of a recovery code can do, with the vault locked or unlocked.

A wrong code is reported like a wrong passphrase, and the caller throttles both together.
"""

from collections.abc import Callable
from dataclasses import replace

from backpackd.application.vault import stored_vault
from backpackd.application.vault.session import Draft, Session
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import UninitializedError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots import passphrases, recovery_code
from backpackd.core.slots.slots import RECOVERY, Slot
from backpackd.core.vault.authority import Authority, SlotDates
from backpackd.core.vault.states import State
from backpackd.ports import Connection, Store, Stretcher

_ONLY = frozenset({RECOVERY})


class Recovery:
    """Uses the vault's recovery codes."""

    def __init__(self, vault: Vault, slots: Slots, store: Store, stretcher: Stretcher) -> None:
        self._vault = vault
        self._slots = slots
        self._store = store
        self._stretcher = stretcher

    @property
    def drilled_ms(self) -> int:
        """When a recovery code was last proven, in Unix milliseconds; 0: never, or unknown now."""
        if self._vault.state is not State.UNLOCKED:
            return 0
        session = self._vault.session()
        known = session.authority.slot_dates
        held = [slot.slot_id.hex() for slot in session.slots.values() if slot.kind == RECOVERY]
        return max((known[key].drilled_ms for key in held if key in known), default=0)

    async def recover(
        self,
        code: bytes,
        replacement: bytes,
        tree: ProcessId,
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Unlock the vault, and replace every passphrase by a new one.

        The code stays valid.

        Args:
            code: as it was typed.
            replacement: the new passphrase.
            tree: whose turn the stretching takes.
            then: called in the moment from which only the new passphrase opens the vault.
            by: whose doing it is.

        Raises:
            InvalidRequestError: the code was mistyped, or the passphrase is refused; nothing was
                tried.
            WrongPassphraseError: no recovery slot opens with the code.
            UninitializedError: there is no vault.
        """
        recovery_code.decode(code)
        passphrases.check_new(replacement)
        await self._vault.unlock(code, tree, by=by, kinds=_ONLY)
        await self._slots.replace_passphrases(replacement, tree, then, by=by)

    async def drill(self, code: bytes, tree: ProcessId, *, by: Connection | None) -> int:
        """Prove that a code opens the vault, and note when. Nothing else changes.

        A locked vault stays locked, and everything stored in it is verified.

        Returns:
            The time of the proof, Unix time in milliseconds.

        Raises:
            InvalidRequestError: the code was mistyped.
            WrongPassphraseError: no recovery slot opens with it.
            DamageError: what is stored is not what was sealed.
        """
        recovery_code.decode(code)
        if self._vault.state is State.UNLOCKED:
            slot = await self._vault.verify(code, tree, kinds=_ONLY)
            await self._vault.change(lambda session: self._noted(session, slot), by=by)
            return self._vault.now_ms()
        if self._vault.state is State.UNINITIALIZED:
            raise UninitializedError("there is no vault yet: create one with init")
        stored = await stored_vault.load(self._store)
        slot, master = await stored_vault.open_any(
            self._stretcher,
            stored_vault.decode_slots(stored),
            stored.vault_id,
            code,
            tree,
            kinds=_ONLY,
        )
        await self._vault.amend_locked(
            slot, master, lambda record: self._drilled(record, slot), (self._told(slot),), by=by
        )
        return self._vault.now_ms()

    async def _noted(self, session: Session, slot: Slot) -> Draft:
        return Draft(self._drilled(session.authority, slot), events=(self._told(slot),))

    def _told(self, slot: Slot) -> AuditEvent:
        now_ms, details = self._vault.now_ms(), {"slot": slot.slot_id.hex()}
        return AuditEvent("operator-act", now_ms, reason="recovery-drilled", details=details)

    def _drilled(self, record: Authority, slot: Slot) -> Authority:
        now_ms, key = self._vault.now_ms(), slot.slot_id.hex()
        dates = replace(record.slot_dates.get(key, SlotDates(0)), drilled_ms=now_ms)
        return record.next(now_ms, slot_dates={**record.slot_dates, key: dates})
