"""Every single change and removal in a log of a thousand entries is found, and every swap.

Outside of CI the log for swaps is shorter, since there are as many as pairs of rows. It, too, has
rows of every kind in three segments.

A verifier that has seen the rows before a place stands for all logs that are equal up to there, so
each case goes on from a copy of it and ends where the verifier first finds something.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from audit_logs import Log, verified, verifier
from backpackd.core.audit.verify import Known, Problem, Verifier
from backpackd.core.rows import AuditRow
from thorough import CI

ENTRIES = 1000
ENTRIES_TO_SWAP = ENTRIES if CI else 300


def written(length: int) -> Log:
    """Return so many rows, in three segments, with checkpoints as a daemon writes them."""
    made = Log().begin().checkpoint("unlock")
    for end in (length // 3, 2 * length // 3, length - 1):
        while made.head.number < end:
            made.entries(min(99, end - made.head.number))
            if made.head.number < end:
                made.checkpoint()
        if end < length - 1:
            made.begin()
    made.checkpoint("lock")
    assert (len(made.rows), made.segment) == (length, 3)
    return made


@pytest.fixture(scope="module")
def log() -> Log:
    return written(ENTRIES)


@pytest.fixture(scope="module")
def before(log: Log) -> list[Verifier]:
    return verifiers(log)


def verifiers(log: Log) -> list[Verifier]:
    """Return for each place of a log the verifier that has seen all rows before it."""
    judge, seen = verifier(log, [Known(log.head, "somebody")]), []
    for row in log.rows:
        seen.append(copy.copy(judge))
        judge.feed(row)
    assert judge.finish() is None
    return seen


def first_problem(judge: Verifier, rows: Iterator[AuditRow]) -> Problem | None:
    """Verify on from a copy of a verifier until it finds something."""
    going = copy.copy(judge)
    for row in rows:
        going.feed(row)
        if going.problem is not None:
            return going.problem
    return going.finish()


def rest(rows: Sequence[AuditRow], start: int, *put: AuditRow) -> Iterator[AuditRow]:
    yield from put
    for place in range(start, len(rows)):
        yield rows[place]


CHANGES: dict[str, Callable[[AuditRow], AuditRow]] = {
    "number": lambda row: replace(row, number=row.number + 1),
    "kind": lambda row: replace(row, kind=row.kind % 3 + 1),
    "previous": lambda row: replace(row, previous=flipped(row.previous)),
    "body": lambda row: replace(row, body=flipped(row.body)),
    "longer": lambda row: replace(row, body=row.body + b"\0"),
    "shorter": lambda row: replace(row, body=row.body[:-1]),
}


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_of_one_row_is_found_and_named(
    log: Log, before: list[Verifier], what: str
) -> None:
    for place, row in enumerate(log.rows):
        found = first_problem(before[place], rest(log.rows, place + 1, CHANGES[what](row)))
        assert found is not None, place
        assert found.number == row.number, (found, row.number)


def test_every_removal_of_one_row_is_found_and_named(log: Log, before: list[Verifier]) -> None:
    for place, row in enumerate(log.rows):
        found = first_problem(before[place], rest(log.rows, place + 1))
        assert found is not None, place
        assert found.number == row.number


def test_every_removal_is_found_where_the_rest_is_numbered_anew(
    log: Log, before: list[Verifier]
) -> None:
    for place in range(len(log.rows)):
        moved = (replace(row, number=row.number - 1) for row in rest(log.rows, place + 1))
        assert first_problem(before[place], moved) is not None, place


def test_every_swap_of_two_rows_is_found() -> None:
    log = written(ENTRIES_TO_SWAP)
    rows, before = log.rows, verifiers(log)
    for one in range(len(rows)):
        for other in range(one + 1, len(rows)):
            # Each takes the other's number, or the verifier would only find a number missing.
            moved = replace(rows[other], number=rows[one].number)
            going = copy.copy(before[one])
            going.feed(moved)
            if going.problem is None:
                back = replace(rows[one], number=rows[other].number)
                following = rows[one + 1] if other > one + 1 else back
                going.feed(following)
            if going.problem is None and one + 2 < len(rows):
                going.feed(rows[one + 2])
            assert (going.problem or going.finish()) is not None, (one, other)


def test_every_row_that_is_doubled_is_found(log: Log, before: list[Verifier]) -> None:
    for place, row in enumerate(log.rows):
        again = replace(row, number=row.number + 1)
        assert first_problem(before[place], iter([row, again])) is not None, place


def test_every_cut_tail_is_found_by_whoever_kept_the_head(log: Log, before: list[Verifier]) -> None:
    for place in range(len(log.rows)):
        found = copy.copy(before[place]).finish()
        assert found is not None
        assert found.number == place + 1


def test_the_log_itself_is_good(log: Log) -> None:
    judge = verified(log, log.rows)
    assert judge.problem is None
    assert judge.signed == ENTRIES
