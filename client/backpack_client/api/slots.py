"""Slots, recovery and the master key, as blocking calls."""

from collections.abc import Sequence
from datetime import datetime

from backpack_client.api.connection import Connection
from backpack_client.api.watch import Watch
from backpack_client.calls import slots as calls


class SlotMethods(Connection):
    """The ways to unlock the vault, the recovery code, and the master key."""

    def slots(self) -> Sequence[calls.Slot]:
        """List the ways to unlock the vault. Needs operator authority."""
        return self.call(calls.list_slots())

    def add_slot(self, kind: str, secret: bytes = b"") -> calls.AddedSlot:
        """Add a way to unlock the vault. Needs operator authority.

        Args:
            kind: passphrase, recovery, file or environment.
            secret: opens the slot; empty: the daemon draws one, and the answer holds it.
        """
        return self.call(calls.add_slot(kind, secret))

    def remove_slot(self, slot_id: str) -> None:
        """Remove a way to unlock the vault. Needs operator authority."""
        self.call(calls.remove_slot(slot_id))

    def rotate(self, *, end_leases: bool = False) -> Watch[calls.Rotation]:
        """Give the vault a new master key, and follow the progress. Needs operator authority.

        Args:
            end_leases: end every lease at the same moment.

        Returns:
            Progress. The new master key is in force when an item has `done`.
        """
        return self.follow(calls.rotate(end_leases=end_leases))

    def recover(self, code: bytes, replacement: bytes) -> None:
        """Set a new passphrase with the recovery code, and unlock the vault."""
        self.call(calls.recover(code, replacement))

    def drill_recovery(self, code: bytes) -> datetime:
        """Prove that a recovery code works, without changing anything but the noted date.

        Returns:
            The date that the vault has noted.
        """
        return self.call(calls.drill_recovery(code))
