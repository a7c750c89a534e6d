"""What a verifier of the audit log finds, and what it can only find with a copy kept elsewhere."""

from dataclasses import replace

import pytest

from audit_logs import VAULT_ID, Log, problem, relinked, verified
from backpackd.core.audit import chain, keys
from backpackd.core.audit.chain import BREAK, LOCK, UNLOCK, ChainError, Checkpoint, Head, Header
from backpackd.core.audit.verify import Known, Verifier


def log() -> Log:
    """An unlocked and a locked time, a restart, and again: signed up to row 9, and 3 more."""
    made = Log().begin().entry().checkpoint(UNLOCK).entries(3).checkpoint(LOCK)
    return made.begin().checkpoint(UNLOCK).entries(3)


def test_a_good_log_is_good_and_signed_up_to_its_last_checkpoint() -> None:
    judge = verified(log(), log().rows[:0])
    assert judge.problem is None
    made = log()
    judge = verified(made, made.rows)
    assert (judge.problem, judge.head, judge.signed) == (None, made.head, 9)


def test_a_tail_that_was_cut_behind_the_last_checkpoint_needs_a_copy() -> None:
    made = log()
    assert problem(made, made.rows[:10]) is None
    found = problem(made, made.rows[:10], [Known(made.head, "the operator's note")])
    assert found is not None
    assert found.number == 11
    assert "12" in found.what
    assert "the operator's note" in found.what


def test_a_log_that_was_chained_anew_is_found_by_its_checkpoints() -> None:
    made = log()
    removed = made.rows[:1] + made.rows[2:]
    found = problem(made, relinked(removed))
    assert found is not None
    assert found.number == 2
    assert "did not sign" in found.what


def test_what_was_chained_anew_behind_the_last_checkpoint_needs_a_copy() -> None:
    made = log()
    forged = made.rows[:9] + Log(made.keys, [], [], Head(9, made.rows[9].previous), 2).rows
    tail, head = [], Head(9, made.rows[9].previous)
    for _ in range(3):
        row, head = head.next(VAULT_ID, chain.ENTRY, b"forged" * 20)
        tail.append(row)
    assert problem(made, forged + tail) is None
    found = problem(made, forged + tail, [Known(made.head, "a note")])
    assert found is not None
    assert found.number == 12


def test_a_segment_that_was_rebuilt_from_public_material_is_found_where_it_is_signed() -> None:
    made = log()
    # Whoever has the file has the public key, and can wrap a key of their own to it.
    rebuilt = Log(made.keys).begin()
    rebuilt.entry().rows.append(made.rows[2])
    found = problem(made, relinked(rebuilt.rows) + made.rows[3:])
    assert found is not None
    assert found.number == 3


def test_a_segment_that_was_rebuilt_behind_the_last_checkpoint_needs_a_copy() -> None:
    made = Log().begin().checkpoint(UNLOCK).checkpoint(LOCK)
    kept, head = list(made.rows), made.head
    made.begin().entries(4)
    forged = Log(made.keys, kept, [], head, 1).begin().entries(4)
    assert problem(made, forged.rows) is None
    assert verified(made, forged.rows).signed == 3
    # The same number of rows, and a note of the true head.
    found = problem(made, forged.rows, [Known(made.head, "a note")])
    assert found is not None
    assert found.number == made.head.number


def test_a_log_under_keys_of_somebody_else_is_found_by_the_vault_that_knows_its_own() -> None:
    forged = Log().begin().checkpoint(UNLOCK).entries(3).checkpoint(LOCK)
    found = problem(Log(), forged.rows)
    assert found is not None
    assert found.number == 1


def test_a_checkpoint_of_another_place_is_no_checkpoint() -> None:
    made = log()
    signed = made.rows[2]
    row, _ = made.head.next(VAULT_ID, chain.CHECKPOINT, signed.body)
    found = problem(made, [*made.rows, row])
    assert found is not None
    assert found.number == 13


@pytest.mark.parametrize("change", [{"why": LOCK}, {"at_ms": 6}, {"segment": 2}])
def test_a_checkpoint_that_says_something_else_is_no_checkpoint(change: dict[str, object]) -> None:
    made = Log().begin().checkpoint(UNLOCK)
    told = Checkpoint.decode(made.rows[1].body)
    row = replace(made.rows[1], body=replace(told, **change).encode())  # type: ignore[arg-type]
    found = problem(made, [made.rows[0], row])
    assert found is not None
    assert found.number == 2


def test_a_checkpoint_that_was_signed_for_another_segment_is_no_checkpoint() -> None:
    made = Log().begin().entry()
    made.segment = 2
    made.checkpoint()
    found = problem(made, made.rows)
    assert found is not None
    assert found.number == 3


def test_a_checkpoint_of_another_vault_is_no_checkpoint() -> None:
    made = Log().begin().checkpoint(UNLOCK)
    judge = Verifier(b"w" * 16, made.keys.public.verify)
    for row in made.rows:
        judge.feed(row)
    assert judge.finish() is not None


def test_a_break_that_the_vault_signed_is_told_for_good() -> None:
    made = log().checkpoint(BREAK, Head(40, b"h" * 32).text).entries(2).checkpoint(LOCK)
    found = problem(made, made.rows)
    assert found is not None
    assert found.number == 13
    assert "entry 40" in found.what


def broken() -> Log:
    """A log with a break at row 13, and two more rows that are signed."""
    return log().checkpoint(BREAK, Head(40, b"h" * 32).text).entries(2).checkpoint(LOCK)


def test_a_break_hides_nothing_that_is_done_to_the_log_later() -> None:
    made = broken()
    altered = replace(made.rows[13], body=made.rows[13].body + b"x")
    judge = verified(made, [*made.rows[:13], altered, *made.rows[14:]])
    assert judge.broken is not None
    assert judge.later is not None
    assert (judge.broken.number, judge.later.number) == (13, 14)
    assert judge.first == judge.broken
    cut = verified(made, made.rows[:14], [Known(made.head, "a note")])
    assert cut.later is not None
    assert (cut.later.number, cut.signed) == (15, 13)


def test_judging_goes_on_behind_a_break_from_what_was_altered_before_it() -> None:
    made = broken()
    removed = made.rows[:4] + made.rows[5:]
    judge = verified(made, removed)
    assert judge.problem is not None
    assert judge.broken is not None
    assert (judge.problem.number, judge.broken.number, judge.later) == (5, 13, None)
    assert (judge.head, judge.signed) == (made.head, 16)
    altered = replace(made.rows[14], body=made.rows[14].body + b"x")
    again = verified(made, [*removed[:-2], altered, made.rows[15]])
    assert again.first == judge.problem
    assert again.later is not None
    assert again.later.number == 15


def test_segments_go_on_behind_a_break() -> None:
    made = broken().begin().checkpoint(UNLOCK).entry()
    judge = verified(made, made.rows[:3] + made.rows[4:])
    assert judge.problem is not None
    assert (judge.later, judge.head) == (None, made.head)
    left_out = broken().entry()
    left_out.segment += 1
    left_out.begin()
    later = verified(left_out, left_out.rows).later
    assert later is not None
    assert later.number == left_out.head.number


def test_a_break_of_another_place_or_that_nobody_signed_is_none_to_go_on_from() -> None:
    made = broken()
    row = made.rows[12]
    told = Checkpoint.decode(row.body)
    forged = replace(row, body=replace(told, known=Head(41, b"h" * 32).text).encode())
    cut = made.rows[:4] + made.rows[5:12]
    for planted in (forged, replace(row, number=14), replace(row, previous=b"p" * 32)):
        judge = verified(made, [*cut, planted, *made.rows[13:]])
        assert judge.broken is None
        assert judge.problem is not None
        assert judge.problem.number == 5


def test_a_head_from_behind_a_break_accepts_it_and_nothing_after_it() -> None:
    made = broken()
    note = Known(made.head, "a note")
    accepted = verified(made, made.rows, [note], accepted=made.head.number)
    assert accepted.broken is not None
    assert accepted.first is None
    assert verified(made, made.rows, [note], accepted=12).first == accepted.broken
    place = made.head.number
    made.checkpoint(BREAK, Head(50, b"h" * 32).text).entry()
    second = verified(made, made.rows, [note], accepted=place)
    assert second.first == second.broken
    assert second.broken is not None
    assert second.broken.number == place + 1
    neither = verified(made, made.rows)
    assert neither.broken == accepted.broken
    assert neither.later == second.broken


def test_what_was_wrong_between_two_breaks_is_still_told_where_the_first_is_accepted() -> None:
    made = broken()
    place = made.head.number
    made.entries(3).checkpoint(BREAK, Head(50, b"h" * 32).text).entry()
    judge = verified(made, made.rows[:17] + made.rows[18:], accepted=place)
    assert judge.problem is not None
    assert (judge.problem.number, judge.later) == (18, None)
    assert judge.broken is not None
    assert judge.broken.number == 20


def test_a_segment_that_is_left_out_is_found() -> None:
    made = Log().begin().entry()
    made.segment = 2
    made.begin().entry()
    found = problem(made, made.rows)
    assert found is not None
    assert found.number == 3


def test_a_log_that_begins_without_a_header_is_no_log() -> None:
    row, _ = Head().next(VAULT_ID, chain.ENTRY, b"x" * 100)
    assert problem(Log(), [row]) is not None


def test_rows_after_the_first_problem_do_not_change_it() -> None:
    made = log()
    rows = made.rows[:1] + made.rows[2:]
    found = problem(made, rows)
    assert found is not None
    assert found.number == 2


@pytest.mark.parametrize(
    "text",
    ["", "1", "1-", "-" + "0" * 64, "0-" + "0" * 64, "01-" + "0" * 64, "1-" + "A" * 64,
     "1-" + "0" * 63, "1-" + "0" * 65, "1-" + "0" * 64 + "\n", "9" * 19 + "-" + "0" * 64],
)  # fmt: skip
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ChainError):
        Head.parse(text)


def test_a_head_is_read_as_it_was_written() -> None:
    head = Head(1234, bytes(range(32)))
    assert Head.parse(head.text) == head


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"keys":1}', b"\xff"])
def test_bodies_that_are_not_of_the_form_are_refused(body: bytes) -> None:
    with pytest.raises(ChainError):
        Header.decode(body)
    with pytest.raises(ChainError):
        Checkpoint.decode(body)


def test_a_public_key_has_a_fingerprint_that_changes_with_either_half() -> None:
    public, other = keys.generate().public, keys.generate().public
    mixed = replace(public, verify=other.verify)
    assert len({keys.fingerprint(each) for each in (public, other, mixed)}) == 3
