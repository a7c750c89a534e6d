"""The calls of the service Grants: standing permissions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import (
    LARGEST,
    checked_grant_id,
    moment,
    moment_or_none,
    refuse_lists,
    seconds,
    text,
)
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import usage
from backpack_client.model import Grant

if TYPE_CHECKING:
    from backpack_proto.v1 import grants_pb2
else:
    grants_pb2 = Stubs("grants_pb2")


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
    refuse_lists(patterns)
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
        lambda response: _grant(response.grant, response.not_stored),
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
    """Take a grant back; the answer is the number of leases that ended with it."""
    return Call(
        PACKAGE + "Grants/RemoveGrant",
        grants_pb2.RemoveGrantRequest(id=checked_grant_id(grant_id)),
        grants_pb2.RemoveGrantResponse.FromString,
        lambda response: int(response.leases_ended),
    )


def _grant(grant: grants_pb2.Grant, not_stored: Sequence[str] = ()) -> Grant:
    return Grant(
        id=grant.id,
        patterns=tuple(grant.patterns),
        selector=grant.selector,
        max_ttl_seconds=grant.max_ttl_seconds,
        expires_at=moment_or_none(grant.expires_at_ms),
        uses_left=grant.uses_left if grant.HasField("uses_left") else None,
        created_at=moment(grant.created_at_ms),
        reason=grant.reason,
        not_stored=tuple(not_stored),
    )
