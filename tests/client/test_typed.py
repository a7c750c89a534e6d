"""What is typed or pasted at a prompt, on a real terminal: all of it is taken, or nothing."""

import os
import select
import time

import pytest

from backpack_client.console import typed
from pseudo_terminal import Terminal

PEM = b"-----BEGIN X-----\n" + b"QUJD" * 12 + b"\n-----END X-----\n"
LARGE = b"".join(b"line %d of a file\n" % number for number in range(600))
BEGIN, END = b"\x1b[200~", b"\x1b[201~"

# Tells what it got, and how many bytes it has left for whoever reads the terminal next.
ASK = """
import fcntl, os, sys, termios
from backpack_client.console import terminal, values
from backpack_client.failures import Failure
try:
    got = repr({call})
except Failure as failure:
    got = failure.reason
left = bytearray(4)
fcntl.ioctl(9, termios.FIONREAD, left)
print(got, int.from_bytes(left, sys.byteorder))
"""
VALUE = 'values.value("K", None)'
LINES = 'values.value("K", "-")'
PASSPHRASE = 'terminal.passphrase("passphrase", None)'
CONFIRM = 'terminal.confirm("sure?")'
ANSWER = 'terminal.answer("tone", "calm")'


def at_prompt(call: str, prompt: bytes, *, screen_in: bool = False) -> Terminal:
    at = Terminal(["-c", ASK.format(call=call)], screen_in=screen_in)
    at.expect(prompt)
    return at


def told(at: Terminal) -> tuple[str, str]:
    """Return what the program got and how much it left, without its notes."""
    _, output = at.end()
    got, _, left = output.decode().splitlines()[-1].rpartition(" ")
    return got, left


def slowly(at: Terminal, text: bytes) -> None:
    """Paste as a terminal over a slow line does: line by line, with short pauses."""
    for line in text.splitlines(keepends=True):
        at.type(line)
        time.sleep(typed.PAUSE / 8)


@pytest.mark.parametrize("text", [PEM, PEM.rstrip(), b'{\n  "type": 1\n}\n', LARGE])
def test_a_marked_paste_of_several_lines_is_taken_whole_once_it_is_confirmed(text: bytes) -> None:
    with at_prompt(VALUE, b"value of K: ") as at:
        at.type(BEGIN + text.replace(b"\n", b"\r") + END + b"\r")
        at.expect(b"store? [y/N] ")
        assert f"{len(text):,} bytes".encode() in at.before
        assert text.splitlines()[0] not in at.before
        at.type(b"y\n")
        assert told(at) == (repr(text), "0")


@pytest.mark.parametrize("text", [PEM, LARGE])
def test_so_is_one_that_the_terminal_does_not_mark(text: bytes) -> None:
    with at_prompt(VALUE, b"value of K: ") as at:
        at.type(text)
        at.expect(b"store? [y/N] ")
        at.type(b"y\n")
        assert told(at) == (repr(text), "0")


def test_so_is_one_that_comes_slowly() -> None:
    with at_prompt(VALUE, b"value of K: ") as at:
        slowly(at, PEM)
        at.expect(b"ends with a newline: store? [y/N] ")
        at.type(b"y\n")
        assert told(at) == (repr(PEM), "0")


def test_what_is_not_confirmed_is_not_taken() -> None:
    with at_prompt(VALUE, b"value of K: ") as at:
        at.type(PEM)
        at.expect(b"3 lines")
        at.expect(b"[y/N] ")
        at.type(b"\n")
        assert told(at) == ("not-confirmed", "0")


@pytest.mark.parametrize(
    ("call", "prompt"),
    [(PASSPHRASE, b"passphrase: "), (ANSWER, b"tone [calm]: ")],
)
@pytest.mark.parametrize("marked", [True, False])
def test_where_one_line_is_asked_for_several_are_refused_and_none_is_left(
    call: str, prompt: bytes, *, marked: bool
) -> None:
    with at_prompt(call, prompt) as at:
        at.type(BEGIN + PEM + END + b"\n" if marked else PEM)
        assert told(at) == ("usage", "0")


def test_several_lines_are_no_yes_and_none_is_left() -> None:
    with at_prompt(CONFIRM, b"sure? [y/N] ") as at:
        at.type(b"y\nrm -rf /\n")
        assert told(at) == ("False", "0")


@pytest.mark.parametrize("call", [VALUE, LINES])
def test_more_than_a_value_may_have_is_refused_and_none_is_left(call: str) -> None:
    with at_prompt(call, b"value of K", screen_in=call == LINES) as at:
        text = b"x" * 1023 + b"\n"
        for _ in range(70):
            assert select.select([], [at.screen], [], 20)[1]
            os.write(at.screen, text)
        assert told(at) == ("usage", "0")


def test_lines_are_typed_until_ctrl_d() -> None:
    with at_prompt(LINES, b"ends with ctrl-d on a line of its own): ", screen_in=True) as at:
        for line in (b"one\n", b"\n", b"thref\x7fe\n"):
            at.type(line)
            time.sleep(typed.PAUSE * 2)
        at.type(b"\x04")
        got = told(at)
        assert b"one" not in at.shown
    assert got == (repr(b"one\n\nthree\n"), "0")


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (b"abc\n", b"abc"),
        (b"abX\x7fc\n", b"abc"),
        (b"wrong\x15abc\n", b"abc"),
        (b"abc wrong \x17\n", b"abc "),
        ("ab\u00e4\x08c\n".encode(), b"abc"),
        (b"a\x1b[Db\x1bOAc\x1b[3~\n", b"abc"),
        (b"a\x04bc\n", b"abc"),
        (BEGIN + b"abc" + END + b"\n", b"abc"),
        (BEGIN + b"a\x15\x04\x1b[Db" + END + b"\n", b"a\x15\x04\x1b[Db"),
        (BEGIN + b"abc\r" + END + b"\n", b"abc"),
        (b"x" * 9000 + b"\n", b"x" * 9000),
    ],
)
def test_keys_that_edit_edit_and_what_is_pasted_is_taken_as_it_is(
    keys: bytes, taken: bytes
) -> None:
    with at_prompt(VALUE, b"value of K: ") as at:
        for start in range(0, len(keys), 4000):
            at.type(keys[start : start + 4000])
        assert told(at) == (repr(taken), "0")


def test_what_is_typed_is_shown_where_it_may_be() -> None:
    with at_prompt(ANSWER, b"tone [calm]: ") as at:
        at.type(b"warn\x7fm\n")
        assert told(at) == ("'warm'", "0")
        at.expect(b"warn\x08 \x08m")


def test_the_end_of_the_input_is_no_answer() -> None:
    with at_prompt(ANSWER, b"tone [calm]: ") as at:
        at.type(b"\x04")
        assert told(at) == ("not-confirmed", "0")
    with at_prompt(ANSWER, b"tone [calm]: ") as at:
        at.type(b"\n")
        assert told(at) == ("'calm'", "0")


@pytest.mark.parametrize("terminal", ["", "dumb"])
def test_a_terminal_that_knows_no_sequences_gets_none(
    terminal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    with at_prompt(VALUE, b"value of K: ") as at:
        at.type(b"v\n")
        assert told(at) == (repr(b"v"), "0")
        assert b"\x1b" not in at.before + at.shown
