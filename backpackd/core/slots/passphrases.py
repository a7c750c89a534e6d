"""Decides which passphrases are accepted, and never repeats a refused one.

A refusal has a reason. There is no strength meter: people game a score, and the stretching does the
rest. It refuses passphrases that an attacker with the file would try first.
"""

import unicodedata
from contextlib import suppress
from itertools import pairwise

from backpackd.core.errors import InvalidRequestError

MIN_CHARACTERS = 12
MAX_BYTES = 1024
_FEWEST_DIFFERENT = 5
_FEWEST_STEPS = 5
_DIGITS_ONLY = 20
_LEFT_OVER_LETTERS = 5
_LEFT_OVER = 20

# What people put between words and digits, and an attacker tries with and without.
_SEPARATORS = str.maketrans("", "", " -_.,:;/+()'\"")
# The words that fill the top of published lists of leaked passwords, longest first where one holds
# another. What is left of a passphrase without them is what an attacker has to guess.
_COMMON = (
    "correcthorsebatterystaple", "qwertyuiop", "qwertzuiop", "administrator", "asdfghjkl",
    "zxcvbnm", "1q2w3e4r5t", "1qaz2wsx", "passphrase", "passwort", "password", "passw0rd",
    "p@ssw0rd", "p@ssword", "defaultkey", "changeme", "letmein", "iloveyou", "sunshine", "princess",
    "football", "baseball", "superman", "starwars", "trustno1", "whatever", "michael", "charlie",
    "welcome", "monkey", "dragon", "master", "shadow", "killer", "secret", "backpack", "default",
    "qwerty", "qwertz", "azerty", "admin", "login", "hello", "abc123", "asdfgh", "iloveu", "test",
    "root",
)  # fmt: skip


def normalise(passphrase: bytes) -> bytes:
    """Return a passphrase in the one form that is stretched: UTF-8 in Unicode form NFC.

    The same characters typed on another keyboard or system must open the same vault (RFC 8265).

    Raises:
        InvalidRequestError: empty, longer than 1024 bytes, not UTF-8, or with control characters.
    """
    if not 1 <= len(passphrase) <= MAX_BYTES:
        raise InvalidRequestError(
            "a passphrase is 1 to 1024 bytes long", reason="invalid-passphrase"
        )
    text = None
    with suppress(UnicodeDecodeError):
        text = passphrase.decode("utf-8")
    if text is None:
        # Raised out here: the error of `decode` holds the passphrase, and inside an `except` it
        # would hang on to this one as its context, `from None` or not.
        raise InvalidRequestError("a passphrase is UTF-8", reason="invalid-passphrase")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidRequestError(
            "a passphrase holds no control characters, such as line ends",
            reason="invalid-passphrase",
        )
    return unicodedata.normalize("NFC", text).encode("utf-8")


def check_new(passphrase: bytes) -> bytes:
    """Return a new passphrase, normalised, if it is good enough to guard a vault.

    Raises:
        InvalidRequestError: it is not (`weak-passphrase`); the message says why.
    """
    normal = normalise(passphrase)
    typed = normal.decode("utf-8")
    if len(typed) < MIN_CHARACTERS:
        raise _weak(f"has fewer than {MIN_CHARACTERS} characters")
    text = typed.casefold()
    bare = text.translate(_SEPARATORS)
    if bare.isdigit() and len(bare) < _DIGITS_ONLY:
        raise _weak(f"is digits only and shorter than {_DIGITS_ONLY}")
    if len(set(text)) < _FEWEST_DIFFERENT:
        raise _weak("repeats a few characters")
    if _repeats(text):
        raise _weak("repeats a short piece")
    if _steps(text) < _FEWEST_STEPS:
        raise _weak("consists of runs of neighbouring characters")
    rest = bare
    for word in _COMMON:
        rest = rest.replace(word, "")
    letters = sum(character.isalpha() for character in rest)
    if rest != bare and letters < _LEFT_OVER_LETTERS and len(rest) < _LEFT_OVER:
        raise _weak("consists of very common passwords")
    return normal


def _repeats(text: str) -> bool:
    """Return whether it is one piece, too short by itself, at least twice."""
    sizes = range(1, min(MIN_CHARACTERS, len(text) // 2 + 1))
    return any(text == (text[:size] * len(text))[: len(text)] for size in sizes)


def _steps(text: str) -> int:
    """Count the characters that are not the one before, nor its neighbour."""
    return 1 + sum(abs(ord(after) - ord(before)) > 1 for before, after in pairwise(text))


def _weak(how: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"this passphrase {how}: choose another, such as four or more words drawn at random",
        reason="weak-passphrase",
    )
