"""The commands for leases: leases, revoke, watch."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from backpack_client.cli.keys.lease_screen import LeaseScreen
from backpack_client.cli.session import (
    TO_SEE_GRANTS,
    Session,
    all_option,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.console import screen, terminal
from backpack_client.durations import format_duration
from backpack_client.model import LeaseEvent, LeaseInfo

if TYPE_CHECKING:
    from backpack_client.api import Watch


@click.command("leases")
@all_option("Every lease, and not only those of your process tree")
@click.option("--watch", is_flag=True, help="Keep a live table on the terminal.")
@json_option
@passphrase_option
@click.pass_obj
def leases(
    session: Session, *, every: bool, watch: bool, as_json: bool, passphrase_file: str | None
) -> None:
    """List live leases.

    Without --all: those of your process tree.

    JSON: one object with leases: a list of objects with id, names, holder_pid, grant_ids,
    issued_at_ms, expires_at_ms, max_expires_at_ms, remaining_seconds.
    """
    if watch:
        if as_json:
            raise click.UsageError("--watch is for a terminal; for programs: watch --json")
        screen.check()
        _watch(session, every=every, passphrase_file=passphrase_file)
        return
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:
        found = backpack.leases(all=every)
    if as_json:
        terminal.print_json({"leases": [_document(each) for each in found]})
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

    Ends the lease with this ID, or those that an option names. Needs no passphrase.

    Leases of other process trees end as well, but only leases of your own tree are counted. A
    process that held a lease must ask a person again. Standing grants stay, and other processes
    that they cover may still lease: see grants and ungrant. A value that was handed out stays known
    to the process that has it. If that matters, replace it at its issuer.
    """
    with session.connect() as backpack:
        ended = backpack.revoke(lease_id, key=key, tree=tree, all=every)
    terminal.say(
        f"done; {count(ended, 'lease')} of your process tree ended\n"
        "a process that held one has to ask a person again; a standing grant still allows it to "
        f"the others that it covers\n{TO_SEE_GRANTS}"
    )


@click.command("watch")
@all_option("Every lease, and not only those of your process tree")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@passphrase_option
@click.pass_obj
def watch(session: Session, every: bool, as_json: bool, passphrase_file: str | None) -> None:
    """Follow what happens to leases, one line each.

    Begins with the leases that are live. Ends when you interrupt it, when the vault is locked and,
    with --all, when operator authority ends after five minutes.

    JSON: one object per line with kind (live, issued, renewed, ended), reason (why it ended,
    otherwise empty), and lease: as in leases --json.
    """
    with (
        session.reader(every=every, passphrase_file=passphrase_file) as backpack,
        backpack.watch_leases(all=every) as events,
    ):
        for event in events:
            lease = event.lease
            if as_json:
                terminal.print_json_line(
                    {"kind": event.kind, "reason": event.reason, "lease": _document(lease)}
                )
                continue
            how = f"({event.reason})" if event.kind == "ended" else _left(lease)
            line = (
                f"{local_time(datetime.now(UTC))}  {event.kind:<7}  {lease.id}  "
                f"{' '.join(lease.names)}  tree:{lease.holder_pid}  {how}"
            )
            terminal.print_lines([line])


def _watch(session: Session, *, every: bool, passphrase_file: str | None) -> None:
    view = LeaseScreen()
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:

        def start() -> "Watch[LeaseEvent]":
            view.start_over()
            return backpack.watch_leases(all=every)

        screen.run(view, start, lambda: session.authorize_again(backpack))


def _left(lease: LeaseInfo) -> str:
    return f"for {format_duration(lease.remaining_seconds)}"


def _document(lease: LeaseInfo) -> dict[str, object]:
    return {
        "id": lease.id,
        "names": list(lease.names),
        "holder_pid": lease.holder_pid,
        "grant_ids": list(lease.grant_ids),
        "issued_at_ms": milliseconds(lease.issued_at),
        "expires_at_ms": milliseconds(lease.expires_at),
        "max_expires_at_ms": milliseconds(lease.max_expires_at),
        "remaining_seconds": lease.remaining_seconds,
    }


COMMANDS = {command.name: command for command in (leases, revoke, watch)}
