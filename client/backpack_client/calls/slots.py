"""The calls of the service Slots: ways to unlock, recovery and the master key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import moment, moment_or_none, passphrase_bytes, text
from backpack_client.calls.stubs import Stubs

if TYPE_CHECKING:
    from backpack_proto.v1 import slots_pb2
else:
    slots_pb2 = Stubs("slots_pb2")


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to unlock the vault.

    Attributes:
        id: hexadecimal.
        kind: passphrase, recovery, file or environment.
        authorizes: whether it gives operator authority.
        stretched: whether a person chose the secret, so that it is stretched.
        created_at: when it was made; None: not known.
        drilled_at: when it was last proven; None: never.
    """

    id: str
    kind: str
    authorizes: bool
    stretched: bool
    created_at: datetime | None
    drilled_at: datetime | None


@dataclass(frozen=True, slots=True)
class AddedSlot:
    """A new slot and its drawn secret, which no repr shows."""

    id: str
    drawn: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The progress of a rotation, and its result.

    Attributes:
        keys_done: keys that were sealed again.
        keys_total: how many keys there are.
        done: True in the last one.
        slots: how many slots have the new master key.
        leases_ended: how many leases ended with it.
        purged: whether the old sealed bytes are gone from the vault's file.
        lock_files: known agent.lock files that are wrapped for this vault.
    """

    keys_done: int
    keys_total: int
    done: bool
    slots: int
    leases_ended: int
    purged: bool
    lock_files: tuple[str, ...]


def list_slots() -> Call[list[Slot]]:
    """List the slots."""
    return Call(
        PACKAGE + "Slots/ListSlots",
        slots_pb2.ListSlotsRequest(),
        slots_pb2.ListSlotsResponse.FromString,
        lambda response: [_slot(slot) for slot in response.slots],
    )


def add_slot(kind: str, secret: bytes = b"") -> Call[AddedSlot]:
    """Add a slot; without a secret, the daemon draws one."""
    return Call(
        PACKAGE + "Slots/AddSlot",
        slots_pb2.AddSlotRequest(kind=kind, secret=secret),
        slots_pb2.AddSlotResponse.FromString,
        lambda response: AddedSlot(response.id, response.drawn),
    )


def remove_slot(slot_id: str) -> Call[None]:
    """Remove a slot."""
    return Call(
        PACKAGE + "Slots/RemoveSlot",
        slots_pb2.RemoveSlotRequest(id=text("slot id", slot_id)),
        slots_pb2.RemoveSlotResponse.FromString,
        lambda _: None,
    )


def rotate(*, end_leases: bool) -> Call[Rotation]:
    """Give the vault a new master key; the responses tell the progress."""
    return Call(
        PACKAGE + "Slots/RotateMasterKey",
        slots_pb2.RotateMasterKeyRequest(end_leases=end_leases),
        slots_pb2.RotateMasterKeyResponse.FromString,
        lambda response: Rotation(
            response.keys_done,
            response.keys_total,
            response.done,
            response.slots,
            response.leases_ended,
            response.purged,
            tuple(response.lock_files),
        ),
        streams=True,
    )


def recover(code: bytes, replacement: bytes) -> Call[None]:
    """Set a new passphrase with a recovery code."""
    return Call(
        PACKAGE + "Slots/Recover",
        slots_pb2.RecoverRequest(code=code, replacement=passphrase_bytes(replacement)),
        slots_pb2.RecoverResponse.FromString,
        lambda _: None,
        passphrase=True,
    )


def drill_recovery(code: bytes) -> Call[datetime]:
    """Prove a recovery code; the answer is the noted date."""
    return Call(
        PACKAGE + "Slots/DrillRecovery",
        slots_pb2.DrillRecoveryRequest(code=code),
        slots_pb2.DrillRecoveryResponse.FromString,
        lambda response: moment(response.drilled_at_ms),
        passphrase=True,
    )


def _slot(slot: slots_pb2.SlotInfo) -> Slot:
    return Slot(
        slot.id,
        slot.kind,
        slot.authorizes,
        slot.stretched,
        moment_or_none(slot.created_at_ms),
        moment_or_none(slot.drilled_at_ms),
    )
