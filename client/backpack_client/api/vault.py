"""The vault: its state, unlocking, operator authority, panic, as blocking calls."""

from datetime import datetime

from backpack_client.api.connection import Connection
from backpack_client.calls import vault as calls
from backpack_client.model import Panicked, VaultStatus


class VaultMethods(Connection):
    """The vault: its state, unlocking, operator authority, panic."""

    def status(self) -> VaultStatus:
        """Ask for the state of daemon and vault. Never counts as use of the vault."""
        return self.call(calls.status())

    def init(self, passphrase: str | bytes, *, recovery: bool = False) -> str:
        """Make a new vault and leave it unlocked; returns the recovery code, if one is wanted."""
        return self.call(calls.init(passphrase, recovery=recovery))

    def unlock(self, passphrase: str | bytes, *, accept_older: bool = False) -> None:
        """Unlock the vault. It gives no operator authority.

        Args:
            passphrase: or a recovery code.
            accept_older: also unlock a vault that is older than its audit log, because an older
                copy was put in place on purpose (otherwise refused as `vault-stepped-back`).
        """
        self.call(calls.unlock(passphrase, accept_older=accept_older))

    def lock(self) -> int:
        """Lock the vault; returns how many leases ended with it."""
        return self.call(calls.lock())

    def authorize(self, passphrase: str | bytes) -> datetime:
        """Give this connection operator authority; returns until when."""
        return self.call(calls.authorize(passphrase))

    def change_passphrase(self, current: str | bytes, replacement: str | bytes) -> None:
        """Replace the passphrase of the vault."""
        self.call(calls.change_passphrase(current, replacement))

    def panic(self) -> Panicked:
        """End every lease and request, and lock the vault."""
        return self.call(calls.panic())
