"""What the authority record holds of the audit log: its private keys, and how far it reaches."""

from dataclasses import dataclass

from backpackd.core import canonical
from backpackd.core.audit.chain import HASH_SIZE, Head


@dataclass(frozen=True, slots=True)
class AuditAnchor:
    """What the authority record holds of the audit log.

    Attributes:
        keys: the private audit keys, sealed a second time, see `core.audit.keys`.
        head: a place that the log reached before this record was written: a log that lacks it was
            cut or altered.
    """

    keys: bytes
    head: Head

    def encode(self) -> dict[str, object]:
        """Return it as plain data for canonical JSON."""
        return {
            "digest": self.head.digest.hex(),
            "keys": canonical.to_text(self.keys),
            "number": self.head.number,
        }

    @classmethod
    def decode(cls, data: object) -> "AuditAnchor":
        """Read what `encode` wrote.

        Raises:
            ValueError: another shape.
        """
        found = canonical.members(data, digest=str, keys=str, number=int)
        digest = bytes.fromhex(found["digest"])
        if len(digest) != HASH_SIZE:
            raise ValueError("not a hash")
        return cls(canonical.from_text(found["keys"]), Head(found["number"], digest))
