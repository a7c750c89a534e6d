"""The vault: its state, unlocking, operator authority, panic, to be awaited."""

from datetime import datetime

from backpack_client.aio.connection import Connection
from backpack_client.calls import vault as calls
from backpack_client.model import Panicked, VaultStatus


class VaultMethods(Connection):
    """The vault: its state, unlocking, operator authority, panic."""

    async def status(self) -> VaultStatus:
        """Ask for the state of daemon and vault. Never counts as use of the vault."""
        return await self.call(calls.status())

    async def init(self, passphrase: str | bytes, *, recovery: bool = False) -> str:
        """Make a new vault and leave it unlocked; returns the recovery code, if one is wanted."""
        return await self.call(calls.init(passphrase, recovery=recovery))

    async def unlock(self, passphrase: str | bytes, *, accept_older: bool = False) -> None:
        """Unlock the vault. It gives no operator authority.

        Args:
            passphrase: or a recovery code.
            accept_older: also unlock a vault that is older than its audit log, because an older
                copy was put in place on purpose (otherwise refused as `vault-stepped-back`).
        """
        await self.call(calls.unlock(passphrase, accept_older=accept_older))

    async def lock(self) -> int:
        """Lock the vault; returns how many leases ended with it."""
        return await self.call(calls.lock())

    async def authorize(self, passphrase: str | bytes) -> datetime:
        """Give this connection operator authority; returns until when."""
        return await self.call(calls.authorize(passphrase))

    async def change_passphrase(self, current: str | bytes, replacement: str | bytes) -> None:
        """Replace the passphrase of the vault."""
        await self.call(calls.change_passphrase(current, replacement))

    async def panic(self) -> Panicked:
        """End every lease and request, and lock the vault."""
        return await self.call(calls.panic())
