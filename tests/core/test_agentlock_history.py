from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.agentlock import history, locks
from backpackd.core.agentlock.history import Finding, Mark, Verdict, judge, remember
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError
from lockfiles import ANN, BEN, DRAW, shared

A, B, C, M, N = ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64)
SEEN = Mark(4, A, B, 7, M)
DIGESTS = st.sampled_from([A, B, C])
COUNTS = st.integers(1, 6)
MARKS = st.builds(Mark, COUNTS, DIGESTS, DIGESTS, COUNTS, DIGESTS)


@pytest.mark.parametrize(
    ("found", "header", "memory"),
    [
        pytest.param(SEEN, Finding.SAME, Finding.SAME, id="the same"),
        pytest.param(replace(SEEN, digest=C), Finding.FORK, Finding.SAME, id="other bytes"),
        pytest.param(
            replace(SEEN, generation=3), Finding.STEP_BACK, Finding.SAME, id="one generation back"
        ),
        pytest.param(
            replace(SEEN, generation=5, digest=C, previous=A),
            Finding.NEWER,
            Finding.SAME,
            id="made from the one that was seen",
        ),
        pytest.param(
            replace(SEEN, generation=5, digest=C, previous=B),
            Finding.FORK,
            Finding.SAME,
            id="the next, made from another",
        ),
        pytest.param(
            replace(SEEN, generation=6, digest=C, previous=B),
            Finding.NEWER,
            Finding.SAME,
            id="far ahead",
        ),
        pytest.param(
            replace(SEEN, memory_counter=8, memory_digest=N), Finding.SAME, Finding.NEWER, id="next"
        ),
        pytest.param(
            replace(SEEN, memory_counter=6), Finding.SAME, Finding.STEP_BACK, id="older memory"
        ),
        pytest.param(
            replace(SEEN, memory_digest=N), Finding.SAME, Finding.FORK, id="another memory"
        ),
    ],
)
def test_what_was_found_is_held_against_what_is_remembered(
    found: Mark, header: Finding, memory: Finding
) -> None:
    assert judge(SEEN, found) == Verdict(header, memory)


def test_a_lock_never_seen_is_new_and_clean() -> None:
    assert judge(None, SEEN) == Verdict(Finding.NEW, Finding.NEW)
    assert judge(None, SEEN).clean


@pytest.mark.parametrize("finding", Finding)
def test_steps_back_and_forks_of_either_part_are_not_clean(finding: Finding) -> None:
    bad = finding in {Finding.STEP_BACK, Finding.FORK}
    assert Verdict(finding, Finding.SAME).clean != bad
    assert Verdict(Finding.SAME, finding).clean != bad


@given(MARKS, MARKS)
def test_what_is_remembered_never_goes_back(before: Mark, found: Mark) -> None:
    after = remember(before, found)
    assert after.generation == max(before.generation, found.generation)
    assert after.memory_counter == max(before.memory_counter, found.memory_counter)


@given(MARKS, MARKS)
def test_once_remembered_the_same_file_is_clean(before: Mark, found: Mark) -> None:
    if judge(before, found).clean:
        assert judge(remember(before, found), found).clean


@given(MARKS)
def test_a_mark_comes_back_from_the_record(mark: Mark) -> None:
    assert Mark.decode(canonical.decode(canonical.encode(mark.encode()))) == mark


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 0},
        {"generation": True},
        {"generation": history.MOST + 1},
        {"memory_counter": 0},
        {"digest": "a"},
        {"previous": "A" * 64},
        {"memory_digest": None},
        {"more": 1},
    ],
)
def test_a_mark_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CanonicalError):
        Mark.decode({**SEEN.encode(), **change})


def test_every_change_of_a_lock_is_clean_after_the_one_before() -> None:
    lock = shared()
    steps = [
        locks.update_memory(lock, BEN, {"a": 1}, draw=DRAW),
        locks.edit(lock, BEN, draw=DRAW, personality={"tone": "new"}),
        locks.remove_recipients(lock, ANN, [BEN.public.fingerprint], draw=DRAW),
        locks.rewrap(lock, ANN, draw=DRAW),
    ]
    for following in steps:
        assert judge(lock.mark, following.mark).clean
        assert not judge(following.mark, lock.mark).clean


def test_two_branches_of_one_lock_are_a_fork() -> None:
    lock = shared()
    ours = locks.edit(lock, ANN, draw=DRAW, personality={"tone": "ours"})
    theirs = locks.edit(lock, BEN, draw=DRAW, personality={"tone": "theirs"})
    assert judge(ours.mark, theirs.mark).header is Finding.FORK
    later = locks.edit(theirs, BEN, draw=DRAW, personality={"tone": "later"})
    assert judge(ours.mark, later.mark).header is Finding.FORK


def test_two_memories_of_one_count_are_a_fork() -> None:
    lock = shared()
    ours = locks.update_memory(lock, ANN, {"a": 1}, draw=DRAW)
    theirs = locks.update_memory(lock, BEN, {"a": 2}, draw=DRAW)
    assert judge(ours.mark, theirs.mark) == Verdict(Finding.SAME, Finding.FORK)


def test_an_older_memory_put_back_is_a_step_back() -> None:
    lock = shared()
    newer = locks.update_memory(lock, ANN, {"a": 1}, draw=DRAW)
    assert judge(newer.mark, lock.mark) == Verdict(Finding.SAME, Finding.STEP_BACK)
