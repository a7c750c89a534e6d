"""One byte string for one meaning: canonical JSON for what is sealed or signed, and contexts.

Decoding refuses whatever encoding would not have written: repeated members, other spacing, other
number forms. So two different byte strings never stand for the same thing.
"""

import base64
import json
from typing import Any, NoReturn


class CanonicalError(ValueError):
    """The bytes are not canonical, or not of the expected shape."""


def encode(value: Any) -> bytes:
    """Encode plain data (dict with str keys, list, str, int, bool, None) as canonical JSON."""
    return _ENCODER.encode(value).encode("ascii")


def decode(data: bytes) -> Any:
    """Decode what `encode` wrote, and nothing else.

    Raises:
        CanonicalError: anything else; the message holds nothing of the data.
    """
    value = None
    try:
        value = _DECODER.decode(data.decode("ascii"))
        same = encode(value) == data
    except (ValueError, RecursionError):
        same = False
    if not same:
        # Raised out here, since the error that was caught holds the whole of the data, and would
        # hang on to this one as its context.
        raise CanonicalError("not canonical JSON")
    return value


def members(value: Any, /, **types: type) -> dict[str, Any]:
    """Return `value` if it is an object with exactly these members, each of exactly this type.

    Raises:
        CanonicalError: a member is missing, unknown or of another type.
    """
    if type(value) is not dict or value.keys() != types.keys():
        raise CanonicalError("unexpected members")
    for name, wanted in types.items():
        # Exactly: bool is a subclass of int, and True is no number here.
        if type(value[name]) is not wanted:
            raise CanonicalError("a member of an unexpected type")
    return value


def to_text(data: bytes) -> str:
    """Encode bytes as base64 for use inside canonical JSON."""
    return base64.b64encode(data).decode("ascii")


def from_text(text: str, *, size: int | None = None) -> bytes:
    """Decode base64 that `to_text` wrote.

    Args:
        text: base64 with padding.
        size: how many bytes it must be; None for any number.

    Raises:
        CanonicalError: not base64, not canonical, or of another size.
    """
    try:
        data = base64.b64decode(text, validate=True)
        same = to_text(data) == text
    except ValueError:
        same = False
    if not same or (size is not None and len(data) != size):
        raise CanonicalError("not base64 of the expected size")
    return data


def context(*parts: bytes) -> bytes:
    """Join parts so that no two different lists of parts give the same bytes.

    Used for associated data, HPKE info and signed statements: each part is preceded by its length
    as 4 bytes, big-endian, so a byte cannot move from one part to the next.
    """
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _refuse(_: str) -> NoReturn:
    # A number with a point has many spellings, and its value depends on who reads it.
    raise ValueError("not a number of the form")


# Made once: `json.loads` and `json.dumps` would make them anew for each of ten thousand keys.
_ENCODER = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
)
_DECODER = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse)
