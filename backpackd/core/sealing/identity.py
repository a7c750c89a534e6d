"""The identity of a vault: what others wrap to it with, and what it signs with.

Two key pairs that belong together: a hybrid one (`core.sealing.hybrid`), to which others wrap
the keys of their locks, and an Ed25519 one (RFC 8032), which signs locks. The public halves
travel as one line of text that a person pastes. Its checksum finds a slip in the pasting and
nothing more: whether the line is the teammate's is settled by comparing fingerprints over
another channel.

Private halves are lent for one operation and kept by nobody; at rest they are sealed under the
master key.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from backpackd.core.errors import CallerError, DamageError, Status
from backpackd.core.sealing import canonical, hybrid
from backpackd.core.sealing.canonical import CanonicalError, context
from backpackd.core.sealing.sealing import OpenError, Secret, open_sealed, seal

TEXT_PREFIX = "backpack-identity-v1:"
SIGNATURE_SIZE = 64
VERIFYING_SIZE = 32
PUBLIC_SIZE = hybrid.PUBLIC_SIZE + VERIFYING_SIZE
_MLKEM_PUBLIC_SIZE = 1184
_MLKEM_SEED_SIZE = 64
_SIGNING_SIZE = 32
_CHECKSUM_SIZE = 6
_TEXT_SIZE = (PUBLIC_SIZE + _CHECKSUM_SIZE) // 3 * 4
_SPOKEN_DIGITS = 32
_KIND = "identity"
_LABEL = b"backpack/v1/identity"


class IdentityError(CallerError):
    """The given text or bytes are not an identity."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-identity"


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """The public part of a vault's identity.

    Attributes:
        encryption: public key that keys are wrapped to, `hybrid.PUBLIC_SIZE` bytes.
        verifying: public key that verifies its signatures, 32 bytes.
    """

    encryption: bytes
    verifying: bytes

    def __repr__(self) -> str:
        return f"PublicIdentity({self.spoken})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both public keys, 64 lowercase hexadecimal digits: the identity's name."""
        return hashlib.sha256(context(_LABEL, self.encryption, self.verifying)).hexdigest()

    @property
    def spoken(self) -> str:
        """The first 128 bits of the fingerprint in groups of four digits, for reading aloud."""
        digits = self.fingerprint[:_SPOKEN_DIGITS]
        return "-".join(digits[place : place + 4] for place in range(0, _SPOKEN_DIGITS, 4))

    @property
    def text(self) -> str:
        """The one line that a teammate pastes."""
        encoded = self.encode()
        return TEXT_PREFIX + canonical.to_text(encoded + _checksum(encoded))

    def encode(self) -> bytes:
        """Return both public keys, one after the other: `PUBLIC_SIZE` bytes."""
        return self.encryption + self.verifying

    @classmethod
    def decode(cls, data: bytes) -> "PublicIdentity":
        """Read what `encode` wrote.

        Raises:
            IdentityError: another size, or no public keys.
        """
        if len(data) != PUBLIC_SIZE:
            raise IdentityError("an identity of another size: ask for the whole of it again")
        encryption, verifying = data[: hybrid.PUBLIC_SIZE], data[hybrid.PUBLIC_SIZE :]
        try:
            MLKEM768PublicKey.from_public_bytes(encryption[:_MLKEM_PUBLIC_SIZE])
            X25519PublicKey.from_public_bytes(encryption[_MLKEM_PUBLIC_SIZE:])
            Ed25519PublicKey.from_public_bytes(verifying)
        except ValueError as error:
            raise IdentityError(
                "an identity without valid public keys: ask for it again"
            ) from error
        return cls(encryption, verifying)

    @classmethod
    def parse(cls, text: str) -> "PublicIdentity":
        """Read the line that `text` gives, and nothing but that.

        Raises:
            IdentityError: another form, or a slip in the pasting.
        """
        body = text.removeprefix(TEXT_PREFIX)
        # The length comes first, so that a pasted novel costs nothing.
        if body == text or len(body) != _TEXT_SIZE:
            raise IdentityError(
                f"an identity is one line that starts with {TEXT_PREFIX} and has "
                f"{len(TEXT_PREFIX) + _TEXT_SIZE} characters: paste the whole line"
            )
        try:
            data = canonical.from_text(body, size=PUBLIC_SIZE + _CHECKSUM_SIZE)
        except CanonicalError:
            data = b""
        encoded = data[:PUBLIC_SIZE]
        if data[PUBLIC_SIZE:] != _checksum(encoded):
            raise IdentityError("the identity was changed on its way: paste the whole line again")
        return cls.decode(encoded)

    def verify(self, signature: bytes, statement: bytes) -> bool:
        """Return whether this identity signed a statement."""
        try:
            Ed25519PublicKey.from_public_bytes(self.verifying).verify(signature, statement)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Identity:
    """A vault's identity with its private halves, for the length of one operation.

    Attributes:
        public: the public halves.
        decryption: private key that unwraps, `hybrid.PRIVATE_SIZE` bytes.
        signing: private key that signs, 32 bytes.
    """

    public: PublicIdentity
    decryption: bytes = field(repr=False)
    signing: bytes = field(repr=False)

    @classmethod
    def from_private(cls, decryption: bytes, signing: bytes) -> "Identity":
        """Build an identity from its private halves.

        Raises:
            ValueError: they are of another size.
        """
        if len(decryption) != hybrid.PRIVATE_SIZE:
            raise ValueError("a private key of another size")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(decryption[:_MLKEM_SEED_SIZE])
        x25519 = X25519PrivateKey.from_private_bytes(decryption[_MLKEM_SEED_SIZE:])
        encryption = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        signer = Ed25519PrivateKey.from_private_bytes(signing)
        verifying = signer.public_key().public_bytes_raw()
        return cls(PublicIdentity(encryption, verifying), decryption, signing)

    def sign(self, statement: bytes) -> bytes:
        """Sign a statement, which `canonical.context` and a label keep apart from all others."""
        return Ed25519PrivateKey.from_private_bytes(self.signing).sign(statement)


def generate() -> Identity:
    """Draw a new identity."""
    decryption, _ = hybrid.generate()
    return Identity.from_private(decryption, Ed25519PrivateKey.generate().private_bytes_raw())


def seal_identity(master: Secret, vault_id: bytes, identity: Identity, salt: bytes) -> bytes:
    """Seal an identity's private halves under the master key, with 32 fresh bytes as salt."""
    private = identity.decryption + identity.signing
    return seal(master, private, kind=_KIND, bound_to=context(vault_id), salt=salt)


def open_identity(master: Secret, vault_id: bytes, sealed: bytes) -> Identity:
    """Open what `seal_identity` made, for one operation.

    Raises:
        DamageError: it is not the sealed identity of this vault.
    """
    try:
        private = open_sealed(master, sealed, kind=_KIND, bound_to=context(vault_id))
        return Identity.from_private(private[: hybrid.PRIVATE_SIZE], private[hybrid.PRIVATE_SIZE :])
    except (OpenError, ValueError) as error:
        raise DamageError(
            "the identity of the vault does not open: restore the vault file from a backup",
            reason="authority-damaged",
        ) from error


def _checksum(encoded: bytes) -> bytes:
    return hashlib.sha256(context(_LABEL, encoded)).digest()[:_CHECKSUM_SIZE]
