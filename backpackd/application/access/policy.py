"""The policy: the sealed one, which the operator replaces, and the one that tightens it."""

from collections.abc import Callable

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.access.policy import Policy
from backpackd.core.audit.events import PATH_LIMIT, AuditEvent
from backpackd.core.render import render
from backpackd.core.vault.states import State
from backpackd.ports import Connection

NOTHING = Policy(default="allow", listing="all")
"""Tightens nothing."""


class VaultPolicy:
    """The policy of one vault.

    Attributes:
        on_change: called, in order, in the moment from which another policy is in force, with the
            one that was and with whose doing it is (None: nobody's); not while the vault is
            locked, when there is nothing that it holds for.

    Args:
        vault: holds the sealed policy in its authority record.
        audit_log: records every change.
    """

    def __init__(self, vault: Vault, audit_log: AuditLog) -> None:
        self._vault = vault
        self._audit_log = audit_log
        self._tightening = NOTHING
        self.on_change: list[Callable[[Policy, Connection | None], None]] = []

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
            self._changed(before, None)

    async def replace(self, policy: Policy, *, by: Connection | None) -> None:
        """Seal another policy, durably before it returns.

        Args:
            policy: the other one.
            by: whose doing it is.
        """
        before = policy

        async def draft(session: Session) -> Draft | None:
            nonlocal before
            if policy == session.authority.policy:
                return None
            before = session.authority.policy.tightened(self._tightening)
            now_ms = self._vault.now_ms()
            event = AuditEvent("policy-changed", now_ms, details=told(policy))
            return Draft(session.authority.next(now_ms, policy=policy), events=(event,))

        await self._vault.change(draft, lambda: self._changed(before, by), by=by)

    def replaced(self, before: Policy, by: Connection | None) -> None:
        """Do what is due when the sealed policy was replaced together with other things.

        Args:
            before: the sealed policy until now.
            by: whose doing it is.
        """
        self._changed(before.tightened(self._tightening), by)
        self._vault.touch()

    def _in_force(self) -> Policy | None:
        if self._vault.state is not State.UNLOCKED:
            return None
        return self.sealed().tightened(self._tightening)

    def _changed(self, before: Policy, by: Connection | None) -> None:
        for callback in self.on_change:
            callback(before, by)


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
