"""The commands for standing permissions: grant, grants, ungrant."""

import os
import re
from pathlib import Path

import click

from backpack_client.cli.session import (
    Session,
    all_option,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.console import terminal
from backpack_client.durations import format_duration, parse_duration
from backpack_client.failures import printable
from backpack_client.model import Grant

_INTERPRETERS = re.compile(
    r"(python|pypy|node|nodejs|deno|bun|bash|sh|dash|zsh|ksh|fish|busybox|ruby|perl|php|lua|java"
    r"|dotnet|Rscript|julia|env)[0-9.]*"
)


@click.command("grant")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--to", "selector", metavar="SELECTOR", required=True, help="To whom; see above.")
@click.option("--ttl", metavar="T", help="The longest lease it allows (default: 24h).")
@click.option(
    "--for", "valid_for", metavar="T", help="How long it is valid (default: until ungrant)."
)
@click.option("--uses", metavar="N", type=click.IntRange(1), help="How many leases it allows.")
@click.option("--reason", metavar="TEXT", default="", help="What it is for, for your own list.")
@json_option
@passphrase_option
@click.pass_obj
def grant(
    session: Session,
    *,
    names: tuple[str, ...],
    selector: str,
    ttl: str | None,
    valid_for: str | None,
    uses: int | None,
    reason: str,
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Let a process tree lease keys.

    In NAME, * stands for any run of characters (quote it).

    SELECTOR is one of these:

    \b
      tree:PID     a live process and all its descendants; ends with that process.
                   The strong one: it names one agent and nobody else. tree:$$ in
                   a script is that script; typed at a prompt, it is that shell
                   and all that is started from it.
      uid:N        every process of that user.
      exe:PATH     trees with a process that runs this executable.
      sha256:HEX   trees with a process whose executable has this digest.
      unit:NAME    trees in this systemd unit.

    While the daemon runs as the same user as the agents, exe:, sha256: and unit: are no stronger
    than uid:. They help against accidents, but not against hostile code of yours, which can arrange
    to match them. `backpack-client status` shows the tree that a shell or script belongs to.

    JSON: one grant, as in `grants --json`.
    """  # noqa: D301 - a real backspace is click's mark for text that is not to be wrapped
    # Report mistakes in the arguments before asking for the passphrase.
    for duration in (ttl, valid_for):
        if duration is not None:
            parse_duration(duration)
    _warn(selector)
    with session.operator(passphrase_file) as backpack:
        added = backpack.grant(
            *names, to=selector, ttl=ttl, valid_for=valid_for, uses=uses, reason=reason
        )
    for name in added.not_stored:
        terminal.say_line(f"granted; note: {name} is not stored yet")
    if as_json:
        terminal.print_json(_document(added))
        return
    terminal.say(
        f"grant {added.id}: {' '.join(added.patterns)} to {added.selector}, "
        f"leases of up to {format_duration(added.max_ttl_seconds)}, {_limits(added)}\n"
        f"to take it back: backpack-client ungrant {added.id}"
    )


@click.command("grants")
@all_option("Every grant, and not only those that cover your process tree")
@json_option
@passphrase_option
@click.pass_obj
def grants(session: Session, every: bool, as_json: bool, passphrase_file: str | None) -> None:
    """List standing permissions.

    Without --all: those that cover your process tree.

    JSON: one object with grants: a list of objects with id, patterns, selector, max_ttl_seconds,
    expires_at_ms (null: until taken back), uses_left (null: any number), created_at_ms, reason.
    """
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:
        found = backpack.grants(all=every)
    if as_json:
        terminal.print_json({"grants": [_document(each) for each in found]})
    elif found:
        terminal.print_table(
            ("ID", "KEYS", "TO", "LEASES UP TO", "STANDS", "REASON"),
            [
                (
                    each.id,
                    " ".join(each.patterns),
                    each.selector,
                    format_duration(each.max_ttl_seconds),
                    _limits(each),
                    each.reason,
                )
                for each in found
            ],
        )
    elif every:
        terminal.say("there are no grants; add one: backpack-client grant NAME --to tree:PID")
    else:
        terminal.say("no grant covers your process tree; every grant: backpack-client grants --all")


@click.command("ungrant")
@click.argument("grant_id", metavar="ID")
@passphrase_option
@click.pass_obj
def ungrant(session: Session, grant_id: str, passphrase_file: str | None) -> None:
    """Take a grant back, and end the leases that rest on it."""
    from backpack_client.calls.fields import checked_grant_id  # noqa: PLC0415 - loads protobuf

    # Report a mistake in the argument before asking for the passphrase.
    checked_grant_id(grant_id)
    with session.operator(passphrase_file) as backpack:
        ended = backpack.ungrant(grant_id)
    terminal.say(f"the grant is taken back; {count(ended, 'lease')} ended")


def _warn(selector: str) -> None:
    kind, _, path = selector.partition(":")
    if kind != "exe":
        return
    if _INTERPRETERS.fullmatch(Path(path).name):
        terminal.say(
            f"warning: {printable(Path(path).name, 64)} runs any program: this grant covers "
            "everything that it runs, not one agent; tree:PID names one"
        )
    real = os.path.realpath(path)
    if path.startswith("/") and real != path:
        terminal.say(
            f"warning: {printable(path, 256)} is a link; processes are known by the file that "
            f"they run: exe:{printable(real, 256)}"
        )


def _limits(each: Grant) -> str:
    until = (
        "until taken back" if each.expires_at is None else f"until {local_time(each.expires_at)}"
    )
    return until if each.uses_left is None else f"{until}, {count(each.uses_left, 'use')} left"


def _document(each: Grant) -> dict[str, object]:
    return {
        "id": each.id,
        "patterns": list(each.patterns),
        "selector": each.selector,
        "max_ttl_seconds": each.max_ttl_seconds,
        "expires_at_ms": milliseconds(each.expires_at),
        "uses_left": each.uses_left,
        "created_at_ms": milliseconds(each.created_at),
        "reason": each.reason,
    }


COMMANDS = {command.name: command for command in (grant, grants, ungrant)}
