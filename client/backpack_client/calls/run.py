"""The call by which a process gets its keys that is about to become an agent."""

from collections.abc import Sequence

from backpack_client.calls.call import Call
from backpack_client.calls.leases import Handout, get_keys
from backpack_client.failures import usage
from backpack_proto.v1 import leases_pb2 as pb

TERMINATE = "terminate"
KEEP = "keep"
_ON_REVOKE = {
    TERMINATE: pb.AgentStart.ON_REVOKE_TERMINATE,
    KEEP: pb.AgentStart.ON_REVOKE_KEEP,
}


def start_agent(
    names: Sequence[str],
    *,
    ttl: str | int | None,
    reason: str,
    wait: str | int,
    on_revoke: str = TERMINATE,
    without_values: bool = False,
    agent_lock: bytes = b"",
) -> Call[Handout]:
    """Lease keys to this very process, for as long as it lives.

    Args:
        names: of the keys.
        ttl: how long the lease is to live between renewals, which the daemon makes by itself.
        reason: what it is for; shown as a claim.
        wait: how long to wait for a person.
        on_revoke: `terminate` or `keep`: what becomes of the agent when the lease is taken away.
        without_values: hand nothing over; the agent fetches by itself.
        agent_lock: a lock, whose embedded values are handed over as well.
    """
    if on_revoke not in _ON_REVOKE:
        raise usage("on a revocation an agent is terminated or kept", hint="terminate, or keep")
    call = get_keys(names, ttl=ttl, reason=reason, wait=wait)
    request = call.request
    assert isinstance(request, pb.GetKeysRequest)
    request.agent.on_revoke = _ON_REVOKE[on_revoke]
    request.agent.without_values = without_values
    request.agent_lock = agent_lock
    return call
