import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.agentlock import content, locks
from backpackd.core.agentlock.content import Contents, Credential
from backpackd.core.agentlock.document import LockFile, read
from backpackd.core.agentlock.errors import (
    LockContentError,
    LockFileError,
    RecipientsError,
    WrongRecipientError,
)
from backpackd.core.agentlock.history import MOST
from backpackd.core.errors import LimitError, Status
from backpackd.core.sealing import identity
from backpackd.core.sealing.identity import Identity
from lockfiles import ANN, BEN, CONTENTS, DRAW, STRANGER, shared

LOCK = shared()
CREDENTIALS = {"NEW_KEY": Credential()}
PERSONALITY = {"tone": "brisk"}
MEMORY = {"runs": 2}


def contents_for(lock: LockFile, who: Identity) -> Contents:
    return locks.open_lock(read(lock.encode()), who).contents


def changed_lines(before: LockFile, after: LockFile) -> list[str]:
    diff = difflib.unified_diff(
        before.encode().decode().splitlines(), after.encode().decode().splitlines(), n=0
    )
    return [line for line in diff if line[0] == "+" and line[:3] != "+++"]


@pytest.mark.parametrize("who", [ANN, BEN])
def test_every_recipient_opens_what_the_author_sealed(who: Identity) -> None:
    assert contents_for(LOCK, who) == CONTENTS


def test_the_author_is_the_first_recipient() -> None:
    assert LOCK.recipients == (ANN.public, BEN.public)
    assert LOCK.author == ANN.public


def test_somebody_else_is_told_not_to_be_a_recipient() -> None:
    with pytest.raises(WrongRecipientError) as caught:
        locks.open_lock(LOCK, STRANGER)
    assert (caught.value.status, caught.value.reason) == (
        Status.FAILED_PRECONDITION,
        "not-a-recipient",
    )


@pytest.mark.parametrize("part", ["decryption", "verifying"])
def test_half_of_a_recipients_identity_opens_nothing(part: str) -> None:
    if part == "decryption":
        half = Identity.from_private(BEN.decryption, STRANGER.signing)
    else:
        half = Identity.from_private(STRANGER.decryption, BEN.signing)
    with pytest.raises(WrongRecipientError):
        locks.open_lock(LOCK, half)


def test_an_edit_replaces_one_layer_and_keeps_the_others_byte_for_byte() -> None:
    after = locks.edit(LOCK, BEN, draw=DRAW, personality=PERSONALITY)
    assert contents_for(after, ANN) == replace(CONTENTS, personality=PERSONALITY)
    assert after.author == BEN.public
    assert after.layers == {"credentials": 1, "personality": 2, "memory": 1}
    assert [after.sealed[name] == LOCK.sealed[name] for name in LOCK.sealed] == [True, False, True]


def test_an_edit_of_both_is_one_generation() -> None:
    after = locks.edit(LOCK, ANN, draw=DRAW, credentials=CREDENTIALS, personality=PERSONALITY)
    assert contents_for(after, BEN) == Contents(CREDENTIALS, PERSONALITY, CONTENTS.memory)
    assert after.generation == LOCK.generation + 1


def test_an_edit_that_changes_nothing_changes_no_byte() -> None:
    after = locks.edit(
        LOCK,
        BEN,
        draw=DRAW,
        credentials=dict(reversed(list(CONTENTS.credentials.items()))),
        personality=dict(CONTENTS.personality),
    )
    assert after.encode() == LOCK.encode()


def test_one_is_not_the_same_as_true_or_as_a_fraction() -> None:
    lock = locks.edit(LOCK, ANN, draw=DRAW, personality={"a": 1})
    for other in (True, 1.0):
        after = locks.edit(lock, ANN, draw=DRAW, personality={"a": other})
        assert after.generation == lock.generation + 1


def test_memory_is_written_by_a_recipient_without_the_author() -> None:
    after = locks.update_memory(LOCK, BEN, MEMORY, draw=DRAW)
    assert contents_for(after, ANN) == replace(CONTENTS, memory=MEMORY)
    assert (after.header, after.signature) == (LOCK.header, LOCK.signature)
    assert after.memory_counter == LOCK.memory_counter + 1


def test_the_same_memory_changes_no_byte() -> None:
    assert locks.update_memory(LOCK, BEN, CONTENTS.memory, draw=DRAW).encode() == LOCK.encode()


def test_memory_changes_two_lines_of_the_file() -> None:
    assert len(changed_lines(LOCK, locks.update_memory(LOCK, BEN, MEMORY, draw=DRAW))) == 2


def test_an_edit_of_one_layer_changes_few_lines_of_the_file() -> None:
    after = locks.edit(LOCK, ANN, draw=DRAW, personality=PERSONALITY)
    # generation, previous; the layer's count and digest, its count and bytes; the signature.
    assert len(changed_lines(LOCK, after)) == 7


def test_an_added_recipient_opens_the_lock_and_changes_no_layer_and_no_wrap() -> None:
    after = locks.add_recipients(LOCK, BEN, [STRANGER.public])
    assert contents_for(after, STRANGER) == CONTENTS
    assert after.sealed == LOCK.sealed
    assert after.header.wraps[:2] == LOCK.header.wraps
    assert after.header.commitment == LOCK.header.commitment


def test_a_removed_recipient_opens_no_later_version() -> None:
    after = locks.remove_recipients(LOCK, ANN, [BEN.public.fingerprint], draw=DRAW)
    assert contents_for(after, ANN) == CONTENTS
    with pytest.raises(WrongRecipientError):
        locks.open_lock(after, BEN)
    # Nor with what it kept of the older version: that wrap is of another lock key.
    kept = replace(after, header=replace(after.header, wraps=LOCK.header.wraps))
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(kept, BEN)
    assert caught.value.reason == "lock-key"


def test_rewrapping_makes_every_byte_of_cryptography_new() -> None:
    after = locks.rewrap(LOCK, BEN, draw=DRAW)
    assert contents_for(after, ANN) == CONTENTS
    assert after.header.commitment != LOCK.header.commitment
    assert after.recipients == LOCK.recipients
    assert all(after.sealed[name].sealed != LOCK.sealed[name].sealed for name in LOCK.sealed)
    assert {one.wrap for one in after.header.wraps}.isdisjoint(
        one.wrap for one in LOCK.header.wraps
    )


def test_the_lock_keeps_its_id_through_every_change() -> None:
    changed = [
        locks.edit(LOCK, ANN, draw=DRAW, personality=PERSONALITY),
        locks.rewrap(LOCK, ANN, draw=DRAW),
        locks.update_memory(LOCK, ANN, MEMORY, draw=DRAW),
        locks.add_recipients(LOCK, ANN, [STRANGER.public]),
    ]
    assert {lock.lock_id for lock in changed} == {LOCK.lock_id}


def test_two_new_locks_share_nothing() -> None:
    other = shared()
    assert other.lock_id != LOCK.lock_id
    assert other.header.commitment != LOCK.header.commitment


@pytest.mark.parametrize(
    "added",
    [
        pytest.param([], id="nobody"),
        pytest.param([BEN.public], id="a recipient already"),
        pytest.param([STRANGER.public, STRANGER.public], id="twice"),
        pytest.param(
            [replace(STRANGER.public, verifying=ANN.public.verifying)], id="another's signing key"
        ),
        pytest.param(
            [replace(STRANGER.public, encryption=BEN.public.encryption)], id="another's wrap key"
        ),
        pytest.param([replace(STRANGER.public, encryption=b"\xff" * 1216)], id="no public key"),
    ],
)
def test_recipients_that_cannot_be_added_are_refused(added: list[identity.PublicIdentity]) -> None:
    with pytest.raises(RecipientsError):
        locks.add_recipients(LOCK, ANN, added)


@pytest.mark.parametrize(
    "leaving",
    [
        pytest.param([], id="nobody"),
        pytest.param([ANN.public.fingerprint], id="oneself"),
        pytest.param([STRANGER.public.fingerprint], id="no recipient"),
        pytest.param([BEN.public.fingerprint, "0" * 64], id="one of them no recipient"),
    ],
)
def test_recipients_that_cannot_be_removed_are_refused(leaving: list[str]) -> None:
    with pytest.raises(RecipientsError):
        locks.remove_recipients(LOCK, ANN, leaving, draw=DRAW)


def test_there_are_as_many_recipients_as_the_limit_says_and_no_more() -> None:
    others = [identity.generate().public for _ in range(content.MAX_RECIPIENTS - 1)]
    lock = locks.create(CONTENTS, author=ANN, recipients=others, draw=DRAW)
    assert len(read(lock.encode()).recipients) == content.MAX_RECIPIENTS
    with pytest.raises(RecipientsError):
        locks.add_recipients(lock, ANN, [STRANGER.public])
    with pytest.raises(RecipientsError):
        locks.create(CONTENTS, author=ANN, recipients=[*others, BEN.public], draw=DRAW)


def test_a_lock_at_every_limit_still_fits_a_file() -> None:
    def text(most: int) -> dict[str, str]:
        return {"a": "x" * (most - len('{"a":""}'))}

    value, names = Credential(b"x" * 1013), [f"K{i:03}" for i in range(content.MAX_CREDENTIALS)]
    contents = Contents(
        dict.fromkeys(names, value),
        text(content.MAX_PERSONALITY_BYTES),
        text(content.MAX_MEMORY_BYTES),
    )
    assert len(content.encode_credentials(contents.credentials)) > 255 * 1024
    others = [identity.generate().public for _ in range(content.MAX_RECIPIENTS - 1)]
    lock = locks.create(contents, author=ANN, recipients=others, draw=DRAW)
    assert contents_for(lock, ANN) == contents


def test_nobody_but_a_recipient_changes_a_lock() -> None:
    changes: list[Callable[[], object]] = [
        lambda: locks.edit(LOCK, STRANGER, draw=DRAW, personality=PERSONALITY),
        lambda: locks.update_memory(LOCK, STRANGER, MEMORY, draw=DRAW),
        lambda: locks.add_recipients(LOCK, STRANGER, [STRANGER.public]),
        lambda: locks.remove_recipients(LOCK, STRANGER, [BEN.public.fingerprint], draw=DRAW),
        lambda: locks.rewrap(LOCK, STRANGER, draw=DRAW),
    ]
    for change in changes:
        with pytest.raises(WrongRecipientError):
            change()


@pytest.mark.parametrize("part", ["credentials", "personality", "memory"])
def test_content_of_another_form_is_refused_before_anything_is_sealed(part: str) -> None:
    bad: Any = {"bad name\n": Credential()} if part == "credentials" else {"a": float("nan")}
    with pytest.raises(LockContentError):
        locks.create(replace(CONTENTS, **{part: bad}), author=ANN, draw=DRAW)


def test_counts_end_with_an_error() -> None:
    header = replace(LOCK.header, generation=MOST)
    with pytest.raises(LimitError):
        locks.rewrap(replace(LOCK, header=header), ANN, draw=DRAW)


def test_lengths_within_a_step_cannot_be_told_apart() -> None:
    sizes = {
        len(locks.update_memory(LOCK, ANN, {"a": "x" * length}, draw=DRAW).encode())
        for length in range(0, 200, 10)
    }
    assert len(sizes) == 1


def test_nothing_of_the_content_is_in_the_file_or_in_a_repr() -> None:
    for hidden in ("OPENAI_API_KEY", "embedded-value-0123", "system_prompt", "history"):
        assert hidden.encode() not in LOCK.encode()
        assert hidden not in repr(locks.open_lock(LOCK, ANN))


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("memory"), st.integers(0, 3)),
        st.tuples(st.just("personality"), st.integers(0, 3)),
        st.tuples(st.just("rewrap"), st.just(0)),
    ),
    max_size=6,
)


@given(CHANGES)
@settings(max_examples=30)
def test_any_row_of_changes_leaves_a_lock_that_reads_and_opens(
    changes: list[tuple[str, int]],
) -> None:
    lock, wanted = LOCK, CONTENTS
    for number, (what, value) in enumerate(changes):
        who = (ANN, BEN)[number % 2]
        if what == "memory":
            lock = locks.update_memory(lock, who, {"v": value}, draw=DRAW)
            wanted = replace(wanted, memory={"v": value})
        elif what == "personality":
            lock = locks.edit(lock, who, draw=DRAW, personality={"v": value})
            wanted = replace(wanted, personality={"v": value})
        else:
            lock = locks.rewrap(lock, who, draw=DRAW)
    for who in (ANN, BEN):
        assert contents_for(lock, who) == wanted
