"""Reads what a person types or pastes at a terminal: one line, or several.

The terminal's own line editing returns one line at a time, cuts long lines, and leaves the text
after the line end to the next reader, which is the shell. Pasted text would lose all lines except
the first, and the shell would run the rest. So this file assembles the lines itself:

* Bracketed paste (xterm's control sequences, `CSI ? 2004 h`): the text between the two marks is one
  text, line ends included.
* Without it, only the speed shows that the person pastes. So after a line end, everything that
  follows before the input pauses belongs to the same text.
"""

import contextlib
import os
import select
import termios
from collections.abc import Iterator

PAUSE = 0.2
"""Seconds without input after which a paste is over. A person needs longer for the next line."""

_BEGIN_PASTES, _END_PASTES = b"\x1b[?2004h", b"\x1b[?2004l"
_PASTE, _PASTED = b"\x1b[200~", b"\x1b[201~"
_ESCAPE = 0x1B
_END_OF_INPUT, _BACKSPACE, _DELETE, _KILL_LINE, _KILL_WORD = 0x04, 0x08, 0x7F, 0x15, 0x17
_FINAL = range(0x40, 0x7F)
"""Bytes that end a control sequence (ECMA-48, 5.4)."""
_CONTINUES = range(0x80, 0xC0)
"""Bytes of UTF-8 that continue a character."""
_CHUNK = 4096


class TooLongError(Exception):
    """The input is longer than allowed. All of it was read and dropped."""


def read(
    terminal: int, prompt: str, limit: int, *, echo: bool = False, lines: bool = False
) -> bytes | None:
    """Show a prompt, and read until the person is done.

    Text typed before the prompt is dropped, and no pasted text is left for the next reader.

    Args:
        terminal: the controlling terminal's descriptor.
        prompt: printable text.
        limit: the most bytes allowed.
        echo: show what is typed.
        lines: ctrl-d ends the text; otherwise a line end does, unless it was pasted.

    Returns:
        What was typed, without the line end that ended it; with `lines`, all of it. None: the input
        ended before anything was typed.

    Raises:
        TooLongError: the input is longer than `limit`.
        OSError: the terminal is gone.
    """
    text = _Text(terminal, echo=echo, lines=lines)
    with _by_single_bytes(terminal, prompt):
        while not text.done:
            data = os.read(terminal, _CHUNK)
            if not data:
                break
            text.feed(data)
            while text.may_go_on and len(text.taken) <= limit:
                _read_on(terminal, text)
            if len(text.taken) > limit:
                break
        if lines or len(text.taken) > limit:
            _drain(terminal)
    if len(text.taken) > limit:
        raise TooLongError
    taken = bytes(text.taken)
    if text.ended_line and not text.went_on:
        taken = taken.removesuffix(b"\n")
    return taken if taken or text.ended_line else None


def _read_on(terminal: int, text: "_Text") -> None:
    """Take what follows a line end without a pause, up to the next line end.

    The person pastes, and the terminal does not mark it.
    """
    if text.whole_lines and not _more_within(terminal, PAUSE):
        text.done = True
    elif data := os.read(terminal, _CHUNK):
        text.feed_pasted(data)
    else:
        text.done = True


def _drain(terminal: int) -> None:
    while _more_within(terminal, PAUSE) and os.read(terminal, _CHUNK):
        pass


def _more_within(terminal: int, seconds: float) -> bool:
    return bool(select.select([terminal], (), (), seconds)[0])


class _Text:
    """The text so far.

    Attributes:
        taken: the bytes.
        ended_line: whether a typed line end has ended it.
        went_on: whether more came immediately after that line end.
        done: whether nothing more is read.
    """

    def __init__(self, terminal: int, *, echo: bool, lines: bool) -> None:
        self.taken = bytearray()
        self.ended_line = False
        self.went_on = False
        self.done = False
        self._terminal = terminal
        self._echo = echo
        self._lines = lines
        self._pasting = False
        self._sequence = bytearray()
        self._edits = {
            _BACKSPACE: self._erase,
            _DELETE: self._erase,
            _KILL_LINE: self._erase_line,
            _KILL_WORD: self._erase_word,
        }

    def feed(self, data: bytes) -> None:
        """Take input until the text ends. What follows its end was pasted with it."""
        for place, byte in enumerate(data):
            self._take(byte)
            if self.done:
                return
            if self.ended_line:
                self.feed_pasted(data[place + 1 :])
                return

    def feed_pasted(self, data: bytes) -> None:
        """Take unchanged what came immediately after the line end."""
        self.taken += data
        self.went_on = self.went_on or bool(data)
        self._show(data)

    @property
    def may_go_on(self) -> bool:
        """Whether it is still open if the line end was typed or pasted."""
        return self.ended_line and not self.done

    @property
    def whole_lines(self) -> bool:
        """Whether every line is complete."""
        return self.taken.endswith(b"\n")

    def _take(self, byte: int) -> None:
        if self._sequence or byte == _ESCAPE:
            self._take_sequence(byte)
        elif byte == _END_OF_INPUT and not self._pasting:
            # In the middle of a line, ctrl-d does nothing.
            self.done = self._lines or not self.taken
        elif byte in self._edits and not self._pasting:
            self._edits[byte]()
        else:
            self.taken.append(byte)
            self.ended_line = byte == ord("\n") and not self._pasting and not self._lines
            self._show(bytes((byte,)))

    def _take_sequence(self, byte: int) -> None:
        """Take a byte of a control sequence. Keys that move a cursor do nothing."""
        self._sequence.append(byte)
        sequence = bytes(self._sequence)
        if self._pasting:
            if sequence == _PASTED:
                self._pasting = False
            elif _PASTED.startswith(sequence):
                return
            else:
                self.taken += sequence
                self._show(sequence)
        elif sequence == _PASTE:
            self._pasting = True
        elif sequence in (b"\x1b", b"\x1b[", b"\x1bO") or (
            sequence.startswith(b"\x1b[") and byte not in _FINAL
        ):
            return
        self._sequence.clear()

    def _erase_line(self) -> None:
        while self._erase():
            pass

    def _erase_word(self) -> None:
        while self.taken.endswith(b" ") and self._erase():
            pass
        while not self.taken.endswith(b" ") and self._erase():
            pass

    def _erase(self) -> bool:
        """Erase the last character of the line; return whether there was one."""
        if not self.taken or self.taken.endswith(b"\n"):
            return False
        while self.taken and self.taken.pop() in _CONTINUES:
            pass
        self._show(b"\b \b")
        return True

    def _show(self, data: bytes) -> None:
        # The line end that ends the text is shown when reading is over, with or without echo.
        if self._echo and not self.ended_line:
            os.write(self._terminal, data)


@contextlib.contextmanager
def _by_single_bytes(terminal: int, prompt: str) -> Iterator[None]:
    """Have the terminal pass on each byte at once and show none; restore it at the end."""
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    # Ctrl-Z would give the terminal back with the echo off, and continue the prompt with it on.
    quiet[6][termios.VSUSP] = b"\0"
    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
    # TCSAFLUSH drops what was typed before the prompt appeared: it was meant for something else.
    termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
    marks_pastes = os.environ.get("TERM", "dumb") not in ("", "dumb")
    try:
        os.write(
            terminal,
            (_BEGIN_PASTES if marks_pastes else b"") + prompt.encode(errors="backslashreplace"),
        )
        yield
    finally:
        # The typed line end was not shown.
        os.write(terminal, (_END_PASTES if marks_pastes else b"") + b"\n")
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
