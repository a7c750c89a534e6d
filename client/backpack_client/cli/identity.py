"""The command for the vault's identity, and how other commands take one: identity."""

import base64
import binascii
import hashlib

import click

from backpack_client import terminal
from backpack_client.cli.session import Session, json_option
from backpack_client.failures import printable, usage

_IDENTITY_LIMIT = 4096
_IDENTITY_PREFIX = "backpack-identity-"
# The layout and the fingerprint of docs/agent-lock.md, "Identities".
_LABEL = b"backpack/v1/identity"
_HPKE_BYTES, _PUBLIC_BYTES = 1216, 1248


@click.command("identity")
@json_option
@click.pass_obj
def identity(session: Session, as_json: bool) -> None:
    """Print what a teammate needs to share an agent's lock with you.

    One line for `agent add-recipient`, on standard output. Compare the fingerprint with each other
    over another way than the one that the line took.

    JSON: one object with identity (the line) and fingerprint.
    """
    with session.connect() as backpack:
        own = backpack.identity()
    if as_json:
        terminal.print_json({"identity": own.text, "fingerprint": own.fingerprint})
        return
    # Whole: the usual limit for a line would cut it.
    terminal.print_whole(own.text)
    terminal.say(f"fingerprint: {own.fingerprint}")


def identity_line(given: str) -> str:
    """Get an identity: the line itself, or what is in a file; `-` is standard input.

    Raises:
        Failure: the file cannot be read, or holds something else.
    """
    if given.startswith(_IDENTITY_PREFIX):
        return given
    data = terminal.file_bytes(given, _IDENTITY_LIMIT)
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise usage(
            f"{printable(given, 256)} holds no identity",
            hint="it is what backpack-client identity prints",
        ) from None


def full_fingerprint(line: str) -> str:
    """Return all 64 digits of an identity's fingerprint, of which the daemon tells the first half.

    Args:
        line: an identity that the daemon has taken for one.

    Returns:
        The digits; empty where the line is of another form than this version knows.
    """
    try:
        public = base64.b64decode(line.partition(":")[2], validate=True)[:_PUBLIC_BYTES]
    except (binascii.Error, ValueError):
        return ""
    parts = (_LABEL, public[:_HPKE_BYTES], public[_HPKE_BYTES:])
    return hashlib.sha256(
        b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    ).hexdigest()


COMMANDS = {"identity": identity}
