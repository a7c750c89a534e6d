"""Measures text on a terminal, and folds or cuts lines that are too long.

A terminal continues a long line at its left edge, where the rest looks like a line of its own. A
process could pad its arguments with spaces until they look like another process, or like the root
that is to be approved. So every line is folded with a mark, or cut, before it is printed. Pure: it
uses no terminal.
"""

_CONTINUED = "    | "
CUT = "..."
"""The mark at the end of cut text."""
NARROWEST = 20
"""The smallest width for folding, in columns."""


def width(text: str) -> int:
    """Return how many columns printable text takes at most.

    Every character outside ASCII counts as two columns, like a wide character, because terminals
    differ. A line that ends too early does no harm.
    """
    return sum(map(_columns, text))


def cut(text: str, columns: int) -> str:
    """Cut text to a number of columns; what was cut ends in "...".

    Args:
        text: printable.
        columns: at least three.
    """
    if width(text) <= columns:
        return text
    place, taken = 0, len(CUT)
    while (taken := taken + _columns(text[place])) <= columns:
        place += 1
    return text[:place] + CUT


def fold(text: str, columns: int) -> list[str]:
    """Fold a line into as many as a terminal of that width takes, all but the first marked.

    Args:
        text: printable.
        columns: the width of the terminal.
    """
    room = max(columns, NARROWEST)
    lines, line, taken = [], "", 0
    for character in text:
        columns = _columns(character)
        if taken + columns > room:
            lines.append(line)
            line, taken = _CONTINUED, len(_CONTINUED)
        line += character
        taken += columns
    return [*lines, line]


def _columns(character: str) -> int:
    return 1 if character.isascii() else 2
