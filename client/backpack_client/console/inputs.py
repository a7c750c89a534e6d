"""Reads files and standard input: passphrases, values, other people's formats.

It opens a file once and uses only the descriptor from then on. It does not ask a person or print;
`terminal` does.
"""

import codecs
import contextlib
import errno
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator

from backpack_client.failures import Failure, printable, usage

PASSPHRASE_LIMIT = 1024
STANDARD_INPUT = "-"
_PATH_LIMIT = 256


def passphrase_file(path: str) -> bytes:
    """Read a passphrase from a file that nobody else can read, or from standard input (`-`).

    Raises:
        Failure: it cannot be read, others can read it, or it is empty or over 1 KiB.
    """
    with reading("passphrase", path, pipe_it("--passphrase-file")) as (descriptor, status):
        if path != STANDARD_INPUT:
            _check_private(path, descriptor, status)
        # One line end only: what is more is a part of the passphrase, or a mistake to be told.
        data = read(descriptor, PASSPHRASE_LIMIT, "a passphrase", chomp)
    if not without_mark(data, "a passphrase"):
        raise usage("the passphrase is empty", hint="write it into the file that you name")
    return data


def _check_private(path: str, descriptor: int, status: os.stat_result) -> None:
    shown = printable(path, _PATH_LIMIT)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise usage(f"{shown} is not a file", hint="name a regular file or a pipe")
    if status.st_uid not in (0, os.geteuid()):
        raise Failure(
            f"{shown} belongs to uid {status.st_uid}, who knows what it says",
            reason="passphrase-file-not-private",
            hint="keep the passphrase in your own file",
        )
    if status.st_mode & 0o077:
        raise Failure(
            f"{shown} can be read or changed by others (mode {status.st_mode & 0o7777:04o})",
            reason="passphrase-file-not-private",
            hint=_private_hint(path, descriptor, status),
        )


def _private_hint(path: str, descriptor: int, status: os.stat_result) -> str:
    """Name what makes a file private, or the way around where this user cannot change the file."""
    # Made to be copied into a shell.
    quoted = shlex.quote(path) if path.isprintable() else "FILE"
    read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    if os.geteuid() in (0, status.st_uid) and not read_only:
        return f"run: chmod 600 {quoted}"
    # A secret of a container is mounted like this, and whoever mounts it decides who reads it.
    return f"you cannot change it: give it as standard input: --passphrase-file - < {quoted}"


@contextlib.contextmanager
def reading(what: str, path: str, hint: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file, or standard input for `-`, for the length of a `with` block.

    Args:
        what: a word for its content, for the message.
        path: the file.
        hint: what to do instead of typing it into standard input, where it would be visible.

    Raises:
        Failure: a usage failure; it cannot be opened.
    """
    # The file is opened once, and checks use the descriptor: a path that is checked first and
    # opened later may be another file by then.
    if path == STANDARD_INPUT:
        descriptor = _standard_input(what, hint)
        yield descriptor, os.fstat(descriptor)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise usage(f"cannot read {printable(path, _PATH_LIMIT)}: {why(error)}", hint="") from None
    try:
        yield descriptor, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _standard_input(what: str, hint: str) -> int:
    if sys.stdin is None:
        raise usage("standard input is closed", hint="name a file")
    if sys.stdin.isatty():
        # Text that is typed into standard input is visible on the screen.
        raise usage(f"the {what} would be shown while it is typed", hint=hint)
    return sys.stdin.fileno()


def read(descriptor: int, limit: int, what: str, trim: Callable[[bytes], bytes] = bytes) -> bytes:
    """Read everything.

    Args:
        descriptor: what to read.
        limit: the largest number of bytes after trimming.
        what: a word for it, with its article, for the message.
        trim: removes a line end.

    Raises:
        Failure: a usage failure: there are more bytes, or they cannot be read.
    """
    most = limit + len(b"\r\n")
    data = bytearray()
    try:
        while len(data) <= most and (more := os.read(descriptor, most + 1 - len(data))):
            data += more
    except OSError as error:
        raise usage(f"cannot read it: {why(error)}", hint="") from None
    trimmed = trim(bytes(data))
    if len(trimmed) > limit:
        raise usage(f"{what} has at most {limit} bytes, and this has more", hint="")
    return trimmed


def without_mark(data: bytes, what: str) -> bytes:
    """Take the byte-order mark off UTF-8 text, and leave everything else as it is.

    Some editors put it there. It is no part of what the person wrote, and breaks what the text goes
    into, such as an HTTP header.

    Args:
        data: all of a file.
        what: what it is, with its article, for the message.

    Raises:
        Failure: a usage failure; the text is UTF-16, as some editors write it.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and _decodes(data, "utf-16"):
        raise usage(f"{what} in UTF-16 is not read", hint="save the file as UTF-8")
    text = data.removeprefix(codecs.BOM_UTF8)
    return text if _decodes(text, "utf-8") else data


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def without_line_end(data: bytes) -> bytes:
    """Remove the line end if it is one line of text; leave everything else as it is."""
    line = chomp(data)
    if line == data or b"\n" in line:
        return data
    # Bytes that are no text may end in 0x0a and mean it.
    return line if _decodes(line, "utf-8") else data


def chomp(data: bytes) -> bytes:
    """Remove one line end."""
    return data.removesuffix(b"\r\n" if data.endswith(b"\r\n") else b"\n")


def pipe_it(option: str) -> str:
    """Return a hint: how to give the input of an option that reads a file."""
    return f"leave {option} out to be asked, or pipe it in"


def why(error: OSError | ValueError) -> str:
    """Return the system's words for why something failed, without the file's name."""
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    return os.strerror(number or errno.EINVAL).lower()
