"""The command for the vault's identity, and how other commands take one: identity."""

import click

from backpack_client import terminal
from backpack_client.cli.session import Session, json_option
from backpack_client.failures import printable, usage

_IDENTITY_LIMIT = 4096
_IDENTITY_PREFIX = "backpack-identity-"


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


COMMANDS = {"identity": identity}
