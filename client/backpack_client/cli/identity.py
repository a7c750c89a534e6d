"""The command for the vault's identity: identity."""

import click

from backpack_client import terminal
from backpack_client.cli.session import Session, json_option


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


COMMANDS = {"identity": identity}
