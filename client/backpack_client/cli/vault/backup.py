"""The commands for backups: export, import-vault."""

import os
from typing import TYPE_CHECKING, BinaryIO

import click

from backpack_client import process_protection
from backpack_client.cli.session import Session, count, local_time, passphrase_option
from backpack_client.cli.vault.identity import identity_line
from backpack_client.console import terminal
from backpack_client.failures import Failure, printable, usage
from backpack_client.files.private_files import NewFile

if TYPE_CHECKING:
    from backpack_client.calls.backup import Imported

_BACKUP_OPTION = "--backup-passphrase-file"
_RULES = ("keep", "replace", "fail")


@click.command("export")
@click.argument("file", metavar="FILE")
@click.option(
    _BACKUP_OPTION,
    metavar="FILE",
    help="Read the backup's passphrase from FILE, or - for standard input, instead of asking.",
)
@click.option(
    "--recipient",
    "recipients",
    metavar="IDENTITY",
    multiple=True,
    help="Seal it to the vault of this identity, a line or a file, and not with a passphrase.",
)
@click.option(
    "--plaintext", is_flag=True, help="Write every value in plain text, for another program."
)
@click.option("--yes", is_flag=True, help="With --plaintext: do not ask again.")
@passphrase_option
@click.pass_obj
def export(
    session: Session,
    *,
    file: str,
    backup_passphrase_file: str | None,
    recipients: tuple[str, ...],
    plaintext: bool,
    yes: bool,
    passphrase_file: str | None,
) -> None:
    """Write everything that is stored into a sealed file.

    FILE is new: an existing file is never overwritten. It is sealed with its own passphrase. With
    --recipient it is sealed to a vault instead: your own, or the vault of a teammate who has sent
    you the output of identity. With a passphrase file as well, either opens it.

    FILE holds the keys, the grants and the policy of one moment. Only you can read it.
    docs/backup.md describes the format.

    FILE does not hold the vault's identity, the authors that you accepted, or the ways to unlock. A
    new vault that imports it cannot open agent.lock files that were sealed for this one. Keep the
    vault's own file for that, or have the locks sealed for the new vault while this one still
    opens.

    With --plaintext: one JSON object on each line, with name and value (or value_base64 for bytes
    that are not text). Everybody who gets that file has every key.
    """
    if plaintext and backup_passphrase_file is not None:
        raise click.UsageError("a plaintext file has no passphrase")
    if plaintext and recipients:
        raise click.UsageError("a plaintext file has no recipients")
    if yes and not plaintext:
        raise click.UsageError("--yes is for --plaintext only")
    terminal.check_standard_input(passphrase_file, backup_passphrase_file)
    if plaintext:
        terminal.say(
            "warning: FILE will hold every value in plain text: "
            "everybody who reads it has every key"
        )
        if not yes and not terminal.confirm("write every value in plain text?"):
            raise Failure("nothing was written", reason="not-confirmed")
    lines = [identity_line(each) for each in recipients]
    keys = grants = 0
    with session.operator(passphrase_file) as backpack:
        secret = b""
        if not plaintext and (backup_passphrase_file is not None or not lines):
            secret = terminal.new_passphrase(
                "passphrase of the backup", backup_passphrase_file, _BACKUP_OPTION
            )
        process_protection.make_undumpable()
        with (
            NewFile(file) as made,
            backpack.export(secret, plaintext=plaintext, recipients=lines) as pieces,
        ):
            for piece in pieces:
                keys, grants = max(keys, piece.keys), max(grants, piece.grants)
                made.write(piece.data)
    what = (
        f"{count(keys, 'key')} in plain"
        if plaintext
        else (f"{count(keys, 'key')} and {count(grants, 'grant')}, sealed")
    )
    terminal.say_line(f"{file} holds {what}")


@click.command("import-vault")
@click.argument("file", metavar="FILE")
@click.option(
    _BACKUP_OPTION,
    metavar="FILE",
    help="Read the backup's passphrase from FILE, or - for standard input, instead of asking.",
)
@click.option(
    "--as-recipient", is_flag=True, help="It was sealed to this vault: ask for no passphrase."
)
@click.option(
    "--on-conflict",
    type=click.Choice(_RULES),
    default="fail",
    show_default=True,
    help="What to do with a key that is already stored.",
)
@click.option("--dry-run", is_flag=True, help="Check the whole backup, and store nothing.")
@click.option(
    "--with-grants", is_flag=True, help="Also import grants and policy, after showing them."
)
@click.option("--yes", is_flag=True, help="With --with-grants: do not ask again.")
@passphrase_option
@click.pass_obj
def import_vault(
    session: Session,
    *,
    file: str,
    backup_passphrase_file: str | None,
    as_recipient: bool,
    on_conflict: str,
    dry_run: bool,
    with_grants: bool,
    yes: bool,
    passphrase_file: str | None,
) -> None:
    """Store the keys of a backup, all of them or none.

    If there is no vault yet, run init first: a backup brings no passphrase. Grants and policy are
    left out unless you add --with-grants. Grants to tree:PID are always left out.
    """
    if as_recipient and backup_passphrase_file is not None:
        raise click.UsageError(f"--as-recipient takes no {_BACKUP_OPTION}")
    terminal.check_standard_input(passphrase_file, backup_passphrase_file)
    with _opened(file) as source, session.operator(passphrase_file) as backpack:
        secret = b""
        if not as_recipient:
            secret = terminal.passphrase(
                "passphrase of the backup", backup_passphrase_file, _BACKUP_OPTION
            )

        def take(*, dry: bool) -> "Imported":
            source.seek(0)
            return backpack.import_vault(
                source,
                secret,
                on_conflict=on_conflict,
                dry_run=dry,
                with_grants=with_grants,
            )

        done = take(dry=dry_run or with_grants)
        _show(done)
        if with_grants and not dry_run:
            if not yes and not terminal.confirm("import these grants and this policy?"):
                raise Failure("nothing was taken over", reason="not-confirmed")
            done = take(dry=False)
    would = "would be " if dry_run else ""
    terminal.say(
        f"{count(done.created, 'key')} {would}stored, {done.replaced} {would}replaced, "
        f"{done.kept} kept as they were"
    )
    if with_grants:
        terminal.say(f"{count(done.grants_added, 'grant')} and the policy {would}taken over")


def _show(done: "Imported") -> None:
    terminal.say(f"a backup of {local_time(done.created_at)}, of vault {done.vault_id[:12]}")
    for line in done.grants:
        terminal.say_line(f"  grant   {line}")
    for line in done.policy:
        terminal.say_line(f"  policy  {line}")


def _opened(path: str) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        return os.fdopen(descriptor, "rb")
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number).lower() if number else "not a path"
        raise usage(f"cannot read {printable(path, 256)}: {why}", hint="") from None


COMMANDS = {"export": export, "import-vault": import_vault}
