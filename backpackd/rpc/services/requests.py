"""The service `backpack.v1.Requests`."""

from collections.abc import AsyncIterator

from backpack_proto.v1 import requests_pb2 as pb
from backpackd.application.access.access import Access
from backpackd.application.access.approvals import LOOK_EVERY, Approvals
from backpackd.application.callers.operators import Operators
from backpackd.application.vault.vault import Vault
from backpackd.core.access.requests import Request
from backpackd.core.peer_facts import Answer, ProcessFacts
from backpackd.core.render import render
from backpackd.ports import Call, Clock
from backpackd.rpc.watching import while_authorized

MOST_SHOWN_BYTES = 1024 * 1024
"""The most bytes of requests in one answer: enough for all requests of a usual day, and for dozens
of the longest ones."""
_PATH_LIMIT = 256
_COMMAND_LIMIT = 200
_REASON_LIMIT = 256


class RequestsService:
    """Translates messages into calls on requests."""

    descriptor = pb.DESCRIPTOR.services_by_name["Requests"]

    def __init__(
        self, vault: Vault, approvals: Approvals, access: Access, operators: Operators, clock: Clock
    ) -> None:
        self._vault = vault
        self._approvals = approvals
        self._access = access
        self._operators = operators
        self._clock = clock

    async def list_requests(
        self, call: Call, request: pb.ListRequestsRequest
    ) -> pb.ListRequestsResponse:
        """Answer `ListRequests`."""
        return pb.ListRequestsResponse(requests=self._shown(call, everything=request.all))

    async def watch_requests(
        self, call: Call, request: pb.WatchRequestsRequest
    ) -> AsyncIterator[pb.WatchRequestsResponse]:
        """Answer `WatchRequests`."""
        session = self._vault.session()
        own = None if request.all else self._access.attest(call.connection).root.id
        event = self._approvals.subscribe(own)
        told: list[tuple[object, ...]] | None = None
        try:
            while True:
                shown = self._shown(call, everything=request.all)
                # Send only news. From messages without news, a process that watches its own tree
                # could count the requests of others.
                telling = [_telling(each) for each in shown]
                if telling != told:
                    told = telling
                    yield pb.WatchRequestsResponse(requests=shown)
                if request.all:
                    changes = self._approvals.changes(event)
                    await while_authorized(self._operators, call.connection, session, changes)
                else:
                    await self._approvals.changes(event)
                session.check()
        finally:
            self._approvals.unsubscribe(event)

    async def approve_request(
        self, call: Call, request: pb.ApproveRequestRequest
    ) -> pb.ApproveRequestResponse:
        """Answer `ApproveRequest`."""
        root = self._approvals.approve(
            request.code,
            by=call.connection,
            once=request.once,
            root_pid=request.root_pid,
            revision=request.revision,
        )
        return pb.ApproveRequestResponse(root_pid=root.pid)

    async def deny_request(
        self, call: Call, request: pb.DenyRequestRequest
    ) -> pb.DenyRequestResponse:
        """Answer `DenyRequest`."""
        self._approvals.deny(request.code, by=call.connection)
        return pb.DenyRequestResponse()

    def _shown(self, call: Call, *, everything: bool) -> list[pb.Request]:
        if everything:
            pending = self._approvals.pending()
        else:
            pending = self._approvals.pending_for(self._access.attest(call.connection))
        # A caller that asks for its own requests was just read itself, which costs as much.
        self._approvals.look(pending, every=LOOK_EVERY if everything else 0.0)
        longest = self._access.rules(self._vault.session()).policy.max_ttl
        shown: list[pb.Request] = []
        size = 0
        for request in pending:
            shown.append(self._message(request, longest))
            # Chains of 64 processes with long names would make an answer too long to send, and a
            # person would see no request at all. The other requests follow in their turn.
            size += shown[-1].ByteSize()
            if size > MOST_SHOWN_BYTES:
                break
        return shown

    def _message(self, request: Request, longest: int) -> pb.Request:
        boot, wall = self._clock.boot(), self._clock.wall()
        tree = {process.id for process in request.facts.tree}
        roots = {process.id for process in request.possible_roots}
        return pb.Request(
            code=request.code,
            names=request.names,
            chain=[
                pb.ProcessFacts(
                    pid=process.id.pid,
                    executable=render(process.executable or "", limit=_PATH_LIMIT),
                    unit=render(process.unit or "", limit=_PATH_LIMIT),
                    proposed_root=process.id == request.tree,
                    in_tree=process.id in tree,
                    may_be_root=process.id in roots,
                    claimed_command=_command(request, process),
                    now=_now(process),
                )
                for process in request.facts.chain
            ],
            claimed_reason=render(request.reason, limit=_REASON_LIMIT),
            asked_at_ms=int((wall + request.asked_at - boot) * 1000),
            waiting=request.waiting,
            max_ttl_seconds=longest,
            revision=request.revision,
        )


def _telling(shown: pb.Request) -> tuple[object, ...]:
    """Return the parts of a request that can be news. Not its time: that is from two clocks."""
    return shown.code, shown.revision, shown.waiting, shown.max_ttl_seconds


def _now(process: ProcessFacts) -> str:
    answer = process.image.answer
    return "" if answer is Answer.NAMED else answer.value


def _command(request: Request, process: ProcessFacts) -> str:
    claimed = request.commands.get(process.id.pid) or process.name
    return render(claimed, limit=_COMMAND_LIMIT)
