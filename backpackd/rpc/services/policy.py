"""The service `backpack.v1.Policy`."""

from backpack_proto.v1 import policy_pb2 as pb
from backpackd.application.access.policy import VaultPolicy
from backpackd.core.access import policy as policies
from backpackd.core.access.policy import Policy
from backpackd.ports import Call

_DEFAULTS = {
    pb.POLICY_DEFAULT_ASK: "ask",
    pb.POLICY_DEFAULT_ALLOW: "allow",
    pb.POLICY_DEFAULT_DENY: "deny",
}
_LISTINGS = {
    pb.POLICY_LISTING_GRANTED: "granted",
    pb.POLICY_LISTING_ALL: "all",
}


class PolicyService:
    """Translates messages into calls on the policy."""

    descriptor = pb.DESCRIPTOR.services_by_name["Policy"]

    def __init__(self, vault_policy: VaultPolicy) -> None:
        self._vault_policy = vault_policy

    async def get_policy(self, _: Call, __: pb.GetPolicyRequest) -> pb.GetPolicyResponse:
        """Answer `GetPolicy`."""
        sealed = self._vault_policy.sealed()
        return pb.GetPolicyResponse(
            sealed=_message(sealed),
            in_force=_message(sealed.tightened(self._vault_policy.tightening())),
        )

    async def set_policy(self, call: Call, request: pb.SetPolicyRequest) -> pb.SetPolicyResponse:
        """Answer `SetPolicy`."""
        wanted = request.policy
        policies.check_count(wanted.deny)
        rules = [policies.make_rule(rule.patterns, rule.selector) for rule in wanted.deny]
        await self._vault_policy.replace(
            policies.make(
                _DEFAULTS.get(wanted.default, ""),
                _LISTINGS.get(wanted.listing, ""),
                rules,
                wanted.max_ttl_seconds,
            ),
            by=call.connection,
        )
        return pb.SetPolicyResponse()


def _message(policy: Policy) -> pb.PolicyRules:
    defaults = {word: number for number, word in _DEFAULTS.items()}
    listings = {word: number for number, word in _LISTINGS.items()}
    return pb.PolicyRules(
        default=defaults[policy.default],
        listing=listings[policy.listing],
        deny=[
            pb.DenyRule(
                patterns=rule.patterns, selector=rule.selector.text if rule.selector else ""
            )
            for rule in policy.deny
        ],
        max_ttl_seconds=policy.max_ttl,
    )
