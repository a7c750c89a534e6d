"""The command that runs many commands for one passphrase: operate.

It opens one connection, authorizes it, and runs the commands that are typed at its prompt on that
connection. A command does and prints the same as on the command line.

Typed lines are kept in memory only, and only if the command line could read them: a value that was
typed or pasted by mistake does not come back with the arrow keys.
"""

import contextlib
import glob
import shlex
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import click

from backpack_client.cli.session import Session, passphrase_option
from backpack_client.console import inputs, terminal
from backpack_client.durations import format_duration
from backpack_client.failures import (
    EXIT_DENIED,
    EXIT_DONE,
    EXIT_USAGE,
    Failure,
    from_status,
    usage,
)

try:
    import readline
except ImportError:
    # Without it there is still a prompt, but no completion and no history.
    readline = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from backpack_client.api import Backpack

IDLE_SECONDS = 300.0
"""How long the prompt waits for a line, in seconds: as long as operator authority lasts."""
PROMPT = "backpack> "

_LEAVE = frozenset({"exit", "quit"})
_PROGRAM = "backpack-client"
_LINE_LIMIT = 64 * 1024


@click.command("operate")
@passphrase_option
@click.pass_context
def operate(ctx: click.Context, passphrase_file: str | None) -> None:
    """Type the passphrase once, then enter commands at a prompt.

    Every command of backpack-client works, without its first word: put NAME, approve CODE, audit
    show. Tab completes, the arrow keys bring lines back, Ctrl-C drops a line. help lists the
    commands. exit or Ctrl-D ends it, and so do five minutes without a line. Operator authority ends
    after five minutes: you are then asked for the passphrase again. get, run, start and stop do not
    work here.

    While the prompt is open, every program that can type into this terminal (tmux send-keys, for
    one) can enter commands as you. Leave it as soon as you are done.

    If standard input is not a terminal, the commands are read from it, one on each line. The first
    command that fails ends it, with that command's exit code.
    """
    session: Session = ctx.obj
    if passphrase_file == inputs.STANDARD_INPUT:
        raise usage("standard input holds the commands", hint="keep the passphrase in a file")
    if sys.stdin is None:
        raise usage("standard input is closed", hint="run it in a terminal, or pipe commands in")
    source: _Source = _Keyboard(session) if sys.stdin.isatty() else _Script(sys.stdin)
    with session.operator(passphrase_file) as backpack, session.share(backpack), source:
        code = _serve(session, backpack, source)
    if code != EXIT_DONE:
        ctx.exit(code)


class _Source(Protocol):
    """Where lines come from.

    Attributes:
        typed: whether a person types them. A person can be asked and can try again.
    """

    typed: bool

    def __enter__(self) -> object:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def line(self) -> str | None:
        """Return the next line; None at the end."""

    def keep(self, line: str) -> None:
        """Keep a line for the arrow keys."""


def _serve(session: Session, backpack: "Backpack", source: _Source) -> int:
    """Run commands until there are no more, and return the exit code of the whole.

    Raises:
        Failure: the daemon is gone, or operator authority has ended and nobody renewed it.
    """
    while True:
        try:
            with _bounded(IDLE_SECONDS):
                line = source.line()
        except _IdleError:
            return _left_idle(source)
        except KeyboardInterrupt:
            if not source.typed:
                raise
            # The terminal has shown ^C: the next prompt begins on a line of its own.
            terminal.say("")
            continue
        if line is None or line.strip() in _LEAVE:
            return EXIT_DONE
        code = _carry_out(session, backpack, source, line)
        if code != EXIT_DONE and not source.typed:
            return code
        if code != EXIT_USAGE:
            source.keep(line)
        if backpack.status().state != "unlocked":
            terminal.say("the vault is locked, and operator authority has ended")
            return EXIT_DONE


def _carry_out(session: Session, backpack: "Backpack", source: _Source, line: str) -> int:
    """Run one line, and return its exit code."""
    from backpack_client.cli.main import INTERRUPTED, main  # noqa: PLC0415 - main loads this file

    try:
        words = _words(line)
    except Failure as failure:
        terminal.show_failure(failure)
        return failure.exit_code
    if not words:
        return EXIT_DONE
    try:
        _ensure_authority(session, backpack, source)
    except KeyboardInterrupt:
        return INTERRUPTED
    return main(words, session)


def _words(line: str) -> list[str]:
    """Split a line into words as a shell does.

    Raises:
        Failure: a usage failure: a quote is not closed, or there are several lines in one.
    """
    if "\n" in line.strip():
        # A terminal delivers pasted lines as one line, although each is a command.
        raise usage("that is more than one line", hint="paste one command at a time")
    if line.lstrip().startswith("#"):
        return []
    try:
        words = shlex.split(line)
    except ValueError:
        raise usage("a quote is not closed", hint="write it as for a shell") from None
    if words[:1] == [_PROGRAM]:
        # The hints in messages begin with it.
        del words[0]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return words


def _ensure_authority(session: Session, backpack: "Backpack", source: _Source) -> None:
    """Ask for the passphrase again if operator authority has ended and a person is there.

    Raises:
        Failure: nobody is there, the passphrase was wrong three times, or the vault is locked.
    """
    status = backpack.status()
    if status.authorized_until is not None:
        return
    if status.state != "unlocked":
        raise from_status("FAILED_PRECONDITION", "locked", "the vault is locked", {})
    if not source.typed:
        raise Failure(
            "operator authority has ended after five minutes",
            exit_code=EXIT_DENIED,
            reason="not-authorized",
            hint="the commands before this one were run: start again with this one",
        )
    session.authorize_again(backpack)


def _left_idle(source: _Source) -> int:
    """Report that nothing was entered for too long, and return the exit code."""
    waited = f"nothing was entered for {format_duration(IDLE_SECONDS)}"
    if not source.typed:
        raise Failure(waited, reason="idle", hint="the commands before that were run")
    # The cursor is still on the prompt's line.
    terminal.say(f"\n{waited}: operator authority is given up")
    return EXIT_DONE


class _Keyboard:
    """Lines that a person types at the prompt, with completion and history if readline exists."""

    typed = True

    def __init__(self, session: Session) -> None:
        if sys.stdout is None or not sys.stdout.isatty():
            raise usage("the prompt needs a terminal for its output", hint="or pipe commands in")
        self._session = session
        self._found: list[str] = []

    def __enter__(self) -> Self:
        if readline is not None:
            # readline would keep every line, also one with a value pasted by mistake.
            readline.set_auto_history(False)
            readline.set_completer(self._complete)
            readline.set_completer_delims(" \t")
            libedit = "libedit" in (readline.__doc__ or "")
            readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        terminal.say("help lists the commands; exit or Ctrl-D leaves")
        return self

    def __exit__(self, *_: object) -> None:
        if readline is not None:
            readline.clear_history()
            readline.set_completer(None)

    def line(self) -> str | None:
        """Ask for the next line."""
        try:
            return input(PROMPT)
        except EOFError:
            terminal.say("")
            return None
        except UnicodeDecodeError:
            return ""

    def keep(self, line: str) -> None:
        """Keep a line for the arrow keys."""
        if line.strip() and readline is not None:
            readline.add_history(line)

    def _complete(self, word: str, number: int) -> str | None:
        if not number:
            assert readline is not None, "it is what completes"
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._found = completions(self._session, before, word)
        return self._found[number] if number < len(self._found) else None


class _Script:
    """Lines from standard input, which no command can read."""

    typed = False

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def __enter__(self) -> Self:
        sys.stdin = None
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdin = self._lines

    def line(self) -> str | None:
        """Read the next line."""
        try:
            line = self._lines.readline(_LINE_LIMIT)
        except UnicodeDecodeError:
            raise usage("the commands are not UTF-8 text", hint="") from None
        except OSError as error:
            raise usage(f"cannot read the commands: {inputs.why(error)}", hint="") from None
        if len(line) == _LINE_LIMIT:
            raise usage("a line of the commands is too long", hint="")
        return line or None

    def keep(self, line: str) -> None:
        """Keep nothing."""


def completions(session: Session, before: str, word: str) -> list[str]:
    """Return the completions of a word: commands, options, and names of files.

    Args:
        session: the session of `operate`.
        before: the line up to the word.
        word: the typed part of the word.
    """
    from click.shell_completion import ShellComplete  # noqa: PLC0415 - only for completion

    from backpack_client.cli.main import commands  # noqa: PLC0415 - main loads this file

    try:
        words = _words(before)
    except Failure:
        return []
    found = []
    shell = ShellComplete(commands, {"obj": session}, _PROGRAM, "")
    for item in shell.get_completions(words, word):
        if item.type == "file":
            found += [shlex.quote(path) for path in glob.glob(f"{glob.escape(word)}*")]  # noqa: PTH207 - as typed
        else:
            found.append(f"{item.value} ")
    return found


class _IdleError(Exception):
    """Nothing was entered for too long."""


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise `_IdleError` inside the block after some seconds."""
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise _IdleError


COMMANDS = {"operate": operate}
