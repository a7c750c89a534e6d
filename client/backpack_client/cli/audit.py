"""The commands for the audit log: audit show, verify, blame, head."""

import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from backpack_client import terminal
from backpack_client.cli.session import (
    Session,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.durations import parse_duration
from backpack_client.failures import EXIT_FAILED, EXIT_UNVOUCHED, printable, usage

if TYPE_CHECKING:
    from backpack_client.calls.audit import AuditEntry, Verdict, Verifying

_ACT = "operator-act"
_DAMAGED = "damaged"
"""What the daemon tells an entry as whose content is lost, whatever was asked for."""
_BAR = 30
_PROGRESS_FROM = 5000
"""Entries below which verifying is over before a bar could be read."""
_ANCHORS = {
    "vault": "the signing key that is sealed in the vault",
    "file": "the signing key in the vault file, which nothing vouches for until the vault is "
    "unlocked",
    "expected": "the head that was expected",
}


@click.group("audit")
def audit() -> None:
    """Show and verify what happened: who was handed which key, when, and by which grant."""


@audit.command("show")
@click.option("--key", metavar="NAME", default="", help="Only entries that name this key.")
@click.option("--pid", type=int, help="Only entries of this process, or of its process tree.")
@click.option("--event", "events", multiple=True, metavar="EVENT", help="Only these events.")
@click.option("--since", metavar="WHEN", help="Not before: 2h ago as 2h, or 2026-01-31T09:00.")
@click.option("--until", metavar="WHEN", help="Not after, likewise.")
@click.option("--newest", type=click.IntRange(1), metavar="N", help="Only the newest N.")
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
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Show entries of the audit log, oldest first.

    What stands in quotes is what a process said of itself. EVENT is a word of docs/audit.md:
    allowed, denied, put, deleted, granted, wrong-passphrase, ... Any other word is refused.

    Entries that are damaged are shown whatever was asked for; then the answer may miss something,
    and the command ends with 1.

    JSON: one object a line, with number, event, at_ms, actor (null, or uid, pid, executable,
    root_pid, root_executable, unit, terminal, connection, claimed_command), names, lease_id,
    grant_ids, reason, count, details, claimed_reason, generation.
    """
    session: Session = ctx.obj
    begin, end = _when(since), _when(until)
    damaged: list[int] = []
    with session.operator(passphrase_file) as backpack:
        from backpack_client import audit_log  # noqa: PLC0415 - loads grpc, which help does without

        found = audit_log.entries(
            backpack,
            key=key,
            pid=pid,
            events=events,
            since=begin,
            until=end,
            newest=newest or 0,
        )
        rows = []
        for entry in found:
            if entry.event == _DAMAGED:
                damaged.append(entry.number)
            if as_json:
                terminal.print_json_line(_document(entry))
            else:
                rows.append(_row(entry))
    if rows:
        terminal.print_table(("ENTRY", "WHEN", "EVENT", "KEYS", "WHO", "WHAT ELSE"), rows)
    elif not as_json:
        terminal.say("no such entries")
    _warn(ctx, damaged)


@audit.command("blame")
@click.argument("name")
@click.option("--since", metavar="WHEN", help="Not before: 2h ago as 2h, or 2026-01-31T09:00.")
@json_option
@passphrase_option
@click.pass_context
def blame(
    ctx: click.Context, name: str, since: str | None, as_json: bool, passphrase_file: str | None
) -> None:
    """Show every process that was handed the key NAME, when, and by which grant.

    Exports of the vault are among them, by the operator and not by a grant. Where entries of the
    log are damaged the answer may miss something: it says so, and the command ends with 1.

    JSON: as with show.
    """
    session: Session = ctx.obj
    begin = _when(since)
    with session.operator(passphrase_file) as backpack:
        from backpack_client import audit_log  # noqa: PLC0415 - as above

        events = ("allowed", "not-handed-out", _ACT)
        found = list(audit_log.entries(backpack, key=name, events=events, since=begin))
    damaged = [entry.number for entry in found if entry.event == _DAMAGED]
    failed = {entry.lease_id for entry in found if entry.event == "not-handed-out"}
    handed = [
        entry
        for entry in found
        if (entry.event == "allowed" and entry.lease_id not in failed) or entry.event == _ACT
    ]
    if as_json:
        for entry in handed:
            terminal.print_json_line(_document(entry))
    elif handed:
        terminal.print_table(
            ("WHEN", "TO PROCESS", "OF TREE", "BY GRANT", "LEASE", "CLAIMED REASON"),
            [
                (
                    local_time(entry.at),
                    _process(entry.actor.pid, entry.actor.executable) if entry.actor else "",
                    _process(entry.actor.root_pid, entry.actor.root_executable)
                    if entry.actor
                    else "",
                    _basis(entry),
                    entry.lease_id,
                    _claim(entry.claimed_reason),
                )
                for entry in handed
            ],
        )
    elif damaged:
        terminal.say("no entry that can be read tells of a process that was handed this key")
    else:
        terminal.say("no process was handed this key")
    _warn(ctx, damaged)


def _warn(ctx: click.Context, damaged: list[int]) -> None:
    """Say what an answer is worth for which entries could not be read, and end as failed."""
    if not damaged:
        return
    entries = "entry" if len(damaged) == 1 else f"{len(damaged)} entries, the first of them"
    terminal.say(
        f"the audit log is DAMAGED: {entries} {damaged[0]} cannot be read, so this answer may miss "
        "something; see: backpack-client audit verify"
    )
    ctx.exit(EXIT_FAILED)


def _basis(entry: "AuditEntry") -> str:
    if entry.event == _ACT:
        return f"the operator: {printable(entry.reason, 64)}"
    return " ".join(entry.grant_ids) or "the policy's default"


@audit.command("verify")
@click.option(
    "--expect", metavar="HEAD", default="", help="A head that was kept elsewhere must be in it."
)
@json_option
@click.pass_context
def verify(ctx: click.Context, expect: str, as_json: bool) -> None:
    """Verify the whole audit log. Needs no passphrase.

    Ends with 0 when every entry is vouched for, with 1 when an entry is bad (the first is named),
    with 9 when the log is consistent and nothing vouches for the entries after one that is named.
    Heads to expect are in the daemon's journal ("audit head ..."), and in what `audit head` shows.

    Where the vault found its log cut or altered, it has recorded that as a break, which is bad, and
    the rest is judged all the same. With a head to expect from after the break you say that you
    know of it: it is still told, and only what comes after it decides.

    JSON: one object with head, anchor (vault, file, expected), signed_until, vouched_until,
    bad_entry (0: none), problem, and likewise broken_entry, broken (a break) and later_bad_entry,
    later_problem (the first bad entry after it).
    """
    session: Session = ctx.obj
    from backpack_client import audit_log  # noqa: PLC0415 - as above

    with session.connect() as backpack, closing(audit_log.verify(backpack, expect)) as answers:
        verdict = _follow(answers)
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

    `audit verify --expect HEAD` finds from it what was cut or put in place of the log.
    """
    with session.connect() as backpack:
        from backpack_client import audit_log  # noqa: PLC0415 - as above

        found = audit_log.head(backpack)
    if found:
        terminal.print_lines([found])
    else:
        terminal.say("there is no audit log yet")


def _follow(answers: "Iterator[Verifying]") -> "Verdict":
    """Take the answers up to the verdict, with a bar on a terminal where it takes long."""
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
    last = int(verdict.head.partition("-")[0])
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
    """Return what is wrong, by entry: the first, a break, and the first after the break."""
    found = {
        verdict.bad_entry: verdict.problem,
        verdict.broken_entry: verdict.broken,
        verdict.later_bad_entry: verdict.later_problem,
    }
    return {number: found[number] for number in sorted(found) if found[number]}


def _exit_code(verdict: "Verdict") -> int:
    if verdict.problem:
        return EXIT_FAILED
    last = int(verdict.head.partition("-")[0] or 0)
    return EXIT_UNVOUCHED if verdict.vouched_until < last else 0


def _when(given: str | None) -> datetime | None:
    """Read a moment: an age such as 2h, or a date in this machine's time zone."""
    if given is None:
        return None
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(given))


def _row(entry: "AuditEntry") -> tuple[str, ...]:
    event = entry.event if entry.count <= 1 else f"{entry.event} x{entry.count}"
    return (
        str(entry.number),
        "" if entry.event == _DAMAGED else local_time(entry.at),
        event,
        " ".join(entry.names),
        _who(entry),
        _further(entry),
    )


def _who(entry: "AuditEntry") -> str:
    actor = entry.actor
    if actor is None:
        return ""
    tree = f" of tree:{actor.root_pid}" if actor.root_pid not in {0, actor.pid} else ""
    claim = f" {_claim(actor.claimed_command)}" if actor.claimed_command else ""
    return _process(actor.pid, actor.executable) + tree + claim


def _further(entry: "AuditEntry") -> str:
    parts = [entry.reason] if entry.reason else []
    parts += [f"lease {entry.lease_id}"] if entry.lease_id else []
    parts += [f"grant {' '.join(entry.grant_ids)}"] if entry.grant_ids else []
    parts += [f"{name}={told}" for name, told in sorted(entry.details.items()) if told]
    return " ".join([*parts, _claim(entry.claimed_reason)]).strip()


def _process(pid: int, executable: str) -> str:
    return f"{pid} {executable or '(program unknown)'}"


def _claim(claimed: str) -> str:
    return f'"{claimed}"' if claimed else ""


def _document(entry: "AuditEntry") -> dict[str, object]:
    actor = entry.actor
    return {
        "number": entry.number,
        "event": entry.event,
        "at_ms": milliseconds(entry.at),
        "actor": None
        if actor is None
        else {
            "uid": actor.uid,
            "pid": actor.pid,
            "executable": actor.executable,
            "root_pid": actor.root_pid,
            "root_executable": actor.root_executable,
            "unit": actor.unit,
            "terminal": actor.terminal,
            "connection": actor.connection,
            "claimed_command": actor.claimed_command,
        },
        "names": list(entry.names),
        "lease_id": entry.lease_id,
        "grant_ids": list(entry.grant_ids),
        "reason": entry.reason,
        "count": entry.count,
        "details": dict(entry.details),
        "claimed_reason": entry.claimed_reason,
        "generation": entry.generation,
    }


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
