"""The calls of the service Audit: what happened, whether the log is whole, where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import LARGEST, LARGEST_PID, moment, text
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import usage

if TYPE_CHECKING:
    from backpack_proto.v1 import audit_pb2
else:
    audit_pb2 = Stubs("audit_pb2")


class Anchor(StrEnum):
    """The anchor that a verification of the log relied on."""

    VAULT = "vault"
    FILE = "file"
    EXPECTED = "expected"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something. `claimed_command` is a claim; the kernel reported the rest."""

    uid: int
    pid: int
    executable: str
    root_pid: int
    root_executable: str
    unit: str
    terminal: int
    connection: str
    claimed_command: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log.

    Attributes:
        number: of its row, counted up through the whole log.
        event: what happened, a stable word.
        at: when.
        actor: the process that did it; None: the daemon itself.
        names: the keys, or the patterns of a grant.
        lease_id: the lease.
        grant_ids: the grants that the lease rests on.
        reason: why, a stable word.
        count: how many equal events this entry stands for.
        details: further facts, by stable words.
        claimed_reason: the caller's claim of what it was for.
        generation: of the vault's authority record after this change; 0: nothing was changed.
    """

    number: int
    event: str
    at: datetime
    actor: Actor | None
    names: tuple[str, ...]
    lease_id: str
    grant_ids: tuple[str, ...]
    reason: str
    count: int
    details: Mapping[str, str]
    claimed_reason: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found; see AuditVerdict in audit.proto."""

    head: str
    anchor: Anchor
    signed_until: int
    vouched_until: int
    bad_entry: int
    problem: str
    broken_entry: int = 0
    broken: str = ""
    later_bad_entry: int = 0
    later_problem: str = ""


@dataclass(frozen=True, slots=True)
class Verifying:
    """The progress of a verification; the last one has the verdict."""

    checked: int
    total: int
    verdict: Verdict | None


def show(
    *,
    key: str = "",
    pid: int | None = None,
    events: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    newest: int = 0,
) -> Call[Sequence[AuditEntry]]:
    """Read entries, oldest first, some in each response."""
    if pid is not None and not 0 < pid <= LARGEST_PID:
        raise usage("not a process id", hint="")
    if not 0 <= newest <= LARGEST:
        raise usage("not a number of entries", hint="")
    return Call(
        PACKAGE + "Audit/ShowAudit",
        audit_pb2.ShowAuditRequest(
            key=text("key", key),
            pid=pid or 0,
            events=[text("event", event) for event in events],
            since_ms=_milliseconds(since),
            until_ms=_milliseconds(until),
            newest=newest,
        ),
        audit_pb2.ShowAuditResponse.FromString,
        lambda response: [_entry(entry) for entry in response.entries],
        streams=True,
    )


def verify(expected_head: str) -> Call[Verifying]:
    """Verify the log; each response tells the progress."""
    return Call(
        PACKAGE + "Audit/VerifyAudit",
        audit_pb2.VerifyAuditRequest(expected_head=text("head", expected_head)),
        audit_pb2.VerifyAuditResponse.FromString,
        _verifying,
        streams=True,
    )


def head() -> Call[str]:
    """Ask for the end of the log; empty while there is none."""
    return Call(
        PACKAGE + "Audit/GetAuditHead",
        audit_pb2.GetAuditHeadRequest(),
        audit_pb2.GetAuditHeadResponse.FromString,
        lambda response: str(response.head),
    )


def _milliseconds(when: datetime | None) -> int:
    return 0 if when is None else round(when.timestamp() * 1000)


def _verifying(response: audit_pb2.VerifyAuditResponse) -> Verifying:
    verdict = None
    if response.HasField("verdict"):
        found = response.verdict
        verdict = Verdict(
            found.head,
            _anchor(found.anchor),
            found.signed_until,
            found.vouched_until,
            found.bad_entry,
            found.problem,
            found.broken_entry,
            found.broken,
            found.later_bad_entry,
            found.later_problem,
        )
    return Verifying(response.checked, response.total, verdict)


def _entry(entry: audit_pb2.AuditEntry) -> AuditEntry:
    actor = None
    if entry.HasField("actor"):
        who = entry.actor
        actor = Actor(
            who.uid,
            who.pid,
            who.executable,
            who.root_pid,
            who.root_executable,
            who.unit,
            who.terminal,
            who.connection,
            who.claimed_command,
        )
    return AuditEntry(
        number=entry.number,
        event=entry.event,
        at=moment(entry.at_ms),
        actor=actor,
        names=tuple(entry.names),
        lease_id=entry.lease_id,
        grant_ids=tuple(entry.grant_ids),
        reason=entry.reason,
        count=entry.count,
        details=dict(entry.details),
        claimed_reason=entry.claimed_reason,
        generation=entry.generation,
    )


def _anchor(number: int) -> Anchor:
    anchors: dict[int, Anchor] = {
        audit_pb2.AUDIT_ANCHOR_VAULT: Anchor.VAULT,
        audit_pb2.AUDIT_ANCHOR_FILE: Anchor.FILE,
        audit_pb2.AUDIT_ANCHOR_EXPECTED: Anchor.EXPECTED,
    }
    return anchors.get(number, Anchor.UNKNOWN)
