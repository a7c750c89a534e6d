"""The command panic, and its report afterwards."""

import click

from backpack_client.cli.session import (
    Session,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.console import terminal
from backpack_client.fastpath import ending
from backpack_client.model import Revealed
from backpack_client.wire import Unknown


@click.command("panic")
@click.option(
    "--report",
    is_flag=True,
    help="Show which keys were handed out, to whom and when; asks for the passphrase.",
)
@json_option
@passphrase_option
@click.pass_obj
def panic(session: Session, report: bool, as_json: bool, passphrase_file: str | None) -> None:
    """End every lease and request and lock the vault, at once.

    Needs no passphrase. A value that was handed out stays known to the process that has it: unlock,
    see --report, and replace those keys at their issuers.

    The report covers the newest 10,000 handouts of the audit log. audit blame NAME shows all.

    JSON: one object with leases_ended, requests_ended; with --report: one object with revealed: a
    list of objects with at_ms, names, pid, executable, root_pid, root_executable, lease_id.
    """
    if report:
        _report(session, as_json, passphrase_file)
        return
    if passphrase_file is not None:
        raise click.UsageError("--passphrase-file is for --report only")
    leases, requests = _panic(session)
    if as_json:
        terminal.print_json({"leases_ended": leases, "requests_ended": requests})
        return
    terminal.say(
        f"the vault is locked; {count(leases, 'lease')} and {count(requests, 'request')} ended\n"
        "values that were handed out stay known to the processes that have them; to see which:\n"
        "  backpack-client unlock\n"
        "  backpack-client panic --report"
    )


def _panic(session: Session) -> tuple[int, int]:
    try:
        return ending.panic(session.socket)
    except Unknown:
        with session.connect() as backpack:
            done = backpack.panic()
        return done.leases_ended, done.requests_ended


def _report(session: Session, as_json: bool, passphrase_file: str | None) -> None:
    with session.operator(passphrase_file) as backpack:
        revealed = backpack.revealed()
    if as_json:
        terminal.print_json({"revealed": [_document(each) for each in revealed]})
    elif revealed:
        terminal.print_table(
            ("WHEN", "KEYS", "TO PROCESS", "OF TREE", "LEASE"),
            [
                (
                    local_time(each.at),
                    " ".join(each.names),
                    _process(each.pid, each.executable),
                    _process(each.root_pid, each.root_executable),
                    each.lease_id,
                )
                for each in revealed
            ],
        )
        names = sorted({name for each in revealed for name in each.names})
        terminal.say_line(f"{count(len(names), 'key')} to replace: {' '.join(names)}")
    else:
        terminal.say("nothing was revealed")


def _process(pid: int, executable: str) -> str:
    return f"{pid} {executable or '(program unknown)'}"


def _document(each: Revealed) -> dict[str, object]:
    return {
        "at_ms": milliseconds(each.at),
        "names": list(each.names),
        "pid": each.pid,
        "executable": each.executable,
        "root_pid": each.root_pid,
        "root_executable": each.root_executable,
        "lease_id": each.lease_id,
    }


COMMANDS = {"panic": panic}
