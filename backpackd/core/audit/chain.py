"""The rows of the audit log and their links: hashes, segments, checkpoints.

Every row carries the hash of the row before it. A segment's header begins what one run of the
daemon wrote; a checkpoint is signed by the vault, vouches for everything before it and for itself,
and names the authority record that is in force with it. What is in an entry is not looked at here.
docs/audit.md is the specification.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from backpackd.core.audit.keys import VERIFY_SIZE
from backpackd.core.audit.ratchet import STATE_SIZE
from backpackd.core.audit.record_state import DIGEST_SIZE, RecordState
from backpackd.core.rows import AuditRow
from backpackd.core.sealing import canonical, hybrid
from backpackd.core.sealing.canonical import CanonicalError, context

HEADER, ENTRY, CHECKPOINT = 1, 2, 3
"""The kinds of rows."""
HASH_SIZE = 32
MOST_NUMBER = 2**62
EVERY = 100
"""Entries after which an unlocked vault signs."""

UNLOCK, LOCK, REGULAR, CHANGE = "unlock", "lock", "regular", "change"
BREAK, ACCEPTED = "break", "accepted"
"""Why a checkpoint was written. `CHANGE`: together with a change of the vault. `BREAK`: at unlock,
the log was not the one that the vault knew. `ACCEPTED`: at unlock, the operator said that a record
older than the one that the log names was meant."""
_WHY = frozenset({UNLOCK, LOCK, REGULAR, CHANGE, BREAK, ACCEPTED})
_SIGNATURE_SIZE = 64
_DIGEST = re.compile(rf"[0-9a-f]{{{2 * DIGEST_SIZE}}}", re.ASCII)
_HEAD = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{64})", re.ASCII)


class ChainError(Exception):
    """A row has a wrong form; the message says where, and holds nothing of the row."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log, or a place in it.

    Attributes:
        number: of the last row, from 1; 0 for an empty log.
        digest: its hash, 32 bytes.
    """

    number: int = 0
    digest: bytes = bytes(HASH_SIZE)

    @property
    def text(self) -> str:
        """The head as people write it down: number, a hyphen, the hash in hexadecimal."""
        return f"{self.number}-{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read what `text` gave.

        Raises:
            ChainError: it is none.
        """
        found = _HEAD.fullmatch(text)
        if found is None or int(found[1]) > MOST_NUMBER:
            raise ChainError("not the head of an audit log")
        return cls(int(found[1]), bytes.fromhex(found[2]))

    def next(self, vault_id: bytes, kind: int, body: bytes) -> tuple[AuditRow, "Head"]:
        """Return the row that follows and the head that it makes."""
        row = AuditRow(self.number + 1, kind, self.digest, body)
        return row, head_of(vault_id, row)


def head_of(vault_id: bytes, row: AuditRow) -> Head:
    """Return the head that a row makes: its number and its hash."""
    statement = context(
        b"backpack/v1/audit-row",
        vault_id,
        # Signed, because a row that somebody planted may hold any number.
        row.number.to_bytes(8, "big", signed=True),
        row.kind.to_bytes(8, "big", signed=True),
        row.previous,
        row.body,
    )
    return Head(row.number, hashlib.sha256(statement).digest())


@dataclass(frozen=True, slots=True)
class Header:
    """The body of a segment's first row.

    Attributes:
        segment: counts up from 1.
        keys: fingerprint of the audit keys that it was written to.
        verify: verifies the checkpoints in it, 32 bytes.
        wrap: the segment's first state, wrapped.
    """

    segment: int
    keys: str
    verify: bytes
    wrap: bytes

    def encode(self) -> bytes:
        """Return the body as canonical JSON."""
        return canonical.encode(
            {
                "keys": self.keys,
                "segment": self.segment,
                "verify": canonical.to_text(self.verify),
                "wrap": canonical.to_text(self.wrap),
            }
        )

    @classmethod
    def decode(cls, body: bytes) -> "Header":
        """Read what `encode` wrote, strictly.

        Raises:
            ChainError: anything else.
        """
        try:
            found = canonical.members(
                canonical.decode(body), keys=str, segment=int, verify=str, wrap=str
            )
            if not 1 <= found["segment"] <= MOST_NUMBER:
                raise ChainError("a segment's number out of bounds")
            return cls(
                found["segment"],
                found["keys"],
                canonical.from_text(found["verify"], size=VERIFY_SIZE),
                canonical.from_text(found["wrap"], size=STATE_SIZE + hybrid.OVERHEAD),
            )
        except CanonicalError as error:
            raise ChainError("not the header of a segment") from error


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The body of a row in which the vault vouches for the log so far.

    Attributes:
        segment: in which it stands.
        at_ms: Unix time in milliseconds.
        why: `unlock`, `lock`, `regular` or `break`.
        known: with `break`, the head that the vault knew, from which the log does not go on as it
            did; else empty.
        record: the authority record in force; None in checkpoints of an older version, which vouch
            for no record.
        signature: Ed25519, see `statement`.
    """

    segment: int
    at_ms: int
    why: str
    known: str = ""
    record: RecordState | None = None
    signature: bytes = b""

    def statement(self, vault_id: bytes, before: Head) -> bytes:
        """Return what is signed: the vault, the place, the hash of all before, and what it says."""
        record = self.record
        named = () if record is None else (record.generation.to_bytes(8, "big"), record.digest)
        return context(
            b"backpack/v1/audit-checkpoint",
            vault_id,
            self.segment.to_bytes(8, "big"),
            (before.number + 1).to_bytes(8, "big"),
            before.digest,
            self.at_ms.to_bytes(8, "big"),
            self.why.encode("ascii"),
            self.known.encode("ascii"),
            *named,
        )

    def signed(self, key: bytes | memoryview, vault_id: bytes, before: Head) -> "Checkpoint":
        """Return it signed, for the place after `before`."""
        signer = Ed25519PrivateKey.from_private_bytes(key)
        return replace(self, signature=signer.sign(self.statement(vault_id, before)))

    def genuine(self, verify: bytes, vault_id: bytes, before: Head) -> bool:
        """Return whether the vault signed it for the place after `before`."""
        try:
            key = Ed25519PublicKey.from_public_bytes(verify)
            key.verify(self.signature, self.statement(vault_id, before))
        except (InvalidSignature, ValueError):
            return False
        return True

    def encode(self) -> bytes:
        """Return the body as canonical JSON."""
        body: dict[str, Any] = {
            "at": self.at_ms,
            "known": self.known,
            "segment": self.segment,
            "signature": canonical.to_text(self.signature),
            "why": self.why,
        }
        if self.record is not None:
            body["generation"] = self.record.generation
            body["record"] = self.record.digest.hex()
        return canonical.encode(body)

    @classmethod
    def decode(cls, body: bytes) -> "Checkpoint":
        """Read what `encode` wrote, strictly.

        Raises:
            ChainError: anything else.
        """
        try:
            data = canonical.decode(body)
            named = type(data) is dict and "record" in data
            found = canonical.members(data, **_NAMING if named else _NAMELESS)
            signature = canonical.from_text(found["signature"], size=_SIGNATURE_SIZE)
        except CanonicalError as error:
            raise ChainError("not a checkpoint") from error
        broken = found["why"] == BREAK
        in_bounds = 1 <= found["segment"] <= MOST_NUMBER and 0 <= found["at"] <= MOST_NUMBER
        if found["why"] not in _WHY or not in_bounds or broken != bool(found["known"]):
            raise ChainError("not a checkpoint")
        if broken and found["known"] != Head().text:
            Head.parse(found["known"])
        record = _record(found) if named else None
        return cls(found["segment"], found["at"], found["why"], found["known"], record, signature)


_NAMELESS: dict[str, type] = {"at": int, "known": str, "segment": int, "signature": str, "why": str}
_NAMING = {**_NAMELESS, "generation": int, "record": str}


def _record(found: dict[str, Any]) -> RecordState:
    generation, digest = found["generation"], found["record"]
    if _DIGEST.fullmatch(digest) is None or not 1 <= generation <= MOST_NUMBER:
        raise ChainError("not a checkpoint")
    return RecordState(generation, bytes.fromhex(digest))
