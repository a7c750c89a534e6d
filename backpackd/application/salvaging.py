"""Seals what can still be read of a damaged vault as a backup. Grants and policy stay behind.

They are what a damaged vault cannot be believed about; keys speak for themselves.
"""

import secrets

from backpackd.application.checking import Report
from backpackd.core import backup, backup_contents, passphrases, slots
from backpackd.core.backup import Header, Sealer
from backpackd.core.backup_contents import StoredKey, Summary
from backpackd.core.errors import DamageError
from backpackd.core.facts import ProcessId
from backpackd.core.policy import Policy
from backpackd.ports import Stretcher


async def sealed(report: Report, passphrase: bytes, stretcher: Stretcher, tree: ProcessId) -> bytes:
    """Return a backup of the keys that a report found readable.

    Args:
        report: of a check with the passphrase.
        passphrase: that of the vault, which opens the backup as well.
        stretcher: for the passphrase.
        tree: whose turn the stretching takes.

    Raises:
        DamageError: nothing can be read.
    """
    if report.stored is None or not report.keys:
        raise DamageError("no key of this vault can be read: there is nothing to save")
    file_key = secrets.token_bytes(backup.FILE_KEY_SIZE)
    stretching = slots.rfc_9106_low_memory(secrets.token_bytes(16))
    secret = await stretcher.stretch(passphrases.normalise(passphrase), stretching, tree)
    way = backup.passphrase_way(file_key, secret, stretching)
    # Two rows of one name can be there, where an old one was put in again: the newest counts.
    keys: dict[str, StoredKey] = {}
    for key in sorted(report.keys, key=lambda key: key.head.updated_at_ms):
        keys[key.head.name] = key
    newest = max(key.head.updated_at_ms for key in keys.values())
    sealer = Sealer(file_key, Header(report.stored.vault_id, newest, (way,)))
    parts = [sealer.head, sealer.add(backup_contents.encode(Summary(len(keys), 0)))]
    parts.append(sealer.add(backup_contents.encode(Policy())))
    parts += [sealer.add(backup_contents.encode(key)) for key in keys.values()]
    parts += [sealer.add(backup_contents.encode_end()), sealer.finish()]
    return b"".join(parts)
