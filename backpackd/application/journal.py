"""How a change of the vault and what the audit log says of it become durable in one step."""

from collections.abc import Sequence
from typing import Protocol

from backpackd.core.audit.events import AuditEvent
from backpackd.core.authority import Authority
from backpackd.core.rows import Change
from backpackd.ports import Store


class Journal(Protocol):
    """Commits changes together with their audit entries."""

    def anchored(self, authority: Authority) -> Authority:
        """Return the record as it is to be stored: with the place that the audit log reached."""
        ...

    async def commit(self, change: Change, events: Sequence[AuditEvent]) -> None:
        """Make a change and its entries durable before returning, both or neither.

        Raises:
            DamageError: the stored authority record is not `change.before`.
            StoreError: nothing was stored.
        """
        ...


class Unaudited:
    """Implements `Journal` without a log: for a vault that stands alone, as in tests."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def anchored(self, authority: Authority) -> Authority:
        """See `Journal`."""
        return authority

    async def commit(self, change: Change, _: Sequence[AuditEvent]) -> None:
        """See `Journal`."""
        await self._store.commit(change)
