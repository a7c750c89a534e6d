"""Folds lines that are longer than a terminal is wide, so that what goes on is seen to go on.

Left to the terminal, the rest of a long line begins at its left edge like a line of its own: a
process could pad its arguments with spaces until they look like another process, or like the root
that is to be approved. Pure: no terminal is asked.
"""

_CONTINUED = "    | "
NARROWEST = 20
"""Columns: no line is folded for less."""


def fold(text: str, columns: int) -> list[str]:
    """Cut a line into as many as a terminal of that width takes, all but the first marked.

    Args:
        text: printable.
        columns: the width. Everything but ASCII counts twice, as wide characters do: too short a
            line does no harm.
    """
    room = max(columns, NARROWEST)
    lines, line, taken = [], "", 0
    for character in text:
        width = 1 if character.isascii() else 2
        if taken + width > room:
            lines.append(line)
            line, taken = _CONTINUED, len(_CONTINUED)
        line += character
        taken += width
    return [*lines, line]
