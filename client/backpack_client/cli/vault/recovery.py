"""The command for a lost passphrase: recover."""

import click

from backpack_client.cli.session import Session, local_time
from backpack_client.console import terminal
from backpack_client.failures import from_status

_RECOVERY_FILE = "--recovery-code-file"


@click.command("recover")
@click.option("--drill", is_flag=True, help="Prove that the code works, and change nothing.")
@click.option(
    _RECOVERY_FILE,
    metavar="FILE",
    help="Read the code from FILE (private to you), or - for standard input, instead of asking.",
)
@click.option(
    "--new-passphrase-file",
    metavar="FILE",
    help="Read the new passphrase from FILE, or - for standard input, instead of asking.",
)
@click.pass_obj
def recover(
    session: Session,
    drill: bool,
    recovery_code_file: str | None,
    new_passphrase_file: str | None,
) -> None:
    """Set a new passphrase with the recovery code.

    This also unlocks the vault. The new passphrase replaces all others; the code stays valid. Case,
    spaces and dashes in the code do not matter. With --drill only the date that status shows
    changes: do that now and then.
    """
    if drill and new_passphrase_file is not None:
        raise click.UsageError("--drill sets no passphrase")
    terminal.check_standard_input(recovery_code_file, new_passphrase_file)
    with session.connect() as backpack:
        status = backpack.status()
        session.note_version(status)
        if status.state == "uninitialized":
            raise from_status("FAILED_PRECONDITION", "uninitialized", "there is no vault yet", {})
        code = terminal.passphrase("recovery code", recovery_code_file, _RECOVERY_FILE)
        if drill:
            at = backpack.drill_recovery(code)
            terminal.say(f"the recovery code opens the vault; noted at {local_time(at)}")
            return
        # Check the code alone first, before anybody chooses a new passphrase in vain.
        backpack.drill_recovery(code)
        new = terminal.new_passphrase(
            "new passphrase", new_passphrase_file, "--new-passphrase-file"
        )
        backpack.recover(code, new)
    terminal.say("the vault is unlocked and has the new passphrase; the old ones open nothing")


COMMANDS = {"recover": recover}
