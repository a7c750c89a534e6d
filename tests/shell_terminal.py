"""An interactive shell on a pseudo-terminal, driven as by a person who waits for each answer."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Mapping
from typing import Self

from pseudo_terminal import PATIENCE, read_screen

PROMPT = b"shell$ "


class ShellTerminal:
    """Bash, leading the session of a terminal of its own.

    Attributes:
        transcript: everything that came on the screen.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.transcript = b""
        self._unread = b""
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            # What Python ignores, a shell at a terminal does not.
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvpe(shell[0], shell, {**environ, "PS1": PROMPT.decode(), "LC_ALL": "C"})
        self.resize(80, 24)
        self.expect(PROMPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the terminal hangs up on whatever still runs in its foreground.
        os.close(self.screen)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.screen, text)

    def expect(self, text: bytes) -> bytes:
        """Wait until a text is shown, and return what was shown before it."""
        while text not in self._unread:
            ready, _, _ = select.select([self.screen], (), (), PATIENCE)
            assert ready, self.transcript
            more = read_screen(self.screen)
            assert more, self.transcript
            self._unread += more
            self.transcript += more
        before, _, self._unread = self._unread.partition(text)
        return before

    def enter(self, line: str, until: bytes = PROMPT) -> bytes:
        """Type a line and wait for what it leads to."""
        self.type(line.encode() + b"\n")
        return self.expect(until)

    def echoes(self) -> bool:
        """Tell whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.screen)[3] & termios.ECHO)
