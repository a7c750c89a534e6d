"""The slots of an unlocked vault: listing, adding and removing them, and changing a passphrase.

The caller checks who may do this. A change of one slot does not change the others.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from backpackd.application.vault import stored_vault
from backpackd.application.vault.session import Draft, Session
from backpackd.application.vault.vault import Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import (
    InvalidRequestError,
    LastSlotError,
    LimitError,
    SlotUnknownError,
    WrongPassphraseError,
)
from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots import passphrases, recovery_code, slot_secrets, slots
from backpackd.core.slots.slots import Argon2idParameters, Slot, Stretching
from backpackd.core.vault import authority as authorities
from backpackd.core.vault.authority import SlotDates
from backpackd.ports import Connection, Stretcher

_STRETCHING_SALT = 16


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """What the operator sees of a slot.

    Attributes:
        id: hexadecimal.
        kind: one of `core.slots.slots.KINDS`.
        authorizes: whether its secret gives operator authority.
        stretched: whether its secret goes through Argon2id.
        dates: when it was made and proven; zeros if unknown.
    """

    id: str
    kind: str
    authorizes: bool
    stretched: bool
    dates: SlotDates


@dataclass(frozen=True, slots=True)
class Added:
    """A new slot.

    Attributes:
        id: hexadecimal.
        secret: what opens it, if it was drawn here; it cannot be shown again.
    """

    id: str
    secret: bytes = field(default=b"", repr=False)


class Slots:
    """The ways to unlock one vault."""

    def __init__(self, vault: Vault, stretcher: Stretcher) -> None:
        self._vault = vault
        self._stretcher = stretcher

    def list(self) -> list[SlotInfo]:
        """Return the slots, oldest first."""
        session = self._vault.session()
        dates = session.authority.slot_dates
        found = [
            SlotInfo(
                slot.slot_id.hex(),
                slot.kind,
                slot.kind in slots.AUTHORIZING,
                isinstance(slot.stretching, Argon2idParameters),
                dates.get(slot.slot_id.hex(), SlotDates(0)),
            )
            for slot in session.slots.values()
        ]
        return sorted(found, key=lambda info: (info.dates.created_ms, info.id))

    async def add(
        self, kind: str, chosen: bytes, tree: ProcessId, *, by: Connection | None
    ) -> Added:
        """Add a way to unlock.

        Args:
            kind: one of `core.slots.slots.KINDS`.
            chosen: the new passphrase, or for a file or the environment a secret that somebody
                chose; empty: one is drawn, except for a passphrase.
            tree: whose turn the stretching takes.
            by: whose doing it is.

        Raises:
            InvalidRequestError: the kind is unknown, or the chosen secret is refused.
            LimitError: the vault has as many slots as possible.
        """
        if kind not in slots.KINDS:
            raise InvalidRequestError("unknown kind of slot; there are: " + ", ".join(slots.KINDS))
        self._vault.session()
        typed, shown = _drawn(kind, chosen)
        slot = await self._change(
            kind, typed, tree, lambda _: (), by=by, reason=f"slot-added-{kind}"
        )
        return Added(slot.slot_id.hex(), shown)

    async def remove(
        self,
        slot_id: str,
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Remove a way to unlock.

        Args:
            slot_id: in hexadecimal, or the beginning of one that only one slot has.
            then: called in the moment from which the slot authorizes nobody any more, if it did.
            by: whose doing it is.

        Raises:
            SlotUnknownError: no slot has this id, or several begin with it.
            LastSlotError: it is the last one that gives authority.
        """
        authorized = False

        async def draft(session: Session) -> Draft:
            nonlocal authorized
            old = _find(session, slot_id)
            authorized = old.kind in slots.AUTHORIZING
            _keep_one(session, [old], ())
            event = AuditEvent(
                "operator-act",
                self._vault.now_ms(),
                reason="slot-removed",
                details={"slot": old.slot_id.hex(), "kind": old.kind},
            )
            return self._draft(session, [old], (), event)

        def removed() -> None:
            if authorized and then is not None:
                then()

        await self._vault.change(draft, removed, by=by)

    async def change_passphrase(
        self,
        current: bytes,
        replacement: bytes,
        tree: ProcessId,
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Replace the passphrase of the one slot that `current` opens.

        `then` is called at the moment when only the new passphrase opens that slot.

        Raises:
            WrongPassphraseError: no slot opens with `current`.
            InvalidRequestError: the replacement is refused.
        """
        normal = passphrases.check_new(replacement)
        old = await self._vault.verify(current, tree, kinds={slots.PASSPHRASE})

        def gone(session: Session) -> Sequence[Slot]:
            found = session.slots.get(old.slot_id)
            # A rotation during this has put another master key into it, and changed nothing else.
            if found is None or found.sealed != old.sealed:
                raise WrongPassphraseError("the passphrase has just been changed: try again")
            return [found]

        await self._change(slots.PASSPHRASE, normal, tree, gone, by=by, then=then)

    async def replace_passphrases(
        self,
        replacement: bytes,
        tree: ProcessId,
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Replace every passphrase by a new one, because they are lost.

        Raises:
            InvalidRequestError: the replacement is refused.
        """
        normal = passphrases.check_new(replacement)

        def gone(session: Session) -> Sequence[Slot]:
            return [slot for slot in session.slots.values() if slot.kind == slots.PASSPHRASE]

        await self._change(
            slots.PASSPHRASE, normal, tree, gone, by=by, reason="recovered", then=then
        )

    async def _change(
        self,
        kind: str,
        typed: bytes,
        tree: ProcessId,
        gone: Callable[[Session], Sequence[Slot]],
        *,
        by: Connection | None,
        reason: str = "",
        then: Callable[[], None] | None = None,
    ) -> Slot:
        """Add a slot, and remove others in the same step."""
        salt = secrets.token_bytes(_STRETCHING_SALT)
        stretching: Stretching = slot_secrets.parameters_for(kind, typed, salt) or (
            slots.rfc_9106_low_memory(salt)
        )
        material = slot_secrets.material(kind, stretching, typed)
        assert material is not None
        secret = await stored_vault.secret_of(self._stretcher, stretching, material, tree)
        made: list[Slot] = []

        async def draft(session: Session) -> Draft:
            old = gone(session)
            if len(session.slots) - len(old) >= stored_vault.MOST_SLOTS:
                raise LimitError(
                    f"a vault has at most {stored_vault.MOST_SLOTS} slots: remove one first"
                )
            with session.open_master() as master:
                sealed_key = session.authority.signing_key
                slot = slots.make(
                    master,
                    vault_id=session.vault_id,
                    slot_id=secrets.token_bytes(slots.ID_SIZE),
                    generation=session.authority.master_generation,
                    stretching=stretching,
                    secret=secret,
                    signing_key=authorities.open_signing_key(master, session.vault_id, sealed_key),
                    kind=kind,
                )
            made.append(slot)
            event = AuditEvent(
                "operator-act" if reason else "passphrase-changed",
                self._vault.now_ms(),
                reason=reason,
                details={
                    "slot": slot.slot_id.hex(),
                    **{f"removed-{n}": each.slot_id.hex() for n, each in enumerate(old, 1)},
                },
            )
            return self._draft(session, old, [slot], event)

        await self._vault.change(draft, then, by=by)
        return made[0]

    def _draft(
        self,
        session: Session,
        gone: Collection[Slot],
        new: Sequence[Slot],
        event: AuditEvent,
    ) -> Draft:
        record, now_ms = session.authority, self._vault.now_ms()
        lost = {slot.slot_id.hex() for slot in gone}
        digests = {key: digest for key, digest in record.slots.items() if key not in lost}
        dates = {key: date for key, date in record.slot_dates.items() if key not in lost}
        for slot in new:
            digests[slot.slot_id.hex()] = slot.digest
            dates[slot.slot_id.hex()] = SlotDates(now_ms)
        return Draft(
            record.next(now_ms, slots=digests, slot_dates=dates),
            put_slots=new,
            delete_slots=list(gone),
            events=(event,),
        )


def _drawn(kind: str, chosen: bytes) -> tuple[bytes, bytes]:
    """Return the secret of a new slot, and what to show of it."""
    if kind == slots.RECOVERY:
        if chosen:
            raise InvalidRequestError("a recovery code cannot be chosen, only drawn: send none")
        code = recovery_code.encode(secrets.token_bytes(recovery_code.SIZE)).encode("ascii")
        return code, code
    if chosen:
        return slot_secrets.check_new(chosen), b""
    if kind == slots.PASSPHRASE:
        raise InvalidRequestError("a passphrase slot needs a passphrase")
    drawn = slot_secrets.write_drawn(secrets.token_bytes(slot_secrets.UNATTENDED_SIZE))
    return drawn, drawn


def _find(session: Session, slot_id: str) -> Slot:
    found = [
        slot
        for slot in session.slots.values()
        if slot_id and slot.slot_id.hex().startswith(slot_id.lower())
    ]
    if len(found) != 1:
        which = "no slot has this id" if not found else "several slots begin with this id"
        raise SlotUnknownError(f"{which}: list the slots to see theirs")
    return found[0]


def _keep_one(session: Session, gone: Collection[Slot], new: Collection[Slot]) -> None:
    left = [slot for slot in session.slots.values() if slot not in gone] + list(new)
    if not any(slot.kind in slots.AUTHORIZING for slot in left):
        raise LastSlotError(
            "this is the last slot that gives authority: without it nobody could change the vault; "
            "add a passphrase or a recovery code first"
        )
