"""The calls of the service Policy: rules for every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call, read_nothing
from backpack_client.calls.fields import LARGEST, text
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import usage
from backpack_client.model import DenyRule, Policies, Policy, PolicyDefault, PolicyListing

if TYPE_CHECKING:
    from backpack_proto.v1 import policy_pb2
else:
    policy_pb2 = Stubs("policy_pb2")


def get_policy() -> Call[Policies]:
    """Ask for the policy, as sealed and as in force."""
    return Call(
        PACKAGE + "Policy/GetPolicy",
        policy_pb2.GetPolicyRequest(),
        policy_pb2.GetPolicyResponse.FromString,
        lambda response: Policies(_policy(response.sealed), _policy(response.in_force)),
    )


def set_policy(policy: Policy) -> Call[None]:
    """Replace the sealed policy."""
    if not 1 <= policy.max_ttl_seconds <= LARGEST:
        raise usage("the longest lease is out of bounds", hint="")
    rules = [
        policy_pb2.DenyRule(
            patterns=[text("pattern", pattern) for pattern in rule.patterns],
            selector=text("selector", rule.selector),
        )
        for rule in policy.deny
    ]
    defaults = {word: number for number, word in _defaults().items()}
    listings = {word: number for number, word in _listings().items()}
    rules_message = policy_pb2.PolicyRules(
        default=defaults[policy.default],
        listing=listings[policy.listing],
        deny=rules,
        max_ttl_seconds=policy.max_ttl_seconds,
    )
    return Call(
        PACKAGE + "Policy/SetPolicy",
        policy_pb2.SetPolicyRequest(policy=rules_message),
        policy_pb2.SetPolicyResponse.FromString,
        read_nothing,
    )


def _policy(rules: policy_pb2.PolicyRules) -> Policy:
    return Policy(
        # What this version does not know is shown as the tightest, never as something wider.
        default=_defaults().get(rules.default, PolicyDefault.DENY),
        listing=_listings().get(rules.listing, PolicyListing.GRANTED),
        deny=tuple(DenyRule(tuple(rule.patterns), rule.selector) for rule in rules.deny),
        max_ttl_seconds=rules.max_ttl_seconds,
    )


def _defaults() -> dict[policy_pb2.PolicyDefault, PolicyDefault]:
    return {
        policy_pb2.POLICY_DEFAULT_ASK: PolicyDefault.ASK,
        policy_pb2.POLICY_DEFAULT_ALLOW: PolicyDefault.ALLOW,
        policy_pb2.POLICY_DEFAULT_DENY: PolicyDefault.DENY,
    }


def _listings() -> dict[policy_pb2.PolicyListing, PolicyListing]:
    return {
        policy_pb2.POLICY_LISTING_GRANTED: PolicyListing.GRANTED,
        policy_pb2.POLICY_LISTING_ALL: PolicyListing.ALL,
    }
