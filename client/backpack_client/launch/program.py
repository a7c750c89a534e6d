"""Becoming another program, in place: same process, same terminal, same everything but the program.

Whatever can be told beforehand is told beforehand, so that nobody is asked for keys for a program
that is not there. Exit codes are those that a shell gives: 127 where there is no such program, 126
where it cannot be executed.
"""

import errno
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from backpack_client.failures import Failure, printable

EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

_SHELL = b"/bin/sh"
# What execvp(3) takes where no PATH is set.
_DEFAULT_PATH = b"/bin:/usr/bin"
_HEAD = 80


@dataclass(frozen=True, slots=True)
class Origin:
    """What of this process an agent is to find as it was before Python and this program began.

    Attributes:
        environ: the environment.
        core: soft and hard limit of core files.
    """

    environ: dict[bytes, bytes]
    core: tuple[int, int]


def origin() -> Origin:
    """Note how this process began; for before anything of it is changed."""
    environ = dict(os.environb)
    # Python sets it for itself in a C locale (PEP 538), where all its children would inherit it.
    if b"LC_CTYPE" in environ and not _came_with(b"LC_CTYPE"):
        del environ[b"LC_CTYPE"]
    return Origin(environ, resource.getrlimit(resource.RLIMIT_CORE))


def find(command: str, environ: Mapping[bytes, bytes]) -> bytes:
    """Find a program as a shell does.

    Args:
        command: its name, or a path with a slash in it.
        environ: for PATH.

    Returns:
        The path to execute.

    Raises:
        Failure: there is none (exit code 127), or it is not one to execute (126).
    """
    name = os.fsencode(command)
    if not name:
        raise _not_found(command)
    if b"/" in name:
        _check(name, command)
        return name
    refused = b""
    for directory in environ.get(b"PATH", _DEFAULT_PATH).split(b":"):
        path = os.path.join(directory, name)  # noqa: PTH118 - bytes, and an empty part means here
        with suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - bytes, as above
                if os.access(path, os.X_OK):
                    return path if b"/" in path else b"./" + path
                refused = refused or path
    if refused:
        raise _not_executable(command, errno.EACCES)
    raise _not_found(command)


def become(
    path: bytes, arguments: Sequence[str], environ: Mapping[bytes, bytes], began: Origin
) -> NoReturn:
    """Execute a program in the place of this one.

    Args:
        path: as `find` returned it.
        arguments: the first one is the name that it is called by.
        environ: its environment.
        began: how this process began.

    Raises:
        Failure: the system refuses. This process is then as it was before, and is to end.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    argv = [os.fsencode(argument) for argument in arguments]
    with _as_it_began(began):
        try:
            try:
                os.execve(path, argv, environ)  # noqa: S606 - in place, which is the point
            except OSError as error:
                if error.errno != errno.ENOEXEC or not _is_script(path):
                    raise
                # A script without a first line that says what runs it: as shells and execvp(3) do.
                os.execve(_SHELL, [_SHELL, path, *argv[1:]], environ)  # noqa: S606 - as above
        except OSError as error:
            raise _refusal(arguments[0], error.errno or errno.EIO) from None
    raise AssertionError("exec does not return")


@contextmanager
def _as_it_began(began: Origin) -> Iterator[None]:
    """Take back for an exec what Python and this program changed of the process.

    Python ignores two signals, and what is ignored stays so across exec: a program that writes to a
    pipe that nobody reads would not end, as every program expects to. Where the exec is refused all
    is changed back: this process still has an error to tell, with its own exit code and not with a
    signal's, and holds keys that belong in no core file.
    """
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    before = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)
    }
    resource.setrlimit(resource.RLIMIT_CORE, began.core)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limit)
        for number, handler in before.items():
            signal.signal(number, handler)


def _came_with(name: bytes) -> bool:
    """Tell whether this process was started with a variable, whatever was set since."""
    try:
        began_with = Path("/proc/self/environ").read_bytes()
    except OSError:
        return True
    return any(entry.startswith(name + b"=") for entry in began_with.split(b"\0"))


def _check(path: bytes, shown: str) -> None:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - bytes
    except OSError as error:
        raise _refusal(shown, error.errno or errno.EIO) from None
    if stat.S_ISDIR(mode):
        raise _not_executable(shown, errno.EISDIR)
    if not os.access(path, os.X_OK):
        raise _not_executable(shown, errno.EACCES)


def _is_script(path: bytes) -> bool:
    """Tell text from a program for another machine: no zero byte in the first line, as in bash."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - bytes
            return b"\0" not in file.read(_HEAD).partition(b"\n")[0]
    except OSError:
        return False


def _refusal(shown: str, number: int) -> Failure:
    return _not_found(shown) if number == errno.ENOENT else _not_executable(shown, number)


def _not_found(shown: str) -> Failure:
    return Failure(
        f"{printable(shown, 256)}: no such program, or what runs it is missing",
        exit_code=EXIT_NOT_FOUND,
        reason="no-such-program",
    )


def _not_executable(shown: str, number: int) -> Failure:
    hint = "too much for an environment: add --inject fd" if number == errno.E2BIG else ""
    return Failure(
        f"{printable(shown, 256)} cannot be executed: {os.strerror(number).lower()}",
        exit_code=EXIT_NOT_EXECUTABLE,
        reason="not-executable",
        hint=hint,
    )
