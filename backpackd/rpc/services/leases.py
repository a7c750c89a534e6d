"""The service `backpack.v1.Leases`."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from backpack_proto.v1 import leases_pb2 as pb
from backpackd.application.access.access import Access, Wish
from backpackd.application.access.leases import LeaseEvent, LiveLeases
from backpackd.application.access.revocation import Revocation
from backpackd.application.access.started_agents import Start
from backpackd.application.audit.reader import AuditReader, Filter
from backpackd.application.callers.operators import Operators
from backpackd.application.vault.vault import Vault
from backpackd.core.access.leases import Lease, check_id
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import InvalidRequestError, LimitError, PeerUnknownError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Call, Clock, Connection
from backpackd.rpc.batches import Batch
from backpackd.rpc.sizes import MAX_MESSAGE
from backpackd.rpc.watching import while_authorized

_BATCH = 500
MOST_LISTED_BYTES = MAX_MESSAGE - 1024 * 1024
"""The most bytes of leases in one answer, without the bytes around each."""
MOST_HANDOUTS = 10_000
"""The most handouts that are listed, newest ones. The audit log has all of them."""
_KINDS = {
    "issued": pb.WatchLeasesResponse.KIND_ISSUED,
    "renewed": pb.WatchLeasesResponse.KIND_RENEWED,
    "ended": pb.WatchLeasesResponse.KIND_ENDED,
}


class LeasesService:
    """Translates messages into calls on leases."""

    descriptor = pb.DESCRIPTOR.services_by_name["Leases"]

    def __init__(
        self,
        vault: Vault,
        access: Access,
        operators: Operators,
        clock: Clock,
        *,
        live_leases: LiveLeases,
        revocation: Revocation,
        reading: AuditReader,
    ) -> None:
        self._vault = vault
        self._access = access
        self._operators = operators
        self._clock = clock
        self._live_leases = live_leases
        self._revocation = revocation
        self._reading = reading

    async def get_keys(self, call: Call, request: pb.GetKeysRequest) -> pb.GetKeysResponse:
        """Answer `GetKeys`."""
        wish = Wish(
            list(request.names),
            request.ttl_seconds,
            request.reason,
            request.wait_seconds,
            start=_start(request),
            agent_lock=request.agent_lock,
        )
        handout = await self._access.get_keys(
            call.connection, wish, lambda code: call.announce("request-code", code)
        )
        return pb.GetKeysResponse(
            lease=self._message(handout.lease),
            keys=[pb.LeasedKey(name=name, value=value) for name, value in handout.values],
        )

    async def renew_lease(self, call: Call, request: pb.RenewLeaseRequest) -> pb.RenewLeaseResponse:
        """Answer `RenewLease`."""
        own = self._access.attest(call.connection).root.id
        lease = self._live_leases.renew(own, request.lease_id, ttl=request.ttl_seconds)
        return pb.RenewLeaseResponse(lease=self._message(lease))

    async def revoke_leases(
        self, call: Call, request: pb.RevokeLeasesRequest
    ) -> pb.RevokeLeasesResponse:
        """Answer `RevokeLeases`."""
        own = self._access.attest(call.connection).root.id
        if request.give_back:
            ended = self._revocation.give_back(own, check_id(request.lease_id), by=call.connection)
            return pb.RevokeLeasesResponse(ended=len(ended))
        ended = self._revoke(request, call.connection)
        await self._revocation.keep()
        if not self._operators.has(call.connection):
            ended = [lease for lease in ended if lease.holder == own]
        return pb.RevokeLeasesResponse(ended=len(ended))

    async def list_leases(self, call: Call, request: pb.ListLeasesRequest) -> pb.ListLeasesResponse:
        """Answer `ListLeases`.

        Raises:
            LimitError: the leases do not fit into one answer.
        """
        session = self._vault.session()
        listed, size = [], 0
        for lease in self._leases(call, everything=request.all):
            listed.append(self._message(lease))
            # A lease of 64 names takes a hundred times as many bytes as a lease of one short name.
            size += listed[-1].ByteSize()
            if size > MOST_LISTED_BYTES:
                raise LimitError("too many leases for one answer: watch them, or revoke some")
            if len(listed) % _BATCH == 0:
                # Serve other calls in between: there may be a hundred thousand leases.
                await asyncio.sleep(0)
        session.check()
        return pb.ListLeasesResponse(leases=listed)

    async def watch_leases(
        self, call: Call, request: pb.WatchLeasesRequest
    ) -> AsyncIterator[pb.WatchLeasesResponse]:
        """Answer `WatchLeases`.

        Raises:
            LimitError: the client read too slowly.
        """
        session = self._vault.session()
        live = self._leases(call, everything=request.all)
        own = None if request.all else self._access.attest(call.connection).root.id
        watcher = self._live_leases.watch(own)
        try:
            for lease in live:
                kind = pb.WatchLeasesResponse.KIND_LIVE
                yield pb.WatchLeasesResponse(kind=kind, lease=self._message(lease))
            while True:
                if request.all:
                    event = await while_authorized(
                        self._operators, call.connection, session, watcher.next()
                    )
                else:
                    event = await watcher.next()
                    self._require_tree(call, own)
                if event is None:
                    session.check()
                    raise LimitError("the client read too slowly: watch again", reason="too-slow")
                yield self._event(event)
        finally:
            self._live_leases.unwatch(watcher)

    async def list_handouts(
        self, _: Call, __: pb.ListHandoutsRequest
    ) -> AsyncIterator[pb.ListHandoutsResponse]:
        """Answer `ListHandouts`."""
        session = self._vault.session()
        wanted = Filter(kinds=frozenset({"allowed"}), newest=MOST_HANDOUTS)
        batch = Batch[pb.HandoutEntry](_BATCH)
        async for entry in self._reading.entries(session, wanted):
            if batch.add(_handout(entry.event)):
                session.check()
                yield pb.ListHandoutsResponse(handouts=batch.take())
        session.check()
        yield pb.ListHandoutsResponse(handouts=batch.take())

    def _require_tree(self, call: Call, own: ProcessId | None) -> None:
        """Raise unless a caller is still in the tree that it watches: its parent may end."""
        if self._access.attest(call.connection).root.id != own:
            raise PeerUnknownError("your process is now in another tree: watch again")

    def _leases(self, call: Call, *, everything: bool) -> Sequence[Lease]:
        if everything:
            return self._live_leases.all()
        return self._live_leases.of(self._access.attest(call.connection).root.id)

    def _revoke(self, request: pb.RevokeLeasesRequest, by: Connection) -> list[Lease]:
        match request.WhichOneof("what"):
            case "lease_id":
                return self._revocation.lease(check_id(request.lease_id), by=by)
            case "key":
                return self._revocation.key(request.key, by=by)
            case "tree_pid":
                return self._revocation.tree(request.tree_pid, by=by)
            case "all" if request.all:
                return self._revocation.all(by=by)
            case _:
                raise InvalidRequestError("name the leases: by an id, a key or a tree, or all")

    def _event(self, event: LeaseEvent) -> pb.WatchLeasesResponse:
        return pb.WatchLeasesResponse(
            kind=_KINDS[event.kind], lease=self._message(event.lease), reason=event.reason
        )

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


def _handout(event: AuditEvent) -> pb.HandoutEntry:
    who = event.who
    entry = pb.HandoutEntry(at_ms=event.at_ms, names=event.names, lease_id=event.lease)
    if who is not None:
        entry.pid, entry.executable = who.pid, who.executable
        entry.root_pid, entry.root_executable = who.root_pid, who.root_executable
    return entry


def _start(request: pb.GetKeysRequest) -> Start | None:
    if not request.HasField("agent"):
        return None
    if request.agent.on_revoke not in pb.AgentStart.OnRevoke.values():
        raise InvalidRequestError("unknown choice of what a revocation does to the agent")
    return Start(
        terminate=request.agent.on_revoke != pb.AgentStart.ON_REVOKE_KEEP,
        without_values=request.agent.without_values,
    )
