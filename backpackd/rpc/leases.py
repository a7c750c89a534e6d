"""The service `backpack.v1.Leases`."""

from collections.abc import AsyncIterator, Sequence

from backpack_proto.v1 import leases_pb2 as pb
from backpackd.application.access import Access
from backpackd.application.operators import Operators
from backpackd.core.errors import InvalidRequestError, NotBuiltError
from backpackd.core.leases import Lease
from backpackd.ports import Clock, Connection


class LeasesService:
    """Turns messages into calls on leases."""

    descriptor = pb.DESCRIPTOR.services_by_name["Leases"]

    def __init__(self, access: Access, operators: Operators, clock: Clock) -> None:
        self._access = access
        self._operators = operators
        self._clock = clock

    async def get_keys(
        self, connection: Connection, request: pb.GetKeysRequest
    ) -> pb.GetKeysResponse:
        """Answer `GetKeys`."""
        handout = await self._access.get_keys(
            connection, list(request.names), ttl=request.ttl_seconds, reason=request.reason
        )
        return pb.GetKeysResponse(
            lease=self._message(handout.lease),
            keys=[pb.LeasedKey(name=name, value=value) for name, value in handout.values],
        )

    async def renew_lease(
        self, connection: Connection, request: pb.RenewLeaseRequest
    ) -> pb.RenewLeaseResponse:
        """Answer `RenewLease`."""
        lease = self._access.renew(connection, request.lease_id, ttl=request.ttl_seconds)
        return pb.RenewLeaseResponse(lease=self._message(lease))

    async def revoke_leases(
        self, connection: Connection, request: pb.RevokeLeasesRequest
    ) -> pb.RevokeLeasesResponse:
        """Answer `RevokeLeases`."""
        ended = self._revoke(request)
        if not self._operators.has(connection):
            own = self._access.attest(connection).root.id
            ended = [lease for lease in ended if lease.holder == own]
        return pb.RevokeLeasesResponse(ended=len(ended))

    async def list_leases(
        self, connection: Connection, request: pb.ListLeasesRequest
    ) -> pb.ListLeasesResponse:
        """Answer `ListLeases`."""
        if request.all:
            self._operators.require(connection)
            leases = self._access.leases()
        else:
            leases = self._access.leases_of(self._access.attest(connection).root.id)
        return pb.ListLeasesResponse(leases=[self._message(lease) for lease in leases])

    def watch_leases(
        self, _: Connection, __: pb.WatchLeasesRequest
    ) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Answer `WatchLeases`: not built yet."""
        raise NotBuiltError("this version does not serve WatchLeases: ask ListLeases instead")

    def _revoke(self, request: pb.RevokeLeasesRequest) -> Sequence[Lease]:
        match request.WhichOneof("what"):
            case "lease_id":
                return self._access.revoke_id(request.lease_id)
            case "key":
                return self._access.revoke_key(request.key)
            case "tree_pid":
                return self._access.revoke_tree(request.tree_pid)
            case "all" if request.all:
                return self._access.revoke_all()
            case _:
                raise InvalidRequestError("say which leases: an id, a key, a tree, or all")

    def _message(self, lease: Lease) -> pb.Lease:
        boot, wall = self._clock.boot(), self._clock.wall()

        def on_the_wall(moment: float) -> int:
            return int((wall + moment - boot) * 1000)

        return pb.Lease(
            id=lease.id,
            names=lease.names,
            holder_pid=lease.holder.pid,
            grant_ids=lease.grant_ids,
            issued_at_ms=on_the_wall(lease.issued_at),
            expires_at_ms=on_the_wall(lease.expires_at),
            max_expires_at_ms=on_the_wall(lease.max_expires_at),
            remaining_seconds=max(0, round(lease.expires_at - boot)),
        )
