"""What happens in the same moment when what is allowed changes: leases end, calls decide anew.

A tighter policy must not wait for the leases that it would not have allowed to run out, nor a
person's grant for the calls that it allows to give up waiting.
"""

from backpackd.application.access.access import Access
from backpackd.application.access.approvals import Approvals
from backpackd.application.access.leases import LiveLeases
from backpackd.application.vault.vault import Vault
from backpackd.core.access.decision import Ask, decide, newly_denied, resting_on_default
from backpackd.core.access.policy import Policy
from backpackd.core.access.requests import Request
from backpackd.core.vault.states import State
from backpackd.ports import Connection

_REASON = "denied"


class Review:
    """Reviews leases and requests of one vault."""

    def __init__(
        self, vault: Vault, access: Access, live_leases: LiveLeases, approvals: Approvals
    ) -> None:
        self._vault = vault
        self._access = access
        self._live_leases = live_leases
        self._approvals = approvals

    def granted(self) -> None:
        """Let waiting calls decide anew: there is a new grant."""
        if self._vault.state is not State.UNLOCKED:
            return
        rules = self._access.rules(self._vault.session())

        def settled(request: Request) -> bool:
            return not isinstance(decide(request.facts, request.names, rules), Ask)

        self._approvals.look_again(settled)

    def ruled(self, before: Policy, by: Connection | None) -> None:
        """End leases that the policy denies now, and let waiting calls decide anew.

        Who asked for a lease is not kept, so a new rule against some processes ends the leases of
        every one: whom it does not mean gets the keys anew, with nobody asked.

        Args:
            before: the policy that was in force.
            by: whose doing it is; None: nobody's.
        """
        if self._vault.state is not State.UNLOCKED:
            return
        rules = self._access.rules(self._vault.session())
        for name in newly_denied(self._live_leases.names(), before, rules.policy):
            self._live_leases.end_key(name, _REASON, by=by)
        if before.default == "allow" and rules.policy.default != "allow":
            for lease in resting_on_default(self._live_leases.all(), rules):
                self._live_leases.end_id(lease.id, _REASON, by=by)
        if rules.policy.max_ttl < before.max_ttl:
            self._live_leases.bound_all(rules.policy.max_ttl)
        self.granted()
