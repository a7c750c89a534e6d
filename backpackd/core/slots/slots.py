"""Slots: the ways to unlock a vault, each with a wrap of the master key that is signed.

A slot is public: everybody who has the file has it. Its own secret (for a passphrase, stretched by
Argon2id) opens the slot's sealed blob, and that holds two things: the private key that the master
key is wrapped to, and the key that verifies wraps. HPKE does not say who wrapped, so a wrap is
used only after its signature was verified. Otherwise an attacker who can write the file could wrap
their own master key to the slot's public key, and the vault would seal new values under it.

The signature covers vault, slot, generation of the master key, public key and wrap, so none of
them can be swapped between slots or put back from an older file. That a *whole* slot is the
current one is not decided here: the authority record lists every slot's digest.

Kinds differ in where the secret comes from. What a person knows or keeps (a passphrase, a recovery
code) authorizes; what a program can read (a file, the environment) only unlocks.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backpackd.core.sealing import canonical, hybrid
from backpackd.core.sealing.canonical import CanonicalError, context
from backpackd.core.sealing.sealing import derive

PASSPHRASE: Final = "passphrase"  # noqa: S105 - a kind of slot
RECOVERY: Final = "recovery"
FILE: Final = "file"
ENVIRONMENT: Final = "environment"
KINDS = (PASSPHRASE, RECOVERY, FILE, ENVIRONMENT)
AUTHORIZING = frozenset({PASSPHRASE, RECOVERY})
"""The kinds whose secret gives operator authority."""
UNATTENDED = frozenset({FILE, ENVIRONMENT})
"""The kinds whose secret every program of the user can read."""

ID_SIZE = 16
MASTER_SIZE = 32
_VERIFY_SIZE = 32
_SIGNATURE_SIZE = 64
_SEALED_SIZE = hybrid.PRIVATE_SIZE + _VERIFY_SIZE + 16
_NONCE = bytes(12)
_STRETCHING_SALT_SIZE = 16
_MOST_ITERATIONS = 16
_MOST_LANES = 16
_MOST_MEMORY_KIB = 1024 * 1024
_MOST_GENERATIONS = 2**63 - 1


class SlotError(Exception):
    """A slot is not of the form, or what it holds is not what was signed."""


class WrongSecretError(Exception):
    """The slot's blob does not open with this secret."""


@dataclass(frozen=True, slots=True)
class Argon2idParameters:
    """How a passphrase is stretched (RFC 9106).

    Attributes:
        salt: 16 random bytes.
        iterations: passes over the memory.
        lanes: degree of parallelism.
        memory_kib: memory in KiB.
    """

    salt: bytes
    iterations: int
    lanes: int
    memory_kib: int

    def __post_init__(self) -> None:
        """Hold the parameters to bounds: a planted file must not make unlocking eat the machine."""
        if not (
            len(self.salt) == _STRETCHING_SALT_SIZE
            and 1 <= self.iterations <= _MOST_ITERATIONS
            and 1 <= self.lanes <= _MOST_LANES
            and 8 * self.lanes <= self.memory_kib <= _MOST_MEMORY_KIB
            and self.iterations * self.memory_kib <= 4 * _MOST_MEMORY_KIB  # the time it takes
        ):
            raise SlotError("Argon2id parameters out of bounds")

    def encode(self) -> dict[str, object]:
        """Return the parameters as plain data for canonical JSON."""
        return {
            "iterations": self.iterations,
            "lanes": self.lanes,
            "memory_kib": self.memory_kib,
            "name": "argon2id",
            "salt": canonical.to_text(self.salt),
        }

    @classmethod
    def decode(cls, data: object) -> "Argon2idParameters":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape.
            SlotError: out of bounds.
        """
        found = canonical.members(
            data, iterations=int, lanes=int, memory_kib=int, name=str, salt=str
        )
        if found["name"] != "argon2id":
            raise CanonicalError("an unknown way to stretch a passphrase")
        salt = canonical.from_text(found["salt"], size=_STRETCHING_SALT_SIZE)
        return cls(salt, found["iterations"], found["lanes"], found["memory_kib"])


@dataclass(frozen=True, slots=True)
class HkdfParameters:
    """How a random secret becomes a slot's: at once (RFC 5869), for nobody can guess it.

    Attributes:
        salt: 16 random bytes.
    """

    salt: bytes

    def encode(self) -> dict[str, object]:
        """Return the parameters as plain data for canonical JSON."""
        return {"name": "hkdf-sha256", "salt": canonical.to_text(self.salt)}

    def derive(self, random: bytes) -> bytes:
        """Derive the slot's secret, 32 bytes, from a random one."""
        return derive(random, salt=self.salt, purpose="slot-secret")


Stretching = Argon2idParameters | HkdfParameters


def _decode_stretching(data: dict[str, object]) -> Stretching:
    if data.get("name") != "hkdf-sha256":
        return Argon2idParameters.decode(data)
    found = canonical.members(data, name=str, salt=str)
    return HkdfParameters(canonical.from_text(found["salt"], size=_STRETCHING_SALT_SIZE))


def rfc_9106_low_memory(salt: bytes) -> Argon2idParameters:
    """Return the second recommended parameters of RFC 9106, section 4: t=3, p=4, m=64 MiB."""
    return Argon2idParameters(salt, iterations=3, lanes=4, memory_kib=64 * 1024)


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot as it is stored.

    Attributes:
        slot_id: 16 random bytes.
        stretching: how a passphrase or a random secret becomes the slot's.
        generation: of the master key that is wrapped; counts up with every rotation.
        public: the slot's public key, `hybrid.PUBLIC_SIZE` bytes.
        sealed: the slot's private key and the wrap-verify key, sealed under the slot's secret.
        wrap: the master key wrapped to `public`.
        signature: Ed25519 over all of this but `sealed` and `stretching`, see `_statement`.
        kind: one of `KINDS`.
        named: whether the body repeats the id, so that a body under another slot's id is known for
            what it is; those of the first version did not.
    """

    slot_id: bytes
    stretching: Stretching
    generation: int
    public: bytes
    sealed: bytes
    wrap: bytes
    signature: bytes
    kind: str = PASSPHRASE
    named: bool = True

    def encode(self) -> bytes:
        """Return the slot's body as canonical JSON; the id is stored beside it as well."""
        name = {"id": self.slot_id.hex()} if self.named else {}
        return canonical.encode(
            {
                **name,
                "generation": self.generation,
                "kind": self.kind,
                "public": canonical.to_text(self.public),
                "sealed": canonical.to_text(self.sealed),
                "signature": canonical.to_text(self.signature),
                "stretching": self.stretching.encode(),
                "wrap": canonical.to_text(self.wrap),
            }
        )

    @classmethod
    def decode(cls, slot_id: bytes, body: bytes) -> "Slot":
        """Read what `encode` wrote, strictly.

        Raises:
            SlotError: anything else.
        """
        try:
            data = canonical.decode(body)
            named = type(data) is dict and "id" in data
            found = canonical.members(
                data,
                **({"id": str} if named else {}),
                generation=int,
                kind=str,
                public=str,
                sealed=str,
                signature=str,
                stretching=dict,
                wrap=str,
            )
            if found["kind"] not in KINDS or len(slot_id) != ID_SIZE:
                raise SlotError("an unknown kind of slot")
            if named and found["id"] != slot_id.hex():
                raise SlotError("the body of another slot")
            if not 1 <= found["generation"] <= _MOST_GENERATIONS:
                raise SlotError("a generation out of bounds")
            return cls(
                slot_id,
                _decode_stretching(found["stretching"]),
                found["generation"],
                canonical.from_text(found["public"], size=hybrid.PUBLIC_SIZE),
                canonical.from_text(found["sealed"], size=_SEALED_SIZE),
                canonical.from_text(found["wrap"], size=MASTER_SIZE + hybrid.OVERHEAD),
                canonical.from_text(found["signature"], size=_SIGNATURE_SIZE),
                found["kind"],
                named,
            )
        except CanonicalError as error:
            raise SlotError("not a slot") from error

    @property
    def digest(self) -> str:
        """SHA-256 of id and body, lowercase hex: what the authority record lists."""
        return hashlib.sha256(context(self.slot_id, self.encode())).hexdigest()


def make(
    master: bytes | memoryview,
    *,
    vault_id: bytes,
    slot_id: bytes,
    generation: int,
    stretching: Stretching,
    secret: bytes,
    signing_key: bytes,
    kind: str = PASSPHRASE,
) -> Slot:
    """Make a slot that wraps the master key.

    Args:
        master: the master key, 32 bytes.
        vault_id: the vault's 16 bytes.
        slot_id: 16 fresh random bytes.
        generation: of the master key.
        stretching: the parameters, with a fresh salt, by which `secret` came about.
        secret: 32 bytes; used for this one slot, so its blob can have a fixed nonce.
        signing_key: the vault's private wrap-signing key, 32 bytes (Ed25519, RFC 8032).
        kind: one of `KINDS`.
    """
    signer = Ed25519PrivateKey.from_private_bytes(signing_key)
    private, public = hybrid.generate()
    inner = private + signer.public_key().public_bytes_raw()
    place = _blob_context(vault_id, slot_id, stretching, kind)
    sealed = AESGCM(secret).encrypt(_NONCE, inner, place)
    empty = Slot(slot_id, stretching, generation, public, sealed, b"", b"", kind)
    return rewrap(empty, master, vault_id=vault_id, generation=generation, signing_key=signing_key)


def rewrap(
    slot: Slot,
    master: bytes | memoryview,
    *,
    vault_id: bytes,
    generation: int,
    signing_key: bytes,
) -> Slot:
    """Return a slot with another master key in it. Its secret is not needed and stays the same.

    Args:
        slot: one that was verified: the new master key goes to the holder of its private key.
        master: the new master key, 32 bytes.
        vault_id: the vault's 16 bytes.
        generation: of the new master key.
        signing_key: the vault's private wrap-signing key, 32 bytes.
    """
    signer = Ed25519PrivateKey.from_private_bytes(signing_key)
    info = _wrap_context(vault_id, slot.slot_id, generation)
    wrap = hybrid.wrap(master, slot.public, info=info)
    statement = _statement(vault_id, slot.slot_id, generation, slot.public, wrap)
    return replace(slot, generation=generation, wrap=wrap, signature=signer.sign(statement))


def open_slot(slot: Slot, *, vault_id: bytes, secret: bytes) -> bytes:
    """Take the master key out of a slot.

    Args:
        slot: as stored; nothing in it is trusted before it is verified.
        vault_id: the vault's 16 bytes.
        secret: the slot's secret, 32 bytes.

    Returns:
        The master key, 32 bytes.

    Raises:
        WrongSecretError: the secret does not open this slot.
        SlotError: it does, and the wrap is not the one that the vault signed.
    """
    try:
        inner = AESGCM(secret).decrypt(
            _NONCE,
            slot.sealed,
            _blob_context(vault_id, slot.slot_id, slot.stretching, slot.kind),
        )
    except InvalidTag as error:
        raise WrongSecretError from error
    private, verify_key = inner[: hybrid.PRIVATE_SIZE], inner[hybrid.PRIVATE_SIZE :]
    statement = _statement(vault_id, slot.slot_id, slot.generation, slot.public, slot.wrap)
    try:
        Ed25519PublicKey.from_public_bytes(verify_key).verify(slot.signature, statement)
        info = _wrap_context(vault_id, slot.slot_id, slot.generation)
        return hybrid.unwrap(slot.wrap, private, info=info)
    except (InvalidSignature, hybrid.UnwrapError) as error:
        raise SlotError("the wrap of the master key is not the one that was signed") from error


def same_master(one: bytes | memoryview, other: bytes | memoryview) -> bool:
    """Compare two master keys in constant time."""
    return hmac.compare_digest(one, other)


def _blob_context(
    vault_id: bytes, slot_id: bytes, stretching: Stretching, kind: str = PASSPHRASE
) -> bytes:
    parameters = canonical.encode(stretching.encode())
    # Passphrase slots are as they were when there was no other kind.
    more = () if kind == PASSPHRASE else (kind.encode("ascii"),)
    return context(b"backpack/v1/slot-blob", vault_id, slot_id, parameters, *more)


def _wrap_context(vault_id: bytes, slot_id: bytes, generation: int) -> bytes:
    return context(b"backpack/v1/slot-wrap", vault_id, slot_id, generation.to_bytes(8, "big"))


def _statement(
    vault_id: bytes, slot_id: bytes, generation: int, public: bytes, wrap: bytes
) -> bytes:
    info = _wrap_context(vault_id, slot_id, generation)
    return context(b"backpack/v1/slot-wrap-signature", info, public, wrap)
