"""The content of a store, as values: rows that mean nothing without the master key."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot as stored: everybody who has the file can read it, so it holds nothing secret.

    Attributes:
        slot_id: 16 random bytes.
        body: the slot's encoding, see `core.slots.slots`.
    """

    slot_id: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class RowHead:
    """Facts about a key row that are known without opening it.

    Attributes:
        index: 32 bytes, an HMAC of the name: how a row is found.
        version: counts up from 1 with every new value.
        tags: the 16-byte authentication tags of the row's two sealed parts, one after the other.
    """

    index: bytes
    version: int
    tags: bytes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One stored key: a sealed head (name and dates) and a sealed value."""

    index: bytes
    version: int
    head: bytes
    value: bytes

    @property
    def row_head(self) -> RowHead:
        """The row without its contents."""
        return RowHead(self.index, self.version, self.head[-16:] + self.value[-16:])


@dataclass(frozen=True, slots=True)
class StoredVault:
    """What a store holds besides the key rows.

    Attributes:
        vault_id: 16 random bytes.
        authority: the sealed authority record.
        slots: in the order of their ids.
        audit: the public half of the audit keys; None before the first unlock with this version.
    """

    vault_id: bytes
    authority: bytes
    slots: tuple[SlotRow, ...]
    audit: "AuditPublic | None" = None


@dataclass(frozen=True, slots=True)
class Change:
    """One atomic change of a vault: all of it becomes durable, or none.

    Attributes:
        before: the sealed authority record that must be in the store, byte for byte, for the
            change to happen: a store that was altered behind the daemon's back is found here.
        authority: the sealed authority record that takes its place.
        put: rows to store, in place of those with the same index.
        delete: indexes of rows to remove.
        put_slots: slots to store, in place of those with the same id.
        delete_slots: ids of slots to remove.
        audit: rows to append to the audit log in the same step.
        audit_public: the audit keys' public half to store, where it changes.
        aside: how many rows were set aside, which are stored as well, in place of those with the
            same index. Any other number of them is a mistake that would lose keys.
        nothing_else: remove every row that was not set aside.
    """

    before: bytes
    authority: bytes
    put: Sequence[KeyRow] = ()
    delete: Sequence[bytes] = ()
    put_slots: Sequence[SlotRow] = ()
    delete_slots: Sequence[bytes] = ()
    audit: Sequence["AuditRow"] = ()
    audit_public: "AuditPublic | None" = None
    aside: int | None = None
    nothing_else: bool = False


@dataclass(frozen=True, slots=True)
class AuditPublic:
    """The public half of the vault's audit keys, in plain beside the slots.

    Attributes:
        wrap: the key that segment keys are wrapped to, `hybrid.PUBLIC_SIZE` bytes.
        verify: the key that verifies checkpoints, 32 bytes (Ed25519).
    """

    wrap: bytes
    verify: bytes


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of the audit log, see `core.audit.chain`.

    Attributes:
        number: counts up from 1, through all segments.
        kind: header of a segment, entry or checkpoint.
        previous: hash of the row before it, 32 bytes; zeros for the first.
        body: what the kind says.
    """

    number: int
    kind: int
    previous: bytes
    body: bytes
