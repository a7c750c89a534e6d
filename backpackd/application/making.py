"""The parts of a new vault: a master key, slots that lead to it, and the first authority record."""

import secrets
from collections.abc import Sequence

from backpackd.application import opening
from backpackd.core import authority as authorities
from backpackd.core import slots
from backpackd.core.authority import Authority, SlotDates
from backpackd.core.records import RowSet
from backpackd.core.rows import SlotRow, StoredVault
from backpackd.core.sealing import SALT_SIZE
from backpackd.core.slots import Slot, Stretching


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
    vault_id = secrets.token_bytes(opening.VAULT_ID_SIZE)
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
