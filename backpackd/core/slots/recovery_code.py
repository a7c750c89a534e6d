"""Recovery codes: 128 random bits in a form that people can write down and type again.

Thirty characters of Crockford's base32 in groups of five: the digits and the letters without I, L,
O and U. Reading is tolerant where people err (case, spaces, dashes, letters that look like others)
and the last four characters are a checksum, so that a slip is told from a wrong code. A code is as
good as the passphrase: no error repeats any of it.
"""

import hashlib

from backpackd.core.errors import InvalidRequestError

SIZE = 16
"""Random bytes in a code."""
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BITS = 5
_CODE = 26
_CHECKSUM = 4
_GROUP = 5
_LONGEST = 256
_DROPPED = " -_.\t\r\n\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}\N{NO-BREAK SPACE}"
# What is not in the alphabet and stands for what it looks like.
_READ_AS = str.maketrans("OILU", "011V", _DROPPED)


def encode(secret: bytes) -> str:
    """Write 16 random bytes as a code, such as `7ZD2K-...-0MWQX`.

    Raises:
        ValueError: they are not 16 bytes.
    """
    if len(secret) != SIZE:
        raise ValueError("a recovery code holds 16 bytes")
    symbols = _symbols(int.from_bytes(secret, "big"), _CODE) + _checksum(secret)
    return "-".join(symbols[at : at + _GROUP] for at in range(0, len(symbols), _GROUP))


def decode(typed: bytes) -> bytes:
    """Return the 16 bytes of a code as somebody typed it.

    Raises:
        InvalidRequestError: too short or too long, a character that no code has, or a checksum
            that does not fit (`invalid-recovery-code`).
    """
    secret = parse(typed)
    if secret is None:
        raise InvalidRequestError(
            "this is not a recovery code, or it was mistyped: a code has "
            f"{_CODE + _CHECKSUM} letters and digits, and its last ones do not fit the others; "
            "look for a slip and type it again",
            reason="invalid-recovery-code",
        )
    return secret


def parse(typed: bytes) -> bytes | None:
    """Return the 16 bytes of a code; None for what is none."""
    if len(typed) > _LONGEST:
        return None
    text = typed.decode("utf-8", "replace").upper().translate(_READ_AS)
    if len(text) != _CODE + _CHECKSUM or any(symbol not in _ALPHABET for symbol in text):
        return None
    number = 0
    for symbol in text[:_CODE]:
        number = number << _BITS | _ALPHABET.index(symbol)
    if number >= 1 << 8 * SIZE:
        return None
    secret = number.to_bytes(SIZE, "big")
    return secret if _checksum(secret) == text[_CODE:] else None


def _checksum(secret: bytes) -> str:
    digest = hashlib.sha256(b"backpack/v1/recovery-code" + secret).digest()
    return _symbols(int.from_bytes(digest[:4], "big"), _CHECKSUM)


def _symbols(number: int, count: int) -> str:
    """Write the lowest bits of a number, the highest of them first."""
    places = range(_BITS * (count - 1), -1, -_BITS)
    return "".join(_ALPHABET[number >> place & 31] for place in places)
