"""The command `backpack-client` as a whole: its commands by name, and how each of them ends.

A command's file is loaded when the command is used. Shell completion is click's: put the output of
`_BACKPACK_CLIENT_COMPLETE=bash_source backpack-client` (or zsh_source, fish_source) into a file
that the shell reads at start.
"""

import os
from collections.abc import Sequence
from importlib import import_module

import click

from backpack_client import __version__
from backpack_client.cli.session import FILE_NAME, Session
from backpack_client.console import terminal
from backpack_client.failures import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_USAGE,
    Failure,
    no_thread,
    of_system,
    printable,
    usage,
)

PROGRAM = "backpack-client"

INTERRUPTED = 130
_GROUPS = {
    "Start here": {
        "init": "vault.vault",
        "unlock": "vault.vault",
        "status": "vault.vault",
        "operate": "operate",
    },
    "Keys": {
        "put": "keys.keys",
        "import": "keys.keys",
        "list": "keys.keys",
        "get": "keys.get",
        "delete": "keys.keys",
    },
    "Agents": {"run": "agents.run", "agent": "agents.agent", "identity": "vault.identity"},
    "Answer requests, and allow beforehand": {
        "requests": "consent.requests",
        "approve": "consent.requests",
        "deny": "consent.requests",
        "grant": "consent.grants",
        "grants": "consent.grants",
        "ungrant": "consent.grants",
        "policy": "consent.policy",
    },
    "See what is handed out, and what happened": {
        "leases": "keys.leases",
        "watch": "keys.leases",
        "audit": "audit.audit",
    },
    "Stop it": {"revoke": "keys.leases", "lock": "vault.vault", "panic": "vault.panic"},
    "Take care of the vault": {
        "passwd": "vault.vault",
        "slots": "vault.slots",
        "add-slot": "vault.slots",
        "remove-slot": "vault.slots",
        "recover": "vault.recovery",
        "rotate": "vault.slots",
        "export": "vault.backup",
        "import-vault": "vault.backup",
    },
    "Run the daemon": {"start": "vault.daemon", "stop": "vault.daemon"},
}
"""The commands in the order in which a new user meets them, each with its file."""
_HOMES = {name: home for group in _GROUPS.values() for name, home in group.items()}
_OUTSIDE = frozenset({"get", "run", "start", "stop", "operate"})
"""Commands that do not work in `operate`: they need their own process or connection."""
_NO_THREAD = "can't start new thread"
_NAME_COLUMN = max(map(len, _HOMES))
_SUMMARY_LIMIT = 200


class _Commands(click.Group):
    """Loads each command from its file when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which a new user meets them."""
        return [name for name in _HOMES if not (_within_operate(ctx) and name in _OUTSIDE)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, grouped by what people want to do."""
        listed = self.list_commands(ctx)
        for title, group in _GROUPS.items():
            rows = [
                (name.ljust(_NAME_COLUMN), command.get_short_help_str(_SUMMARY_LIMIT))
                for name in group
                if name in listed and (command := self.get_command(ctx, name)) is not None
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Load one command; None if there is none of that name."""
        if cmd_name not in _HOMES:
            return None
        theme = import_module(f"backpack_client.cli.{_HOMES[cmd_name]}")
        command = theme.COMMANDS[cmd_name]
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; if there is none, name those that look like it.

        Raises:
            UsageError: there is none, or `operate` does not take it.
        """
        if not ctx.resilient_parsing and args:
            if args[0] not in _HOMES:
                raise click.UsageError(_unknown(args[0]), ctx)
            if _within_operate(ctx) and args[0] in _OUTSIDE:
                raise click.UsageError(
                    f"{args[0]} needs its own process: run it outside of operate", ctx
                )
        return super().resolve_command(ctx, args)


def _within_operate(ctx: click.Context) -> bool:
    return isinstance(ctx.obj, Session) and ctx.obj.shared


def _unknown(typed: str) -> str:
    import difflib  # noqa: PLC0415 - only for mistyped commands

    if "=" in typed:
        # It may be NAME=VALUE, meant for put: the error must not repeat the value.
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
    """Lease keys to your agents, from a daemon that alone holds the keys.

    First steps: run init, then put NAME. An agent runs get NAME and shows a CODE: run approve CODE.
    COMMAND --help explains a command.
    """
    if ctx.obj is None:
        ctx.obj = Session(os.environ, socket)
    elif socket is not None:
        raise click.UsageError("--socket must be given before operate")


def main(argv: Sequence[str], session: Session | None = None) -> int:
    """Run one command, and write every failure to standard error.

    Args:
        argv: the arguments, without the program's name.
        session: the session of `operate` that runs the command; None: a new one.

    Returns:
        The exit code.
    """
    terminal.forgive_characters()
    try:
        code = commands.main(args=list(argv), prog_name=PROGRAM, standalone_mode=False, obj=session)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (click.ClickException, Failure, OSError, UnicodeError) as error:
        return _complain(error)
    except RuntimeError as error:
        # What Python makes of a thread that the system refuses, whatever the error was.
        if _NO_THREAD not in str(error):
            raise
        return _complain(no_thread())
    except SystemExit as exit_:
        # Completion ends like this, and so does writing to a pipe without a reader.
        return exit_.code if isinstance(exit_.code, int) else EXIT_FAILED
    return code if isinstance(code, int) else EXIT_DONE


def _complain(error: click.ClickException | Failure | OSError | UnicodeError) -> int:
    """Say why a command failed; return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        terminal.say(error.format_message())
        return EXIT_USAGE
    if isinstance(error, BrokenPipeError):
        return EXIT_FAILED
    failure = _failure_of(error)
    terminal.show_failure(failure)
    return failure.exit_code


def _failure_of(error: click.ClickException | Failure | OSError | UnicodeError) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, click.UsageError):
        return _usage_failure(error)
    if isinstance(error, click.ClickException):
        return Failure(printable(error.format_message(), 256))
    if isinstance(error, UnicodeError):
        # Its text is what could not be read, and may be a value.
        return usage("something that was given is not UTF-8 text", hint="")
    # click itself writes the help and completions, and the output may have no room.
    return of_system(error)


def _usage_failure(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    message = printable(error.format_message(), 256).rstrip(".")
    if "unexpected extra argument" in message:
        # click repeats the arguments, and one of them may be a passphrase or a value.
        message = "too many arguments"
    return usage(message[:1].lower() + message[1:], hint=f"see: {path} --help")
