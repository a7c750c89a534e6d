"""Keys in a descriptor: written by `run`, read by the agent.

The descriptor that `BACKPACK_KEYS_FD` names is an anonymous file in memory, sealed so that nobody
can change it (memfd_create(2)). It holds one JSON object in ASCII:

    {"keys": {"NAME": "text", ...}, "base64": {"OTHER": "...", ...}}

`keys` has the values that are UTF-8 text, `base64` the others. Later versions may add members.

Its position is at its beginning. Reading moves the position for all processes that share the
descriptor, so read with pread(2), or through `/proc/self/fd/N`, which opens it again. Children of
the agent inherit it unless the agent closes it or sets close-on-exec.
"""

import base64
import binascii
import fcntl
import json
import os
import sys
from collections.abc import Mapping

from backpack_client.failures import Failure, usage
from backpack_client.launch.environment import KEYS_VARIABLE

_LIMIT = 16 * 1024 * 1024
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
    descriptor = os.memfd_create("backpack-keys", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    # If a standard stream is closed, the new file would get its number.
    above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    os.close(descriptor)
    # At the end: a child that starts in between does not inherit it.
    os.set_inheritable(above, True)
    return above


def handed_keys(environ: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Read the keys that `run --inject fd` has handed over.

    You may call it any number of times; it leaves the descriptor as it is.

    Args:
        environ: the environment; None: this process's.

    Returns:
        Names and values, as bytes.

    Raises:
        Failure: no keys were handed over (`no-handed-keys`).
    """
    named = (os.environ if environ is None else environ).get(KEYS_VARIABLE, "")
    if not named:
        raise Failure(
            "no keys were handed to this process",
            reason="no-handed-keys",
            hint="start it with: backpack-client run --inject fd",
        )
    if not (named.isascii() and named.isdecimal() and len(named) <= len(str(2**31))):
        raise usage(f"{KEYS_VARIABLE} is not the number of a descriptor", hint="")
    try:
        document = json.loads(_read(int(named)))
        found = {name: text.encode() for name, text in document["keys"].items()}
        for name, text in document.get("base64", {}).items():
            found[name] = base64.b64decode(text, validate=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, binascii.Error):
        # Not chained: the cause may hold a piece of the data.
        raise Failure(
            f"descriptor {named} does not hold the keys that were handed over",
            reason="no-handed-keys",
            hint="a parent has closed it, or has used the number for another file",
        ) from None
    return found


def _read(descriptor: int) -> bytes:
    data = b""
    while len(data) <= _LIMIT and (more := os.pread(descriptor, 1024 * 1024, len(data))):
        data += more
    return data
