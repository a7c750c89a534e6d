"""Live screens: takes the terminal over, draws, reads keys, and always gives the terminal back.

Other modules decide what to draw (`cli/consent/request_screen.py`, `cli/keys/lease_screen.py`).
This module keeps the same rules as `terminal`: it escapes everything that it draws, and draws only
on the terminal.
"""

import os
import select
import shutil
import signal
import sys
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Generic, Protocol, Self, TypeVar

from backpack_client.console.line_folding import fold
from backpack_client.failures import Failure, printable, usage

Told = TypeVar("Told")
Told_contra = TypeVar("Told_contra", contravariant=True)

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ARROWS = {b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down"}
_STYLES = {"": "", "bold": "\x1b[1m", "chosen": "\x1b[7m", "dim": "\x1b[2m", "root": "\x1b[1m"}
_TICK = 1.0
_KEYS_LIMIT = 256


class Line(str):
    """A line to draw, and its style: plain, bold, chosen (reversed), dim, or root (bold)."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Self:
        """Make a line."""
        line = super().__new__(cls, text)
        line.style = style
        return line


def columns(width: int) -> int:
    """Return the longest line that is drawn in full; a cut line ends in a mark of three columns."""
    return max(1, width - 3)


def folded(line: str, width: int) -> list[Line]:
    """Split a line into lines that a screen of that width, at least NARROWEST, draws in full."""
    style = getattr(line, "style", "")
    return [Line(each, style) for each in fold(printable(line, len(line)), columns(width))]


class View(Protocol[Told_contra]):
    """The content of a live screen, and the effects of keys. It does not know the terminal."""

    def told(self, news: Told_contra) -> None:
        """Take in news from the daemon."""

    def lines(self, width: int, height: int) -> Sequence[str]:
        """Lay the screen out."""

    def press(self, key: str) -> bool:
        """Act on a key; return True to end the screen."""


def check() -> None:
    """Raise unless there is a terminal to take over.

    Raises:
        Failure: a usage failure.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        raise usage(
            "a live screen needs a terminal",
            hint="for pipes, leave --watch out: it prints a plain list",
        )


class Screen:
    """The terminal, taken over for the length of a `with` block.

    Input comes key by key without echo. Ctrl-C still interrupts. Ctrl-Z is off, because it would
    leave the shell with a terminal that does not show typed text.
    """

    def __init__(self) -> None:
        try:
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise usage("a live screen needs a terminal", hint="") from None
        self._before: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # If a signal ends the program, it still gives the terminal back.
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _leave)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._give_back()
        finally:
            os.close(self._terminal)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def fileno(self) -> int:
        """Return the descriptor that keys are read from."""
        return self._terminal

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """Give the terminal back for the length of a block, to ask for a passphrase on it."""
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def size(self) -> tuple[int, int]:
        """Return the numbers of columns and lines."""
        try:
            size = os.get_terminal_size(self._terminal)
        except OSError:
            size = shutil.get_terminal_size()
        # A terminal whose size was never set says 0.
        return size.columns or 80, size.lines or 24

    def draw(self, lines: Iterable[str]) -> None:
        """Draw lines from the top, each escaped and cut to the width."""
        width, height = self.size()
        drawn = []
        for line in list(lines)[:height]:
            style = _STYLES[getattr(line, "style", "")]
            drawn.append(f"{style}{printable(line, columns(width))}\x1b[0m\x1b[K")
        self._write("\x1b[H" + "\r\n".join(drawn) + "\x1b[0m\x1b[J")

    def pressed(self) -> list[str]:
        """Read the keys that have been pressed.

        Returns:
            Characters, and `up` and `down`; unknown keys are left out. `q` if the terminal has
            gone away.
        """
        data = os.read(self._terminal, _KEYS_LIMIT)
        if not data:
            return ["q"]
        found = []
        while data:
            sequence = next((each for each in _ARROWS if data.startswith(each)), b"")
            if sequence:
                found.append(_ARROWS[sequence])
                data = data[len(sequence) :]
            elif data.startswith(b"\x1b"):
                # Another function key: its bytes must not count as keys of ours.
                break
            else:
                found.append(chr(data[0]))
                data = data[1:]
        return found

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._terminal)
        keys = termios.tcgetattr(self._terminal)
        keys[3] &= ~(termios.ECHO | termios.ICANON)
        keys[6][termios.VMIN], keys[6][termios.VTIME] = 1, 0
        keys[6][termios.VSUSP] = b"\0"
        # Text typed before the screen appeared was not meant for it.
        termios.tcsetattr(self._terminal, termios.TCSAFLUSH, keys)
        self._write(_ENTER)

    def _give_back(self) -> None:
        if not self._before:
            return
        before, self._before = self._before, []
        try:
            self._write(_LEAVE)
        finally:
            # Typed text that was not read must not become a command in the shell.
            termios.tcsetattr(self._terminal, termios.TCSAFLUSH, before)

    def _write(self, text: str) -> None:
        left = text.encode("utf-8", "replace")
        while left:
            left = left[os.write(self._terminal, left) :]


class Feed(Generic[Told]):
    """Reads a watch in its own thread, so that one loop can wait for it and for keys.

    Args:
        watch: gives news from the daemon; closed with the feed.
    """

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self._news: deque[Told | Failure | None] = deque()
        self._reading, self._writing = os.pipe()
        # A full pipe has already woken the reader, and must not block the thread forever.
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._read, name="backpack-watch", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return a descriptor that is readable while there is news."""
        return self._reading

    def news(self) -> list[Told]:
        """Return the news since the last call.

        Raises:
            Failure: the watch has ended, and everything before that was returned.
        """
        os.read(self._reading, _KEYS_LIMIT)
        told: list[Told] = []
        while self._news:
            each = self._news[0]
            if isinstance(each, Failure) or each is None:
                if told:
                    self._wake()
                    break
                raise each or Failure("the daemon ended the watch", reason="watch-ended")
            told.append(each)
            self._news.popleft()
        return told

    def close(self) -> None:
        """End the watch and its thread."""
        self._watch.close()
        self._thread.join()
        os.close(self._reading)
        os.close(self._writing)

    def _read(self) -> None:
        try:
            for each in self._watch:
                self._news.append(each)
                self._wake()
        except Failure as failure:
            self._news.append(failure)
        else:
            self._news.append(None)
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._writing, b"\0")


def run(view: View[Told], start: Callable[[], Any], authorize: Callable[[], None]) -> None:
    """Show a view until a key ends it.

    Args:
        view: the content.
        start: starts the watch whose news the view gets.
        authorize: asks for the passphrase again, if operator authority has ended.

    Raises:
        Failure: the daemon ended the watch for another reason, or refused the action of a key.
    """
    with Screen() as screen:
        done = False
        while not done:
            feed: Feed[Told] = Feed(start())
            try:
                done = _follow(screen, feed, view)
            except Failure as failure:
                if failure.reason != "not-authorized":
                    raise
                with screen.given_back():
                    authorize()
            finally:
                feed.close()


def _follow(screen: Screen, feed: Feed[Told], view: View[Told]) -> bool:
    while True:
        size = screen.size()
        screen.draw(view.lines(*size))
        # Wakes once a second to update times, and to notice a terminal of another size.
        ready, _, _ = select.select((screen.fileno(), feed.fileno()), (), (), _TICK)
        if feed.fileno() in ready:
            for told in feed.news():
                view.told(told)
        if screen.fileno() in ready:
            pressed = screen.pressed()
            # If the screen has another size by now, some of the drawn lines are not visible.
            for key in pressed if screen.size() == size else ():
                if view.press(key):
                    return True


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
