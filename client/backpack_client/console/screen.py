"""Live screens: takes the terminal over, draws, reads keys, and gives it back whatever happens.

What is drawn is decided elsewhere (`cli.request_screen`, `cli.lease_screen`). It stands beside
`terminal` and keeps the same rules: everything that is drawn is escaped, and nothing of it goes
anywhere but to the terminal.
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
    """One line to be drawn, with how: plain, bold, chosen (reversed), dim, or root (bold)."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Self:
        """Make a line."""
        line = super().__new__(cls, text)
        line.style = style
        return line


def columns(width: int) -> int:
    """Tell how long a line may be that is drawn whole: what is cut takes three more, as a mark."""
    return max(1, width - 3)


def folded(line: str, width: int) -> list[Line]:
    """Cut a line into as many as are drawn whole on a screen of that width, from NARROWEST on."""
    style = getattr(line, "style", "")
    return [Line(each, style) for each in fold(printable(line, len(line)), columns(width))]


class View(Protocol[Told_contra]):
    """What a live screen shows, and what keys do. It knows no terminal."""

    def told(self, news: Told_contra) -> None:
        """Take in what the daemon told."""

    def lines(self, width: int, height: int) -> Sequence[str]:
        """Lay the screen out."""

    def press(self, key: str) -> bool:
        """Act on a key; True: the screen is to end."""


def check() -> None:
    """Refuse where there is no terminal to take over.

    Raises:
        Failure: a usage failure.
    """
    if sys.stdout is None or not sys.stdout.isatty():
        raise usage(
            "a live screen needs a terminal", hint="without --watch it is a plain list, for pipes"
        )


class Screen:
    """The terminal, taken over for the length of a `with` block.

    Input comes key by key without echo. Ctrl-C still interrupts; Ctrl-Z is off, since it would
    leave the shell with a terminal that shows nothing that is typed.
    """

    def __init__(self) -> None:
        try:
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise usage("a live screen needs a terminal", hint="") from None
        self._before: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Ended from outside, the program still gives the terminal back on its way out.
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
        """Give the descriptor that keys are read from."""
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
        """Tell columns and lines."""
        try:
            size = os.get_terminal_size(self._terminal)
        except OSError:
            size = shutil.get_terminal_size()
        # A terminal that was never told its size says 0.
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
            Characters, and `up` and `down`; what is not known is left out. `q` when the terminal
            has gone away.
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
                # Another function key: none of its bytes is to be taken for a key of ours.
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
        # What was typed before the screen stood there was not meant for it.
        termios.tcsetattr(self._terminal, termios.TCSAFLUSH, keys)
        self._write(_ENTER)

    def _give_back(self) -> None:
        if not self._before:
            return
        before, self._before = self._before, []
        try:
            self._write(_LEAVE)
        finally:
            # What was typed and not read must not end up in the shell as a command.
            termios.tcsetattr(self._terminal, termios.TCSAFLUSH, before)

    def _write(self, text: str) -> None:
        left = text.encode("utf-8", "replace")
        while left:
            left = left[os.write(self._terminal, left) :]


class Feed(Generic[Told]):
    """Reads a watch in a thread of its own, so that one loop can wait for it and for keys.

    Args:
        watch: gives what the daemon tells; closed with the feed.
    """

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        self._news: deque[Told | Failure | None] = deque()
        self._reading, self._writing = os.pipe()
        # A full pipe has woken the reader already, and must not stop the thread for ever.
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._read, name="backpack-watch", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Give a descriptor that is readable while there is news."""
        return self._reading

    def news(self) -> list[Told]:
        """Take what was told since the last call.

        Raises:
            Failure: the watch has ended, once everything before that was taken.
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
        view: what is shown.
        start: begins the watch that the view is told of.
        authorize: asks for the passphrase again, when operator authority has ended.

    Raises:
        Failure: the daemon ended the watch for another reason, or refused what a key asked for.
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
        # Wakes once a second for what is shown of time, and for a terminal of another size.
        ready, _, _ = select.select((screen.fileno(), feed.fileno()), (), (), _TICK)
        if feed.fileno() in ready:
            for told in feed.news():
                view.told(told)
        if screen.fileno() in ready:
            pressed = screen.pressed()
            # On a screen that has another size by now, not all stands there that was drawn.
            for key in pressed if screen.size() == size else ():
                if view.press(key):
                    return True


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
