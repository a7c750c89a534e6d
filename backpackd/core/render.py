"""The one way in which text from outside is shown: escaped, on one line, cut to length.

Arguments, paths, unit names and reasons come from whoever asks. Shown raw they could move the
cursor, colour a line like one of ours, end a line and forge the next, or turn the direction of
writing so that a path reads as another.
"""

_ELLIPSIS = "..."


def render(text: str, *, limit: int) -> str:
    """Return text fit to be shown on one line.

    Control characters, line and paragraph separators, bidirectional overrides, private and
    unassigned characters, lone surrogates and every space but the plain one are escaped as in
    Python source, and so is the backslash, so that an escape cannot be forged.

    Args:
        text: anything.
        limit: how many characters the result may have; at least 4. A longer one is cut between
            two characters of the text and ends with three dots.
    """
    shown: list[str] = []
    length = 0
    for character in text:
        piece = character if character.isprintable() and character != "\\" else _escape(character)
        shown.append(piece)
        length += len(piece)
        if length > limit:
            return _cut(shown, limit)
    return "".join(shown)


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
