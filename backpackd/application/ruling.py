"""The policy: the sealed one, which the operator replaces, and what tightens it."""

from collections.abc import Callable

from backpackd.application.vault import Draft, Session, Vault
from backpackd.core.policy import Policy
from backpackd.core.states import State

NOTHING = Policy(default="allow", listing="all")
"""Tightens nothing."""


class Ruling:
    """The policy of one vault.

    Attributes:
        on_change: called, in order, in the moment from which another policy is in force, with the
            one that was; not while the vault is locked, when there is nothing that it holds for.

    Args:
        vault: holds the sealed policy in its authority record.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._tightening = NOTHING
        self.on_change: list[Callable[[Policy], None]] = []

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
        if self._vault.state is not State.UNLOCKED:
            self._tightening = by
            return
        before = self.sealed().tightened(self._tightening)
        self._tightening = by
        self._changed(before)

    async def replace(self, policy: Policy) -> None:
        """Seal another policy, durably before it returns."""
        before = policy

        async def draft(session: Session) -> Draft:
            nonlocal before
            before = session.authority.policy.tightened(self._tightening)
            return Draft(session.authority.next(self._vault.now_ms(), policy=policy))

        await self._vault.change(draft, lambda: self._changed(before))
        self._vault.touch()

    def _changed(self, before: Policy) -> None:
        for callback in self.on_change:
            callback(before)
