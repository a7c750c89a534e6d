"""The stored parts of a vault: created for a new one, opened, and compared with each other.

Nothing here is remembered, and no state changes. `vault` handles an unlocked vault.
"""

import secrets
from collections.abc import Collection, Sequence

from backpackd.core.errors import DamageError, WrongPassphraseError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import RowHead, SlotRow, StoredVault
from backpackd.core.sealing.sealing import SALT_SIZE
from backpackd.core.slots import passphrases, slot_secrets, slots
from backpackd.core.slots.slots import (
    AUTHORIZING,
    RECOVERY,
    HkdfParameters,
    Slot,
    SlotError,
    Stretching,
    WrongSecretError,
)
from backpackd.core.vault import authority as authorities
from backpackd.core.vault.authority import Authority, SlotDates
from backpackd.core.vault.records import RowSet
from backpackd.ports import Store, Stretcher

VAULT_ID_SIZE = 16
MOST_SLOTS = 32
"""More than anybody needs. Before a passphrase counts as wrong, it is stretched for each slot, with
up to a gibibyte. Somebody who can write the file could plant thousands of slots."""

MOST_WORK_KIB = 8 * 1024 * 1024
"""KiB that Argon2id fills for all slots together before a passphrase counts as wrong. This is more
than 32 slots of the usual 3 times 64 MiB take, and at most a minute's work in a planted file."""


async def load(store: Store) -> StoredVault:
    """Read the stored parts of a vault that must exist.

    Raises:
        DamageError: it is missing, or not a vault.
    """
    stored = await store.load()
    if stored is None or len(stored.vault_id) != VAULT_ID_SIZE:
        raise DamageError("the vault file is gone or incomplete: restore it from a backup")
    return stored


def decode_slots(stored: StoredVault) -> list[Slot]:
    """Return the stored slots. Nothing about them is verified yet.

    Raises:
        DamageError: one is malformed, or there are too many or none.
    """
    if not 1 <= len(stored.slots) <= MOST_SLOTS:
        raise DamageError(
            "the vault file has no slot, or more than a vault can have: restore it from a backup",
            reason="slots-changed",
        )
    try:
        found = [Slot.decode(row.slot_id, row.body) for row in stored.slots]
    except SlotError as error:
        raise damaged_slots() from error
    if sum(map(_work_kib, found)) > MOST_WORK_KIB:
        raise damaged_slots()
    return found


def _work_kib(slot: Slot) -> int:
    """Return how many KiB are filled for a slot in all passes. The time is proportional to this."""
    stretching = slot.stretching
    if isinstance(stretching, HkdfParameters):
        return 0
    return stretching.iterations * stretching.memory_kib


async def open_any(
    stretcher: Stretcher,
    found: Sequence[Slot],
    vault_id: bytes,
    typed: bytes,
    tree: ProcessId,
    *,
    kinds: Collection[str] = AUTHORIZING,
) -> tuple[Slot, bytes]:
    """Return the slot that a passphrase, code or key opens, and the master key in it.

    Args:
        stretcher: for passphrases of people.
        found: the vault's slots.
        vault_id: the vault's 16 bytes.
        typed: as the caller sent it.
        tree: the process tree whose turn the stretching takes.
        kinds: the kinds of slots to try. A call that gives authority never tries slots that only
            unlock.

    Raises:
        WrongPassphraseError: it opens none of them.
        InvalidRequestError: it cannot be the secret of any slot.
        DamageError: it opens one, but the vault did not sign the key in it.
    """
    normal = passphrases.normalise(typed)
    # The cheap ones first: the form shows whether it is a code.
    for slot in sorted(
        found, key=lambda slot: isinstance(slot.stretching, HkdfParameters), reverse=True
    ):
        material = slot_secrets.material(slot.kind, slot.stretching, normal)
        if slot.kind not in kinds or material is None:
            continue
        secret = await secret_of(stretcher, slot.stretching, material, tree)
        try:
            return slot, slots.open_slot(slot, vault_id=vault_id, secret=secret)
        except WrongSecretError:
            continue
        except SlotError as error:
            raise damaged_slots() from error
    what = "recovery code" if set(kinds) == {RECOVERY} else "passphrase"
    raise WrongPassphraseError(f"wrong {what}")


async def secret_of(
    stretcher: Stretcher, stretching: Stretching, material: bytes, tree: ProcessId
) -> bytes:
    """Return a slot's secret, 32 bytes, from the result of `slot_secrets.material`."""
    if isinstance(stretching, HkdfParameters):
        return stretching.derive(material)
    return await stretcher.stretch(material, stretching, tree)


def verified(
    master: bytes, stored: StoredVault, found: Sequence[Slot], heads: Sequence[RowHead]
) -> Authority:
    """Return the authority record after checking the slots and rows against it.

    Raises:
        DamageError: they do not match it, or it does not open.
    """
    authority = Authority.open(master, stored.vault_id, stored.authority)
    authority.check_slots(found)
    authority.check_rows(RowSet().change(master, stored.vault_id, add=heads, drop=()))
    return authority


def damaged_slots() -> DamageError:
    """Create the error for a slot that is not the one that the vault signed."""
    return DamageError(
        "a slot in the vault file was altered: this vault did not sign the master key in it, so "
        "the key is not used; restore the file from a backup",
        reason="slots-changed",
    )


def make(
    made: Sequence[tuple[str, Stretching, bytes]], now_ms: int
) -> tuple[bytes, StoredVault, Authority, list[Slot]]:
    """Generate the keys of a new vault, and seal its first content.

    Args:
        made: kind, stretching and 32-byte secret of every slot of the vault.
        now_ms: Unix time in milliseconds.

    Returns:
        The master key, what to store, the authority record and the slots.
    """
    vault_id = secrets.token_bytes(VAULT_ID_SIZE)
    master, signing_key = secrets.token_bytes(slots.MASTER_SIZE), secrets.token_bytes(32)
    new = [
        slots.make(
            master,
            vault_id=vault_id,
            slot_id=secrets.token_bytes(slots.ID_SIZE),
            generation=1,
            stretching=stretching,
            secret=secret,
            signing_key=signing_key,
            kind=kind,
        )
        for kind, stretching, secret in made
    ]
    salt = secrets.token_bytes(SALT_SIZE)
    authority = Authority(
        generation=1,
        master_generation=1,
        rows=RowSet(),
        slots={slot.slot_id.hex(): slot.digest for slot in new},
        signing_key=authorities.seal_signing_key(master, vault_id, signing_key, salt),
        latest_ms=now_ms,
        slot_dates={slot.slot_id.hex(): SlotDates(now_ms) for slot in new},
    )
    sealed = authority.seal(master, vault_id, secrets.token_bytes(SALT_SIZE))
    rows = tuple(SlotRow(slot.slot_id, slot.encode()) for slot in new)
    return master, StoredVault(vault_id, sealed, rows), authority, new
