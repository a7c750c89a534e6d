"""Checkpoints that name the authority record, and what verifying makes of them."""

from dataclasses import replace

import pytest

from audit_logs import VAULT_ID, Log, relinked, verified, verifier
from backpackd.core.audit.chain import CHANGE, CHECKPOINT, ChainError, Checkpoint, Head
from backpackd.core.audit.record_state import RecordState, digest_of
from backpackd.core.sealing import canonical

OLD, NEW = b"the record of yesterday", b"the record of today"


def state(generation: int, sealed: bytes) -> RecordState:
    return RecordState.of(VAULT_ID, generation, sealed)


def log() -> Log:
    """Yesterday's record named in row 3, today's in row 6."""
    made = Log().begin().entry().checkpoint(CHANGE, record=state(1, OLD)).entries(2)
    return made.checkpoint(CHANGE, record=state(2, NEW)).entry()


def test_the_record_that_the_newest_checkpoint_names_is_the_one_of_the_file() -> None:
    made = log()
    judge = verified(made, made.rows)
    judge.hold_record(NEW)
    assert (judge.record, judge.first) == (state(2, NEW), None)


@pytest.mark.parametrize("sealed", [OLD, b"", NEW + b"x"])
def test_another_record_is_told_of_at_the_checkpoint_that_names_todays(sealed: bytes) -> None:
    made = log()
    judge = verified(made, made.rows, accepted=made.head.number)
    judge.hold_record(sealed)
    assert judge.first is not None
    assert (judge.first.number, judge.first) == (6, judge.stepped)


def test_an_altered_row_before_it_does_not_hide_what_the_newest_checkpoint_names() -> None:
    made = log()
    altered = replace(made.rows[1], body=made.rows[1].body + b"x")
    judge = verified(made, [made.rows[0], altered, *made.rows[2:]])
    judge.hold_record(OLD)
    assert judge.record == state(2, NEW)
    assert judge.stepped is not None


def test_what_is_not_signed_names_no_record() -> None:
    made = log()
    told = Checkpoint.decode(made.rows[5].body)
    for changed in (state(9, OLD), state(2, OLD), None):
        row, _ = made.head.next(VAULT_ID, CHECKPOINT, replace(told, record=changed).encode())
        judge = verified(made, [*made.rows, row])
        assert judge.record == state(2, NEW)
    # Nor what was signed, in another place.
    judge = verified(made, relinked([*made.rows[:3], made.rows[5]]))
    assert judge.record == state(1, OLD)


def test_checkpoints_of_an_older_version_vouch_for_no_record() -> None:
    made = Log().begin().entry().checkpoint().entry()
    judge = verified(made, made.rows)
    judge.hold_record(OLD)
    assert (judge.record, judge.first) == (None, None)
    # One behind those that name a record takes nothing of it back.
    later = log().checkpoint()
    again = verified(later, later.rows)
    assert again.record == state(2, NEW)


def test_a_signature_holds_for_the_record_that_it_was_made_for() -> None:
    made = Log().begin()
    plain = Checkpoint(1, 5, CHANGE, record=state(3, NEW))
    signed = plain.signed(made.keys.signing, VAULT_ID, made.head)
    verify = made.keys.public.verify
    assert signed.genuine(verify, VAULT_ID, made.head)
    for other in (state(3, OLD), state(4, NEW), None):
        assert not replace(signed, record=other).genuine(verify, VAULT_ID, made.head)
    assert not replace(plain.signed(made.keys.signing, b"w" * 16, made.head)).genuine(
        verify, VAULT_ID, made.head
    )
    assert Checkpoint.decode(signed.encode()) == signed


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0}, {"generation": 2**62 + 1}, {"generation": "3"}, {"generation": None},
        {"record": ""}, {"record": "AB" * 32}, {"record": "ab" * 31}, {"record": None},
        {"more": 1},
    ],
)  # fmt: skip
def test_a_record_that_is_not_of_the_form_is_refused(change: dict[str, object]) -> None:
    signed = Checkpoint(1, 5, CHANGE, record=state(3, NEW)).signed(
        Log().keys.signing, VAULT_ID, Head()
    )
    body = {**canonical.decode(signed.encode()), **change}
    kept = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(ChainError):
        Checkpoint.decode(canonical.encode(kept))


def test_a_record_is_behind_when_it_is_older_or_of_another_copy() -> None:
    newest = state(5, NEW)
    assert state(4, OLD).is_behind(newest)
    assert state(4, NEW).is_behind(newest)
    assert state(5, OLD).is_behind(newest)
    assert not state(5, NEW).is_behind(newest)
    assert not state(6, OLD).is_behind(newest)


def test_the_digest_is_of_one_vault() -> None:
    assert digest_of(VAULT_ID, NEW) != digest_of(b"w" * 16, NEW)
    assert verifier(log()).record is None
