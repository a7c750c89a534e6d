"""Reads the fields of a lock file strictly, each by itself."""

import re
from typing import Any

from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.history import MOST
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

LAYERS = ("credentials", "personality", "memory")
"""The layers of a lock of either version, in the order of the file."""
_HEXADECIMAL = re.compile(r"[0-9a-f]*", re.ASCII)


def object_with(data: Any, *names: str, what: str) -> dict[str, Any]:
    """Return `data` if it is an object with exactly these members.

    Raises:
        LockFileError: `lock-shape`; `what` says in words what it should have been.
    """
    if not isinstance(data, dict) or data.keys() != set(names):
        raise LockFileError(
            f"the file is JSON, but not an agent.lock: {what} is not an object with "
            f"{', '.join(names)} and nothing else",
            reason="lock-shape",
        )
    return data


def layers_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the layers of a file by name.

    Raises:
        LockFileError: `lock-layer-missing`, or `lock-shape`.
    """
    layers = data.get("layers")
    if isinstance(layers, dict):
        for name in LAYERS:
            if name not in layers:
                raise LockFileError(
                    f"the {name} layer is missing from the file: restore it from version control",
                    reason="lock-layer-missing",
                )
    return object_with(layers, *LAYERS, what='"layers"')


def count_of(value: Any) -> int:
    """Return `value` if it is a generation or a counter.

    Raises:
        LockFileError: `lock-shape`.
    """
    if type(value) is not int or not 1 <= value <= MOST:
        raise LockFileError(
            f"a generation or counter in the file is not a number from 1 to {MOST}",
            reason="lock-shape",
        )
    return value


def digits(value: Any, length: int) -> str:
    """Return `value` if it is text of so many lowercase hexadecimal digits.

    Raises:
        LockFileError: `lock-shape`.
    """
    if not isinstance(value, str) or len(value) != length or not _HEXADECIMAL.fullmatch(value):
        raise LockFileError(
            f"an id or digest in the file is not text of {length} hexadecimal digits",
            reason="lock-shape",
        )
    return value


def bytes_of(value: Any, size: int | None, *, what: str) -> bytes:
    """Return the bytes that `value` holds as base64.

    Args:
        value: as it came out of the JSON.
        size: how many bytes it must be; None for any number.
        what: what it is, in words.

    Raises:
        LockFileError: `lock-shape` or `lock-encoding`.
    """
    if not isinstance(value, str):
        raise LockFileError(f"{what} is not text", reason="lock-shape")
    try:
        return canonical.from_text(value, size=size)
    except CanonicalError as error:
        raise LockFileError(
            f"{what} is not base64, or not of the size that it should have: restore the file from "
            "version control",
            reason="lock-encoding",
        ) from error
