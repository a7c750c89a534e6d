"""Verifies an audit log row by row: that nothing was altered, removed, swapped or put in.

It needs no passphrase and reads no entry. It does not judge whether the given key is the vault's:
the caller says which anchor the key came from.

After a bad row nothing can be judged until the next break. A break is the checkpoint with which the
vault said, at an unlock, that the log before it was cut or altered. It is signed for its place and
for the hash of the row before it, so the log continues from there, and so does the verification.
Otherwise one break would hide everything that is done to the log later.

The newest checkpoint names the authority record that was in force. `hold_record` compares the
file's record with it: that finds a vault in which everything except the log was put back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backpackd.core.audit.chain import (
    BREAK,
    CHECKPOINT,
    ENTRY,
    HASH_SIZE,
    HEADER,
    ChainError,
    Checkpoint,
    Head,
    Header,
    head_of,
)
from backpackd.core.audit.record_state import RecordState, digest_of
from backpackd.core.rows import AuditRow


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a log.

    Attributes:
        number: of the bad row.
        what: the problem, for people; holds nothing of the row.
    """

    number: int
    what: str


@dataclass(frozen=True, slots=True)
class Known:
    """A place in the log that is known from elsewhere.

    Attributes:
        head: number and hash.
        whose: who knows it, for people: `the running daemon`.
    """

    head: Head
    whose: str


class Verifier:
    """Takes the rows of one log in their order.

    Attributes:
        problem: the first one before `broken`, or of the whole log without a break.
        broken: the break that counts: the first one that was not accepted, else the last one.
        later: the first problem after `broken`, another break among them.
        head: the last row that could be judged and was good.
        signed: number of the last row that a signature vouches for; 0 for none.
        record: what the newest genuine checkpoint that names one names, also where the log before
            it is bad; None: those of an older version name none.
        stepped: the file's authority record is not that one.

    Args:
        vault_id: the vault's 16 bytes.
        verify: the key that verifies checkpoints, 32 bytes.
        known: places that the log must have.
        accepted: number of a row up to which somebody knows of every break.
    """

    def __init__(
        self, vault_id: bytes, verify: bytes, known: Sequence[Known] = (), *, accepted: int = 0
    ) -> None:
        self._vault_id = vault_id
        self._verify = verify
        self._known = tuple(place for place in known if place.head.number)
        self._accepted = accepted
        self._segment = 0
        self._doubt = 0
        self._lost = False
        self.problem: Problem | None = None
        self.broken: Problem | None = None
        self.later: Problem | None = None
        self.stepped: Problem | None = None
        self.record: RecordState | None = None
        self._named_at = 0
        self._place = self.head = Head()
        self.signed = 0

    @property
    def first(self) -> Problem | None:
        """The first problem of the log; an accepted break is none."""
        broken = self.broken
        if broken is not None and broken.number <= self._accepted:
            broken = None
        return self.problem or broken or self.later or self.stepped

    def feed(self, row: AuditRow) -> None:
        """Take the next row."""
        before = self._place
        if not self._lost:
            problem = self._judge(row)
            if problem is None:
                self._hold()
                self.head = self._place
                return
            self._note(problem)
            self._lost = True
        self._resume(row, before)

    def hold_record(self, sealed: bytes) -> None:
        """Compare the file's sealed authority record with the newest checkpoint.

        Args:
            sealed: the record that was in the file when no row came after those that were fed.
        """
        if self.record is not None and self.record.digest != digest_of(self._vault_id, sealed):
            what = (
                "names another authority record than the one in the vault file: parts of an older "
                "copy of the vault were put in place, or the log is a copy of another time"
            )
            self.stepped = Problem(self._named_at, what)

    def finish(self) -> Problem | None:
        """Judge the end of the log, and return its first problem."""
        if self._lost:
            return self.first
        if self._doubt:
            self._note(
                Problem(self._doubt - 1, f"was altered, or the last entry, {self._doubt}, was")
            )
            return self.first
        last = self._place.number
        missing = [place for place in self._known if place.head.number > last]
        if missing:
            what = f"is missing, and so are all up to {missing[0].head.number}, which "
            self._note(Problem(last + 1, f"{what}{missing[0].whose} knows"))
        return self.first

    def _note(self, problem: Problem) -> None:
        if self.broken is None:
            self.problem = self.problem or problem
        else:
            self.later = self.later or problem

    def _hold(self) -> None:
        """Compare the reached place with places that are known from elsewhere."""
        for place in self._known:
            if place.head.number == self._place.number and place.head.digest != self._place.digest:
                self._note(Problem(self._place.number, f"is not the one that {place.whose} knows"))

    def _resume(self, row: AuditRow, before: Head) -> None:
        """Continue from a break, if this row is one; otherwise only take its place."""
        self._place = head_of(self._vault_id, row)
        checkpoint = genuine_checkpoint(row, self._verify, self._vault_id)
        if checkpoint is None:
            return
        # Who alters a row must not hide by that what is signed behind it.
        self._name(row.number, checkpoint)
        follows = (row.number, row.previous) == (before.number + 1, before.digest)
        if checkpoint.why == BREAK and follows:
            self._lost, self._doubt, self._segment = False, 0, checkpoint.segment
            self._break(row.number, checkpoint)
            self._hold()
            self.head = self._place

    def _break(self, number: int, checkpoint: Checkpoint) -> None:
        """Remember a break that the vault signed, whose row vouches for all rows as they are."""
        self.signed = number
        known = checkpoint.known.partition("-")[0]
        told = Problem(
            number,
            "is the vault's own word that the log was cut or altered before it: at that unlock "
            f"entry {known}, or what was written right after it, was not what the vault knew",
        )
        if self.broken is None:
            self.broken = told
        elif self.broken.number <= self._accepted:
            self.problem, self.later = self.problem or self.later, None
            self.broken = told
        else:
            self.later = self.later or told

    def _judge(self, row: AuditRow) -> Problem | None:
        found = head_of(self._vault_id, row)
        if row.number != self._place.number + 1:
            return Problem(self._place.number + 1, "is missing")
        if self._doubt:
            # Which of two was altered shows in the one after them: it knows what it was written to.
            altered = self._doubt - 1 if row.previous == self._place.digest else self._doubt
            return Problem(altered, "was altered, or is not the one that was written there")
        if row.previous != self._place.digest:
            if self._place.number == 0 or len(row.previous) != HASH_SIZE:
                return Problem(row.number, "does not follow the one before it")
            self._doubt = row.number
        elif (problem := self._body(row)) is not None:
            return problem
        self._place = found
        return None

    def _body(self, row: AuditRow) -> Problem | None:
        try:
            if row.kind == HEADER:
                return self._header(row, Header.decode(row.body))
            if self._segment == 0 or row.kind not in {ENTRY, CHECKPOINT}:
                return Problem(row.number, "stands outside of a segment, or is of no known kind")
            if row.kind == CHECKPOINT:
                return self._checkpoint(row, Checkpoint.decode(row.body))
        except ChainError:
            return Problem(row.number, "is not of the form")
        return None

    def _header(self, row: AuditRow, header: Header) -> Problem | None:
        if header.segment != self._segment + 1:
            return Problem(row.number, "begins a segment that does not follow the one before it")
        if header.verify != self._verify:
            return Problem(row.number, "begins a segment of another vault's, or a forged one")
        self._segment = header.segment
        return None

    def _checkpoint(self, row: AuditRow, checkpoint: Checkpoint) -> Problem | None:
        if checkpoint.segment != self._segment or not checkpoint.genuine(
            self._verify, self._vault_id, self._place
        ):
            return Problem(row.number, "is a checkpoint that the vault did not sign for this place")
        self._name(row.number, checkpoint)
        if checkpoint.why == BREAK:
            self._break(row.number, checkpoint)
        self.signed = row.number
        return None

    def _name(self, number: int, checkpoint: Checkpoint) -> None:
        if checkpoint.record is not None:
            self._named_at, self.record = number, checkpoint.record


def genuine_checkpoint(row: AuditRow, verify: bytes, vault_id: bytes) -> Checkpoint | None:
    """Return a row's checkpoint if the vault signed it for the place that the row is in.

    Whether the rows before it are there is not looked at: the signature holds without them.
    """
    if row.kind != CHECKPOINT or row.number < 1:
        return None
    try:
        checkpoint = Checkpoint.decode(row.body)
    except ChainError:
        return None
    before = Head(row.number - 1, row.previous)
    return checkpoint if checkpoint.genuine(verify, vault_id, before) else None
