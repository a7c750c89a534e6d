"""The service `backpack.v1.Grants`."""

from backpack_proto.v1 import grants_pb2 as pb
from backpackd.application.access.access import Access
from backpackd.application.access.grants import StandingGrants
from backpackd.application.vault.keys import Keys
from backpackd.core.access.grants import Grant, check_patterns
from backpackd.core.names import is_exact
from backpackd.ports import Call


class GrantsService:
    """Translates messages into calls on grants."""

    descriptor = pb.DESCRIPTOR.services_by_name["Grants"]

    def __init__(self, standing_grants: StandingGrants, access: Access, keys: Keys) -> None:
        self._standing_grants = standing_grants
        self._access = access
        self._keys = keys

    async def add_grant(self, call: Call, request: pb.AddGrantRequest) -> pb.AddGrantResponse:
        """Answer `AddGrant`."""
        patterns = check_patterns(request.patterns)
        # Missing keys are looked up before the grant is made: afterwards the vault may be locked.
        not_stored = self._keys.missing([pattern for pattern in patterns if is_exact(pattern)])
        grant = await self._standing_grants.add(
            patterns,
            request.selector,
            by=call.connection,
            max_ttl=request.max_ttl_seconds,
            valid=request.valid_seconds,
            uses=request.uses,
            reason=request.reason,
        )
        return pb.AddGrantResponse(grant=_message(grant), not_stored=not_stored)

    async def list_grants(self, call: Call, request: pb.ListGrantsRequest) -> pb.ListGrantsResponse:
        """Answer `ListGrants`."""
        if request.all:
            grants = self._standing_grants.all()
        else:
            grants = await self._access.grants_of(call.connection)
        return pb.ListGrantsResponse(grants=[_message(grant) for grant in grants])

    async def remove_grant(
        self, call: Call, request: pb.RemoveGrantRequest
    ) -> pb.RemoveGrantResponse:
        """Answer `RemoveGrant`."""
        ended = await self._standing_grants.remove(request.id, by=call.connection)
        return pb.RemoveGrantResponse(leases_ended=ended)


def _message(grant: Grant) -> pb.Grant:
    return pb.Grant(
        id=grant.id,
        patterns=grant.patterns,
        selector=grant.selector.text,
        max_ttl_seconds=grant.max_ttl,
        expires_at_ms=grant.expires_at_ms or 0,
        uses_left=grant.uses_left,
        created_at_ms=grant.created_at_ms,
        reason=grant.reason,
    )
