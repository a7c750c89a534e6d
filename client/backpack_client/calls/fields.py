"""The fields that several messages have: how they are checked and written, and read."""

from collections.abc import Iterable
from datetime import UTC, datetime

from backpack_client.durations import parse_duration
from backpack_client.failures import is_key_name, printable, usage

# uint32 in the messages.
LARGEST = 2**32 - 1
# What can be a process id: an int64 in the messages.
LARGEST_PID = 2**63 - 1


def seconds(duration: str | int | None) -> int:
    """Read a duration as the messages take it.

    Args:
        duration: seconds, or text such as "15m"; None asks for the daemon's default.

    Returns:
        Seconds; 0 for the default.

    Raises:
        Failure: a usage failure; it is not a duration, or out of bounds.
    """
    if duration is None:
        return 0
    return parse_duration(duration if isinstance(duration, str) else str(duration))


def text(what: str, given: str) -> str:
    """Check text for a message.

    Raises:
        Failure: a usage failure; it cannot be written as UTF-8. It is not shown.
    """
    # Arguments of a process that are not UTF-8 come in as lone surrogates, which no message takes.
    try:
        given.encode()
    except UnicodeEncodeError:
        raise usage(f"the {what} is not valid UTF-8", hint="") from None
    return given


def passphrase_bytes(passphrase: str | bytes) -> bytes:
    """Write a passphrase as the messages take it: text as UTF-8.

    Raises:
        Failure: a usage failure; the text cannot be written as UTF-8. It is not shown.
    """
    if isinstance(passphrase, bytes):
        return passphrase
    try:
        return passphrase.encode()
    except UnicodeEncodeError:
        raise usage("the passphrase is not valid text", hint="") from None


def key_names(names: Iterable[str]) -> list[str]:
    """Check the names of keys, one or more.

    Raises:
        Failure: a usage failure; there is none, or one cannot be the name of a key.
    """
    checked = list(names)
    if not checked:
        raise usage("no key name was given", hint="")
    for name in checked:
        if not is_key_name(name):
            raise usage(
                f"not a key name: {printable(name, 64)}",
                hint="a letter or _, then up to 127 letters, digits, _, . and -",
            )
    return checked


def moment(milliseconds: int) -> datetime:
    """Read a time of the messages."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_or_none(milliseconds: int) -> datetime | None:
    """Read a time of the messages in which 0 stands for none."""
    return moment(milliseconds) if milliseconds else None
