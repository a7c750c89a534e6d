"""How a change of the vault and its audit entries become durable in one step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from backpackd.core.audit.events import AuditEvent
from backpackd.core.rows import Change, StoredVault
from backpackd.core.sealing.sealing import Secret
from backpackd.core.vault.authority import Authority

if TYPE_CHECKING:
    from backpackd.application.vault.vault import Vault


class Journal(Protocol):
    """Commits changes together with their audit entries."""

    def follow(self, vault: "Vault") -> None:
        """Become the journal of a vault, which calls this when it is created."""
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
        self, change: Change, authority: Authority, events: Sequence[AuditEvent]
    ) -> None:
        """Make a change and its entries durable before returning, both or neither.

        This includes the checkpoint that names the new record.

        Args:
            change: what becomes durable.
            authority: the record in it.
            events: the entries for the log.

        Raises:
            DamageError: the stored authority record is not `change.before`.
            StoreError: nothing was stored.
        """
        ...

    async def commit_locked(
        self, master: Secret, change: Change, authority: Authority, events: Sequence[AuditEvent]
    ) -> None:
        """See `commit`: the same for a locked vault, immediately after `hold`."""
        ...
