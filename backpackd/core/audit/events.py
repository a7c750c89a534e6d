"""The content of an entry: what happened, who did it, to which keys. Never values.

Facts from the kernel say who did it. Claims, which a process makes about itself, are kept apart.
Claims are cut and escaped before they come here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from backpackd.core.peer_facts import PeerFacts, ProcessFacts
from backpackd.core.render import render
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

KINDS = (
    "started",
    "stopped",
    "initialized",
    "unlocked",
    "locked",
    "authorized",
    "wrong-passphrase",
    "damage-found",
    "older-accepted",
    "foreign-user",
    "allowed",
    "withheld",
    "not-handed-out",
    "denied",
    "pending",
    "approved",
    "refused",
    "request-ended",
    "renewed",
    "lease-ended",
    "revoked",
    "panic",
    "put",
    "deleted",
    "granted",
    "ungranted",
    "policy-changed",
    "policy-tightened",
    "passphrase-changed",
    "operator-act",
    "not-recorded",
)
"""Every kind of event, by its stable word."""

PATH_LIMIT = 256
CLAIM_LIMIT = 256
MOST_NAMES = 1000
"""As many as one request may name."""


class EventError(ValueError):
    """An opened entry is not of the form."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The process that did something.

    Attributes:
        uid: as the kernel gave it for the connection.
        pid: of the process that connected.
        start: when that started, see `core.peer_facts.ProcessId`.
        executable: what it runs, escaped; empty when unknown.
        root_pid: of the root of its process tree; 0 when it had ended already.
        root_start: likewise.
        root_executable: likewise.
        unit: the systemd unit of the process, escaped.
        terminal: device number of its controlling terminal; 0 for none.
        connection: the end of the connection's name, which tells connections apart.
        claimed_command: its command line, a claim.
    """

    uid: int
    pid: int
    start: int = 0
    executable: str = ""
    root_pid: int = 0
    root_start: int = 0
    root_executable: str = ""
    unit: str = ""
    terminal: int = 0
    connection: str = ""
    claimed_command: str = ""

    @classmethod
    def of(cls, facts: PeerFacts, connection: str = "", claimed_command: str = "") -> "Actor":
        """Take what matters from an attested caller."""
        process, root = facts.process, facts.root
        return cls(
            uid=facts.uid,
            pid=process.id.pid,
            start=process.id.start,
            executable=_path(process),
            root_pid=root.id.pid,
            root_start=root.id.start,
            root_executable=_path(root),
            unit=_rendered(process.unit or ""),
            terminal=process.terminal,
            connection=connection[-8:],
            claimed_command=render(claimed_command, limit=CLAIM_LIMIT),
        )


def _path(process: ProcessFacts) -> str:
    return _rendered(process.executable or "")


@lru_cache(maxsize=256)
def _rendered(path: str) -> str:
    """Escape a path; the same few come with every call."""
    return render(path, limit=PATH_LIMIT)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened.

    Attributes:
        kind: one of `KINDS`.
        at_ms: Unix time in milliseconds.
        who: the process that did it; None: the daemon itself.
        names: the keys, or for a grant their patterns.
        lease: id of the lease.
        grants: ids of the grants that it rests on.
        reason: a stable word for why.
        count: how many equal events it stands for.
        details: further facts, by stable words.
        claimed_reason: the caller's reason, a claim.
        generation: of the authority record that a change of the vault made; 0: it is no change.
    """

    kind: str
    at_ms: int
    who: Actor | None = None
    names: tuple[str, ...] = ()
    lease: str = ""
    grants: tuple[str, ...] = ()
    reason: str = ""
    count: int = 1
    details: Mapping[str, str] = field(default_factory=dict)
    claimed_reason: str = ""
    generation: int = 0

    def encode(self) -> bytes:
        """Return the event as canonical JSON."""
        who = self.who
        body: dict[str, Any] = {
            "at": self.at_ms,
            "claimed_reason": self.claimed_reason,
            "count": self.count,
            "details": dict(self.details),
            "grants": list(self.grants),
            "kind": self.kind,
            "lease": self.lease,
            "names": list(self.names),
            "reason": self.reason,
            "who": None if who is None else {name: getattr(who, name) for name in _WHO},
        }
        if self.generation:
            body["generation"] = self.generation
        return canonical.encode(body)

    @classmethod
    def decode(cls, data: bytes) -> "AuditEvent":
        """Read what `encode` wrote. Kinds of a newer version are read as they are.

        Raises:
            EventError: anything else.
        """
        try:
            found = canonical.decode(data)
            who = found.pop("who", None) if type(found) is dict else None
            generation = found.pop("generation", 0) if type(found) is dict else 0
            canonical.members(
                found,
                at=int,
                claimed_reason=str,
                count=int,
                details=dict,
                grants=list,
                kind=str,
                lease=str,
                names=list,
                reason=str,
            )
            actor = None if who is None else Actor(**canonical.members(who, **_WHO))
        except CanonicalError as error:
            raise EventError("not an event") from error
        texts = [*found["grants"], *found["names"], *found["details"].values()]
        if any(type(text) is not str for text in texts) or type(generation) is not int:
            raise EventError("not an event")
        return _event(found, actor, generation)


def _event(found: Mapping[str, Any], who: Actor | None, generation: int) -> AuditEvent:
    return AuditEvent(
        found["kind"],
        found["at"],
        who,
        tuple(found["names"]),
        found["lease"],
        tuple(found["grants"]),
        found["reason"],
        found["count"],
        found["details"],
        found["claimed_reason"],
        generation,
    )


_WHO: dict[str, type] = {
    "claimed_command": str,
    "connection": str,
    "executable": str,
    "pid": int,
    "root_executable": str,
    "root_pid": int,
    "root_start": int,
    "start": int,
    "terminal": int,
    "uid": int,
    "unit": str,
}
