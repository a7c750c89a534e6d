"""All prompting and printing of the command line, except the values that `get` prints.

Its rules:

1. Standard output carries the requested output: listings and JSON here, values in
   `fastpath.output`. Everything else goes to standard error, so that output can be piped.
2. A passphrase is typed on the controlling terminal (/dev/tty) without echo. It is read from
   standard input only with `--passphrase-file -`, and never taken from an argument or the
   environment, where other programs could read it.
3. Before a passphrase or a value is read, this process makes itself undumpable: from then on no
   other process of the user can attach, open its memory or take a descriptor of it, and no core
   file holds what it read. This does not undo earlier opens: a process of the user that opened
   `/proc/PID/mem` between the start of this process and that moment can still read.
4. A new passphrase must be typed twice. After a wrong passphrase, the person may type again, up to
   three times in all.
5. Text from outside (names in a file, paths, reasons, anything from the daemon) is escaped: it
   cannot move the cursor, forge a line or reorder what is read. If it is wider than the terminal,
   it continues after a mark, so that no padding makes it look like a line of ours.
6. Colours, boxes and a pager appear only if standard output is a terminal. Otherwise the output is
   aligned plain text. NO_COLOR turns colours off (https://no-color.org).
"""

import contextlib
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeVar

from backpack_client import process_protection
from backpack_client.console import typed
from backpack_client.console.inputs import (
    PASSPHRASE_LIMIT,
    STANDARD_INPUT,
    passphrase_file,
    why,
    without_mark,
)
from backpack_client.console.line_folding import fold
from backpack_client.failures import Failure, printable, usage, waiting_notice

Result = TypeVar("Result")

# The daemon's rule, shown before anybody types. The daemon alone decides what else is weak.
PASSPHRASE_CHARACTERS = 12

LINE_LIMIT = 1024
_CELL_LIMIT = 256
_QUESTION_LIMIT = 512
_ANSWER_LIMIT = 16 * 1024
_ATTEMPTS = 3


def forgive_characters() -> None:
    """Have characters that the output cannot show written by their numbers.

    What an agent says of itself is shown to the operator, and must not be able to end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write lines for a person to standard error."""
    if sys.stderr is None:
        return
    _say_all("".join(printable(line, LINE_LIMIT) + "\n" for line in text.split("\n")))


def say_line(text: str) -> None:
    """Write one line to standard error; newlines in the text are escaped."""
    if sys.stderr is not None:
        _say_all("".join(line + "\n" for line in _folded(text, sys.stderr)))


def tell_waiting(code: str) -> None:
    """Write to standard error that a request waits for a person, and how to approve it."""
    say(waiting_notice(code).rstrip())


def show_failure(failure: Failure) -> None:
    """Write a failure and its hint to standard error, unless the failure has no message."""
    if sys.stderr is not None and failure.message:
        _say_all(failure.render())


def print_lines(lines: Sequence[str]) -> None:
    """Write lines to standard output."""
    with writing():
        for line in lines:
            sys.stdout.writelines(folded + "\n" for folded in _folded(line, sys.stdout))


def print_whole(line: str) -> None:
    """Write one line of any length to standard output."""
    with writing():
        sys.stdout.write(printable(line, len(line)) + "\n")


def print_json(document: object) -> None:
    """Write one JSON document to standard output, in ASCII, so that no terminal is confused."""
    with writing():
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def print_json_line(document: object) -> None:
    """Write one JSON document as one line to standard output, in ASCII."""
    with writing():
        sys.stdout.write(json.dumps(document) + "\n")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to standard output: boxed on a terminal, aligned plain text elsewhere."""
    cells = [[printable(cell, _CELL_LIMIT) for cell in row] for row in rows]
    with writing():
        if sys.stdout.isatty():
            _print_boxed(headers, cells)
            return
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        for row in (headers, *cells):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write("  ".join(padded).rstrip() + "\n")


def check_standard_input(*paths: str | None) -> None:
    """Refuse to read two things from standard input.

    Raises:
        Failure: a usage failure; more than one of the paths is `-`.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise usage(
            "only one input can come from standard input", hint="give the other one as a file"
        )


def check_nothing_piped(what: str, option: str) -> None:
    """Refuse to ask on the terminal if standard input holds a pipe or a file.

    Args:
        what: a word for the input that is needed.
        option: the option that reads it from standard input.

    Raises:
        Failure: a usage failure; standard input is a pipe or a file.
    """
    if sys.stdin is None:
        return
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return
    # Not for /dev/null: it means that nothing should be read.
    if stat.S_ISFIFO(mode) or stat.S_ISREG(mode):
        raise usage(
            f"the {what} is read from the terminal, not from standard input",
            hint=f"to read it from the pipe: add {option} -",
        )


def passphrase(prompt: str, path: str | None, option: str = "--passphrase-file") -> bytes:
    """Get a passphrase from a file if one is named, otherwise from the person.

    Args:
        prompt: what to ask for, such as "passphrase".
        path: a file that nobody else can read, `-` for standard input, None to ask.
        option: the option that `path` came from, for the hint.

    Raises:
        Failure: there is no terminal to ask on, or the file cannot be used.
    """
    process_protection.make_undumpable()
    if path is not None:
        return text_of(passphrase_file(path), "a passphrase")
    return ask_hidden(prompt, f"add {option} FILE, or - for standard input")


def right_passphrase(prompt: str, path: str | None, check: Callable[[bytes], object]) -> bytes:
    """Get a passphrase that passes a check; a person who mistyped it may type again.

    Args:
        prompt: as for `passphrase`.
        path: as for `passphrase`; a passphrase from a file is tried once.
        check: sends it to the daemon.

    Returns:
        The passphrase that passed.

    Raises:
        Failure: as for `passphrase` and `check`; `wrong-passphrase` after three wrong ones.
    """

    def attempt() -> bytes:
        given = passphrase(prompt, path)
        try:
            check(given)
        except Failure as failure:
            # A person need not know about slots. The part about delays stays.
            failure.message = failure.message.replace(": it opens no slot of this vault", "")
            raise
        return given

    return retyping("wrong-passphrase", path, attempt)


def retyping(reason: str, path: str | None, attempt: Callable[[], Result]) -> Result:
    """Make an attempt with typed input, and let the person type again after a mistake.

    Args:
        reason: the `Failure.reason` of a typing mistake.
        path: the file that is read instead; then there is a single attempt. None: a person types.
        attempt: asks and tries.

    Raises:
        Failure: as `attempt`; for a mistake, after the third one.
    """
    for _ in range(_ATTEMPTS - 1 if path is None else 0):
        try:
            return attempt()
        except Failure as failure:
            if failure.reason != reason:
                raise
            show_failure(failure)
    return attempt()


def new_passphrase(prompt: str, path: str | None, option: str = "--passphrase-file") -> bytes:
    """Get a new passphrase: like `passphrase`, but asked for twice.

    Args:
        prompt: what to ask for, such as "new passphrase".
        path: as for `passphrase`.
        option: the option that `path` came from, for the hint.

    Raises:
        Failure: as for `passphrase`; also if it was too short or the two differed, three times.
    """
    process_protection.make_undumpable()
    if path is not None:
        return text_of(passphrase_file(path), "a passphrase")
    hint = f"add {option} FILE, or - for standard input"
    least = f"at least {PASSPHRASE_CHARACTERS} characters"
    for _ in range(_ATTEMPTS):
        first = ask_hidden(prompt, hint, note=least)
        if len(first.decode(errors="replace")) < PASSPHRASE_CHARACTERS:
            say(f"that is too short, it takes {least}: try again")
        elif ask_hidden(prompt, hint, note="once more") == first:
            return first
        else:
            say("the two passphrases differ: try again")
    raise Failure("no new passphrase was chosen", reason="not-chosen", hint="nothing was changed")


def text_of(data: bytes, what: str) -> bytes:
    """Take a byte-order mark off what a file holds, and say so.

    Args:
        data: all of the file.
        what: what it is, with its article.
    """
    text = without_mark(data, what)
    if text != data:
        say(f"note: {what} began with a byte-order mark, which is left out")
    return text


def _folded(text: str, stream: TextIO) -> list[str]:
    shown = printable(text, LINE_LIMIT)
    if not stream.isatty():
        return [shown]
    return fold(shown, columns_of(stream))


def columns_of(stream: TextIO) -> int:
    """Return how wide the terminal behind a stream is."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = 0
    # A terminal whose size was never set says 0.
    return columns or 80


def _say_all(text: str) -> None:
    # If standard error is full or gone, there is no other place to report it.
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Write to standard output inside the block, and flush it at the end.

    Raises:
        Failure: it is closed or full (`output-failed`), or has no reader any more
            (`output-closed`).
    """
    if sys.stdout is None:
        raise Failure("standard output is closed", reason="output-failed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has stopped reading: there is nothing to report.
        raise Failure("", reason="output-closed") from None
    except OSError as error:
        raise Failure(
            f"cannot write to standard output: {why(error)}", reason="output-failed"
        ) from None


def _print_boxed(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    # Only here: rich costs more to load than most commands take.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        # As Text, so that square brackets in a cell do not count as markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def confirm(question: str) -> bool:
    """Ask on the terminal; every answer except a clear yes is a no.

    Raises:
        Failure: there is no terminal to ask on.
    """
    line = ask_typed("for an answer", "add --yes", f"{question} [y/N] ", _ANSWER_LIMIT, echo=True)
    return line is not None and line.strip().lower() in (b"y", b"yes")


def answer(question: str, default: str = "") -> str:
    """Ask on the terminal for a line, with echo.

    Args:
        question: the question.
        default: the answer that an empty line stands for.

    Raises:
        Failure: there is no terminal to ask on, the input is not text, or it was Ctrl-D.
    """
    shown = f"{question} [{default}]" if default else question
    line = ask_typed(
        "for an answer", "say it by options: see --help", f"{shown}: ", _ANSWER_LIMIT, echo=True
    )
    if line is None:
        # Ctrl-D is not an empty line: the person wants to leave, not the default.
        raise Failure("cancelled: nothing was changed", reason="not-confirmed")
    _check_one_line(line)
    try:
        return line.decode().strip() or default
    except UnicodeDecodeError:
        raise usage("what was typed is not UTF-8", hint="") from None


def has_terminal() -> bool:
    """Return whether there is a controlling terminal to ask and to show things on."""
    try:
        os.close(_open_terminal("", ""))
    except Failure:
        return False
    return True


def show_secret(lines: Sequence[str]) -> None:
    """Write lines to the terminal itself, not to standard error.

    Raises:
        Failure: there is no terminal, or writing to it fails.
    """
    terminal = _open_terminal("to show it", "name a file for it instead")
    try:
        os.write(terminal, _shown(lines))
    except OSError as error:
        raise Failure(f"cannot write to the terminal: {why(error)}", reason="no-terminal") from None
    finally:
        os.close(terminal)


def _shown(lines: Sequence[str]) -> bytes:
    text = "".join(printable(line, LINE_LIMIT) + "\n" for line in lines)
    return text.encode(errors="backslashreplace")


def _open_terminal(what: str, hint: str) -> int:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise Failure(
            f"there is no terminal to ask {what} on", reason="no-terminal", hint=hint
        ) from None


def ask_hidden(prompt: str, without_terminal: str, note: str = "") -> bytes:
    """Ask on the terminal for one line that is not shown while it is typed.

    Args:
        prompt: what to ask for.
        without_terminal: what to do where there is no terminal.
        note: what else to show.

    Raises:
        Failure: there is no terminal, nothing was typed, or several lines came in.
    """
    shown = f"{prompt} ({note})" if note else prompt
    line = ask_typed(f"for the {prompt}", without_terminal, f"{shown}: ", PASSPHRASE_LIMIT)
    if not line:
        raise Failure(
            f"nothing was typed for the {prompt}", reason="nothing-typed", hint="try again"
        )
    _check_one_line(line)
    return line


def ask_typed(
    what: str, without_terminal: str, question: str, limit: int, **how: bool
) -> bytes | None:
    """Ask on the terminal, and return what was typed or pasted; None at the end of the input.

    Args:
        what: what is asked for, for the message.
        without_terminal: what to do where there is no terminal.
        question: what is shown.
        limit: how many bytes there may be.
        **how: see `typed.read`.

    Raises:
        Failure: there is no terminal, or that was too much.
    """
    terminal = _open_terminal(what, without_terminal)
    try:
        return typed.read(terminal, printable(question, _QUESTION_LIMIT), limit, **how)
    except typed.TooLongError:
        raise usage(
            f"that is more than {limit:,} bytes: nothing was taken",
            hint="put it into a file and name that",
        ) from None
    except OSError as error:
        raise Failure(f"cannot ask on the terminal: {why(error)}", reason="no-terminal") from None
    finally:
        os.close(terminal)


def _check_one_line(line: bytes) -> None:
    if b"\n" in line:
        raise usage(
            "several lines came in at once: nothing was taken", hint="type or paste one line"
        )
