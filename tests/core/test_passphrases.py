import hashlib
import traceback
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backpackd.core.errors import InvalidRequestError
from backpackd.core.slots.passphrases import check_new, normalise

LETTERS = st.characters(categories=["Lu", "Ll", "Lo", "Mn", "Nd", "Zs", "Po"])

# Two of the commonest passwords among them, as word lists have them, too.
WORDS = [
    "orbit", "velvet", "canyon", "thimble", "dragon", "monkey", "harvest", "pencil", "window",
    "copper", "garden", "violin", "meadow", "rocket", "butter", "lantern", "walnut", "gravel",
    "tunnel", "whisper", "anchor", "bottle", "saddle", "marble", "kitten", "glacier", "pepper",
]  # fmt: skip


def refusal(passphrase: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        check_new(passphrase)
    return caught.value


@pytest.mark.parametrize(
    ("passphrase", "told"),
    [
        ("default-key", "fewer than 12 characters"),
        ("k7#Vq2!xLp9", "fewer than 12 characters"),
        # Six characters: folding their case makes fifteen of them.
        ("\ufb03\u00df\u0149\u01f0\u0390\u03b0", "fewer than 12 characters"),
        # Twelve bytes, four characters.
        ("\u6b63\u786e\u9a6c\u7535", "fewer than 12 characters"),
        ("839201746529", "digits only"),
        ("8392-0174-6529", "digits only"),
        ("+49 (170) 839 2017", "digits only"),
        ("\u0661\u0667\u0663\u0669\u0662\u0660\u0664\u0666\u0668\u0665\u0661\u0663", "digits only"),
        ("aaaaaaaaaaaaaaaa", "repeats a few characters"),
        ("abababababab", "repeats a few characters"),
        ("            ", "repeats a few characters"),
        ("kx3qzkx3qzkx3qz", "repeats a short piece"),
        ("kx3qzkx3qzkx3", "repeats a short piece"),
        ("my dog rexmy dog rex", "repeats a short piece"),
        ("abcdefghijkl", "runs of neighbouring"),
        ("ZYXWVUTSRQPO", "runs of neighbouring"),
        ("AbCdEfGhIjKl", "runs of neighbouring"),
        ("123456789abc", "runs of neighbouring"),
        ("aaabbbcccdddeeefff", "runs of neighbouring"),
        ("password1234", "very common"),
        ("Password1234!", "very common"),
        ("P@ssw0rd2024!", "very common"),
        ("pass-word-1234", "very common"),
        ("passwordpassword!", "very common"),
        ("qwertyuiop[]", "very common"),
        ("QWERTYUIOP12", "very common"),
        ("1q2w3e4r5t6y", "very common"),
        ("default-key-1", "very common"),
        ("default-key-default", "very common"),
        ("letmein-admin", "very common"),
        ("iloveyou michael", "very common"),
        ("correct horse battery staple", "very common"),
        ("Correct Horse Battery Staple!", "very common"),
        ("correct-horse-battery-staple", "very common"),
        ("correct.horse.battery.staple", "very common"),
        ("correcthorsebatterystaple1", "very common"),
    ],
)
def test_a_guessable_passphrase_is_refused_with_the_reason(passphrase: str, told: str) -> None:
    error = refusal(passphrase.encode())
    assert error.reason == "weak-passphrase"
    assert told in error.message


@pytest.mark.parametrize(
    "passphrase",
    [
        "orbit velvet canyon thimble",
        "OrbitVelvetCanyonThimble",
        "orbit-velvet-canyon-thimble",
        "unusual password orbit velvet",
        "my secret garden has nine gnomes",
        "tell the monkey about the dragon",
        "k7#Vq2!xLp9w",
        "4!7@#2%9^&1*",
        "9f86d081884c7d659a2feaa0c55ad015",
        "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92",
        "83920174652918374650",
        "8392 0174 6529 1837 4650",
        "test 8392 0174 6529 1837 4650",
        "\u0441\u043b\u043e\u043d \u0432 \u043b\u0430\u0432\u043a\u0435 \u0440\u0435\u043a\u0430",
        "\u6b63\u786e\u9a6c\u7535\u6c60\u8ba2\u4e66\u9488\u592a\u9633\u6cb3\u6d41",
        "\u05e4\u05d9\u05dc \u05d1\u05d7\u05e0\u05d5\u05ea \u05d7\u05e8\u05e1\u05d9\u05e0\u05d4",
        "\u0647\u0627\u062a\u0641 \u0642\u0645\u0631 \u0646\u0647\u0631 \u062c\u0628\u0644",
        "zw\u00f6lf Boxk\u00e4mpfer jagen Viktor",
        pytest.param(
            "\U0001f418\U0001f3fa\U0001f319\U0001f525\U0001f332\U0001f41d"
            "\U0001f3b2\U0001f680\U0001f33b\U0001f9ca\U0001f4da\U0001f511",
            id="pictures",
        ),
        " leading and trailing spaces count ",
        "x" * 5 + "orbit velvet canyon" + "y" * 1000,
    ],
)
def test_a_passphrase_that_is_hard_to_guess_is_accepted(passphrase: str) -> None:
    assert check_new(passphrase.encode()) == passphrase.encode()


def test_random_hexadecimal_digits_are_accepted() -> None:
    for number in range(2000):
        text = hashlib.sha256(number.to_bytes(4, "big")).hexdigest()[:32]
        assert check_new(text.encode()) == text.encode()


def test_words_drawn_at_random_are_accepted() -> None:
    for number in range(2000):
        drawn = hashlib.sha256(number.to_bytes(4, "big")).digest()
        text = " ".join(WORDS[place % len(WORDS)] for place in drawn[:4])
        if len(set(drawn[:4])) == 4:
            assert check_new(text.encode()) == text.encode()


@given(st.text(LETTERS, min_size=1, max_size=60))
def test_a_passphrase_may_be_typed_composed_or_decomposed(text: str) -> None:
    forms = [unicodedata.normalize(form, text).encode() for form in ("NFC", "NFD")]
    assume(max(map(len, forms)) <= 1024)
    assert normalise(forms[0]) == normalise(forms[1])


@given(st.text(LETTERS, min_size=1, max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text.encode())
    assume(len(once) <= 1024)
    assert normalise(once) == once


def test_letters_that_only_look_alike_stay_different() -> None:
    assert normalise("\uff21BC".encode()) != normalise(b"ABC")


def test_case_and_spaces_are_kept() -> None:
    assert normalise(b" A b ") == b" A b "


@pytest.mark.parametrize(
    ("passphrase", "told"),
    [
        pytest.param(b"", "1 to 1024 bytes", id="empty"),
        pytest.param(b"x" * 1025, "1 to 1024 bytes", id="too long"),
        pytest.param(b"caf\xe9 orbit velvet", "UTF-8", id="Latin-1"),
        pytest.param(b"\xed\xa0\x80 orbit velvet", "UTF-8", id="half of a surrogate pair"),
        pytest.param(b"orbit velvet\n", "control", id="line end"),
        pytest.param(b"orbit\0velvet canyon", "control", id="nul"),
        pytest.param(b"orbit\x1b[2Jvelvet", "control", id="escape"),
        pytest.param(b"orbit velvet\xc2\x85", "control", id="next line"),
    ],
)
def test_what_cannot_be_a_passphrase_is_refused_with_the_reason(
    passphrase: bytes, told: str
) -> None:
    with pytest.raises(InvalidRequestError, match=told) as caught:
        normalise(passphrase)
    assert caught.value.reason == "invalid-passphrase"


@given(st.binary(max_size=1100))
def test_any_bytes_normalise_or_raise_invalid_request_error(data: bytes) -> None:
    try:
        normal = normalise(data)
    except InvalidRequestError:
        return
    assert normal


@pytest.mark.parametrize(
    "passphrase",
    [
        b"MARKER\xff\xfe",
        b"MARKER\n",
        b"MARKER",
        b"MARKER" * 3,
        b"MARKER" * 200,
        b"MARKER password"[7:] + b"MARKER"[:4],
    ],
)
def test_a_refusal_holds_nothing_of_the_passphrase(passphrase: bytes) -> None:
    error = refusal(passphrase)
    # Where it was raised from holds the passphrase in its frames; no error may hold it on its own.
    assert error.__cause__ is None
    assert error.__context__ is None
    told = "".join(traceback.format_exception_only(error)) + repr(vars(error)) + repr(error.args)
    assert "MARK" not in told
