"""The vault's audit keys: segment keys are wrapped to one, and the other signs checkpoints.

The public half is in plain in the vault file, so that a locked daemon can write. The private half
is sealed inside the authority record. At unlock, the public half is derived from it again, which
reveals a planted one in the file.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from backpackd.core.rows import AuditPublic
from backpackd.core.sealing import hybrid
from backpackd.core.sealing.canonical import context
from backpackd.core.sealing.sealing import OpenError, Secret, open_sealed, seal

SIGNING_SIZE = 32
VERIFY_SIZE = 32
_KIND = "audit-keys"


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """The private half, for the length of one operation.

    Attributes:
        private: what segment keys are unwrapped with, `hybrid.PRIVATE_SIZE` bytes.
        signing: what checkpoints are signed with, 32 bytes (Ed25519, RFC 8032).
    """

    private: bytes = field(repr=False)
    signing: bytes = field(repr=False)

    @property
    def public(self) -> AuditPublic:
        """The public half, derived."""
        mlkem = MLKEM768PrivateKey.from_seed_bytes(self.private[:64])
        x25519 = X25519PrivateKey.from_private_bytes(self.private[64:])
        signer = Ed25519PrivateKey.from_private_bytes(self.signing)
        return AuditPublic(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
            signer.public_key().public_bytes_raw(),
        )

    def seal(self, master: Secret, vault_id: bytes, salt: bytes) -> bytes:
        """Seal the private half under the master key, for keeping in the authority record."""
        secret = self.private + self.signing
        return seal(master, secret, kind=_KIND, bound_to=context(vault_id), salt=salt)

    @classmethod
    def open(cls, master: Secret, vault_id: bytes, sealed: bytes) -> "AuditKeys":
        """Open what `seal` made.

        Raises:
            OpenError: it is not the private half of this vault.
        """
        secret = open_sealed(master, sealed, kind=_KIND, bound_to=context(vault_id))
        if len(secret) != hybrid.PRIVATE_SIZE + SIGNING_SIZE:
            raise OpenError("not audit keys")
        return cls(secret[: hybrid.PRIVATE_SIZE], secret[hybrid.PRIVATE_SIZE :])


def generate() -> AuditKeys:
    """Draw new audit keys."""
    private, _ = hybrid.generate()
    return AuditKeys(private, Ed25519PrivateKey.generate().private_bytes_raw())


def fingerprint(public: AuditPublic) -> str:
    """Return SHA-256 of the public half, lowercase hex: what a segment says it was written to."""
    return hashlib.sha256(
        context(b"backpack/v1/audit-public", public.wrap, public.verify)
    ).hexdigest()
