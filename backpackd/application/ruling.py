"""The policy: the sealed one, which the operator replaces, and what tightens it."""

from backpackd.application.vault import Draft, Session, Vault
from backpackd.core.policy import Policy

NOTHING = Policy(default="allow", listing="all")
"""Tightens nothing."""


class Ruling:
    """The policy of one vault.

    Args:
        vault: holds the sealed policy in its authority record.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._tightening = NOTHING

    def sealed(self) -> Policy:
        """Return the sealed policy.

        Raises:
            LockedError: the vault is locked.
        """
        return self._vault.session().authority.policy

    def tightening(self) -> Policy:
        """Return what is laid on top of the sealed policy."""
        return self._tightening

    def tighten(self, by: Policy) -> None:
        """Lay another policy on top of the sealed one, in place of what was there.

        Anybody who can write the configuration file decides what; it can take away, never give.
        """
        self._tightening = by

    async def replace(self, policy: Policy) -> None:
        """Seal another policy, durably before it returns."""

        async def draft(session: Session) -> Draft:
            return Draft(session.authority.next(self._vault.now_ms(), policy=policy))

        await self._vault.change(draft)
        self._vault.touch()
