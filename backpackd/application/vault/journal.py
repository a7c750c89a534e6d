"""How a change of the vault and its audit entries become durable in one step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from backpackd.core.audit.events import AuditEvent
from backpackd.core.rows import Change, StoredVault
from backpackd.core.sealing.sealing import Secret
from backpackd.core.vault.authority import Authority
from backpackd.ports import Connection

if TYPE_CHECKING:
    from backpackd.application.vault.vault import Vault


class Journal(Protocol):
    """Commits changes together with their audit entries.

    It is made before its vault, which tells it of every unlock and lock. So no vault can be used
    without one, and nobody has to introduce the two to each other.
    """

    def unlocked(self, vault: "Vault", by: Connection | None) -> None:
        """Get ready for a vault that was unlocked in this moment, before anything else hears of it.

        Args:
            vault: the vault, through which the journal makes its own changes.
            by: the connection of the caller that unlocked it; None: nobody's.
        """
        ...

    def locked(self, by: Connection | None) -> None:
        """End with a session of the vault, before anything else hears that it was locked.

        Args:
            by: the connection of the caller that locked it; None: nobody's.
        """
        ...

    async def hold(
        self, master: Secret, stored: StoredVault, authority: Authority, *, accept_older: bool
    ) -> Authority:
        """Compare the authority record and the audit log, before an unlock.

        Args:
            master: the master key.
            stored: the vault as it is stored.
            authority: its record, opened.
            accept_older: whether the operator accepts a record that is older than the log.

        Returns:
            The record to continue with. An accepted record that is behind the log gets the
            generation that the log has reached, so that no other record of that time fits later.

        Raises:
            DamageError: the record is behind the log (`vault-stepped-back`), or the audit keys in
                the file are not the vault's.
            StoreError: the log cannot be read.
        """
        ...

    def anchored(self, authority: Authority) -> Authority:
        """Return the record to store: with the place that the audit log has reached."""
        ...

    async def commit(
        self,
        change: Change,
        authority: Authority,
        events: Sequence[AuditEvent],
        by: Connection | None,
    ) -> None:
        """Make a change and its entries durable before returning, both or neither.

        This includes the checkpoint that names the new record.

        Args:
            change: what becomes durable.
            authority: the record in it.
            events: what the log says of it.
            by: the connection of the caller whose doing they are, where they do not say so
                themselves; None: nobody's.

        Raises:
            DamageError: the stored authority record is not `change.before`.
            StoreError: nothing was stored.
        """
        ...

    async def commit_locked(
        self,
        master: Secret,
        change: Change,
        authority: Authority,
        events: Sequence[AuditEvent],
        by: Connection | None,
    ) -> None:
        """See `commit`: the same for a locked vault, immediately after `hold`."""
        ...
