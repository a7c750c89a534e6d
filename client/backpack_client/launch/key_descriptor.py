"""Keys in a descriptor: written by `run`, read by the agent.

The descriptor that `BACKPACK_KEYS_FD` names is an anonymous file in memory, sealed so that nobody
can change it (memfd_create(2)). It holds one JSON object in ASCII:

    {"keys": {"NAME": "text", ...}, "base64": {"OTHER": "...", ...}}

`keys` has the values that are UTF-8 text, `base64` the others. Later versions may add members.

It stands at its beginning. Reading it moves that place for all processes that share the descriptor,
so read with pread(2), or through `/proc/self/fd/N`, which opens it again. Children of the agent
inherit it unless the agent closes it or sets close-on-exec.

Many do (Node, Python's subprocess, make), and then the number is that of another file in the child.
So `BACKPACK_KEYS_PATH` names the same file as `/proc/PID/fd/N` of the agent's own process, for as
long as that lives. Whoever reads by either checks that the file is the sealed one: its seals can be
asked for (fcntl(2), F_GET_SEALS), and nobody can give them to a file on a disk.
"""

import base64
import binascii
import contextlib
import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Mapping

from backpack_client.failures import Failure, usage
from backpack_client.launch.environment import KEYS_PATH_VARIABLE, KEYS_VARIABLE

_NAME = "backpack-keys"
_MEMFD = f"/memfd:{_NAME} "
_PATH = re.compile(r"/proc/[0-9]+/fd/[0-9]+", re.ASCII)
_LIMIT = 16 * 1024 * 1024
# Linux only, as all of this is; the module is imported everywhere.
_SEALS = sum(getattr(fcntl, f"F_SEAL_{what}", 0) for what in ("SEAL", "SHRINK", "GROW", "WRITE"))
_FIRST = 3
"""The first descriptor that is not a standard stream."""


def check_possible() -> None:
    """Raise unless this system has such files.

    Raises:
        Failure: it has none (`not-built`).
    """
    if sys.platform != "linux":
        raise Failure(
            "handing keys over in a descriptor works on Linux only",
            reason="not-built",
            hint="use --inject env, or --inject none and the Python API",
        )


def write_keys(values: Mapping[str, bytes]) -> int:
    """Put keys into a sealed file in memory.

    Returns:
        Its descriptor, which survives exec.

    Raises:
        Failure: a sandbox forbids such files (`refused`).
    """
    texts: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, value in values.items():
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError:
            others[name] = base64.b64encode(value).decode()
    document: dict[str, dict[str, str]] = {"keys": texts}
    if others:
        document["base64"] = others
    data = memoryview((json.dumps(document) + "\n").encode())
    try:
        descriptor = os.memfd_create(_NAME, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    except OSError as error:
        raise Failure(
            f"no file in memory can be made for the keys: {os.strerror(error.errno or 0).lower()}",
            reason="refused",
            hint="let the sandbox allow memfd_create, or use --inject env, or --inject none and "
            "the Python API",
        ) from None
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    # Where a standard stream is closed, the new file would stand in its place.
    above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    os.close(descriptor)
    # At the end: a child that starts in between does not inherit it.
    os.set_inheritable(above, True)
    return above


def variables(descriptor: int) -> dict[str, bytes]:
    """Return the variables that lead an agent, which this process becomes, to its keys."""
    return {
        KEYS_VARIABLE: str(descriptor).encode(),
        # The process stays the same across exec, and so does its number.
        KEYS_PATH_VARIABLE: f"/proc/{os.getpid()}/fd/{descriptor}".encode(),
    }


def handed_keys(environ: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Read the keys that `run --inject fd` has handed over.

    You may call it any number of times; it leaves the descriptor as it is.

    Args:
        environ: the environment; None: this process's.

    Returns:
        Names and values, as bytes.

    Raises:
        Failure: none were handed over, or the file with them is not there (`no-handed-keys`).
    """
    environ = os.environ if environ is None else environ
    named, path = environ.get(KEYS_VARIABLE, ""), environ.get(KEYS_PATH_VARIABLE, "")
    if not named and not path:
        raise Failure(
            "no keys were handed to this process",
            reason="no-handed-keys",
            hint="start it with: backpack-client run --inject fd",
        )
    if named and not (named.isascii() and named.isdecimal() and len(named) <= len(str(2**31))):
        raise usage(f"{KEYS_VARIABLE} is not the number of a descriptor", hint="")
    if path and not _PATH.fullmatch(path):
        raise usage(f"{KEYS_PATH_VARIABLE} is not of the form /proc/PID/fd/N", hint="")
    try:
        document = json.loads(_sealed(int(named) if named else -1, path))
        found = {name: text.encode() for name, text in document["keys"].items()}
        for name, text in document.get("base64", {}).items():
            found[name] = base64.b64decode(text, validate=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, binascii.Error):
        # Not chained: the cause may hold a piece of the data.
        raise Failure(
            f"neither descriptor {named or '(none)'} nor {path or '(no path)'} is the file of keys "
            "that was handed over",
            reason="no-handed-keys",
            hint="a parent has closed the descriptor, and the process that run has started has "
            "ended or hides its descriptors",
        ) from None
    return found


def _sealed(descriptor: int, path: str) -> bytes:
    """Read the sealed file by its descriptor, else by its path.

    Raises:
        OSError: neither leads to it.
    """
    if descriptor >= 0 and _is_sealed(descriptor):
        return _read(descriptor)
    # Not by a link that was put there: the form of the path was checked, and the kernel's own links
    # below /proc are what has to be followed.
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not _is_sealed(opened):
            raise OSError(errno.EBADF, "not the sealed file")
        return _read(opened)
    finally:
        os.close(opened)


def _is_sealed(descriptor: int) -> bool:
    """Tell whether a descriptor is one of `write_keys`, and not of another file with its number."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        return False
    name = _MEMFD
    # A sandbox without /proc cannot tell the name. The seals can be on no file but one in memory.
    with contextlib.suppress(OSError):
        name = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - of a descriptor
    return seals & _SEALS == _SEALS and name.startswith(_MEMFD)


def _read(descriptor: int) -> bytes:
    data = b""
    while len(data) <= _LIMIT and (more := os.pread(descriptor, 1024 * 1024, len(data))):
        data += more
    return data
