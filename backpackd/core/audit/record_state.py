"""The state of the authority record, which a checkpoint signs, so that the log knows the record.

The digest covers the sealed record. So a verifier without the passphrase can compare the file with
the log. The digest reveals nothing, because every seal has its own salt.
"""

import hashlib
from dataclasses import dataclass

from backpackd.core.sealing.canonical import context

DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True)
class RecordState:
    """One state of the authority record.

    Attributes:
        generation: of the record; counts up with every change of the vault.
        digest: of the sealed record, 32 bytes, see `digest_of`.
    """

    generation: int
    digest: bytes

    @classmethod
    def of(cls, vault_id: bytes, generation: int, sealed: bytes) -> "RecordState":
        """Name a record by its generation and its sealed bytes."""
        return cls(generation, digest_of(vault_id, sealed))

    def is_behind(self, newest: "RecordState") -> bool:
        """Return whether this record replaced a newer one.

        A generation that two records share was reached in two copies of the vault: the other one
        is no record of this log either.
        """
        if self.generation == newest.generation:
            return self.digest != newest.digest
        return self.generation < newest.generation


def digest_of(vault_id: bytes, sealed: bytes) -> bytes:
    """Return SHA-256 of a sealed authority record, bound to its vault."""
    return hashlib.sha256(context(b"backpack/v1/authority-record", vault_id, sealed)).digest()
