"""The calls of the service Leases: handing out keys, and the life of leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import (
    LARGEST_PID,
    checked_lease_id,
    key_names,
    moment,
    seconds,
    text,
)
from backpack_client.calls.stubs import Stubs
from backpack_client.durations import parse_wait
from backpack_client.failures import usage
from backpack_client.model import LeaseEvent, LeaseInfo, Revealed
from backpack_client.wire import agent_messages, messages
from backpack_client.wire.messages import Message, decode, encode

if TYPE_CHECKING:
    from backpack_proto.v1 import leases_pb2
else:
    leases_pb2 = Stubs("leases_pb2")

DEFAULT_TTL = "15m"
DEFAULT_WAIT = "60s"
_KINDS = {
    agent_messages.KIND_LIVE: "live",
    agent_messages.KIND_ISSUED: "issued",
    agent_messages.KIND_RENEWED: "renewed",
    agent_messages.KIND_ENDED: "ended",
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
        encode(
            messages.GET_KEYS_REQUEST,
            names=checked,
            ttl_seconds=seconds(ttl),
            reason=text("reason", reason),
            wait_seconds=waiting,
        ),
        partial(decode, messages.GET_KEYS_RESPONSE),
        _read_handout,
        names=tuple(checked),
        wait=waiting,
        for_agents=True,
    )


def with_lock(call: Call[Handout], data: bytes) -> Call[Handout]:
    """Add an agent's lock to a GetKeys call, so that its embedded values are used.

    Args:
        call: made by `get_keys`.
        data: the lock file; empty: none.
    """
    return _with(call, agent_lock=data)


def renew_lease(lease_id: str) -> Call[LeaseInfo]:
    """Extend a lease by the time that it was issued for."""
    return Call(
        PACKAGE + "Leases/RenewLease",
        encode(agent_messages.RENEW_LEASE_REQUEST, lease_id=lease_id),
        partial(decode, agent_messages.RENEW_LEASE_RESPONSE),
        lambda response: _lease_info(response.lease),
        for_agents=True,
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
        what: dict[str, Any] = {"lease_id": checked_lease_id(lease_id)}
    elif key is not None:
        what = {"key": key_names([key])[0]}
    elif tree is not None:
        if not 0 < tree <= LARGEST_PID:
            raise usage("not a process id", hint="")
        what = {"tree_pid": tree}
    else:
        what = {"all": True}
    return _revoke(**what)


def give_back(lease_id: str) -> Call[int]:
    """End a lease of the own tree that is done with; what it rested on stays."""
    return _revoke(lease_id=lease_id, give_back=True)


def list_leases(*, every: bool) -> Call[list[LeaseInfo]]:
    """List live leases."""
    return Call(
        PACKAGE + "Leases/ListLeases",
        encode(agent_messages.LIST_LEASES_REQUEST, all=every),
        partial(decode, agent_messages.LIST_LEASES_RESPONSE),
        lambda response: [_lease_info(lease) for lease in response.leases],
        for_agents=not every,
    )


def watch_leases(*, every: bool) -> Call[LeaseEvent]:
    """Follow what happens to leases, beginning with the live ones."""
    return Call(
        PACKAGE + "Leases/WatchLeases",
        encode(agent_messages.WATCH_LEASES_REQUEST, all=every),
        partial(decode, agent_messages.WATCH_LEASES_RESPONSE),
        lambda response: LeaseEvent(
            _KINDS.get(response.kind, "unknown"), _lease_info(response.lease), response.reason
        ),
        streams=True,
        for_agents=not every,
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


def _revoke(**what: Any) -> Call[int]:
    return Call(
        PACKAGE + "Leases/RevokeLeases",
        encode(agent_messages.REVOKE_LEASES_REQUEST, **what),
        partial(decode, agent_messages.REVOKE_LEASES_RESPONSE),
        lambda response: int(response.ended),
        for_agents=True,
    )


def _with(call: Call[Handout], **more: Any) -> Call[Handout]:
    """Add fields to the request of a call that `get_keys` has made."""
    return replace(call, request=call.request + encode(messages.GET_KEYS_REQUEST, **more))


def _read_handout(response: Message) -> Handout:
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


def _lease_info(lease: Message) -> LeaseInfo:
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
    TERMINATE: messages.ON_REVOKE_TERMINATE,
    KEEP: messages.ON_REVOKE_KEEP,
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
        raise usage("on a revocation an agent is terminated or kept", hint="terminate, or keep")
    agent = {"on_revoke": _ON_REVOKE[on_revoke], "without_values": without_values}
    call = get_keys(names, ttl=ttl, reason=reason, wait=wait)
    return _with(call, agent=agent, agent_lock=agent_lock)
