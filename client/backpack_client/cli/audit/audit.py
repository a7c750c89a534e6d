"""The commands for the audit log: audit show, verify, blame, head."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

import click

from backpack_client.cli.audit.audit_view import ACT, DAMAGED, basis, document, line, long, what_for
from backpack_client.cli.session import Command, Session, count, json_option, passphrase_option
from backpack_client.console import styled, terminal
from backpack_client.console.pager import paged
from backpack_client.durations import parse_duration
from backpack_client.failures import (
    EXIT_DENIED,
    EXIT_FAILED,
    EXIT_UNVOUCHED,
    Failure,
    printable,
    usage,
)

if TYPE_CHECKING:
    from backpack_client.api import Backpack, Watch
    from backpack_client.calls.audit import AuditEntry, Verdict, Verifying

_BAR = 30
_PROGRESS_FROM = 5000
"""With fewer entries, verifying ends before anybody could read a bar."""
_EVERY = 2.0
"""How long --follow waits before it looks again, in seconds."""
_MOST_NEWEST = 10_000
"""How many of the newest entries the daemon can be asked for; 0 asks for all."""
_FIRST = 10
"""How many entries --follow begins with, as tail does."""
_ANCHORS = {
    "vault": "the signing key that is sealed in the vault",
    "file": "the signing key in the vault file, which nothing vouches for until the vault is "
    "unlocked",
    "expected": "the head that was expected",
}


@click.group("audit")
def audit() -> None:
    """Show what happened, and verify the log.

    The audit log says which process got which key, when, and by which grant.
    """


def _look_options(command: Command) -> Command:
    """Add the options that say how entries look."""
    options = [
        click.option("--long", "at_length", is_flag=True, help="Show everything about each entry."),
        click.option("--no-pager", is_flag=True, help="Do not page long output (PAGER, less)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@audit.command("show")
@click.option("--key", metavar="NAME", default="", help="Only entries that name this key.")
@click.option("--pid", type=int, help="Only entries of this process, or of its process tree.")
@click.option("--event", "events", multiple=True, metavar="EVENT", help="Only these events.")
@click.option("--since", metavar="WHEN", help="Not before: an age such as 2h, or 2026-01-31T09:00.")
@click.option("--until", metavar="WHEN", help="Not after, likewise.")
@click.option("--newest", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@click.option(
    "--follow", is_flag=True, help="Begin with the newest 10, and show new entries as they come."
)
@_look_options
@json_option
@passphrase_option
@click.pass_context
def show(
    ctx: click.Context,
    *,
    key: str,
    pid: int | None,
    events: tuple[str, ...],
    since: str | None,
    until: str | None,
    newest: int | None,
    follow: bool,
    at_length: bool,
    no_pager: bool,
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Show entries of the audit log, one on each line, the newest last.

    A line has the time, the event, the keys, the process and the agent that it belongs to, and what
    it was for. Text in quotes is a claim that a process made about itself. EVENT is a word of
    docs/audit.md: allowed, denied, put, deleted, granted, wrong-passphrase, ... Any other word is
    refused.

    On a terminal, long output goes through a pager, and NO_COLOR turns colours off. --follow goes
    on until you interrupt it, or until operator authority ends after five minutes.

    Damaged entries are shown whatever you asked for. The answer may then miss something, and the
    command ends with 1.

    JSON: one object a line, with number, event, at_ms, actor (null, or uid, pid, executable,
    root_pid, root_executable, unit, terminal, connection, claimed_command), names, lease_id,
    grant_ids, reason, count, details, claimed_reason, generation.
    """
    session: Session = ctx.obj
    begin, end = _when(since), _when(until)
    if as_json and at_length:
        raise click.UsageError("--json and --long exclude each other")
    if follow and until:
        raise click.UsageError("--follow and --until exclude each other")
    show_one = _printer(what_for, as_json=as_json, at_length=at_length)
    with session.operator(passphrase_file) as backpack:
        shown = _Shown(
            lambda most: backpack.audit(
                key=key, pid=pid, events=events, since=begin, until=end, newest=most
            ),
            show_one,
        )
        if follow:
            _keep_showing(backpack, shown, newest or (0 if since else _FIRST))
        with paged(wanted=not no_pager):
            shown.add(newest or 0)
    if not shown.last and not as_json:
        terminal.say("no such entries")
    _warn(ctx, shown.damaged)


class _Shown:
    """Shows entries, and remembers which were shown.

    Attributes:
        last: the number of the last entry that was shown; 0: none was.
        damaged: the numbers of entries that could not be read.
    """

    def __init__(
        self,
        read: "Callable[[int], Watch[Sequence[AuditEntry]]]",
        show_one: "Callable[[AuditEntry], None]",
    ) -> None:
        self.last = 0
        self.damaged: list[int] = []
        self._read = read
        self._show_one = show_one

    def add(self, newest: int) -> None:
        """Show new entries among the newest ones, after the last one shown; 0: among all."""
        shown = self.last
        with self._read(newest) as responses:
            for entry in chain.from_iterable(responses):
                if entry.number > shown:
                    self.last = entry.number
                    if entry.event == DAMAGED:
                        self.damaged.append(entry.number)
                    self._show_one(entry)


def _keep_showing(backpack: "Backpack", shown: _Shown, first: int) -> NoReturn:
    """Show entries, and look for new ones again and again.

    Args:
        backpack: with operator authority.
        shown: shows them.
        first: how many to begin with, the newest; 0: all.

    Raises:
        Failure: operator authority has ended, the vault was locked, or the daemon was stopped.
    """
    seen = _number(backpack.audit_head())
    shown.add(first)
    while True:
        time.sleep(_EVERY)
        if backpack.status().authorized_until is None:
            raise Failure(
                "operator authority has ended, and --follow with it",
                exit_code=EXIT_DENIED,
                reason="not-authorized",
                hint="it ends after five minutes and when the vault is locked: to read on, start "
                "it again",
            )
        # Reading opens the log from its beginning, so it happens only when there is something new.
        head = _number(backpack.audit_head())
        if head > seen:
            # There are at most as many new entries as new rows, whatever the clock says.
            new = head - seen
            shown.add(new if new <= _MOST_NEWEST else 0)
            seen = head


@audit.command("blame")
@click.argument("name")
@click.option("--since", metavar="WHEN", help="Not before: an age such as 2h, or 2026-01-31T09:00.")
@_look_options
@json_option
@passphrase_option
@click.pass_context
def blame(
    ctx: click.Context,
    *,
    name: str,
    since: str | None,
    at_length: bool,
    no_pager: bool,
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Show every process that was handed the key NAME, when, and by which grant.

    Exports of the vault are among them: they are by the operator and not by a grant. If entries of
    the log are damaged, the answer may miss something: the command says so and ends with 1.

    JSON: as with show.
    """
    session: Session = ctx.obj
    begin = _when(since)
    if as_json and at_length:
        raise click.UsageError("--json and --long exclude each other")
    show_one = _printer(basis, as_json=as_json, at_length=at_length)
    with (
        session.operator(passphrase_file) as backpack,
        backpack.audit(
            key=name, events=("allowed", "not-handed-out", ACT), since=begin
        ) as responses,
    ):
        found = [entry for response in responses for entry in response]
    damaged = [entry.number for entry in found if entry.event == DAMAGED]
    failed = {entry.lease_id for entry in found if entry.event == "not-handed-out"}
    handed = [
        entry
        for entry in found
        if (entry.event == "allowed" and entry.lease_id not in failed) or entry.event == ACT
    ]
    with paged(wanted=not no_pager):
        for entry in handed:
            show_one(entry)
    if damaged and not handed:
        terminal.say("no readable entry shows a process that was handed this key")
    elif not handed and not as_json:
        terminal.say("no process was handed this key")
    _warn(ctx, damaged)


def _printer(
    last_column: "Callable[[AuditEntry], str]", *, as_json: bool, at_length: bool
) -> "Callable[[AuditEntry], None]":
    """Return a function that prints an entry for the present standard output, before the pager."""
    look = styled.standard_look()
    if as_json:
        return lambda entry: terminal.print_json_line(document(entry))
    if not at_length:
        return lambda entry: styled.print_styled(
            line(entry, last_column(entry), look.columns), look
        )
    return lambda entry: styled.print_block(long(entry), look)


def _number(head: str) -> int:
    """Return the number of the row that a head names; 0 while there is no log."""
    return int(head.partition("-")[0] or 0)


def _warn(ctx: click.Context, damaged: list[int]) -> None:
    """Say that an answer is incomplete because entries could not be read, and end as failed."""
    if not damaged:
        return
    entries = "entry" if len(damaged) == 1 else f"{len(damaged)} entries, the first of them"
    terminal.say(
        f"the audit log is DAMAGED: {entries} {damaged[0]} cannot be read, so this answer may miss "
        "something; see: backpack-client audit verify"
    )
    ctx.exit(EXIT_FAILED)


@audit.command("verify")
@click.option(
    "--expect", metavar="HEAD", default="", help="A head that was kept elsewhere must be in it."
)
@json_option
@click.pass_context
def verify(ctx: click.Context, expect: str, as_json: bool) -> None:
    """Verify the whole audit log. Needs no passphrase.

    Ends with 0 if every entry is vouched for, with 1 if an entry is bad (the first one is named),
    and with 9 if the log is consistent, but nothing vouches for its last entries. Heads to expect
    are in the daemon's journal ("audit head ..."), and `audit head` shows one.

    If the vault found its log cut or altered, it has recorded a break. A break is bad, but the rest
    of the log is still verified. If you expect a head from after the break, you say that you know
    of it: the break is still shown, but only entries after it decide.

    JSON: one object with head, anchor (vault, file, expected), signed_until, vouched_until,
    bad_entry (0: none), problem, and likewise broken_entry, broken (a break) and later_bad_entry,
    later_problem (the first bad entry after it).
    """
    session: Session = ctx.obj
    with session.connect() as backpack, backpack.verify_audit(expect) as answers:
        verdict = _verdict_of(answers)
    if as_json:
        terminal.print_json(_verdict_document(verdict))
    else:
        _tell(verdict)
    code = _exit_code(verdict)
    if code:
        ctx.exit(code)


@audit.command("head")
@click.pass_obj
def head(session: Session) -> None:
    """Show the end of the audit log, to be kept elsewhere. Needs no passphrase.

    With it, `audit verify --expect HEAD` finds that the log was cut or replaced.
    """
    with session.connect() as backpack:
        found = backpack.audit_head()
    if found:
        terminal.print_lines([found])
    else:
        terminal.say("there is no audit log yet")


def _verdict_of(answers: "Iterable[Verifying]") -> "Verdict":
    """Read answers up to the verdict; on a terminal, show a bar if it takes long."""
    drawn = -1
    for answer in answers:
        if answer.verdict is not None:
            if drawn >= 0:
                terminal.say_line("")
            return answer.verdict
        share = _BAR * answer.checked // max(1, answer.total)
        if answer.total >= _PROGRESS_FROM and share != drawn and sys.stderr.isatty():
            drawn = share
            bar = "#" * share + "." * (_BAR - share)
            sys.stderr.write(f"\rverifying [{bar}] {answer.checked} of {answer.total}")
            sys.stderr.flush()
    raise usage("the daemon ended the verification without a verdict", hint="try again")


def _tell(verdict: "Verdict") -> None:
    if verdict.problem:
        terminal.print_lines(
            [
                *(
                    f"BAD: entry {number} {printable(what, 512)}"
                    for number, what in _bad(verdict).items()
                ),
                f"relied on: {_ANCHORS.get(verdict.anchor, 'nothing')}",
            ]
        )
        return
    if not verdict.head:
        terminal.print_lines(["there is no audit log yet"])
        return
    last = _number(verdict.head)
    if verdict.vouched_until < last:
        first = (
            f"consistent, but nothing vouches for entries after {verdict.vouched_until}"
            if verdict.vouched_until
            else "consistent, but nothing vouches for its entries"
        )
        hint = "unlock the vault, or give a head that you kept: audit verify --expect HEAD"
    else:
        first = f"good: all {count(last, 'entry').replace('entrys', 'entries')} are vouched for"
        hint = "keep this head elsewhere, for audit verify --expect HEAD"
    known = f"BREAK, known: entry {verdict.broken_entry} {printable(verdict.broken, 512)}"
    terminal.print_lines(
        [
            first,
            *([known] if verdict.broken else []),
            f"relied on: {_ANCHORS.get(verdict.anchor, 'nothing')}",
            f"signed up to entry {verdict.signed_until}",
            f"head: {verdict.head}",
        ]
    )
    terminal.say(hint)


def _bad(verdict: "Verdict") -> dict[int, str]:
    """Return problems by entry: the first, a break, and the first after the break."""
    found = {
        verdict.bad_entry: verdict.problem,
        verdict.broken_entry: verdict.broken,
        verdict.later_bad_entry: verdict.later_problem,
    }
    return {number: found[number] for number in sorted(found) if found[number]}


def _exit_code(verdict: "Verdict") -> int:
    if verdict.problem:
        return EXIT_FAILED
    last = _number(verdict.head)
    return EXIT_UNVOUCHED if verdict.vouched_until < last else 0


def _when(given: str | None) -> datetime | None:
    """Read a moment: an age such as 2h, or a date in this machine's time zone."""
    if given is None:
        return None
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(given))


def _verdict_document(verdict: "Verdict") -> dict[str, object]:
    return {
        "head": verdict.head,
        "anchor": str(verdict.anchor),
        "signed_until": verdict.signed_until,
        "vouched_until": verdict.vouched_until,
        "bad_entry": verdict.bad_entry,
        "problem": verdict.problem,
        "broken_entry": verdict.broken_entry,
        "broken": verdict.broken,
        "later_bad_entry": verdict.later_bad_entry,
        "later_problem": verdict.later_problem,
    }


COMMANDS = {"audit": audit}
