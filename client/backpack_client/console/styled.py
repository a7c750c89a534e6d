"""Lines with styles on standard output: cut or folded to the terminal, with colours if it has them.

It keeps the same rules as `terminal`.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from backpack_client.console.line_folding import cut, fold, width
from backpack_client.console.terminal import LINE_LIMIT, columns_of, writing
from backpack_client.failures import printable

Part = tuple[str, str]
"""A piece of a line, and its style: "", bold, dim, red, green or yellow."""

_STYLES = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How wide lines may be, and whether they have colours.

    Attributes:
        columns: the width; None: no limit, as for a file or a pipe.
        colours: whether styles are shown.
    """

    columns: int | None
    colours: bool


def print_styled(parts: Sequence[Part], look: Look) -> None:
    """Write one line to standard output, cut to the width that it may have.

    Args:
        parts: pieces of the line with the style of each: "", bold, dim, red, green or yellow.
        look: the width, and whether there are colours, see `standard_look`.
    """
    pieces = [(printable(text, LINE_LIMIT), style) for text, style in parts]
    rest = "".join(text for text, _ in pieces).rstrip()
    if look.columns is not None:
        # Cut the line as a whole, so that a cut is always marked.
        rest = cut(rest, look.columns)
    written = ""
    for text, style in pieces:
        piece, rest = rest[: len(text)], rest[len(text) :]
        written += f"{_STYLES[style]}{piece}\x1b[0m" if style and piece and look.colours else piece
    with writing():
        sys.stdout.write(f"{written}{rest}\n")


def print_block(lines: Sequence[Sequence[Part]], look: Look) -> None:
    """Write lines that belong together, and an empty line, to standard output, without cuts.

    Args:
        lines: as for `print_styled`; the last part of each line is folded if it is too long.
        look: as for `print_styled`.
    """
    for parts in lines:
        *before, (text, style) = parts
        shown = printable(text, LINE_LIMIT)
        taken = sum(width(each) for each, _ in before)
        folded = [shown] if look.columns is None else fold(shown, look.columns - taken)
        for number, piece in enumerate(folded):
            indent = before if not number else [(" " * taken, "")]
            print_styled([*indent, (piece, style)], Look(None, colours=look.colours))
    print_styled([], look)


def standard_look() -> Look:
    """Return the look of lines on standard output: as wide as its terminal, if it is one."""
    if sys.stdout is None or not sys.stdout.isatty():
        return Look(None, colours=False)
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Look(columns_of(sys.stdout), colours=colours)
