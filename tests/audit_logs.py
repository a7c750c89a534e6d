"""Audit logs for tests: written as a daemon would, rebuilt as whoever writes the file would."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from backpackd.core.audit import chain, keys, ratchet
from backpackd.core.audit.chain import Checkpoint, Head, Header
from backpackd.core.audit.events import AuditEvent
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.audit.record_state import RecordState
from backpackd.core.audit.verify import Known, Problem, Verifier
from backpackd.core.rows import AuditRow

VAULT_ID = b"v" * 16


@dataclass
class Log:
    """A log under way.

    Attributes:
        keys: of the vault.
        rows: so far.
        states: of the ratchet, each the one before the row of its place.
    """

    keys: AuditKeys = field(default_factory=keys.generate)
    rows: list[AuditRow] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    head: Head = field(default_factory=Head)
    segment: int = 0

    def begin(self) -> "Log":
        """Begin a segment, as a daemon does when it starts."""
        public = self.keys.public
        self.segment += 1
        state = hashlib.sha256(b"segment %d" % self.segment).digest()
        name = keys.fingerprint(public)
        wrap = ratchet.wrap(
            state, public.wrap, vault_id=VAULT_ID, segment=self.segment, fingerprint=name
        )
        self._put(chain.HEADER, Header(self.segment, name, public.verify, wrap).encode(), b"")
        self._state = state
        return self

    def entry(self, event: AuditEvent | None = None) -> "Log":
        """Write an entry."""
        number = self.head.number + 1
        said = event or AuditEvent("allowed", number, names=("K",))
        sealed = ratchet.seal_entry(
            self._state,
            said.encode(),
            vault_id=VAULT_ID,
            number=number,
            previous=self.head.digest,
            salt=number.to_bytes(ratchet.SALT_SIZE, "big"),
        )
        self._put(chain.ENTRY, sealed, self._state)
        self._state = ratchet.advance(self._state)
        return self

    def checkpoint(
        self, why: str = chain.REGULAR, known: str = "", record: RecordState | None = None
    ) -> "Log":
        """Sign what was written, and an authority record where one is given."""
        plain = Checkpoint(self.segment, 5, why, known, record)
        signed = plain.signed(self.keys.signing, VAULT_ID, self.head)
        self._put(chain.CHECKPOINT, signed.encode(), self._state)
        self._state = ratchet.advance(self._state)
        return self

    def entries(self, count: int) -> "Log":
        for _ in range(count):
            self.entry()
        return self

    def _put(self, kind: int, body: bytes, state: bytes) -> None:
        row, self.head = self.head.next(VAULT_ID, kind, body)
        self.rows.append(row)
        self.states.append(state)


def verifier(log: Log, known: Sequence[Known] = (), accepted: int = 0) -> Verifier:
    return Verifier(VAULT_ID, log.keys.public.verify, known, accepted=accepted)


def verified(
    log: Log, rows: Sequence[AuditRow], known: Sequence[Known] = (), accepted: int = 0
) -> Verifier:
    """Verify rows with a log's keys."""
    judge = verifier(log, known, accepted)
    for row in rows:
        judge.feed(row)
    judge.finish()
    return judge


def problem(log: Log, rows: Sequence[AuditRow], known: Sequence[Known] = ()) -> Problem | None:
    return verified(log, rows, known).first


def relinked(rows: Sequence[AuditRow]) -> list[AuditRow]:
    """Number and chain rows anew, as anybody can: the hashes are of nothing secret."""
    head, made = Head(), []
    for row in rows:
        new, head = head.next(VAULT_ID, row.kind, row.body)
        made.append(new)
    return made
