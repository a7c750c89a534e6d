"""Long output goes through a pager where it is read on a terminal, and nowhere else."""

import os
import subprocess
import sys

import pytest

from pseudo_terminal import Terminal

PROGRAM = """
import sys
from backpack_client.console import styled
from backpack_client.console.pager import paged
look = styled.standard_look()
with paged(wanted=sys.argv[1] == "paged"):
    for number in range(int(sys.argv[2])):
        styled.print_styled([(f"line {number} ", "red"), ("of it", "")], look)
print("after")
"""
MARKED = """sed 's/^/> /'"""


def shown(wanted: str, lines: int = 2) -> bytes:
    """Run the program on a terminal, and return what came on it."""
    with Terminal(["-c", PROGRAM, wanted, str(lines)], screen_out=True) as terminal:
        terminal.expect(b"after")
        code, _ = terminal.end()
        assert code == 0
        return terminal.before


def test_a_pager_gets_what_is_printed_and_ends_before_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAGER", MARKED)
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown("paged") == b"> line 0 of it\r\n> line 1 of it\r\n"
    assert shown("plain") == b"line 0 of it\r\nline 1 of it\r\n"


@pytest.mark.parametrize("pager", ["", "cat", "/nonexistent/pager"])
def test_without_a_pager_everything_is_printed(monkeypatch: pytest.MonkeyPatch, pager: str) -> None:
    monkeypatch.setenv("PAGER", pager)
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown("paged") == b"line 0 of it\r\nline 1 of it\r\n"


def test_a_pager_that_is_left_early_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "head -n 1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown("paged", 100_000) == b"line 0 of it\r\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_are_on_a_terminal_and_can_be_turned_off(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert b"\x1b[31mline 0 \x1b[0mof it" in shown("plain")
    monkeypatch.setenv(variable, value)
    assert b"\x1b" not in shown("plain")


def test_a_pipe_gets_neither_pager_nor_colours() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "paged", "1"],
        env={**os.environ, "PAGER": MARKED, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"line 0 of it\nafter\n"
