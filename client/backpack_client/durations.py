"""Reads lengths of time that people write on a command line, and formats them.

It reads no clock. Every `get` imports it, so it imports nothing slow.
"""

from backpack_client.failures import Failure, printable, usage

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DIGITS = 9

MAXIMUM_SECONDS = 366 * 86400
# The daemon lets a call wait for a person this long.
MAXIMUM_WAIT = 3600


def parse_duration(text: str) -> int:
    """Read a length of time: digits, then one of s, m, h, d; no unit means seconds.

    Args:
        text: such as "90s", "15m", "2h", "7d" or "900".

    Returns:
        Seconds, from 1 to MAXIMUM_SECONDS.

    Raises:
        Failure: a usage failure: the text has a wrong form, or is out of these bounds.
    """
    unit = _UNITS.get(text[-1:], 0)
    digits = text[:-1] if unit else text
    # ASCII only: isdecimal alone accepts digits of every script.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS):
        raise _invalid(text)
    seconds = int(digits) * (unit or 1)
    if not 1 <= seconds <= MAXIMUM_SECONDS:
        raise usage(
            f"a duration of {printable(text, 32)} is out of bounds",
            hint=f"from 1s to {format_duration(MAXIMUM_SECONDS)}",
        )
    return seconds


def parse_wait(text: str) -> int:
    """Read how long to wait for a person: a length of time, or 0 for not at all.

    Args:
        text: as for `parse_duration`, or "0" with or without a unit.

    Returns:
        Seconds, from 0 to MAXIMUM_WAIT.

    Raises:
        Failure: a usage failure: the text has a wrong form, or is out of these bounds.
    """
    if text in ("0", *(f"0{unit}" for unit in _UNITS)):
        return 0
    seconds = parse_duration(text)
    if seconds > MAXIMUM_WAIT:
        raise usage(
            f"a wait of {printable(text, 32)} is too long",
            hint=f"at most {format_duration(MAXIMUM_WAIT)}, and 0 for not at all",
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Format a length of time for people, in its two largest units: "1h 30m", "15m", "7d".

    Args:
        seconds: fractions are dropped; a negative number is "0s".
    """
    left = max(0, int(seconds))
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2 or (parts and not count):  # noqa: PLR2004 - two units, side by side
            break
    return " ".join(parts) or "0s"


def _invalid(text: str) -> Failure:
    return usage(
        f"not a duration: {printable(text, 32)}", hint="write it like 90s, 15m, 2h, 7d or 900"
    )
