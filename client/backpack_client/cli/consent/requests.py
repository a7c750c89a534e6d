"""The commands for requests that wait for a person: requests, approve, deny."""

from collections.abc import Sequence

import click

from backpack_client.cli.consent import request_view
from backpack_client.cli.consent.request_screen import RequestScreen
from backpack_client.cli.session import (
    Session,
    all_option,
    json_option,
    milliseconds,
    passphrase_option,
)
from backpack_client.console import screen, terminal
from backpack_client.failures import EXIT_FAILED, Failure, from_status, usage
from backpack_client.model import Request

_PROPOSED = 0


@click.command("requests")
@all_option("Every request, and not only those of your process tree")
@click.option(
    "--watch", is_flag=True, help="Keep a live screen of every request, and answer with one key."
)
@json_option
@passphrase_option
@click.pass_obj
def requests(
    session: Session, *, every: bool, watch: bool, as_json: bool, passphrase_file: str | None
) -> None:
    """List the requests that wait for a person.

    Without --all: those of your process tree. What a process says about itself is marked as a
    claim; the daemon has read everything else from the kernel.

    JSON: one object with requests: a list of objects with code, names, claimed_reason, asked_at_ms,
    waiting, and chain: the caller first, then its parent and so on, objects with pid, executable,
    unit, proposed_root, in_tree, may_be_root, claimed_command, now.
    """
    if watch:
        if as_json:
            raise click.UsageError("--watch and --json exclude each other")
        screen.check()
        with session.operator(passphrase_file) as backpack:
            screen.run(
                RequestScreen(backpack),
                lambda: backpack.watch_requests(all=True),
                lambda: session.authorize_again(backpack),
            )
        return
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:
        found = backpack.requests(all=every)
    if as_json:
        terminal.print_json({"requests": [_document(each) for each in found]})
    elif found:
        lines: list[str] = []
        for each in found:
            lines += [request_view.summary(each)]
            facts = request_view.describe(each, request_view.proposed_root(each))
            lines += [f"  {line}" if line else "" for line in facts]
            lines.append("")
        terminal.print_lines(lines[:-1])
        terminal.say("to answer one: backpack-client approve CODE, or deny CODE")
    elif every:
        terminal.say("no requests wait")
    else:
        terminal.say(
            "no request of your process tree waits; every request: backpack-client requests --all"
        )


@click.command("approve")
@click.argument("code", metavar="CODE")
@click.option("--once", is_flag=True, help="Only the calls that wait now.")
@click.option(
    "--tree",
    metavar="[PID]",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=_PROPOSED,
    default=None,
    help="The process tree, until its root ends (the default); with PID: another root.",
)
@click.option("--yes", is_flag=True, help="Do not ask again after the request is shown.")
@passphrase_option
@click.pass_obj
def approve(
    session: Session,
    *,
    code: str,
    once: bool,
    tree: int | None,
    yes: bool,
    passphrase_file: str | None,
) -> None:
    """Allow a request.

    It asks for the passphrase, shows which process asks for which keys, and waits for your yes.
    Without --once, the whole process tree may lease these keys from then on, until its root ends or
    the vault is locked.
    """
    if once and tree is not None:
        raise click.UsageError("--once and --tree exclude each other")
    code = _checked(code)
    with session.operator(passphrase_file) as backpack:
        request = _find(backpack.requests(all=True), code)
        root = _root(request, tree)
        _show(request, root)
        if once:
            terminal.say(f"if approved: once, for the waiting calls of process {root}'s tree")
        else:
            terminal.say(f"if approved: {request_view.scope(request, root)}")
        if not yes and not terminal.confirm("approve?"):
            raise Failure("nothing was approved", exit_code=EXIT_FAILED, reason="not-confirmed")
        approved = backpack.approve(
            request.code, once=once, root=root or None, revision=request.revision
        )
    how = "once" if once else "for the tree"
    _say_names(f"approved {how} of process {approved}: ", request)


@click.command("deny")
@click.argument("code", metavar="CODE")
@click.option("--yes", is_flag=True, help="Do not ask again after the request is shown.")
@passphrase_option
@click.pass_obj
def deny(session: Session, code: str, yes: bool, passphrase_file: str | None) -> None:
    """Refuse a request.

    While the process tree lives, you are not asked again about it and these keys.
    """
    code = _checked(code)
    with session.operator(passphrase_file) as backpack:
        request = _find(backpack.requests(all=True), code)
        _show(request, request_view.proposed_root(request))
        if not yes and not terminal.confirm("deny?"):
            raise Failure("nothing was denied", exit_code=EXIT_FAILED, reason="not-confirmed")
        backpack.deny(request.code)
    _say_names("denied: ", request)


def _checked(code: str) -> str:
    from backpack_client.calls.fields import checked_code  # noqa: PLC0415 - loads protobuf

    # Report a mistake in the argument before asking for the passphrase.
    return checked_code(code)


def _find(pending: Sequence[Request], code: str) -> Request:
    for request in pending:
        if request.code == code:
            return request
    raise from_status(
        "NOT_FOUND", "no-such-request", "no such request: it was answered, or has ended", {}
    )


def _root(request: Request, tree: int | None) -> int:
    proposed = request_view.proposed_root(request)
    if tree is None or tree in (_PROPOSED, proposed):
        return proposed
    if tree not in request_view.possible_roots(request):
        _show(request, proposed)
        raise usage(
            f"process {tree} cannot be the root of this request", hint="choose one that is shown"
        )
    return tree


def _show(request: Request, root: int) -> None:
    terminal.say_line(f"request {request_view.summary(request)}")
    for line in request_view.describe(request, root):
        terminal.say_line(line)


def _say_names(start: str, request: Request) -> None:
    for line in request_view.packed(start, request.names):
        terminal.say_line(line)


def _document(request: Request) -> dict[str, object]:
    return {
        "code": request.code,
        "names": list(request.names),
        "claimed_reason": request.claimed_reason,
        "asked_at_ms": milliseconds(request.asked_at),
        "waiting": request.waiting,
        "chain": [
            {
                "pid": process.pid,
                "executable": process.executable,
                "unit": process.unit,
                "proposed_root": process.proposed_root,
                "in_tree": process.in_tree,
                "may_be_root": process.may_be_root,
                "claimed_command": process.claimed_command,
                "now": process.now,
            }
            for process in request.chain
        ],
    }


COMMANDS = {command.name: command for command in (requests, approve, deny)}
