import base64
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backpackd.core.errors import DamageError
from backpackd.core.sealing import hybrid, identity
from backpackd.core.sealing.identity import (
    PUBLIC_SIZE,
    TEXT_PREFIX,
    Identity,
    IdentityError,
    PublicIdentity,
)

ANN = identity.generate()
BEN = identity.generate()
MASTER = bytes(range(32))
VAULT = b"v" * 16
SALT = b"s" * 32
SEALED = identity.seal_identity(MASTER, VAULT, ANN, SALT)


def test_no_two_identities_are_alike() -> None:
    assert len({identity.generate().public.fingerprint for _ in range(10)}) == 10


def test_what_is_wrapped_to_an_identity_unwraps_with_it() -> None:
    wrapped = hybrid.wrap(b"k" * 32, ANN.public.encryption, info=b"i")
    assert hybrid.unwrap(wrapped, ANN.decryption, info=b"i") == b"k" * 32


def test_what_an_identity_signs_verifies_with_its_public_half_only() -> None:
    signature = ANN.sign(b"statement")
    assert ANN.public.verify(signature, b"statement")
    assert not ANN.public.verify(signature, b"statemen")
    assert not BEN.public.verify(signature, b"statement")
    assert not ANN.public.verify(b"", b"statement")


def test_a_signature_with_a_multiple_of_the_order_added_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = ANN.sign(b"statement")
    scalar = int.from_bytes(signature[32:], "little") + order
    other = signature[:32] + scalar.to_bytes(32, "little")
    assert not ANN.public.verify(other, b"statement")


def test_nothing_private_shows_in_a_repr() -> None:
    shown = repr(ANN) + str(ANN) + f"{ANN.public!r}"
    for private in (ANN.decryption, ANN.signing):
        assert repr(private)[2:20] not in shown
        assert private.hex()[:16] not in shown


def test_a_sealed_identity_opens_to_itself() -> None:
    assert identity.open_identity(MASTER, VAULT, SEALED) == ANN
    assert len(SEALED) == 176


@pytest.mark.parametrize(
    ("master", "vault", "sealed"),
    [
        pytest.param(bytes(32), VAULT, SEALED, id="another master key"),
        pytest.param(MASTER, b"w" * 16, SEALED, id="another vault"),
        pytest.param(MASTER, VAULT, SEALED[:-1], id="cut"),
        pytest.param(MASTER, VAULT, b"", id="nothing"),
        pytest.param(MASTER, VAULT, SEALED[:-1] + bytes([SEALED[-1] ^ 1]), id="altered"),
    ],
)
def test_a_sealed_identity_opens_nowhere_else(master: bytes, vault: bytes, sealed: bytes) -> None:
    with pytest.raises(DamageError) as caught:
        identity.open_identity(master, vault, sealed)
    assert caught.value.reason == "authority-damaged"


@pytest.mark.parametrize("sizes", [(95, 32), (97, 32), (96, 31), (96, 33), (0, 0)])
def test_private_halves_of_another_size_are_none(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"size|32"):
        Identity.from_private(bytes(sizes[0]), bytes(sizes[1]))


def test_the_line_is_ascii_without_white_space_and_parses_to_the_same() -> None:
    line = ANN.public.text
    assert line.isascii()
    assert line.split() == [line]
    assert line.startswith(TEXT_PREFIX)
    assert PublicIdentity.parse(line) == ANN.public


def test_a_slip_in_any_character_of_the_line_is_found() -> None:
    line = ANN.public.text
    for place, character in enumerate(line):
        other = "B" if character != "B" else "C"
        with pytest.raises(IdentityError):
            PublicIdentity.parse(line[:place] + other + line[place + 1 :])


def test_a_line_with_a_character_lost_or_twice_is_refused() -> None:
    line = ANN.public.text
    for place in range(0, len(line), 7):
        for other in (line[:place] + line[place + 1 :], line[:place] + line[place] + line[place:]):
            with pytest.raises(IdentityError):
                PublicIdentity.parse(other)


@pytest.mark.parametrize("around", ["{}\n", " {}", "{}=", "{0}{0}", "\ufeff{}"])
def test_nothing_may_stand_around_the_line(around: str) -> None:
    with pytest.raises(IdentityError):
        PublicIdentity.parse(around.format(ANN.public.text))


@pytest.mark.parametrize("prefix", ["", "backpack-identity-v2:", "Backpack-identity-v1:"])
def test_a_line_without_its_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(IdentityError):
        PublicIdentity.parse(prefix + ANN.public.text.removeprefix(TEXT_PREFIX))


@given(st.text() | st.text().map(lambda text: TEXT_PREFIX + text))
@example(TEXT_PREFIX)
@example(TEXT_PREFIX + "A" * 1672)
@example(TEXT_PREFIX + "\N{FULLWIDTH DIGIT ONE}" * 1672)
def test_any_other_text_is_refused_as_an_identity(text: str) -> None:
    with pytest.raises(IdentityError):
        PublicIdentity.parse(text)


@given(st.binary(max_size=64) | st.binary(min_size=PUBLIC_SIZE, max_size=PUBLIC_SIZE))
def test_any_bytes_decode_or_are_refused_as_an_identity(data: bytes) -> None:
    try:
        found = PublicIdentity.decode(data)
    except IdentityError:
        return
    assert found.encode() == data


def test_public_keys_that_are_none_are_refused_with_a_right_checksum() -> None:
    encoded = b"\xff" * PUBLIC_SIZE
    line = TEXT_PREFIX + base64.b64encode(encoded + identity._checksum(encoded)).decode()
    with pytest.raises(IdentityError, match="valid public keys"):
        PublicIdentity.parse(line)


def test_a_refusal_repeats_nothing_of_what_was_pasted() -> None:
    pasted = "sk-live-0123456789"
    with pytest.raises(IdentityError) as caught:
        PublicIdentity.parse(TEXT_PREFIX + pasted)
    assert pasted not in str(caught.value)


def test_the_fingerprint_depends_on_both_keys() -> None:
    mixed = [
        ANN.public,
        replace(ANN.public, verifying=BEN.public.verifying),
        replace(ANN.public, encryption=BEN.public.encryption),
    ]
    assert len({one.fingerprint for one in mixed}) == 3


def test_the_spoken_form_is_the_beginning_of_the_fingerprint_in_groups() -> None:
    groups = ANN.public.spoken.split("-")
    assert [len(group) for group in groups] == [4] * 8
    assert ANN.public.fingerprint.startswith("".join(groups))
