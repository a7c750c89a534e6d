"""The service `backpack.v1.Audit`."""

from collections.abc import AsyncIterator

from backpack_proto.v1 import audit_pb2 as pb
from backpackd.application.audit.reader import DAMAGED, AuditReader, Entry, Filter, Verified
from backpackd.application.vault.vault import Vault
from backpackd.core.audit.chain import ChainError, Head
from backpackd.core.audit.events import KINDS, Actor
from backpackd.core.errors import InvalidRequestError
from backpackd.ports import Call
from backpackd.rpc.batches import Batch

_BATCH = 100
MOST_EVENTS = 64
MOST_NEWEST = 10_000
KNOWN = frozenset({*KINDS, "checkpoint", DAMAGED})
"""The names of events that an entry can have."""
_ANCHORS = {
    "vault": pb.AUDIT_ANCHOR_VAULT,
    "file": pb.AUDIT_ANCHOR_FILE,
    "expected": pb.AUDIT_ANCHOR_EXPECTED,
}


class AuditService:
    """Translates messages into reads of the audit log."""

    descriptor = pb.DESCRIPTOR.services_by_name["Audit"]

    def __init__(self, vault: Vault, reading: AuditReader) -> None:
        self._vault = vault
        self._reading = reading

    async def show_audit(
        self, _: Call, request: pb.ShowAuditRequest
    ) -> AsyncIterator[pb.ShowAuditResponse]:
        """Answer `ShowAudit`.

        Raises:
            InvalidRequestError: the request names too many kinds of events, or too many entries.
        """
        session = self._vault.session()
        if len(request.events) > MOST_EVENTS:
            raise InvalidRequestError(f"too many events: name at most {MOST_EVENTS} at a time")
        if request.newest > MOST_NEWEST:
            # All of these entries are in memory until the end of the log is reached.
            raise InvalidRequestError(
                f"too many entries: ask for at most the newest {MOST_NEWEST}, for those since a "
                "time, or for all"
            )
        if not KNOWN.issuperset(request.events):
            # An answer without entries would look as if no such event had happened.
            raise InvalidRequestError("unknown event; there are: " + ", ".join(sorted(KNOWN)))
        wanted = Filter(
            name=request.key,
            pid=request.pid,
            kinds=frozenset(request.events),
            since_ms=request.since_ms,
            until_ms=request.until_ms,
            newest=request.newest,
        )
        batch = Batch[pb.AuditEntry](_BATCH)
        async for entry in self._reading.entries(session, wanted):
            if batch.add(_entry(entry)):
                # Names reveal as much as values, and a slow reader may delay this.
                session.check()
                yield pb.ShowAuditResponse(entries=batch.take())
        session.check()
        yield pb.ShowAuditResponse(entries=batch.take())

    async def verify_audit(
        self, _: Call, request: pb.VerifyAuditRequest
    ) -> AsyncIterator[pb.VerifyAuditResponse]:
        """Answer `VerifyAudit`.

        Raises:
            InvalidRequestError: the expected head is not the head of an audit log.
        """
        expected = None
        if request.expected_head:
            try:
                expected = Head.parse(request.expected_head)
            except ChainError:
                raise InvalidRequestError(
                    "the expected head is not the head of an audit log: it must be a number, a "
                    "hyphen and 64 hexadecimal digits"
                ) from None
        async for found in self._reading.verify(expected):
            yield pb.VerifyAuditResponse(
                checked=found.checked,
                total=found.total,
                verdict=_verdict(found) if found.done else None,
            )

    async def get_audit_head(self, _: Call, __: pb.GetAuditHeadRequest) -> pb.GetAuditHeadResponse:
        """Answer `GetAuditHead`."""
        head = self._reading.head
        return pb.GetAuditHeadResponse(head=head.text if head.number else "")


def _verdict(found: Verified) -> pb.AuditVerdict:
    problem, broken, later = found.problem, found.broken, found.later
    return pb.AuditVerdict(
        head=found.head.text if found.head.number else "",
        anchor=_ANCHORS.get(found.anchor, pb.AUDIT_ANCHOR_UNSPECIFIED),
        signed_until=found.signed,
        vouched_until=found.vouched,
        bad_entry=problem.number if problem is not None else 0,
        problem=problem.what if problem is not None else "",
        broken_entry=broken.number if broken is not None else 0,
        broken=broken.what if broken is not None else "",
        later_bad_entry=later.number if later is not None else 0,
        later_problem=later.what if later is not None else "",
    )


def _entry(entry: Entry) -> pb.AuditEntry:
    event = entry.event
    return pb.AuditEntry(
        number=entry.number,
        event=event.kind,
        at_ms=event.at_ms,
        actor=_actor(event.who) if event.who is not None else None,
        names=event.names,
        lease_id=event.lease,
        grant_ids=event.grants,
        reason=event.reason,
        count=event.count,
        details=event.details,
        claimed_reason=event.claimed_reason,
        generation=event.generation,
    )


def _actor(who: Actor) -> pb.AuditActor:
    return pb.AuditActor(
        uid=who.uid,
        pid=who.pid,
        executable=who.executable,
        root_pid=who.root_pid,
        root_executable=who.root_executable,
        unit=who.unit,
        terminal=who.terminal,
        connection=who.connection,
        claimed_command=who.claimed_command,
        start=who.start,
        root_start=who.root_start,
    )
