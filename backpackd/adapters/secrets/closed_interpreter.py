"""An interpreter whose memory is closed to other processes from its first instruction.

`exec` makes a process readable to its user's other processes again, until the daemon closes itself.
A process that opens /proc/PID/mem in between keeps a descriptor that can read as long as the daemon
runs, because the kernel checks only at open. But a program that its own user may not read starts
closed (execve(2), "not readable by the user"). So the daemon executes a copy of the interpreter
that nobody may read. The copy is in memory, so no file must be kept up to date.
"""

import os
import shutil
import sys
from pathlib import Path

_NAME = "backpackd-python"


def unreadable_copy(interpreter: str) -> str:
    """Make an unreadable copy of an interpreter and return a path to execute it by.

    The copy is tried first: an interpreter that finds its libraries beside its own file does not
    start from elsewhere, and after an `exec` nobody is left to notice.

    Args:
        interpreter: path of the running one.

    Returns:
        `/proc/self/fd/N`, valid in this process; or `interpreter` itself if a copy does not
        work. `started_closed` tells which, in the running process.
    """
    if sys.platform != "linux":
        return interpreter
    try:
        copy = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        with open(interpreter, "rb") as source, os.fdopen(copy, "wb", closefd=False) as target:  # noqa: PTH123 - beside a descriptor
            shutil.copyfileobj(source, target)
        os.fchmod(copy, 0o111)
        path = f"/proc/self/fd/{copy}"
        trial = os.posix_spawn(path, [interpreter, "-P", "-c", "import encodings"], {})
        _, status = os.waitpid(trial, 0)
    except OSError:
        return interpreter
    return path if status == 0 else interpreter


def started_closed() -> bool:
    """Return whether this process runs such a copy."""
    try:
        return str(Path("/proc/self/exe").readlink()).startswith(f"/memfd:{_NAME}")
    except OSError:
        return False
