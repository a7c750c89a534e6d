"""The stored parts of a vault: made for a new one, opened, and held against each other.

Nothing here is remembered and no state changes: a vault that is unlocked is `vault`'s matter.
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
"""More than anybody needs: each one is stretched for, up to a gibibyte, before a passphrase is
wrong, and whoever can write the file could plant thousands."""

MOST_WORK_KIB = 8 * 1024 * 1024
"""KiB that Argon2id fills for all slots together before a passphrase is wrong: more than 32 slots
of the usual 3 times 64 MiB take, and no more than a minute's work in a file that was planted."""


async def load(store: Store) -> StoredVault:
    """Read what is stored of a vault that has to be there.

    Raises:
        DamageError: it is gone, or no vault.
    """
    stored = await store.load()
    if stored is None or len(stored.vault_id) != VAULT_ID_SIZE:
        raise DamageError("the vault file is gone or incomplete: restore it from a backup")
    return stored


def decode_slots(stored: StoredVault) -> list[Slot]:
    """Return the stored slots, of which nothing is verified yet.

    Raises:
        DamageError: one is not of the form, or there are too many or none.
    """
    if not 1 <= len(stored.slots) <= MOST_SLOTS:
        raise DamageError(
            "the vault file holds no slot, or more than there can be: restore it from a backup",
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
    """Return how many KiB are filled for a slot, all passes together: the time follows it."""
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
    """Return the slot that a passphrase, code or key opens, and the master key out of it.

    Args:
        stretcher: for what a person made up.
        found: the vault's slots.
        vault_id: the vault's 16 bytes.
        typed: as somebody presents it.
        tree: whose turn the stretching takes.
        kinds: of slots to try. What only unlocks is never tried where somebody authorizes.

    Raises:
        WrongPassphraseError: it opens none of them.
        InvalidRequestError: it cannot be the secret of any slot.
        DamageError: it opens one, and what is in it is not what the vault signed.
    """
    normal = passphrases.normalise(typed)
    # The cheap ones first: a code is known by its form.
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
    """Return a slot's secret, 32 bytes, from what `slot_secrets.material` gave for it."""
    if isinstance(stretching, HkdfParameters):
        return stretching.derive(material)
    return await stretcher.stretch(material, stretching, tree)


def verified(
    master: bytes, stored: StoredVault, found: Sequence[Slot], heads: Sequence[RowHead]
) -> Authority:
    """Return the authority record if slots and rows are the ones that it names.

    Raises:
        DamageError: they are not, or it does not open.
    """
    authority = Authority.open(master, stored.vault_id, stored.authority)
    authority.check_slots(found)
    authority.check_rows(RowSet().change(master, stored.vault_id, add=heads, drop=()))
    return authority


def damaged_slots() -> DamageError:
    """Make the error for a slot that is not the one that the vault signed."""
    return DamageError(
        "a slot in the vault file was altered: the master key in it is not the one that this "
        "vault signed, so it is not used; restore the file from a backup",
        reason="slots-changed",
    )


def make(
    made: Sequence[tuple[str, Stretching, bytes]], now_ms: int
) -> tuple[bytes, StoredVault, Authority, list[Slot]]:
    """Draw the keys of a new vault and seal what it begins with.

    Args:
        made: kind, stretching and 32-byte secret of every slot that it is to have.
        now_ms: Unix time in milliseconds.

    Returns:
        The master key, what is to be stored, the authority record and the slots.
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
