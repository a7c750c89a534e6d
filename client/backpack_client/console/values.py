"""Gets the values of keys, and other text that contains values: from files, pipes or a person."""

import sys

from backpack_client import process_protection
from backpack_client.console import terminal
from backpack_client.console.inputs import (
    PASSPHRASE_LIMIT,
    STANDARD_INPUT,
    chomp,
    pipe_it,
    read,
    reading,
    without_line_end,
)
from backpack_client.failures import Failure, usage

VALUE_LIMIT = 64 * 1024
_EDITORS_ADD = "\ufeff\r\n".encode()


def value(
    name: str, path: str | None, option: str = "--value-file FILE", *, exact: bool = False
) -> bytes:
    """Get the value of a key from a file if one is named, otherwise from the person.

    What an editor or `echo` adds to a value is removed: a byte-order mark, and the line end of a
    value that is a single line of text. A note says so. A value of several lines (a PEM file) or of
    other bytes is taken as it is. Pasted text is taken completely. If it has several lines, the
    person must confirm it.

    Args:
        name: the key, for the prompt.
        path: any readable file, `-` for standard input, None to ask. If standard input is the
            terminal, `-` takes lines until ctrl-d.
        option: the command-line option that names a file, for the hint.
        exact: take every byte of the file.

    Raises:
        Failure: there is no terminal, the file cannot be read, it is empty or over 64 KiB, or the
            person did not confirm several lines.
    """
    process_protection.make_undumpable()
    if path is None:
        data = _ask_value(f"value of {name}", f"add {option}, or - for standard input")
    elif path == STANDARD_INPUT and sys.stdin is not None and sys.stdin.isatty():
        data = _ask_lines(f"value of {name}")
    else:
        with reading("value", path, pipe_it(option.partition(" ")[0])) as (descriptor, _):
            data = read(descriptor, VALUE_LIMIT + len(_EDITORS_ADD), "a value")
        data = data if exact else _tidy(data)
        if len(data) > VALUE_LIMIT:
            raise usage(f"a value has at most {VALUE_LIMIT} bytes, and this has more", hint="")
    if not data:
        raise usage("the value is empty", hint="a key has a value of at least one byte")
    return data


def _tidy(data: bytes) -> bytes:
    text = terminal.text_of(data, "a value")
    line = without_line_end(text)
    if line != text:
        terminal.say("note: the line end at the end of the value is left out")
    return line


def _ask_value(prompt: str, without_terminal: str) -> bytes:
    data = terminal.ask_typed(f"for the {prompt}", without_terminal, f"{prompt}: ", VALUE_LIMIT)
    if not data:
        raise Failure(
            f"nothing was typed for the {prompt}", reason="nothing-typed", hint="try again"
        )
    data = _tidy(data)
    if b"\n" in data and not terminal.confirm(f"{_extent(data)}: store?"):
        raise Failure(
            "nothing was stored",
            reason="not-confirmed",
            hint="to store several lines: add --value-file FILE, or - to end them with ctrl-d",
        )
    return data


def _ask_lines(prompt: str) -> bytes:
    shown = f"{prompt} (not shown; ends with ctrl-d on a line of its own): "
    data = terminal.ask_typed(f"for the {prompt}", "", shown, VALUE_LIMIT, lines=True) or b""
    data = _tidy(data)
    if data:
        terminal.say(f"{_extent(data)}")
    return data


def _extent(data: bytes) -> str:
    count = data.count(b"\n") + (not data.endswith(b"\n"))
    end = "ends with a newline" if data.endswith(b"\n") else "no newline at the end"
    return f"{count} {'line' if count == 1 else 'lines'}, {len(data):,} bytes, {end}"


def legacy_key(path: str | None) -> bytes:
    """Get the master key of the older tool from a file if one is named, otherwise from the person.

    Args:
        path: any readable file, `-` for standard input, None to ask. Its line end is removed.

    Raises:
        Failure: there is no terminal, or the file cannot be read, is empty or over 1 KiB.
    """
    process_protection.make_undumpable()
    if path is None:
        return terminal.ask_hidden(
            "old master key", "add --legacy-key-file FILE, or - for standard input"
        )
    with reading("old master key", path, pipe_it("--legacy-key-file")) as (descriptor, _):
        data = read(descriptor, PASSPHRASE_LIMIT, "an old master key", chomp)
    data = terminal.text_of(data, "an old master key")
    if not data:
        raise usage("the old master key is empty", hint="write it into the file that you name")
    return data


def file_bytes(path: str, limit: int) -> bytes:
    """Read a whole text file that contains values.

    Raises:
        Failure: it cannot be read, or has more than `limit` bytes.
    """
    process_protection.make_undumpable()
    with reading("file", path, "pipe it in, or name a file") as (descriptor, _):
        return terminal.text_of(read(descriptor, limit, "a file"), "a file")
