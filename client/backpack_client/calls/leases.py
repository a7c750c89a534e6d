"""The calls of the service Leases: handing out keys, and the life of leases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import (
    LARGEST_PID,
    checked_lease_id,
    key_names,
    moment,
    seconds,
    text,
)
from backpack_client.durations import parse_wait
from backpack_client.failures import usage
from backpack_client.model import LeaseEvent, LeaseInfo, Revealed
from backpack_proto.v1 import leases_pb2
from backpack_proto.v1 import leases_pb2 as pb

DEFAULT_TTL = "15m"
DEFAULT_WAIT = "60s"
_KINDS = {
    leases_pb2.WatchLeasesResponse.KIND_LIVE: "live",
    leases_pb2.WatchLeasesResponse.KIND_ISSUED: "issued",
    leases_pb2.WatchLeasesResponse.KIND_RENEWED: "renewed",
    leases_pb2.WatchLeasesResponse.KIND_ENDED: "ended",
}


@dataclass(frozen=True, slots=True)
class Handout:
    """The answer of GetKeys: a lease and its values, which no repr shows."""

    lease: LeaseInfo
    values: Mapping[str, bytes] = field(repr=False)


def get_keys(
    names: Sequence[str], *, ttl: str | int | None, reason: str, wait: str | int = DEFAULT_WAIT
) -> Call[Handout]:
    """Lease keys and get their values, all or none."""
    checked = key_names(names)
    waiting = parse_wait(wait if isinstance(wait, str) else str(wait))
    return Call(
        PACKAGE + "Leases/GetKeys",
        leases_pb2.GetKeysRequest(
            names=checked,
            ttl_seconds=seconds(ttl),
            reason=text("reason", reason),
            wait_seconds=waiting,
        ),
        leases_pb2.GetKeysResponse.FromString,
        _read_handout,
        names=tuple(checked),
        wait=waiting,
    )


def with_lock(call: Call[Handout], data: bytes) -> Call[Handout]:
    """Add an agent's lock to a GetKeys call, so that its embedded values are used.

    Args:
        call: made by `get_keys`.
        data: the lock file; empty: none.
    """
    assert isinstance(call.request, leases_pb2.GetKeysRequest)
    call.request.agent_lock = data
    return call


def renew_lease(lease_id: str) -> Call[LeaseInfo]:
    """Extend a lease by the time that it was issued for."""
    return Call(
        PACKAGE + "Leases/RenewLease",
        leases_pb2.RenewLeaseRequest(lease_id=lease_id),
        leases_pb2.RenewLeaseResponse.FromString,
        lambda response: _lease_info(response.lease),
    )


def revoke_leases(
    *,
    lease_id: str | None = None,
    key: str | None = None,
    tree: int | None = None,
    every: bool = False,
) -> Call[int]:
    """End leases; the answer is their number, as far as the caller may know it."""
    if (lease_id is not None) + (key is not None) + (tree is not None) + every != 1:
        raise usage(
            "it is not clear which leases to revoke",
            hint="name exactly one of: a lease's id, a key, a process tree, all",
        )
    if lease_id is not None:
        request = leases_pb2.RevokeLeasesRequest(lease_id=checked_lease_id(lease_id))
    elif key is not None:
        request = leases_pb2.RevokeLeasesRequest(key=key_names([key])[0])
    elif tree is not None:
        if not 0 < tree <= LARGEST_PID:
            raise usage("not a process id", hint="")
        request = leases_pb2.RevokeLeasesRequest(tree_pid=tree)
    else:
        request = leases_pb2.RevokeLeasesRequest(all=True)
    return Call(
        PACKAGE + "Leases/RevokeLeases",
        request,
        leases_pb2.RevokeLeasesResponse.FromString,
        lambda response: int(response.ended),
    )


def give_back(lease_id: str) -> Call[int]:
    """Give a lease of the caller's tree back; its grants and consents stay."""
    return Call(
        PACKAGE + "Leases/RevokeLeases",
        leases_pb2.RevokeLeasesRequest(lease_id=lease_id, give_back=True),
        leases_pb2.RevokeLeasesResponse.FromString,
        lambda response: int(response.ended),
    )


def list_leases(*, every: bool) -> Call[list[LeaseInfo]]:
    """List live leases."""
    return Call(
        PACKAGE + "Leases/ListLeases",
        leases_pb2.ListLeasesRequest(all=every),
        leases_pb2.ListLeasesResponse.FromString,
        lambda response: [_lease_info(lease) for lease in response.leases],
    )


def watch_leases(*, every: bool) -> Call[LeaseEvent]:
    """Follow what happens to leases, beginning with the live ones."""
    return Call(
        PACKAGE + "Leases/WatchLeases",
        leases_pb2.WatchLeasesRequest(all=every),
        leases_pb2.WatchLeasesResponse.FromString,
        lambda response: LeaseEvent(
            _KINDS.get(response.kind, "unknown"), _lease_info(response.lease), response.reason
        ),
        streams=True,
    )


def list_handouts() -> Call[list[Revealed]]:
    """List which keys were handed out, to whom and when."""
    return Call(
        PACKAGE + "Leases/ListHandouts",
        leases_pb2.ListHandoutsRequest(),
        leases_pb2.ListHandoutsResponse.FromString,
        _read_handouts,
        streams=True,
    )


def _read_handout(response: leases_pb2.GetKeysResponse) -> Handout:
    return Handout(_lease_info(response.lease), {key.name: key.value for key in response.keys})


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


def _lease_info(lease: leases_pb2.Lease) -> LeaseInfo:
    return LeaseInfo(
        id=lease.id,
        names=tuple(lease.names),
        holder_pid=lease.holder_pid,
        grant_ids=tuple(lease.grant_ids),
        issued_at=moment(lease.issued_at_ms),
        expires_at=moment(lease.expires_at_ms),
        max_expires_at=moment(lease.max_expires_at_ms),
        remaining_seconds=lease.remaining_seconds,
    )


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
    """Lease keys to this very process, as long as it lives.

    Args:
        names: of the keys.
        ttl: how long the lease lives between renewals, which the daemon makes.
        reason: what it is for; shown as a claim.
        wait: how long to wait for a person.
        on_revoke: `terminate` or `keep`: what happens to the agent if the lease is taken away.
        without_values: hand nothing over; the agent fetches its keys itself.
        agent_lock: a lock, whose embedded values are handed over as well.
    """
    if on_revoke not in _ON_REVOKE:
        raise usage("on_revoke has a wrong value", hint="terminate, or keep")
    call = get_keys(names, ttl=ttl, reason=reason, wait=wait)
    request = call.request
    assert isinstance(request, pb.GetKeysRequest)
    request.agent.on_revoke = _ON_REVOKE[on_revoke]
    request.agent.without_values = without_values
    request.agent_lock = agent_lock
    return call
