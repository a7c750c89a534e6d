"""Which passphrases are accepted. Refuses the guessable with a reason, and never repeats them.

No meter: a score invites gaming, and the stretching does the rest. What is refused is what an
attacker with the file would try first.
"""

import unicodedata
from itertools import pairwise

from backpackd.core.errors import InvalidRequestError

MIN_CHARACTERS = 12
MAX_BYTES = 1024
_FEWEST_DIFFERENT = 5
_DIGITS_ONLY = 20
_LEFT_OVER = 5

# The words that fill the top of published lists of leaked passwords, longest first where one holds
# another. What is left of a passphrase without them is what an attacker has to guess.
_COMMON = (
    "qwertyuiop", "qwertzuiop", "administrator", "asdfghjkl", "zxcvbnm", "1q2w3e4r5t", "1qaz2wsx",
    "correcthorsebatterystaple", "correct horse battery staple", "correct-horse-battery-staple",
    "passphrase", "passwort", "password", "passw0rd", "p@ssw0rd", "p@ssword", "default-key",
    "defaultkey", "changeme", "letmein", "iloveyou", "sunshine", "princess", "football",
    "baseball", "superman", "starwars", "trustno1", "whatever", "michael", "charlie", "welcome",
    "monkey", "dragon", "master", "shadow", "killer", "secret", "backpack", "default", "qwerty",
    "qwertz", "azerty", "admin", "login", "hello", "abc123", "asdfgh", "iloveu", "test", "root",
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
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        # `from None`: the original holds the passphrase itself.
        raise InvalidRequestError("a passphrase is UTF-8", reason="invalid-passphrase") from None
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidRequestError(
            "a passphrase holds no control characters, such as line ends",
            reason="invalid-passphrase",
        )
    return unicodedata.normalize("NFC", text).encode("utf-8")


def check_new(passphrase: bytes) -> bytes:
    """Return a new passphrase, normalised, if it is good enough to guard a vault.

    Raises:
        InvalidRequestError: it is not (`weak-passphrase`); the message says in which way.
    """
    normal = normalise(passphrase)
    text = normal.decode("utf-8").casefold()
    if len(text) < MIN_CHARACTERS:
        raise _weak(f"has fewer than {MIN_CHARACTERS} characters")
    if text.isdigit() and len(text) < _DIGITS_ONLY:
        raise _weak(f"is digits only and shorter than {_DIGITS_ONLY}")
    if len(set(text)) < _FEWEST_DIFFERENT:
        raise _weak("repeats a few characters")
    if any(text == (text[:size] * len(text))[: len(text)] for size in range(1, 7)):
        raise _weak("repeats a short piece")
    if _is_run(text):
        raise _weak("is a run of neighbouring characters")
    rest = text
    for word in _COMMON:
        rest = rest.replace(word, "")
    if rest != text and sum(character.isalpha() for character in rest) < _LEFT_OVER:
        raise _weak("is made of the commonest passwords")
    return normal


def _is_run(text: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return steps in ({1}, {-1})


def _weak(how: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"this passphrase {how}: choose another, such as four or more words drawn at random",
        reason="weak-passphrase",
    )
