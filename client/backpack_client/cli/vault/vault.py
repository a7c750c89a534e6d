"""The commands for the vault: init, unlock, lock, status, passwd."""

import os
import shlex
from pathlib import Path

import click

from backpack_client import __version__, address
from backpack_client.cli.session import (
    FILE_NAME,
    Session,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
    seconds_until,
)
from backpack_client.cli.vault.daemon import ensure
from backpack_client.cli.vault.shown_once import keep_drawn
from backpack_client.console import terminal
from backpack_client.console.inputs import why
from backpack_client.durations import format_duration
from backpack_client.failures import INIT_HINT, UNLOCK_HINT, Failure, from_status, printable
from backpack_client.fastpath import ending
from backpack_client.model import VaultStatus
from backpack_client.wire import Unknown

_no_start_option = click.option(
    "--no-start", is_flag=True, help="Fail when no daemon runs, instead of starting one."
)
_WEAK = "weak-passphrase"


@click.command("init")
@passphrase_option
@_no_start_option
@click.option(
    "--recovery-code-file",
    metavar="FILE",
    help="Write the recovery code into the new FILE, instead of showing it on the terminal.",
)
@click.option("--no-recovery-code", is_flag=True, help="Make no recovery code.")
@click.pass_obj
def init(
    session: Session,
    *,
    passphrase_file: str | None,
    no_start: bool,
    recovery_code_file: str | None,
    no_recovery_code: bool,
) -> None:
    """Make a new vault, and leave it unlocked.

    Starts the daemon if none runs. Then asks twice for a passphrase of at least 12 characters, and
    shows a recovery code once. If you lose the passphrase, the code is the only way in: keep it on
    paper.
    """
    if recovery_code_file is not None and no_recovery_code:
        raise click.UsageError("--recovery-code-file and --no-recovery-code exclude each other")
    recovery = not no_recovery_code and (recovery_code_file is not None or terminal.has_terminal())
    ensure(session, no_start)
    with session.connect() as backpack:
        status = backpack.status()
        session.note_version(status)
        _check_home(session, status)
        if status.state != "uninitialized":
            # Before anybody chooses a passphrase in vain. The daemon checks the same again.
            raise from_status(
                "FAILED_PRECONDITION", "already-initialized", "there is a vault already", {}
            )
        keep_drawn(
            recovery_code_file,
            lambda: terminal.retyping(
                _WEAK,
                passphrase_file,
                lambda: backpack.init(
                    terminal.new_passphrase("new passphrase", passphrase_file), recovery=recovery
                ),
            ),
            str,
            "recovery code",
        )
    _record_home()
    if not recovery and not no_recovery_code:
        terminal.say(
            "there is no recovery code, because there is no terminal to show it on; to add one: "
            "backpack-client add-slot --kind recovery"
        )
    terminal.say(
        "the vault is made and unlocked\n"
        "next, store a key:      backpack-client put OPENAI_API_KEY\n"
        "or all of a .env file:  backpack-client import .env"
    )


def _check_home(session: Session, status: VaultStatus) -> None:
    """Raise if this terminal's variables mean another vault than the daemon's.

    Raises:
        Failure: `other-vault`, with both.
    """
    own = session.daemon.home
    theirs = status.home
    if not theirs or not Path(own, address.VAULT_NAME).exists():
        return
    if Path(own).resolve() != Path(theirs).resolve():
        raise Failure(
            f"the daemon at {printable(session.daemon.socket, 256)} has its vault in "
            f"{printable(theirs, 256)}, and there is another vault in {printable(own, 256)}",
            reason="other-vault",
            hint=f"for the daemon's vault: BACKPACK_HOME={shlex.quote(theirs)}; for the other one: "
            "stop that daemon first with backpack-client stop",
        )


def _record_home() -> None:
    try:
        address.record_home(os.environ)
    except OSError as error:
        terminal.say(
            f"note: other terminals may look for the vault elsewhere ({why(error)}): set "
            "BACKPACK_HOME there"
        )


@click.command("unlock")
@passphrase_option
@_no_start_option
@click.option(
    "--accept-older-vault",
    is_flag=True,
    help="Unlock a vault that is older than its audit log: an older copy was put back on purpose.",
)
@click.pass_obj
def unlock(
    session: Session, *, passphrase_file: str | None, no_start: bool, accept_older_vault: bool
) -> None:
    """Unlock the vault, so that keys can be leased. Starts the daemon when none runs.

    A vault that is older than its audit log is refused: somebody may have put back an older copy to
    bring back deleted keys, ended grants or an old passphrase. If you did it yourself, say so with
    --accept-older-vault. The audit log records that you did.
    """
    ensure(session, no_start)
    with session.connect() as backpack:
        status = backpack.status()
        session.note_version(status)
        _check_home(session, status)
        if status.state == "uninitialized":
            raise from_status("FAILED_PRECONDITION", "uninitialized", "there is no vault yet", {})
        terminal.right_passphrase(
            "passphrase",
            passphrase_file,
            lambda typed: backpack.unlock(typed, accept_older=accept_older_vault),
        )
    already = status.state == "unlocked"
    terminal.say("the vault was already unlocked" if already else "the vault is unlocked")


@click.command("lock")
@click.pass_obj
def lock(session: Session) -> None:
    """Lock the vault and end every lease. Needs no passphrase."""
    try:
        ended = ending.lock(session.socket)
    except Unknown:
        with session.connect() as backpack:
            ended = backpack.lock()
    terminal.say(f"the vault is locked; {count(ended, 'lease')} ended")


@click.command("status")
@json_option
@click.pass_obj
def status(session: Session, as_json: bool) -> None:
    """Show the state of vault and daemon.

    Also shows which protections are on, and which process tree you belong to.

    JSON: one object with state (uninitialized, locked, unlocked), socket, home, client_version,
    daemon_version, daemon_pid, supervised, started_at_ms, tree_pid (the root of your process tree),
    leases_of_tree, slots (the kinds that there are), recovery_drilled_at_ms (null: never, or not
    known while locked), audit_broken_at_ms (null: the log was not found cut or altered since the
    daemon's start), and protections: a list of objects with name, on, detail.
    """
    with session.connect() as backpack:
        answer = backpack.status()
    session.note_version(answer)
    socket = session.daemon.socket
    if as_json:
        terminal.print_json(
            {
                "state": str(answer.state),
                "socket": socket,
                "home": answer.home,
                "client_version": __version__,
                "daemon_version": answer.daemon_version,
                "daemon_pid": answer.daemon_pid,
                "supervised": answer.supervised,
                "started_at_ms": milliseconds(answer.started_at),
                "tree_pid": answer.tree_pid,
                "leases_of_tree": answer.leases_of_tree,
                "slots": list(answer.slot_kinds),
                "recovery_drilled_at_ms": milliseconds(answer.recovery_drilled_at),
                "audit_broken_at_ms": milliseconds(answer.audit_broken_at),
                "protections": [
                    {"name": each.name, "on": each.on, "detail": each.detail}
                    for each in answer.protections
                ],
            }
        )
        return
    keeper = "run by the service manager" if answer.supervised else "started by hand"
    age = format_duration(-seconds_until(answer.started_at))
    lines = [
        f"vault      {answer.state}",
        f"daemon     version {answer.daemon_version}, pid {answer.daemon_pid}, {keeper}",
        f"           up for {age}, since {local_time(answer.started_at)}",
        f"socket     {socket}",
        f"home       {answer.home}",
        f"your tree  {_tree(answer)}",
    ]
    width = max((len(each.name) for each in answer.protections), default=0)
    for number, each in enumerate(answer.protections):
        title = "" if number else "protected"
        mark = "on " if each.on else "OFF"
        lines.append(f"{title:<10} {mark} {each.name.ljust(width)}  {each.detail}".rstrip())
    lines += _slot_lines(answer)
    if answer.audit_broken_at:
        at = local_time(answer.audit_broken_at)
        lines.append(f"audit log  was CUT OR ALTERED, as found {at}: see audit verify")
    terminal.print_lines(lines)
    if answer.state == "uninitialized":
        terminal.say(f"to make a vault, {INIT_HINT}")
    elif answer.state == "locked":
        terminal.say(f"to lease keys, {UNLOCK_HINT}")


@click.command("passwd")
@passphrase_option
@click.option(
    "--new-passphrase-file",
    metavar="FILE",
    type=FILE_NAME,
    help="Read the new passphrase from FILE, or - for standard input, instead of asking.",
)
@click.pass_obj
def passwd(session: Session, passphrase_file: str | None, new_passphrase_file: str | None) -> None:
    """Change the passphrase. Keys, grants and leases stay as they are."""
    terminal.check_standard_input(passphrase_file, new_passphrase_file)
    with session.connect() as backpack:
        state = backpack.status().state
        if state == "uninitialized":
            raise from_status("FAILED_PRECONDITION", "uninitialized", "there is no vault yet", {})
        if state == "locked":
            raise from_status("FAILED_PRECONDITION", "locked", "the vault is locked", {})
        # Check the passphrase alone first, before anybody chooses a new one in vain.
        current = terminal.right_passphrase(
            "current passphrase", passphrase_file, backpack.authorize
        )
        terminal.retyping(
            _WEAK,
            new_passphrase_file,
            lambda: backpack.change_passphrase(
                current,
                terminal.new_passphrase(
                    "new passphrase", new_passphrase_file, "--new-passphrase-file"
                ),
            ),
        )
    terminal.say("the passphrase is changed; only the new one opens that slot")


def _slot_lines(answer: VaultStatus) -> list[str]:
    if not answer.slot_kinds:
        return []
    lines = [f"slots      {', '.join(answer.slot_kinds)}"]
    if "recovery" in answer.slot_kinds and answer.state == "unlocked":
        at = answer.recovery_drilled_at
        proven = f"last proven {local_time(at)}" if at else "never proven: recover --drill does it"
        lines.append(f"           recovery code {proven}")
    if {"file", "environment"} & set(answer.slot_kinds):
        lines.append("           every program of yours can open this vault")
    return lines


def _tree(answer: VaultStatus) -> str:
    if answer.tree_pid == os.getpid():
        # A shell is never part of a tree, so this command is its own tree, and about to end.
        return "this command alone; each command in a shell is its own tree"
    return f"tree:{answer.tree_pid}, {count(answer.leases_of_tree, 'live lease')}"


COMMANDS = {command.name: command for command in (init, unlock, lock, status, passwd)}
