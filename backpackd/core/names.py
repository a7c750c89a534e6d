"""Names and values of keys, and the patterns that grants use: what is well-formed, what matches."""

import re

from backpackd.core.errors import InvalidRequestError

MAX_NAME = 128
MAX_VALUE = 65536
"""The longest value, in bytes."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z_*][A-Za-z0-9_.*-]{0,127}", re.ASCII)


def check_name(name: str) -> str:
    """Return `name` if it is a valid key name.

    Raises:
        InvalidRequestError: it is not (`invalid-name`); the message does not repeat it, because a
            value pasted in the wrong place would end up in a log.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "a key name must start with a letter or an underscore, go on with letters, digits, "
            "'_', '.' or '-', and be at most 128 characters long",
            reason="invalid-name",
        )
    return name


def check_names(names: list[str], *, most: int) -> tuple[str, ...]:
    """Return the names of a request, checked one by one and against each other.

    Args:
        names: as they came.
        most: how many there may be.

    Raises:
        InvalidRequestError: none, too many, one named twice, or one not well-formed.
    """
    if not names:
        raise InvalidRequestError("name at least one key", reason="no-names")
    if len(names) > most:
        raise InvalidRequestError(f"at most {most} keys at a time", reason="too-many-names")
    if len(set(names)) != len(names):
        raise InvalidRequestError(
            "a key is named twice: name each key once", reason="repeated-name"
        )
    return tuple(check_name(name) for name in names)


def check_value(value: bytes) -> bytes:
    """Return `value` if it can be stored.

    Raises:
        InvalidRequestError: it is empty or longer than 65,536 bytes (`invalid-value`).
    """
    if not value:
        raise InvalidRequestError(
            "the value is empty: a key holds 1 to 65536 bytes", reason="invalid-value"
        )
    if len(value) > MAX_VALUE:
        raise InvalidRequestError(
            "the value is too long: a key holds 1 to 65536 bytes", reason="invalid-value"
        )
    return value


def check_pattern(pattern: str) -> str:
    """Return `pattern` if it is a key name in which `*` may stand for any run of characters.

    Raises:
        InvalidRequestError: it is not (`invalid-pattern`).
    """
    if not _PATTERN.fullmatch(pattern):
        raise InvalidRequestError(
            "a grant names keys, or patterns of key names in which '*' stands for any characters",
            reason="invalid-pattern",
        )
    return pattern


def is_exact(pattern: str) -> bool:
    """Return whether a checked pattern can cover one key only: the one that it names."""
    return "*" not in pattern


def matches(pattern: str, name: str) -> bool:
    """Return whether a checked pattern covers a checked name, in time linear in both.

    The pieces between the asterisks must occur in order: the first at the start, the last at the
    end. Taking each at its first place is enough, so nothing is ever tried twice.
    """
    if is_exact(pattern):
        return pattern == name
    first, *middle = pattern.split("*")
    last = middle.pop()
    if len(name) < len(first) + len(last):
        return False
    if not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True
