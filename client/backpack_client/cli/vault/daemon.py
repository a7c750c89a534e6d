"""The commands for the daemon: start, stop."""

import click

from backpack_client.cli.session import Session
from backpack_client.console import terminal
from backpack_client.failures import INIT_HINT, UNLOCK_HINT


@click.command("start")
@click.pass_obj
def start(session: Session) -> None:
    """Start the daemon.

    systemd starts it if its user unit is installed. Otherwise it runs in the background, with its
    log in the vault's home.
    """
    from backpack_client.cli import daemon_control  # noqa: PLC0415 - loads grpc, which help does without

    daemon = session.daemon
    how = None if daemon_control.runs(daemon) else daemon_control.start(daemon)
    with session.connect() as backpack:
        answer = backpack.status()
    if how is None:
        terminal.say(f"the daemon already runs (pid {answer.daemon_pid})")
    else:
        terminal.say(f"the daemon is started: {how}")
    if answer.state == "uninitialized":
        terminal.say(f"there is no vault yet; {INIT_HINT}")
    elif answer.state == "locked":
        terminal.say(f"the vault is locked; {UNLOCK_HINT}")


@click.command("stop")
@click.pass_obj
def stop(session: Session) -> None:
    """Stop the daemon. Every lease ends and the vault is locked."""
    from backpack_client.cli import daemon_control  # noqa: PLC0415 - loads grpc, which help does without

    daemon = session.daemon
    if not daemon_control.runs(daemon):
        terminal.say("no daemon runs: there is nothing to stop")
        return
    daemon_control.stop(daemon)
    terminal.say("the daemon is stopped")


def ensure(session: Session, no_start: bool) -> None:
    """Start the daemon if none runs, unless that was forbidden."""
    from backpack_client.cli import daemon_control  # noqa: PLC0415 - loads grpc, which help does without

    daemon = session.daemon
    if no_start or daemon_control.runs(daemon):
        return
    terminal.say(f"the daemon is started: {daemon_control.start(daemon)}")


COMMANDS = {command.name: command for command in (start, stop)}
