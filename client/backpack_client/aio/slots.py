"""Slots, recovery and the master key, to be awaited."""

from collections.abc import Sequence
from datetime import datetime

from backpack_client.aio.connection import Connection
from backpack_client.aio.watch import AsyncWatch
from backpack_client.calls import slots as calls


class SlotMethods(Connection):
    """The ways to unlock the vault, the recovery code, and the master key."""

    async def slots(self) -> Sequence[calls.Slot]:
        """List the ways to unlock the vault. Needs operator authority."""
        return await self.call(calls.list_slots())

    async def add_slot(self, kind: str, secret: bytes = b"") -> calls.AddedSlot:
        """Add a way to unlock the vault. Needs operator authority.

        Args:
            kind: passphrase, recovery, file or environment.
            secret: opens the slot; empty: the daemon draws one, and the answer holds it.
        """
        return await self.call(calls.add_slot(kind, secret))

    async def remove_slot(self, slot_id: str) -> None:
        """Remove a way to unlock the vault. Needs operator authority."""
        await self.call(calls.remove_slot(slot_id))

    def rotate(self, *, end_leases: bool = False) -> AsyncWatch[calls.Rotation]:
        """Give the vault a new master key, and follow the progress. Needs operator authority.

        Args:
            end_leases: end every lease at the same moment.

        Returns:
            Progress. The new master key is in force when an item has `done`.
        """
        return self.follow(calls.rotate(end_leases=end_leases))

    async def recover(self, code: bytes, replacement: bytes) -> None:
        """Set a new passphrase with the recovery code, and unlock the vault."""
        await self.call(calls.recover(code, replacement))

    async def drill_recovery(self, code: bytes) -> datetime:
        """Prove that a recovery code works, without changing anything but the noted date.

        Returns:
            The date that the vault has noted.
        """
        return await self.call(calls.drill_recovery(code))
