"""The command identity, and how other commands read an identity."""

import base64
import contextlib
import hashlib

import click

from backpack_client.cli.session import Session, json_option
from backpack_client.console import terminal, values
from backpack_client.failures import from_status, printable, usage

_IDENTITY_LIMIT = 4096
_IDENTITY_PREFIX = "backpack-identity-"
_IDENTITY_V1 = "backpack-identity-v1:"
# The layout and the fingerprint of docs/agent-lock.md, "Identities".
_LABEL = b"backpack/v1/identity"
_HPKE_BYTES, _PUBLIC_BYTES, _CHECKSUM_BYTES = 1216, 1248, 6
_SPOKEN_DIGITS = 32


@click.command("identity")
@json_option
@click.pass_obj
def identity(session: Session, as_json: bool) -> None:
    """Print what a teammate needs to share an agent's lock with you.

    The line on standard output is for agent add-recipient. Compare the fingerprint with your
    teammate over another channel than the one that carries the line.

    JSON: one object with identity (the line) and fingerprint.
    """
    with session.connect() as backpack:
        own = backpack.identity()
    if as_json:
        terminal.print_json({"identity": own.text, "fingerprint": own.fingerprint})
        return
    # In full: the usual limit for a line would cut it.
    terminal.print_whole(own.text)
    terminal.say(f"fingerprint: {own.fingerprint}")


def identity_line(given: str) -> str:
    """Return an identity: the line itself, or the contents of a file; `-` is standard input.

    Raises:
        Failure: the file cannot be read, or holds something else.
    """
    if given.startswith(_IDENTITY_PREFIX):
        return given.strip()
    data = values.file_bytes(given, _IDENTITY_LIMIT)
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise usage(
            f"{printable(given, 256)} holds no identity",
            hint="give the line that backpack-client identity prints",
        ) from None


def full_fingerprint(line: str) -> str:
    """Return all 64 digits of an identity's fingerprint.

    The client computes it and does not ask the daemon: a person compares it before the daemon lets
    that identity open anything.

    Raises:
        Failure: a usage failure: the line is not an identity in a form that this version knows.
    """
    data = b""
    if line.startswith(_IDENTITY_V1):
        with contextlib.suppress(ValueError):
            data = base64.b64decode(line.removeprefix(_IDENTITY_V1), validate=True)
    if len(data) != _PUBLIC_BYTES + _CHECKSUM_BYTES:
        raise from_status(
            "INVALID_ARGUMENT", "invalid-identity", "not an identity, or not all of one", {}
        )
    parts = (_LABEL, data[:_HPKE_BYTES], data[_HPKE_BYTES:_PUBLIC_BYTES])
    return hashlib.sha256(
        b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    ).hexdigest()


def spoken(fingerprint: str) -> str:
    """Format the half of a fingerprint that people compare, in groups of four digits."""
    half = fingerprint[:_SPOKEN_DIGITS]
    return "-".join(half[place : place + 4] for place in range(0, _SPOKEN_DIGITS, 4))


COMMANDS = {"identity": identity}
