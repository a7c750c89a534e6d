"""Runs programs on a pseudo-terminal of their own, as a person at a screen would."""

import errno
import os
import pty
import select
import signal
import sys
from typing import Self

PATIENCE = 100.0


def read_screen(screen: int) -> bytes:
    """Read what a program wrote to its terminal; nothing once it has closed it."""
    try:
        return os.read(screen, 4096)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


class Terminal:
    """A Python program on a terminal of its own, its standard streams elsewhere.

    `before` is what came on the screen before what was expected last.
    With `screen_out`, standard output is the terminal, as for a live screen; with `screen_in`,
    standard input is.
    """

    def __init__(
        self, arguments: list[str], *, screen_out: bool = False, screen_in: bool = False
    ) -> None:
        self.out, out = os.pipe()
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            # Somebody must keep the terminal open, or its other side takes it for closed.
            os.dup2(0, 9)
            if not screen_out:
                os.dup2(out, 1)
            os.dup2(out, 2)
            if not screen_in:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execv(sys.executable, [sys.executable, *arguments])
        os.close(out)
        self.shown = self.before = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.screen)
        os.close(self.out)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def expect(self, text: bytes) -> None:
        while text not in self.shown:
            ready, _, _ = select.select([self.screen], (), (), PATIENCE)
            assert ready, self.shown
            more = read_screen(self.screen)
            assert more, self.shown
            self.shown += more
        self.before, _, self.shown = self.shown.partition(text)

    def type(self, text: bytes) -> None:
        os.write(self.screen, text)

    def end(self) -> tuple[int, bytes]:
        """Wait for the exit: the exit code and what went to the standard streams."""
        output = b""
        while more := os.read(self.out, 4096):
            output += more
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status), output
