"""Fields that several messages have in common: checks, writes and reads them."""

from collections.abc import Iterable
from datetime import UTC, datetime

from backpack_client.durations import parse_duration
from backpack_client.failures import is_code, is_key_name, not_a_key_name, not_one, usage

# uint32 in the messages.
LARGEST = 2**32 - 1
# The largest process id: an int64 in the messages.
LARGEST_PID = 2**63 - 1

_LEASE_ID_DIGITS = 32
_GRANT_ID_DIGITS = 16


def seconds(duration: str | int | None) -> int:
    """Turn a duration into the seconds that messages hold.

    Args:
        duration: seconds, or text such as "15m"; None asks for the daemon's default.

    Returns:
        Seconds; 0 for the default.

    Raises:
        Failure: a usage failure: it is not a duration, or it is out of bounds.
    """
    if duration is None:
        return 0
    return parse_duration(duration if isinstance(duration, str) else str(duration))


def text(what: str, given: str) -> str:
    """Check text for a message.

    Raises:
        Failure: a usage failure: it cannot be written as UTF-8. The message does not show it.
    """
    # Arguments that are not UTF-8 reach Python as lone surrogates, which no message can hold.
    try:
        given.encode()
    except UnicodeEncodeError:
        raise usage(f"the {what} is not valid UTF-8", hint="") from None
    return given


def passphrase_bytes(passphrase: str | bytes) -> bytes:
    """Turn a passphrase into the bytes that messages hold: text as UTF-8.

    Raises:
        Failure: a usage failure: the text cannot be written as UTF-8. The message does not show it.
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
        Failure: a usage failure: there is no name, or one cannot be the name of a key. The
            message does not show it.
    """
    checked = list(names)
    if not checked:
        raise usage("no key name was given", hint="")
    refuse_lists(checked)
    for name in checked:
        if not is_key_name(name):
            raise not_a_key_name(name)
    return checked


def refuse_lists(names: Iterable[object]) -> None:
    """Refuse names that were given as a list.

    Raises:
        TypeError: a list of names was given, or something else that is not text.
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"a key's name is a str, not a {type(name).__name__}; "
                "several are given one by one: 'A', 'B', or *names"
            )


def checked_lease_id(given: str) -> str:
    """Check the id of a lease that a person or a program gave.

    Raises:
        Failure: a usage failure: no lease can have this id. The message does not show it.
    """
    if not _is_hex(given, _LEASE_ID_DIGITS):
        raise not_one(
            "a lease's id",
            given,
            "see: backpack-client leases; to end the leases of a key: revoke --key NAME",
        )
    return given


def checked_grant_id(given: str) -> str:
    """Check the id of a grant that a person or a program gave.

    Raises:
        Failure: a usage failure: no grant can have this id. The message does not show it.
    """
    if not _is_hex(given, _GRANT_ID_DIGITS):
        raise not_one("a grant's id", given, "see: backpack-client grants --all")
    return given


def checked_code(given: str) -> str:
    """Check the code of a request that a person or a program gave.

    Returns:
        The code in capitals.

    Raises:
        Failure: a usage failure: no request can have this code. The message does not show it.
    """
    if not is_code(given):
        raise not_one(
            "a request's code",
            given,
            "four letters and digits; see: backpack-client requests --all",
        )
    return given.upper()


def moment(milliseconds: int) -> datetime:
    """Turn a time of a message into a datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_or_none(milliseconds: int) -> datetime | None:
    """Turn a time of a message into a datetime; 0 stands for none."""
    return moment(milliseconds) if milliseconds else None


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and not text.strip("0123456789abcdef")
