"""The commands for leases: leases, revoke."""

import click

from backpack_client import terminal
from backpack_client.cli.session import (
    Session,
    all_option,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.durations import format_duration


@click.command("leases")
@all_option("Every lease, and not only those of your process tree")
@json_option
@passphrase_option
@click.pass_obj
def leases(session: Session, every: bool, as_json: bool, passphrase_file: str | None) -> None:
    """List live leases.

    Without --all: those of your process tree.

    JSON: one object with leases: a list of objects with id, names, holder_pid, grant_ids,
    issued_at_ms, expires_at_ms, max_expires_at_ms, remaining_seconds.
    """
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:
        found = backpack.leases(all=every)
    if as_json:
        terminal.print_json(
            {
                "leases": [
                    {
                        "id": each.id,
                        "names": list(each.names),
                        "holder_pid": each.holder_pid,
                        "grant_ids": list(each.grant_ids),
                        "issued_at_ms": milliseconds(each.issued_at),
                        "expires_at_ms": milliseconds(each.expires_at),
                        "max_expires_at_ms": milliseconds(each.max_expires_at),
                        "remaining_seconds": each.remaining_seconds,
                    }
                    for each in found
                ]
            }
        )
    elif found:
        terminal.print_table(
            ("ID", "KEYS", "HELD BY", "SINCE", "ENDS IN"),
            [
                (
                    each.id,
                    " ".join(each.names),
                    f"tree:{each.holder_pid}",
                    local_time(each.issued_at),
                    format_duration(each.remaining_seconds),
                )
                for each in found
            ],
        )
    elif every:
        terminal.say("no leases are live")
    else:
        terminal.say("your process tree holds no lease; every lease: backpack-client leases --all")


@click.command("revoke")
@click.argument("lease_id", metavar="[ID]", required=False)
@click.option("--key", metavar="NAME", help="Every lease that holds this key.")
@click.option("--tree", metavar="PID", type=int, help="Every lease of this process tree.")
@click.option("--all", "every", is_flag=True, help="Every lease there is.")
@click.pass_obj
def revoke(
    session: Session, lease_id: str | None, key: str | None, tree: int | None, every: bool
) -> None:
    """End leases.

    The one with this ID, or those that an option names.

    Needs no passphrase, and tells nobody what he may not know: leases of other process trees end,
    but are not counted. A value that was handed out stays known to whoever has it; where that
    matters, replace it at its issuer.
    """
    with session.connect() as backpack:
        ended = backpack.revoke(lease_id, key=key, tree=tree, all=every)
    terminal.say(f"done; {count(ended, 'lease')} of your process tree ended")


COMMANDS = {command.name: command for command in (leases, revoke)}
