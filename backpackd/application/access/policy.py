"""The policy: the sealed one, which the operator replaces, and the one that tightens it."""

from collections.abc import Callable

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.access.policy import Policy
from backpackd.core.audit.events import PATH_LIMIT, AuditEvent
from backpackd.core.render import render
from backpackd.core.vault.states import State

NOTHING = Policy(default="allow", listing="all")
"""Tightens nothing."""


class VaultPolicy:
    """The policy of one vault.

    Attributes:
        on_change: functions that are called, in order, at the moment when a new policy takes
            effect, with the policy before it. They are not called while the vault is locked: then
            there is nothing to apply it to.

    Args:
        vault: holds the sealed policy in its authority record.
        audit_log: records every change.
    """

    def __init__(self, vault: Vault, audit_log: AuditLog) -> None:
        self._vault = vault
        self._audit_log = audit_log
        self._tightening = NOTHING
        self.on_change: list[Callable[[Policy], None]] = []

    def sealed(self) -> Policy:
        """Return the sealed policy.

        Raises:
            LockedError: the vault is locked.
        """
        return self._vault.session().authority.policy

    def tightening(self) -> Policy:
        """Return the policy that tightens the sealed one."""
        return self._tightening

    def tighten(self, by: Policy) -> None:
        """Replace the policy that tightens the sealed one.

        Any process that can write the configuration file decides its contents. So this policy can
        only take away, never give.
        """
        changed = by != self._tightening
        before = self._in_force()
        self._tightening = by
        if changed:
            self._audit_log.note(self._audit_log.own_event("policy-tightened", details=told(by)))
        if before is not None:
            self._changed(before)

    async def replace(self, policy: Policy) -> None:
        """Seal another policy, durably before this returns."""
        before = policy

        async def draft(session: Session) -> Draft:
            nonlocal before
            before = session.authority.policy.tightened(self._tightening)
            now_ms = self._vault.now_ms()
            event = AuditEvent("policy-changed", now_ms, details=told(policy))
            return Draft(session.authority.next(now_ms, policy=policy), events=(event,))

        await self._vault.change(draft, lambda: self._changed(before))

    def replaced(self, before: Policy) -> None:
        """Apply a sealed policy that was replaced together with other things.

        Args:
            before: the sealed policy until now.
        """
        self._changed(before.tightened(self._tightening))
        self._vault.touch()

    def _in_force(self) -> Policy | None:
        if self._vault.state is not State.UNLOCKED:
            return None
        return self.sealed().tightened(self._tightening)

    def _changed(self, before: Policy) -> None:
        for callback in self.on_change:
            callback(before)


def told(policy: Policy) -> dict[str, str]:
    """Describe a policy for the audit log."""
    said = {
        "default": policy.default,
        "listing": policy.listing,
        "max-ttl": str(policy.max_ttl),
    }
    for number, rule in enumerate(policy.deny, 1):
        whom = rule.selector.text if rule.selector is not None else "everybody"
        patterns = " ".join(rule.patterns)
        said[f"deny-{number}"] = f"{patterns} to {render(whom, limit=PATH_LIMIT)}"
    return said
