"""Verifies an audit log row by row: that nothing was altered, removed, swapped or put in.

It needs no passphrase and reads no entry. The verifier remembers the first thing that is wrong and
looks at nothing after it. That what it was given as the vault's key is the vault's is not judged
here: whoever asks says which anchor it came from.
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
from backpackd.core.rows import AuditRow


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that is wrong with a log.

    Attributes:
        number: of the first bad row.
        what: what is wrong with it, for people; holds nothing of the row.
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
        problem: the first one; None so far.
        head: the end of what was taken.
        signed: number of the last row that a signature vouches for; 0 for none.

    Args:
        vault_id: the vault's 16 bytes.
        verify: the key that verifies checkpoints, 32 bytes.
        known: places that the log must have.
    """

    def __init__(self, vault_id: bytes, verify: bytes, known: Sequence[Known] = ()) -> None:
        self._vault_id = vault_id
        self._verify = verify
        self._known = tuple(place for place in known if place.head.number)
        self._segment = 0
        self._doubt = 0
        self.problem: Problem | None = None
        self.head = Head()
        self.signed = 0

    def feed(self, row: AuditRow) -> None:
        """Take the next row."""
        if self.problem is None:
            self.problem = self._judge(row)

    def finish(self) -> Problem | None:
        """Judge the end of the log and return the first problem."""
        if self.problem is None and self._doubt:
            self.problem = Problem(
                self._doubt - 1, f"was altered, or the last entry, {self._doubt}, was"
            )
        if self.problem is None:
            last = self.head.number
            for place in self._known:
                if place.head.number > last:
                    what = f"is missing, and so are all up to {place.head.number}, which "
                    self.problem = Problem(last + 1, f"{what}{place.whose} knows")
        return self.problem

    def _judge(self, row: AuditRow) -> Problem | None:
        found = head_of(self._vault_id, row)
        if row.number != self.head.number + 1:
            return Problem(self.head.number + 1, "is missing")
        if self._doubt:
            # Which of two was altered shows in the one after them: it knows what it was written to.
            altered = self._doubt - 1 if row.previous == self.head.digest else self._doubt
            return Problem(altered, "was altered, or is not the one that was written there")
        if row.previous != self.head.digest:
            if self.head.number == 0 or len(row.previous) != HASH_SIZE:
                return Problem(row.number, "does not follow the one before it")
            self._doubt = row.number
        elif (problem := self._body(row)) is not None:
            return problem
        self.head = found
        return next((problem for place in self._known if (problem := _differs(place, found))), None)

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
            self._verify, self._vault_id, self.head
        ):
            return Problem(row.number, "is a checkpoint that the vault did not sign for this place")
        if checkpoint.why == BREAK:
            known = Head.parse(checkpoint.known).number
            return Problem(
                row.number,
                "is the vault's own word that the log was cut or altered before it: at that unlock "
                f"entry {known} was not the one that the vault knew",
            )
        self.signed = row.number
        return None


def _differs(place: Known, found: Head) -> Problem | None:
    if place.head.number != found.number or place.head.digest == found.digest:
        return None
    return Problem(found.number, f"is not the one that {place.whose} knows")
