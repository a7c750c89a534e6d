"""The command `backpack-client` as a whole: its commands by name, and how every one of them ends.

A command's file is loaded when the command is used. Shell completion is click's: put the output of
`_BACKPACK_CLIENT_COMPLETE=bash_source backpack-client` (or zsh_source, fish_source) into a file
that the shell reads at start.
"""

import os
from collections.abc import Sequence
from importlib import import_module

import click

from backpack_client import __version__, terminal
from backpack_client.cli.session import FILE_NAME, Session
from backpack_client.failures import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, Failure, printable, usage

PROGRAM = "backpack-client"

_INTERRUPTED = 130
_HOMES = {
    "init": "vault",
    "unlock": "vault",
    "lock": "vault",
    "status": "vault",
    "passwd": "vault",
    "start": "daemon",
    "stop": "daemon",
    "put": "keys",
    "import": "keys",
    "list": "keys",
    "get": "get",
    "delete": "keys",
    "run": "run",
    "grant": "grants",
    "grants": "grants",
    "ungrant": "grants",
    "requests": "requests",
    "approve": "requests",
    "deny": "requests",
    "policy": "policy",
    "leases": "leases",
    "revoke": "leases",
    "watch": "leases",
    "panic": "panic",
    "agent": "agent",
    "identity": "identity",
    "slots": "slots",
    "add-slot": "slots",
    "remove-slot": "slots",
    "rotate": "slots",
    "recover": "recovery",
    "export": "backup",
    "import-vault": "backup",
    "audit": "audit",
}


class _Commands(click.Group):
    """Finds each command in its file, when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the commands in the order in which somebody new meets them."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Load one command; None for a name that is none."""
        if cmd_name not in _HOMES:
            return None
        theme = import_module(f"backpack_client.cli.{_HOMES[cmd_name]}")
        command = theme.COMMANDS[cmd_name]
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; for one that is none, name those that look like it."""
        if not ctx.resilient_parsing and args and args[0] not in _HOMES:
            raise click.UsageError(_unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)


def _unknown(typed: str) -> str:
    import difflib  # noqa: PLC0415 - only for what was mistyped

    if "=" in typed:
        # NAME=VALUE, perhaps, for put.
        return "no such command"
    message = f"no such command: {printable(typed, 64)}"
    close = difflib.get_close_matches(typed, _HOMES)
    return f"{message}; did you mean {' or '.join(close)}?" if close else message


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        terminal.print_lines([f"{PROGRAM} {__version__}"])
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 locked or uninitialized, 4 no such key, "
    "5 denied, 6 still waiting for approval, 7 no daemon, 8 wrong passphrase, "
    "9 consistent but not vouched for.",
)
@click.option(
    "--socket",
    metavar="PATH",
    type=FILE_NAME,
    help="The daemon's socket (default: BACKPACK_SOCKET).",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version.",
)
@click.pass_context
def commands(ctx: click.Context, socket: str | None) -> None:
    """Lease keys to your agents, from a daemon that alone holds them.

    First steps: init, then put NAME, then in the agent: get NAME, and approve the CODE it shows.
    """
    ctx.obj = Session(os.environ, socket)


def main(argv: Sequence[str]) -> int:
    """Run one command; every failure goes to standard error.

    Args:
        argv: the arguments, without the program's name.

    Returns:
        The exit code.
    """
    try:
        code = commands.main(args=list(argv), prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        return _complain(error)
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except Failure as failure:
        terminal.show_failure(failure)
        return failure.exit_code
    except OSError as error:
        # click writes the help and what completes a word by itself, and output may have no room.
        if not isinstance(error, BrokenPipeError):
            why = os.strerror(error.errno or 0).lower()
            terminal.show_failure(Failure(f"cannot read or write: {why}", reason="io-failed"))
        return EXIT_FAILED
    except SystemExit as exit_:
        # Completion ends like this, and so does writing to a pipe that nobody reads any more.
        return exit_.code if isinstance(exit_.code, int) else EXIT_FAILED
    return code if isinstance(code, int) else EXIT_DONE


def _complain(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        terminal.say(error.format_message())
        return EXIT_USAGE
    if isinstance(error, click.UsageError):
        terminal.show_failure(_usage_failure(error))
        return EXIT_USAGE
    terminal.show_failure(Failure(printable(error.format_message(), 256)))
    return EXIT_FAILED


def _usage_failure(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    message = printable(error.format_message(), 256).rstrip(".")
    if "unexpected extra argument" in message:
        # click repeats them, and what stands there may well be a passphrase or a value.
        message = "too many arguments"
    return usage(message[:1].lower() + message[1:], hint=f"see: {path} --help")
