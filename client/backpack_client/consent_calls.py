"""The calls about who may have which key: grants, requests, the policy, panic, and the watches.

Like `calls`, which it completes: pure, each request built and each answer read.
"""

from collections.abc import Sequence

from backpack_client.calls import (
    LARGEST,
    LARGEST_PID,
    PACKAGE,
    Call,
    lease_info,
    moment,
    moment_or_none,
    seconds,
    text,
)
from backpack_client.failures import is_code, printable, usage
from backpack_client.model import (
    DenyRule,
    Grant,
    LeaseEvent,
    Panicked,
    Policies,
    Policy,
    PolicyDefault,
    PolicyListing,
    Process,
    Request,
    Revealed,
)
from backpack_proto.v1 import grants_pb2, leases_pb2, policy_pb2, requests_pb2, vault_pb2

_KINDS = {
    leases_pb2.WatchLeasesResponse.KIND_LIVE: "live",
    leases_pb2.WatchLeasesResponse.KIND_ISSUED: "issued",
    leases_pb2.WatchLeasesResponse.KIND_RENEWED: "renewed",
    leases_pb2.WatchLeasesResponse.KIND_ENDED: "ended",
}
_DEFAULTS = {
    policy_pb2.POLICY_DEFAULT_ASK: PolicyDefault.ASK,
    policy_pb2.POLICY_DEFAULT_ALLOW: PolicyDefault.ALLOW,
    policy_pb2.POLICY_DEFAULT_DENY: PolicyDefault.DENY,
}
_LISTINGS = {
    policy_pb2.POLICY_LISTING_GRANTED: PolicyListing.GRANTED,
    policy_pb2.POLICY_LISTING_ALL: PolicyListing.ALL,
}


def add_grant(
    patterns: Sequence[str],
    selector: str,
    *,
    ttl: str | int | None,
    valid_for: str | int | None,
    uses: int | None,
    reason: str,
) -> Call[Grant]:
    """Add a standing permission."""
    if not patterns:
        raise usage("no key name or pattern was given", hint="")
    if uses is not None and not 1 <= uses <= LARGEST:
        raise usage("a grant is for one use or more", hint="leave uses out for any number")
    request = grants_pb2.AddGrantRequest(
        patterns=[text("pattern", pattern) for pattern in patterns],
        selector=text("selector", selector),
        max_ttl_seconds=seconds(ttl),
        valid_seconds=seconds(valid_for),
        uses=uses or 0,
        reason=text("reason", reason),
    )
    return Call(
        PACKAGE + "Grants/AddGrant",
        request,
        grants_pb2.AddGrantResponse.FromString,
        lambda response: _grant(response.grant),
    )


def list_grants(*, every: bool) -> Call[list[Grant]]:
    """List standing permissions."""
    return Call(
        PACKAGE + "Grants/ListGrants",
        grants_pb2.ListGrantsRequest(all=every),
        grants_pb2.ListGrantsResponse.FromString,
        lambda response: [_grant(grant) for grant in response.grants],
    )


def remove_grant(grant_id: str) -> Call[int]:
    """Take a grant back; answers how many leases ended with it."""
    return Call(
        PACKAGE + "Grants/RemoveGrant",
        grants_pb2.RemoveGrantRequest(id=text("grant id", grant_id)),
        grants_pb2.RemoveGrantResponse.FromString,
        lambda response: int(response.leases_ended),
    )


def list_requests(*, every: bool) -> Call[list[Request]]:
    """List the requests that wait for a person."""
    return Call(
        PACKAGE + "Requests/ListRequests",
        requests_pb2.ListRequestsRequest(all=every),
        requests_pb2.ListRequestsResponse.FromString,
        _read_requests,
    )


def watch_requests(*, every: bool) -> Call[Sequence[Request]]:
    """Be told the pending requests, now and whenever they change."""
    return Call(
        PACKAGE + "Requests/WatchRequests",
        requests_pb2.WatchRequestsRequest(all=every),
        requests_pb2.WatchRequestsResponse.FromString,
        _read_requests,
        streams=True,
    )


def approve(code: str, *, once: bool, root: int | None) -> Call[int]:
    """Allow a request; answers the root of the tree that may lease the keys now."""
    if root is not None and not 0 < root <= LARGEST_PID:
        raise usage("not a process id", hint="")
    return Call(
        PACKAGE + "Requests/ApproveRequest",
        requests_pb2.ApproveRequestRequest(code=_code(code), once=once, root_pid=root or 0),
        requests_pb2.ApproveRequestResponse.FromString,
        lambda response: int(response.root_pid),
    )


def deny(code: str) -> Call[None]:
    """Refuse a request."""
    return Call(
        PACKAGE + "Requests/DenyRequest",
        requests_pb2.DenyRequestRequest(code=_code(code)),
        requests_pb2.DenyRequestResponse.FromString,
        _read_nothing,
    )


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
    defaults = {word: number for number, word in _DEFAULTS.items()}
    listings = {word: number for number, word in _LISTINGS.items()}
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
        _read_nothing,
    )


def panic() -> Call[Panicked]:
    """End every lease and request, and lock the vault."""
    return Call(
        PACKAGE + "Vault/Panic",
        vault_pb2.PanicRequest(),
        vault_pb2.PanicResponse.FromString,
        lambda response: Panicked(response.leases_ended, response.requests_ended),
    )


def list_handouts() -> Call[list[Revealed]]:
    """List what was revealed, to whom and when."""
    return Call(
        PACKAGE + "Leases/ListHandouts",
        leases_pb2.ListHandoutsRequest(),
        leases_pb2.ListHandoutsResponse.FromString,
        _read_handouts,
        streams=True,
    )


def watch_leases(*, every: bool) -> Call[LeaseEvent]:
    """Be told what happens to leases, beginning with those that are live."""
    return Call(
        PACKAGE + "Leases/WatchLeases",
        leases_pb2.WatchLeasesRequest(all=every),
        leases_pb2.WatchLeasesResponse.FromString,
        lambda response: LeaseEvent(
            _KINDS.get(response.kind, "unknown"), lease_info(response.lease), response.reason
        ),
        streams=True,
    )


def _code(code: str) -> str:
    if not is_code(code):
        raise usage(
            f"not a request's code: {printable(code, 32)}",
            hint="four letters and digits; see: backpack-client requests --all",
        )
    return code.upper()


def _read_nothing(_response: object) -> None:
    return None


def _read_requests(
    response: requests_pb2.ListRequestsResponse | requests_pb2.WatchRequestsResponse,
) -> list[Request]:
    return [
        Request(
            code=request.code,
            names=tuple(request.names),
            chain=tuple(
                Process(
                    pid=process.pid,
                    executable=process.executable,
                    unit=process.unit,
                    proposed_root=process.proposed_root,
                    in_tree=process.in_tree,
                    may_be_root=process.may_be_root,
                    claimed_command=process.claimed_command,
                )
                for process in request.chain
            ),
            claimed_reason=request.claimed_reason,
            asked_at=moment(request.asked_at_ms),
            waiting=request.waiting,
        )
        for request in response.requests
    ]


def _read_handouts(responses: Sequence[leases_pb2.ListHandoutsResponse]) -> list[Revealed]:
    return [
        Revealed(
            at=moment(entry.at_ms),
            names=tuple(entry.names),
            pid=entry.pid,
            executable=entry.executable,
            root_pid=entry.root_pid,
            root_executable=entry.root_executable,
            lease_id=entry.lease_id,
        )
        for response in responses
        for entry in response.handouts
    ]


def _policy(rules: policy_pb2.PolicyRules) -> Policy:
    return Policy(
        # What this version does not know is shown as the tightest, never as something wider.
        default=_DEFAULTS.get(rules.default, PolicyDefault.DENY),
        listing=_LISTINGS.get(rules.listing, PolicyListing.GRANTED),
        deny=tuple(DenyRule(tuple(rule.patterns), rule.selector) for rule in rules.deny),
        max_ttl_seconds=rules.max_ttl_seconds,
    )


def _grant(grant: grants_pb2.Grant) -> Grant:
    return Grant(
        id=grant.id,
        patterns=tuple(grant.patterns),
        selector=grant.selector,
        max_ttl_seconds=grant.max_ttl_seconds,
        expires_at=moment_or_none(grant.expires_at_ms),
        uses_left=grant.uses_left or None,
        created_at=moment(grant.created_at_ms),
        reason=grant.reason,
    )
