"""Makes text from outside safe to show: escaped, on one line, cut to length.

Arguments, paths, unit names and reasons come from the caller. Shown raw, they could move the
cursor, colour a line like one of ours, end a line and forge the next, or turn the direction of
writing so that a path reads as another.
"""

import unicodedata

_ELLIPSIS = "..."
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and signs that are drawn as nothing: fillers of Hangul, and Braille without a dot."""
_VARIATION = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
"""Marks that choose a form and are drawn as nothing by themselves."""


def render(text: str, *, limit: int) -> str:
    """Return text fit to be shown on one line.

    Control characters, line and paragraph separators, bidirectional overrides, private and
    unassigned characters, lone surrogates and every space but the plain one are escaped as in
    Python source, and so is the backslash, so that an escape cannot be forged. So are characters
    that are drawn as nothing, and marks on a letter beyond the first, which are drawn over others.

    Args:
        text: anything.
        limit: how many characters the result may have; at least 4. A longer one is cut between
            two characters of the text and ends with three dots.
    """
    start = text[: limit + 1]
    if start.isascii() and start.isprintable() and "\\" not in start:
        # Nearly every text: a listing of requests shows many thousand.
        return text if len(text) <= limit else text[: limit - len(_ELLIPSIS)] + _ELLIPSIS
    shown: list[str] = []
    length = 0
    before = ""
    for character in text:
        piece = character if _is_plain(character, before) else _escape(character)
        shown.append(piece)
        length += len(piece)
        before = character
        if length > limit:
            return _cut(shown, limit)
    return "".join(shown)


def _is_plain(character: str, before: str) -> bool:
    """Return whether a character is shown as it is, after another one."""
    if character.isascii() or not character.isprintable():
        return character.isprintable() and character != "\\"
    if character in _BLANK or any(ord(character) in those for those in _VARIATION):
        return False
    return not _is_mark(character) or (before.isalpha() and not _is_mark(before))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in {"Mn", "Me"}


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _cut(pieces: list[str], limit: int) -> str:
    room = limit - len(_ELLIPSIS)
    kept, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > room:
            break
        kept.append(piece)
    return "".join(kept) + _ELLIPSIS
