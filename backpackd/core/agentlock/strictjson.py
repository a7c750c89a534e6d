"""Reading JSON that means one thing to every reader, from bytes that anybody may have written."""

import json
from collections.abc import Iterable
from typing import Any, NoReturn


class StrictJsonError(ValueError):
    """Not JSON, or JSON that readers disagree on. Holds nothing of the data."""


def loads(data: bytes, *, fractions: bool) -> Any:
    """Decode JSON (RFC 8259, UTF-8 without byte order mark).

    Members of one name twice, NaN and infinities are refused: readers differ on what they mean.

    Args:
        data: any bytes, of a size that the caller has bounded.
        fractions: whether numbers with a fraction or exponent may occur.

    Raises:
        StrictJsonError: anything else, nesting beyond the interpreter's recursion limit included.
    """
    value = None
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_distinct,
            parse_constant=_refuse,
            parse_float=float if fractions else _refuse,
        )
        parsed = True
    except (ValueError, RecursionError):
        parsed = False
    if not parsed:
        # Raised out here, since the error that was caught holds the whole of the data, and would
        # hang on to this one as its context.
        raise StrictJsonError("not JSON that means one thing")
    return value


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError("a repeated member")
        found[name] = value
    return found


def _refuse(_: str) -> NoReturn:
    raise ValueError("a number of a form that is not expected")
