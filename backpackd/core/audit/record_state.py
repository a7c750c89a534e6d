"""Which authority record was in force: what a checkpoint signs, so that the log knows the record.

The digest is of the record as it is sealed. So a verifier without the passphrase can hold the file
against the log, and the digest tells nothing: every sealing has a salt of its own.
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
        """Return whether this record was put in the place of a newer one.

        A generation that two records share was reached in two copies of the vault: the other one
        is no record of this log either.
        """
        if self.generation == newest.generation:
            return self.digest != newest.digest
        return self.generation < newest.generation


def digest_of(vault_id: bytes, sealed: bytes) -> bytes:
    """Return SHA-256 of a sealed authority record, bound to its vault."""
    return hashlib.sha256(context(b"backpack/v1/authority-record", vault_id, sealed)).digest()
