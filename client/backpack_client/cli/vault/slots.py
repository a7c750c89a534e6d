"""The commands for slots and the master key: slots, add-slot, remove-slot, rotate."""

import shlex
import sys

import click

from backpack_client.cli.session import (
    Session,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.cli.vault.shown_once import keep_drawn
from backpack_client.console import terminal
from backpack_client.failures import Failure, usage

KINDS = ("passphrase", "recovery", "file", "environment")
WARNING = "every program of yours can open this vault"
_PERCENT = 100


@click.command("slots")
@json_option
@passphrase_option
@click.pass_obj
def slots(session: Session, as_json: bool, passphrase_file: str | None) -> None:
    """List the ways to unlock the vault.

    JSON: a list of objects with id, kind (passphrase, recovery, file, environment), authorizes,
    stretched, created_at_ms, drilled_at_ms (the last two: null where not known or never).
    """
    with session.operator(passphrase_file) as backpack:
        found = backpack.slots()
    if as_json:
        terminal.print_json(
            [
                {
                    "id": slot.id,
                    "kind": slot.kind,
                    "authorizes": slot.authorizes,
                    "stretched": slot.stretched,
                    "created_at_ms": milliseconds(slot.created_at),
                    "drilled_at_ms": milliseconds(slot.drilled_at),
                }
                for slot in found
            ]
        )
        return
    terminal.print_table(
        ("ID", "KIND", "GOOD FOR", "SINCE", "LAST PROVEN"),
        [
            (
                slot.id[:12],
                slot.kind,
                "everything" if slot.authorizes else "unlocking",
                local_time(slot.created_at) if slot.created_at else "",
                local_time(slot.drilled_at) if slot.drilled_at else "",
            )
            for slot in found
        ],
    )
    if not all(slot.authorizes for slot in found):
        terminal.say(WARNING)


@click.command("add-slot")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What is to open it.")
@click.option(
    "--new-passphrase-file",
    metavar="FILE",
    help="For a passphrase: read it from FILE, or - for standard input, instead of asking.",
)
@click.option(
    "--secret-file",
    metavar="FILE",
    help="For a recovery code, a file or the environment: write the secret into the new FILE, "
    "instead of showing it on the terminal.",
)
@click.option(
    "--from-file",
    metavar="FILE",
    help="For a file or the environment: use the key that is already in FILE.",
)
@passphrase_option
@click.pass_obj
def add_slot(
    session: Session,
    *,
    kind: str,
    new_passphrase_file: str | None,
    secret_file: str | None,
    from_file: str | None,
    passphrase_file: str | None,
) -> None:
    """Add a way to unlock the vault.

    A passphrase or a recovery code unlocks and gives operator authority. A key in a file (a systemd
    credential, or a file that backpackd.toml names) or in the daemon's AGENT_MASTER_KEY unlocks the
    vault when the daemon starts, and gives no authority. Every program of yours can then open the
    vault.
    """
    _check_add(kind, new_passphrase_file, secret_file, from_file)
    terminal.check_standard_input(passphrase_file, new_passphrase_file, from_file)
    drawn = kind != "passphrase" and from_file is None
    with session.operator(passphrase_file) as backpack:
        chosen = b""
        if kind == "passphrase":
            chosen = terminal.new_passphrase(
                "passphrase of the new slot", new_passphrase_file, "--new-passphrase-file"
            )
        elif from_file is not None:
            chosen = terminal.passphrase("key", from_file)
        added = keep_drawn(
            secret_file if drawn else None,
            lambda: backpack.add_slot(kind, chosen),
            lambda slot: slot.drawn.decode("ascii", "replace") if drawn else "",
            _TITLES[kind],
        )
    terminal.say(f"slot {added.id[:12]} is added")
    if kind in ("file", "environment"):
        terminal.say(f"from now on {WARNING}")


_TITLES = {
    "passphrase": "",
    "recovery": "recovery code",
    "file": "key for the file",
    "environment": "key for AGENT_MASTER_KEY",
}


def _check_add(
    kind: str, new_passphrase_file: str | None, secret_file: str | None, from_file: str | None
) -> None:
    if kind != "passphrase" and new_passphrase_file is not None:
        raise click.UsageError("--new-passphrase-file is for a passphrase only")
    if kind == "passphrase" and (secret_file or from_file):
        raise click.UsageError("--secret-file and --from-file are for keys, not for a passphrase")
    if kind == "recovery" and from_file is not None:
        raise click.UsageError("a recovery code is drawn, not chosen")
    if secret_file and from_file:
        raise click.UsageError("--secret-file is for a drawn key, --from-file for an existing one")
    drawn = kind != "passphrase" and from_file is None
    if drawn and secret_file is None and not terminal.has_terminal():
        raise usage("there is no terminal to show the secret on", hint="add --secret-file FILE")


@click.command("remove-slot")
@click.argument("slot_id", metavar="ID")
@passphrase_option
@click.pass_obj
def remove_slot(session: Session, slot_id: str, passphrase_file: str | None) -> None:
    """Remove a way to unlock the vault.

    slots shows the ID. The last slot that gives operator authority cannot be removed. Somebody who
    has an older copy of the vault's file can still open that copy with the removed slot: rotate,
    and replace the keys at their issuers.
    """
    with session.operator(passphrase_file) as backpack:
        backpack.remove_slot(slot_id)
    terminal.say("the slot is removed: its secret no longer opens the vault")


@click.command("rotate")
@click.option("--end-leases", is_flag=True, help="Also end every lease.")
@json_option
@passphrase_option
@click.pass_obj
def rotate(session: Session, end_leases: bool, as_json: bool, passphrase_file: str | None) -> None:
    """Give the vault a new master key.

    Every key is sealed again under it, or nothing is changed. Passphrases, codes and key files stay
    as they are. Leases go on unless you end them. Values do not change: if a value has leaked,
    replace it at its issuer.

    JSON: one object with keys, slots, leases_ended, purged, lock_files.
    """
    last = None
    with (
        session.operator(passphrase_file) as backpack,
        backpack.rotate(end_leases=end_leases) as progress,
    ):
        shown = sys.stderr is not None and sys.stderr.isatty() and not as_json
        for last in progress:
            if shown:
                _show_progress(last.keys_done, last.keys_total)
            if last.done:
                break
    if last is None or not last.done:
        raise Failure("the daemon did not say that it is done", reason="no-answer")
    if as_json:
        terminal.print_json(
            {
                "keys": last.keys_total,
                "slots": last.slots,
                "leases_ended": last.leases_ended,
                "purged": last.purged,
                "lock_files": list(last.lock_files),
            }
        )
        return
    ended = f"; {count(last.leases_ended, 'lease')} ended" if end_leases else ""
    terminal.say(
        f"the vault has a new master key: {count(last.keys_total, 'key')} sealed again, "
        f"{count(last.slots, 'slot')} re-wrapped{ended}"
    )
    if not last.purged:
        terminal.say(
            "there was no room to write the file again, so old sealed bytes may be left in it: "
            "make room, then stop and start the daemon, or rotate again"
        )
    for path in last.lock_files:
        terminal.say_line(
            f"give it a new lock key: backpack-client agent rewrap --lock {shlex.quote(path)}"
        )


def _show_progress(done: int, total: int) -> None:
    width = 30
    share = done / total if total else 1.0
    bar = ("#" * round(width * share)).ljust(width, ".")
    end = "\n" if done == total else ""
    sys.stderr.write(f"\rsealing again [{bar}] {round(share * _PERCENT):3d} %  {done}/{total}{end}")
    sys.stderr.flush()


COMMANDS = {command.name: command for command in (slots, add_slot, remove_slot, rotate)}
