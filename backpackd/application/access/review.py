"""What follows at once when the permissions change: leases end, waiting calls decide again.

A tighter policy must apply to existing leases at once. A new grant must reach waiting calls before
they give up.
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
        """Have waiting calls decided again: there is a new grant."""
        if self._vault.state is not State.UNLOCKED:
            return
        rules = self._access.rules(self._vault.session())

        def settled(request: Request) -> bool:
            return not isinstance(decide(request.facts, request.names, rules), Ask)

        self._approvals.look_again(settled)

    def ruled(self, before: Policy, by: Connection | None) -> None:
        """End leases that the policy denies now, and let waiting calls decide anew.

        A lease does not record which process asked for it. So a new rule against some processes
        ends the leases of all. Those that the rule does not mean get the keys again without a
        question.

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
