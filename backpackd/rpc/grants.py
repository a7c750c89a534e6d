"""The service `backpack.v1.Grants`."""

from backpack_proto.v1 import grants_pb2 as pb
from backpackd.application.access import Access
from backpackd.application.granting import Granting
from backpackd.application.keys import Keys
from backpackd.application.operators import Operators
from backpackd.application.vault import Vault
from backpackd.core.grants import Grant, check_patterns
from backpackd.core.names import is_exact
from backpackd.ports import Connection


class GrantsService:
    """Turns messages into calls on grants."""

    descriptor = pb.DESCRIPTOR.services_by_name["Grants"]

    def __init__(
        self, vault: Vault, granting: Granting, access: Access, operators: Operators, keys: Keys
    ) -> None:
        self._vault = vault
        self._granting = granting
        self._access = access
        self._operators = operators
        self._keys = keys

    async def add_grant(
        self, connection: Connection, request: pb.AddGrantRequest
    ) -> pb.AddGrantResponse:
        """Answer `AddGrant`."""
        self._operators.require(connection)
        patterns = check_patterns(request.patterns)
        # What is missing is looked up before the grant is made: the vault may be locked after it.
        not_stored = self._keys.missing([pattern for pattern in patterns if is_exact(pattern)])
        grant = await self._granting.add(
            patterns,
            request.selector,
            max_ttl=request.max_ttl_seconds,
            valid=request.valid_seconds,
            uses=request.uses,
            reason=request.reason,
        )
        self._vault.touch()
        return pb.AddGrantResponse(grant=_message(grant), not_stored=not_stored)

    async def list_grants(
        self, connection: Connection, request: pb.ListGrantsRequest
    ) -> pb.ListGrantsResponse:
        """Answer `ListGrants`."""
        if request.all:
            self._operators.require(connection)
            grants = self._granting.all()
        else:
            grants = await self._access.grants_of(connection)
        return pb.ListGrantsResponse(grants=[_message(grant) for grant in grants])

    async def remove_grant(
        self, connection: Connection, request: pb.RemoveGrantRequest
    ) -> pb.RemoveGrantResponse:
        """Answer `RemoveGrant`."""
        self._operators.require(connection)
        ended = await self._granting.remove(request.id)
        self._vault.touch()
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
