"""A journal that keeps none, for a vault that stands alone."""

from collections.abc import Sequence

from backpackd.application.vault.vault import Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.rows import Change, StoredVault
from backpackd.core.sealing.sealing import Secret
from backpackd.core.vault.authority import Authority
from backpackd.ports import Connection, Store


class Unaudited:
    """Implements `Journal` without a log: for a vault that stands alone, as in tests."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def unlocked(self, vault: Vault, by: Connection | None) -> None:
        """See `Journal`."""

    def locked(self, by: Connection | None) -> None:
        """See `Journal`."""

    async def hold(
        self, _: Secret, __: StoredVault, authority: Authority, *, accept_older: bool
    ) -> Authority:
        """See `Journal`."""
        del accept_older
        return authority

    def anchored(self, authority: Authority) -> Authority:
        """See `Journal`."""
        return authority

    async def commit(
        self, change: Change, _: Authority, __: Sequence[AuditEvent], ___: Connection | None
    ) -> None:
        """See `Journal`."""
        await self._store.commit(change)

    async def commit_locked(
        self,
        _: Secret,
        change: Change,
        __: Authority,
        ___: Sequence[AuditEvent],
        ____: Connection | None,
    ) -> None:
        """See `Journal`."""
        await self._store.commit(change)
