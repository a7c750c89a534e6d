"""What others try: bystanders with file and public keys, authors and recipients gone bad."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.agentlock import layers, locks
from backpackd.core.agentlock.content import MAX_RECIPIENTS, Contents
from backpackd.core.agentlock.document import LockFile, read
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.header import Layer, Recipient
from backpackd.core.agentlock.history import MOST, Finding, judge
from backpackd.core.sealing import hybrid, identity
from backpackd.core.sealing.identity import Identity
from backpackd.core.sealing.sealing import derive
from lockfiles import ANN, BEN, CONTENTS, DRAW, STRANGER, altered, shared

LOCK = shared()
KEY = layers.unwrap_key(LOCK, ANN)


def reason_of(document: bytes, who: Identity = BEN) -> str:
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(read(document), who)
    return caught.value.reason


def signed(lock: LockFile, by: Identity, **header: Any) -> LockFile:
    """Sign as an author would who has a program of their own."""
    return locks._signed(replace(lock.header, **header), lock.sealed, by)


def guessed(name: str, count: int, key: bytes) -> Layer:
    return layers.seal_layer(
        key, b'{"a":1}', lock_id=LOCK.lock_id, name=name, count=count, salt=DRAW(32)
    )


# A bystander: has the file and every public key, and no private key of a recipient.


@pytest.mark.parametrize("key", [bytes(32), bytes.fromhex(LOCK.header.commitment)])
@pytest.mark.parametrize("name", ["credentials", "personality", "memory"])
def test_a_bystander_forges_no_layer(name: str, key: bytes) -> None:
    forged = replace(LOCK, sealed={**LOCK.sealed, name: guessed(name, 2, key)})
    assert reason_of(forged.encode()) == "lock-layer-changed"


def test_a_bystander_who_signs_is_seen_as_the_author() -> None:
    wraps = (*LOCK.header.wraps, Recipient(STRANGER.public, LOCK.header.wraps[0].wrap))
    taken = read(signed(LOCK, STRANGER, wraps=wraps, author=STRANGER.public.fingerprint).encode())
    assert taken.author == STRANGER.public


def test_a_bystander_cannot_sign_as_the_author() -> None:
    wraps = (*LOCK.header.wraps, Recipient(STRANGER.public, LOCK.header.wraps[0].wrap))
    assert reason_of(signed(LOCK, STRANGER, wraps=wraps).encode()) == "lock-signature"


def test_an_identity_with_the_authors_name_and_another_key_is_impossible() -> None:
    # The author is named by a hash over both public keys, so a recipient with the author's wrap
    # key and the stranger's signing key is somebody else.
    mixed = replace(ANN.public, verifying=STRANGER.public.verifying)
    wraps = (Recipient(mixed, LOCK.header.wraps[0].wrap), *LOCK.header.wraps[1:])
    assert reason_of(signed(LOCK, STRANGER, wraps=wraps).encode()) == "lock-shape"


def test_a_bystander_adds_no_recipient() -> None:
    wrap = hybrid.wrap(bytes(32), STRANGER.public.encryption, info=b"")
    added = Recipient(STRANGER.public, wrap)
    grown = replace(LOCK, header=replace(LOCK.header, wraps=(*LOCK.header.wraps, added)))
    assert reason_of(grown.encode()) == "lock-signature"


def test_a_bystander_changes_no_wrap() -> None:
    info = layers._wrap_info(LOCK.lock_id, LOCK.header.commitment, BEN.public)
    planted = Recipient(BEN.public, hybrid.wrap(bytes(32), BEN.public.encryption, info=info))
    changed = replace(LOCK, header=replace(LOCK.header, wraps=(LOCK.header.wraps[0], planted)))
    assert reason_of(changed.encode()) == "lock-signature"


def test_a_signature_of_the_same_author_on_another_lock_does_not_count() -> None:
    assert reason_of(replace(LOCK, signature=shared().signature).encode()) == "lock-signature"


def test_a_second_signature_for_the_same_header_cannot_be_made_from_the_first() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(LOCK.signature[32:], "little") + order
    other = LOCK.signature[:32] + scalar.to_bytes(32, "little")
    assert reason_of(replace(LOCK, signature=other).encode()) == "lock-signature"


def test_a_signature_for_something_else_is_none_for_a_header() -> None:
    # A vault signs with this key nothing but statements under a label of their own.
    other = ANN.sign(LOCK.header.statement[1:])
    assert reason_of(replace(LOCK, signature=other).encode()) == "lock-signature"


def test_a_lock_of_a_strangers_making_under_the_same_id_names_the_stranger() -> None:
    def draw(size: int) -> bytes:
        return bytes.fromhex(LOCK.lock_id) if size == locks.LOCK_ID_SIZE else DRAW(size)

    fake = locks.create(CONTENTS, author=STRANGER, recipients=[BEN.public], draw=draw)
    fake = read(signed(fake, STRANGER, previous=LOCK.header.digest, generation=2).encode())
    assert locks.open_lock(fake, BEN).contents == CONTENTS
    assert (fake.lock_id, fake.author) == (LOCK.lock_id, STRANGER.public)


def test_wraps_and_layers_do_not_move_to_another_lock_id() -> None:
    lock = locks.create(CONTENTS, author=STRANGER, recipients=[BEN.public], draw=DRAW)
    assert reason_of(signed(lock, STRANGER, lock_id=LOCK.lock_id).encode()) == "lock-key"


def test_a_count_of_memory_that_a_bystander_raised_reads_and_does_not_open() -> None:
    # Why a mark is kept only after opening.
    raised = replace(LOCK, sealed={**LOCK.sealed, "memory": Layer(MOST, bytes(304))})
    assert read(raised.encode()).mark.memory_counter == MOST
    assert reason_of(raised.encode()) == "lock-layer-changed"


def test_an_older_version_put_back_as_a_whole_is_genuine_and_a_step_back() -> None:
    later = locks.edit(LOCK, ANN, draw=DRAW, personality={})
    assert judge(later.mark, read(LOCK.encode()).mark).header is Finding.STEP_BACK


# An author gone bad: signs whatever they like.


def test_two_recipients_cannot_be_given_different_lock_keys() -> None:
    other = bytes(32)
    info = layers._wrap_info(LOCK.lock_id, LOCK.header.commitment, BEN.public)
    wrap = hybrid.wrap(other, BEN.public.encryption, info=info)
    wraps = (LOCK.header.wraps[0], Recipient(BEN.public, wrap))
    split = signed(LOCK, ANN, wraps=wraps).encode()
    assert reason_of(split) == "lock-key"


def test_a_wrap_of_another_length_of_key_is_refused() -> None:
    info = layers._wrap_info(LOCK.lock_id, LOCK.header.commitment, BEN.public)
    wrap = hybrid.wrap(b"", BEN.public.encryption, info=info)
    wraps = (LOCK.header.wraps[0], Recipient(BEN.public, wrap))
    assert reason_of(signed(LOCK, ANN, wraps=wraps).encode()) == "lock-encoding"


def test_a_wrap_for_one_recipient_does_not_serve_another_one_or_another_lock() -> None:
    first, second = LOCK.header.wraps
    swapped = (replace(first, wrap=second.wrap), replace(second, wrap=first.wrap))
    assert reason_of(signed(LOCK, ANN, wraps=swapped).encode()) == "lock-key"
    elsewhere = shared().header.wraps
    assert reason_of(signed(LOCK, ANN, wraps=elsewhere).encode()) == "lock-key"


def test_even_an_author_cannot_pass_one_layer_off_as_another() -> None:
    swapped = {**LOCK.sealed, "personality": LOCK.sealed["credentials"]}
    lock = signed(replace(LOCK, sealed=swapped), ANN)
    assert reason_of(lock.encode()) == "lock-layer-changed"


def test_a_layer_of_a_generation_to_come_is_refused() -> None:
    sealed = {**LOCK.sealed, "personality": guessed("personality", 2, KEY)}
    assert reason_of(signed(replace(LOCK, sealed=sealed), ANN).encode()) == "lock-shape"


@pytest.mark.parametrize("name", ["credentials", "personality"])
def test_a_header_that_names_the_right_digest_and_another_count_is_refused(name: str) -> None:
    later = locks.edit(LOCK, ANN, draw=DRAW, credentials={}, personality={})
    anchors = {**later.header.anchors, name: (1, later.header.anchors[name][1])}
    header = replace(later.header, anchors=anchors)
    lock = replace(later, header=header, signature=ANN.sign(header.statement))
    assert reason_of(lock.encode()) == "lock-layer-changed"


def test_more_recipients_than_the_limit_are_refused_though_they_are_signed() -> None:
    others = [identity.generate().public for _ in range(MAX_RECIPIENTS - 1)]
    wrap = LOCK.header.wraps[0].wrap
    wraps = (*LOCK.header.wraps, *(Recipient(one, wrap) for one in others))
    read(signed(LOCK, ANN, wraps=wraps[:-1]).encode())
    assert reason_of(signed(LOCK, ANN, wraps=wraps).encode()) == "lock-shape"


def test_a_lock_whose_author_is_no_recipient_is_refused() -> None:
    lock = signed(LOCK, ANN, wraps=LOCK.header.wraps[1:])
    assert reason_of(lock.encode()) == "lock-shape"


def test_recipients_that_share_a_key_are_refused() -> None:
    for shared_part in ("encryption", "verifying"):
        twin = replace(STRANGER.public, **{shared_part: getattr(BEN.public, shared_part)})
        wraps = (*LOCK.header.wraps, Recipient(twin, LOCK.header.wraps[1].wrap))
        assert reason_of(signed(LOCK, ANN, wraps=wraps).encode()) == "lock-shape"


CONTENT = st.one_of(
    st.binary(max_size=100),
    st.sampled_from([b"[]", b"{", b'{"a":NaN}', b'{"a":1,"a":1}', b'{"a b":null}', b'{"A":1}']),
    st.just(b'{"a":' + b"[" * 3000),
)


@given(st.sampled_from(["credentials", "personality", "memory"]), CONTENT, st.booleans())
@settings(max_examples=60)
def test_whatever_a_recipient_seals_opens_or_is_a_lock_file_error(
    name: str, plain: bytes, padded: bool
) -> None:
    layer = layers.seal_layer(KEY, plain, lock_id=LOCK.lock_id, name=name, count=1, salt=DRAW(32))
    if not padded:
        layer = Layer(1, layer.sealed[:40] + plain)
    lock = read(signed(replace(LOCK, sealed={**LOCK.sealed, name: layer}), ANN).encode())
    with contextlib.suppress(LockFileError):
        locks.open_lock(lock, BEN)


# A recipient who is no author: writes memory, and knows the lock key.


def test_a_recipient_who_is_no_author_writes_memory_and_nothing_else_under_the_header() -> None:
    for name in ("credentials", "personality"):
        sealed = {**LOCK.sealed, name: guessed(name, 1, KEY)}
        assert reason_of(replace(LOCK, sealed=sealed).encode()) == "lock-layer-changed"


def test_a_recipient_who_signs_again_becomes_the_author_whom_everybody_sees() -> None:
    after = locks.edit(LOCK, BEN, draw=DRAW, personality={"tone": "of Ben"})
    assert read(after.encode()).author == BEN.public


def test_a_removed_recipient_writes_no_memory_into_later_versions() -> None:
    after = locks.remove_recipients(LOCK, ANN, [BEN.public.fingerprint], draw=DRAW)
    old = guessed("memory", after.memory_counter + 1, KEY)
    forged = replace(after, sealed={**after.sealed, "memory": old})
    assert reason_of(forged.encode(), ANN) == "lock-layer-changed"


def test_the_commitment_is_not_the_key_of_any_layer() -> None:
    for purpose in ("agent-lock/credentials/1", "agent-lock/memory/1"):
        derived = derive(KEY, salt=bytes.fromhex(LOCK.lock_id), purpose=purpose)
        assert derived.hex() != LOCK.header.commitment


def test_an_error_holds_nothing_of_what_it_is_about() -> None:
    personality = {"system_prompt": "sk-live-0123"}
    lock = locks.create(Contents({}, personality, {}), author=ANN, draw=DRAW)
    layer = layers.seal_layer(
        layers.unwrap_key(lock, ANN),
        b'{"a":"sk-live-0123","a":1}',
        lock_id=lock.lock_id,
        name="personality",
        count=1,
        salt=DRAW(32),
    )
    bad = signed(replace(lock, sealed={**lock.sealed, "personality": layer}), ANN)
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(bad, ANN)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "sk-live" not in f"{shown!s}{shown!r}{vars(shown)}"
        shown = shown.__context__


def test_a_refused_file_shows_nothing_of_itself_in_the_error() -> None:
    marked = altered(LOCK.encode(), lambda data: data.update({"sk-live-0123": "sk-live-0123"}))
    with pytest.raises(LockFileError) as caught:
        read(marked)
    assert "sk-live" not in str(caught.value)
