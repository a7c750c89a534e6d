"""Shows long output page by page, as git does: output inside a block goes to a pager.

PAGER names the pager. The default is `less -FRX`, which shows a short output and ends at once. The
pager gets only its three standard descriptors: subprocess closes all others.
"""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

from backpack_client.failures import Failure, usage

_DEFAULT = "less -FRX"
_FLAGS = "FRX"


@contextlib.contextmanager
def paged(*, wanted: bool = True) -> Iterator[None]:
    """Send standard output through a pager inside the block, if it is a terminal.

    Ask for passphrases before the block: the pager reads the keyboard. Call `styled.standard_look`
    before it as well, because standard output is not a terminal inside.

    Args:
        wanted: False: print as without a pager.

    Raises:
        Failure: a usage failure; PAGER is not a command line.
    """
    command = _command() if wanted and sys.stdout is not None and sys.stdout.isatty() else []
    # As git does: less does not page short output, unless the user has set other options.
    environ = {"LESS": _FLAGS, **os.environ}
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environ) if command else None
    except OSError:
        # The pager is not installed: print without it.
        pager = None
    if pager is None or pager.stdin is None:
        yield
        return
    pipe = io.TextIOWrapper(pager.stdin, encoding="utf-8", errors="replace")
    try:
        with contextlib.redirect_stdout(pipe):
            yield
    except Failure as failure:
        # The person has left the pager early, and has seen enough.
        if failure.reason != "output-closed":
            raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        _wait(pager)


def _command() -> list[str]:
    named = os.environ.get("PAGER", _DEFAULT)
    try:
        command = shlex.split(named)
    except ValueError:
        raise usage("PAGER is not a command line", hint="or add --no-pager") from None
    # PAGER=cat is how people turn pagers off.
    return [] if command == ["cat"] else command


def _wait(pager: "subprocess.Popen[bytes]") -> None:
    """Wait for the pager to end, which gives the terminal back.

    Ctrl-C reaches both processes. less does not end with it, so this process must not end either:
    otherwise the shell and less would read the same keyboard.
    """
    while True:
        try:
            pager.wait()
        except KeyboardInterrupt:
            continue
        return
