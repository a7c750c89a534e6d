"""The header of a version 2 lock: what its author signs. `document` reads it, strictly."""

import hashlib
from dataclasses import dataclass
from typing import Any

from backpackd.core.sealing import canonical, hybrid
from backpackd.core.sealing.canonical import context
from backpackd.core.sealing.identity import PublicIdentity

LOCK_KEY_SIZE = 32
WRAP_SIZE = LOCK_KEY_SIZE + hybrid.OVERHEAD
FIRST = "0" * 64
"""The digest that stands for "made from nothing"."""
_LABEL = b"backpack/agent-lock/v2/"


def statement(what: str, *parts: bytes) -> bytes:
    """Join parts under a label of their own, so that one kind is never taken for another."""
    return context(_LABEL + what.encode("ascii"), *parts)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One who can open the lock.

    Attributes:
        identity: whose.
        wrap: the lock key, wrapped to it.
    """

    identity: PublicIdentity
    wrap: bytes


@dataclass(frozen=True, slots=True)
class Layer:
    """One sealed layer.

    Attributes:
        count: the generation of the header that it was sealed for; of memory, its own counter.
        sealed: salt, ciphertext and tag, see `locks`.
    """

    count: int
    sealed: bytes

    def digest(self, lock_id: str, name: str) -> str:
        """SHA-256 over lock, name, count and sealed bytes, 64 hexadecimal digits."""
        place = (bytes.fromhex(lock_id), name.encode(), self.count.to_bytes(8, "big"))
        return hashlib.sha256(statement("layer", *place, self.sealed)).hexdigest()


@dataclass(frozen=True, slots=True)
class Header:
    """What the author signs.

    Attributes:
        lock_id: 32 hexadecimal digits, random; stays with the lock for ever.
        generation: counts up with every signing, from 1.
        previous: digest of the header that this one was made from, or `FIRST`.
        author: fingerprint of the recipient that signs.
        commitment: of the lock key, 64 hexadecimal digits: all recipients are given the same one.
        anchors: by layer, its count and digest at the time of signing.
        wraps: the recipients, in the order in which they were added.
    """

    lock_id: str
    generation: int
    previous: str
    author: str
    commitment: str
    anchors: dict[str, tuple[int, str]]
    wraps: tuple[Recipient, ...]

    def plain(self) -> dict[str, Any]:
        """Return the header as plain data, members in the order of the file."""
        return {
            "lock_id": self.lock_id,
            "generation": self.generation,
            "previous": self.previous,
            "author": self.author,
            "lock_key": self.commitment,
            "layers": {
                name: {"count": count, "digest": digest}
                for name, (count, digest) in self.anchors.items()
            },
            "recipients": [
                {
                    "identity": canonical.to_text(recipient.identity.encode()),
                    "wrap": canonical.to_text(recipient.wrap),
                }
                for recipient in self.wraps
            ],
        }

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return statement("header", canonical.encode(self.plain()))

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed, 64 hexadecimal digits."""
        return hashlib.sha256(self.statement).hexdigest()
