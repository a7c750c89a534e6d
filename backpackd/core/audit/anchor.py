"""The authority record's part about the audit log: its private keys, and how far it reaches."""

from dataclasses import dataclass

from backpackd.core.audit.chain import HASH_SIZE, Head
from backpackd.core.sealing import canonical


@dataclass(frozen=True, slots=True)
class AuditAnchor:
    """The authority record's part about the audit log.

    Attributes:
        keys: the private audit keys, sealed a second time, see `core.audit.keys`.
        head: a place that the log reached before this record was written. A log without it was cut
            or altered.
        named: whether a checkpoint names this record. False only in records of an older version.
    """

    keys: bytes
    head: Head
    named: bool = False

    def encode(self) -> dict[str, object]:
        """Return it as plain data for canonical JSON."""
        return {
            "digest": self.head.digest.hex(),
            "keys": canonical.to_text(self.keys),
            "named": self.named,
            "number": self.head.number,
        }

    @classmethod
    def decode(cls, data: object) -> "AuditAnchor":
        """Read what `encode` wrote.

        Raises:
            ValueError: another shape.
        """
        if type(data) is dict:
            data = {"named": False, **data}
        found = canonical.members(data, digest=str, keys=str, named=bool, number=int)
        digest = bytes.fromhex(found["digest"])
        if len(digest) != HASH_SIZE:
            raise ValueError("not a hash")
        head = Head(found["number"], digest)
        return cls(canonical.from_text(found["keys"]), head, found["named"])
