r"""Reads `.env` text: names and values from files that every program reads in its own way.

Pure: bytes in, entries out. The rule: take a value only if the two most used readers, npm's dotenv
and python-dotenv, agree on it, and skip the rest with a reason. A key that silently differs from
the program's earlier value is worse than a missing key. Shells, which read much of this differently
(`A=b c`, `A=b;c`), do not count. No reason, error or repr has a value or text that could be part of
one.

What is read:

* `NAME=value`, with `export` before it and spaces around the `=` allowed. Empty lines and lines
  that begin with `#` are ignored. Line ends may be LF, CRLF or CR. A byte order mark is dropped.
* Without quotes, the value ends at the end of the line or before ` #`; a backslash is a backslash.
* In single quotes, everything is taken as it stands, newlines included.
* In double quotes as well, except `\n` and `\r`, which have their usual meanings.

A quoted value may have several lines, but none of them may read like `NAME=`: more likely, a quote
was never closed and would take in other keys. (The last line of Base64, which ends in `=`, may.)

Skipped are: such values, empty values, `$NAME`, `${NAME}`, `$(...)` and backquotes outside of
single quotes, and `${` also in them, a `#` without a space before it and unusual white space
outside of quotes, other backslashes in double quotes, `\\` in single quotes, text behind a closing
quote, a backslash at the end of an unquoted line, PEM blocks without quotes, braces and quotes that
are not closed in an unquoted value, references and ciphertexts of other tools (`references`),
values over 64 KiB, names that no key can have, and all but the last of a name that comes again.

If the readers differ about which lines belong to a value, the whole text is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from backpack_client.failures import is_key_name
from backpack_client.files.references import recognised, unbalanced

VALUE_LIMIT = 64 * 1024

_ESCAPES = {"n": "\n", "r": "\r"}
_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?(?!export[ \t]+=)([^\s=#'\"]+)[ \t]*=")
# Text that one of the readers may take for an assignment, in a line that is not one here.
_PERHAPS_NAMED = re.compile(
    r"[\s\ufeff']*(?:export\s+)?'?([A-Za-z0-9_.-]+)[\s\ufeff']*(?:[=:#]|\Z)"
)
# A line that, for one of the readers, includes lines below it, as a quoted name or as a value.
_TAKES_IN = re.compile(
    r"[\s\ufeff]*(?:(?:export\s+)?'[^']*|[A-Za-z0-9_.-]+:[\s\ufeff]*)\Z"
    r"|[^=]*=\s*([\"'])(?:(?!\1).)*(?:\\.*)?\Z"
)
_EXPANSION = re.compile(r"\$[A-Za-z_{(]|`")
_COMMENT = re.compile(r"[ \t]+#")
# White space and control characters that one reader does not trim, or that end a line for one.
_UNUSUAL = re.compile(r"[^\S \t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_LINE_ENDS = re.compile(r"[\u2028\u2029]")
_QUOTES = "'\"`"
_NAMED = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_WRAPPED_BASE64 = 16
_REST = re.compile(r"[ \t]*(?:#.*)?\Z")
_SPECIAL = re.compile(r'["\\$`]')
_PEM_BEGIN = "-----BEGIN "
_PEM_END = "-----END "
_SWALLOWS = (
    "has a quote that is not closed in its line, and a line that reads like NAME= before it is: "
    "close the quote, or put the value in one line, in double quotes with \\n for its line ends"
)
_NOT_EXPANDED = (
    "has a $NAME, ${NAME}, $(...) or backquotes, which are not expanded here: write the value "
    "itself, in single quotes"
)
_BRACES = "has a ${, which programs expand also in single quotes: store it with put"
_ESCAPED = "has a backslash that programs read differently"
_UNBALANCED = (
    "has a brace or a quote that is not closed in its line: if the value goes on below, store it "
    "with put; otherwise, put it in single quotes"
)


class DotenvError(ValueError):
    """The text cannot be read as a whole.

    Attributes:
        message: lowercase; the problem and its place, without any of the text.
        line: the line's number, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Entry:
    """One key to import.

    Attributes:
        name: a name that a key can have.
        value: 1 to 65536 bytes; never shown.
        line: where it begins, from 1.
    """

    name: str
    value: bytes = field(repr=False)
    line: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Text that was skipped.

    Attributes:
        line: where it begins, from 1.
        name: its name, if that is a valid key name. Other text might be a piece of a value.
        reason: why, and what to do about it if something can be done.
    """

    line: int
    name: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a text: entries in the order of their lines, and skipped text."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


def parse(data: bytes) -> Parsed:
    """Read `.env` text.

    Args:
        data: the file's bytes.

    Raises:
        DotenvError: it is not UTF-8, a quote is never closed, or programs differ on where a value
            ends and the next one begins.
    """
    reader = _Reader(_decode(data))
    return _last_of_each(reader.read(), reader.hidden)


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _one_line_end(data[: error.start].decode()).count("\n") + 1
        # Not chained: that exception holds the data.
        raise DotenvError(f"line {line} is not UTF-8 text: save the file as UTF-8", line) from None
    text = _one_line_end(text)
    if found := _LINE_ENDS.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise DotenvError(
            f"line {line} holds a U+2028 or U+2029, which ends a line for some programs", line
        )
    return text


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Reader:
    """Goes through the text once, line by line or from quote to quote."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        # Names in lines that were skipped as a part of something else, by their last line.
        self.hidden: dict[str, int] = {}

    def read(self) -> list[Entry | Skipped]:
        """Read everything, in the order of the lines."""
        found = []
        while self._at < len(self._text):
            item = self._statement()
            if item is not None:
                found.append(item)
        return found

    def _statement(self) -> Entry | Skipped | None:
        start = self._line
        line = self._peek_line()
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            self._advance_line()
            return None
        indent = len(line) - len(line.lstrip(" \t"))
        assignment = _ASSIGNMENT.match(line, indent)
        if assignment is None or not is_key_name(assignment[1]):
            self._hide(line, start)
        if assignment is None:
            if _TAKES_IN.match(line):
                raise _unclear(start, "a quote or a colon and nothing behind it")
            _refuse_unusual(line, start)
            self._advance_line()
            return Skipped(start, None, "not of the form NAME=value")
        name = assignment[1]
        rest = line[assignment.end() :]
        blanks = len(rest) - len(rest.lstrip(" \t"))
        quote = rest[blanks : blanks + 1]
        if quote in {"'", '"'}:
            self._advance(assignment.end() + blanks + 1)
            value, trouble = self._quoted(quote, start)
        else:
            self._advance_line()
            value, trouble = self._unquoted(rest, start)
        item = _judge(start, name, value, trouble)
        end = self._line - self._text.endswith("\n", 0, self._at)
        if isinstance(item, Skipped) and end > start:
            return replace(item, reason=f"{item.reason} (lines {start}-{end})")
        return item

    def _quoted(self, quote: str, start: int) -> tuple[str, str]:
        opened = self._at
        value, trouble = self._literal(start) if quote == "'" else self._escaped(start)
        if value is None:
            raise DotenvError(
                f"the quote that opens in line {start} is never closed: close it, or put the "
                "value in quotes of the other kind",
                start,
            )
        lines = self._text[opened : self._at - 1].split("\n")
        rest = self._peek_line()
        if names := _names_in(lines):
            self.hidden.update((name, start + below) for below, name in names)
            self._advance_line()
            return value, _SWALLOWS
        self._advance_line()
        if not _REST.match(rest):
            trouble = "has text behind the closing quote, which programs read differently"
        return value, trouble

    def _literal(self, start: int) -> tuple[str | None, str]:
        end = self._text.find("'", self._at)
        if end < 0:
            return None, ""
        value = self._text[self._at : end]
        if value.endswith("\\"):
            # One reader ends the value here; the other one reads a quote inside it.
            raise _unclear(start, "a backslash before a quote")
        self._advance(end + 1 - self._at)
        if "\\\\" in value:
            return value, _ESCAPED
        return value, _BRACES if "${" in value else ""

    def _escaped(self, start: int) -> tuple[str | None, str]:
        parts = []
        expands = False
        trouble = ""
        at = self._at
        while True:
            special = _SPECIAL.search(self._text, at)
            if special is None:
                return None, ""
            stop = special.start()
            parts.append(self._text[at:stop])
            if self._text[stop] == '"':
                break
            if self._text[stop] == "\\":
                following = self._text[stop + 1 : stop + 2]
                if following not in _ESCAPES:
                    trouble = _ESCAPED + ": use single quotes"
                parts.append(_ESCAPES.get(following, "\\" + following))
                at = stop + 2
            else:
                expands = expands or _EXPANSION.match(self._text, stop) is not None
                parts.append(self._text[stop])
                at = stop + 1
        taken = self._text[self._at : stop]
        if '\\"' in taken and "\n" in taken:
            raise _unclear(start, "a backslash before a quote")
        self._advance(stop + 1 - self._at)
        return "".join(parts), trouble or (_NOT_EXPANDED if expands else "")

    def _unquoted(self, rest: str, start: int) -> tuple[str, str]:
        comment = _COMMENT.search(rest)
        value = (rest[: comment.start()] if comment else rest).strip(" \t")
        if not rest.strip() and self._text[self._at :].lstrip()[:1] in tuple(_QUOTES):
            raise _unclear(start, "no value, and a quote in the line below")
        if value.startswith("`") and "`" not in value[1:]:
            raise _unclear(start, "a backquote that is not closed in its line")
        if _UNUSUAL.search(rest):
            _refuse_unusual(rest, start)
            return value, "has unusual white space, which programs trim differently: use quotes"
        if value.startswith(_PEM_BEGIN) and _PEM_END not in value:
            self._skip_past(_PEM_END)
            return value, "has several lines without quotes: put it in single quotes"
        if "#" in value:
            return (
                value,
                "has a # without a space before it, which programs read differently: use quotes",
            )
        if value.endswith("\\"):
            return value, "ends in a backslash, which programs read differently: use quotes"
        if _EXPANSION.search(value):
            return value, _NOT_EXPANDED
        return value, _UNBALANCED if unbalanced(value) else ""

    def _skip_past(self, marker: str) -> None:
        found = self._text.find(marker, self._at)
        if found >= 0:
            for below, line in enumerate(self._text[self._at : found].split("\n")):
                self._hide(line, self._line + below)
            self._advance(found - self._at)
            self._advance_line()

    def _hide(self, line: str, number: int) -> None:
        """Note the name that some program may find in a skipped line."""
        if found := _PERHAPS_NAMED.match(line):
            self.hidden[found[1]] = number

    def _peek_line(self) -> str:
        end = self._text.find("\n", self._at)
        return self._text[self._at :] if end < 0 else self._text[self._at : end]

    def _advance_line(self) -> None:
        self._advance(len(self._peek_line()) + 1)

    def _advance(self, count: int) -> None:
        end = min(self._at + count, len(self._text))
        self._line += self._text.count("\n", self._at, end)
        self._at = end


def _names_in(lines: Sequence[str]) -> list[tuple[int, str]]:
    """Find text like an assignment below the first line: its distance in lines, and its name."""
    return [
        (below, found[1])
        for below, (above, line) in enumerate(pairwise(lines), 1)
        if (found := _NAMED.match(line)) and not _ends_base64(lines[:below], above, line)
    ]


def _ends_base64(before: Sequence[str], above: str, line: str) -> bool:
    """Return whether a line that reads like `NAME=` is the padded end of Base64 (RFC 4648)."""
    above, line = above.strip(), line.strip()
    if not _BASE64.fullmatch(line):
        return False
    marks = [each for each in before if _PEM_BEGIN in each or _PEM_END in each]
    if marks and _PEM_BEGIN in marks[-1] and _PEM_END not in marks[-1]:
        return True
    wrapped = len(above) >= max(len(line), _WRAPPED_BASE64)
    return wrapped and len(above) % 4 == len(line) % 4 == 0 and _BASE64.fullmatch(above) is not None


def _refuse_unusual(text: str, line: int) -> None:
    if _UNUSUAL.search(text) and any(quote in text for quote in _QUOTES):
        raise _unclear(line, "unusual white space and a quote")


def _unclear(line: int, what: str) -> DotenvError:
    return DotenvError(f"line {line} has {what}: programs differ on where its value ends", line)


def _judge(line: int, name: str, value: str, trouble: str) -> Entry | Skipped:
    if not is_key_name(name):
        return Skipped(
            line,
            None,
            "its name cannot be a key's name: a letter or _, then letters, digits, _ . -",
        )
    data = value.encode()
    # What it is tells more than how it is written.
    trouble = recognised(value) or trouble
    if not trouble and not data:
        trouble = "has no value"
    if not trouble and len(data) > VALUE_LIMIT:
        trouble = f"its value has over {VALUE_LIMIT} bytes"
    return Skipped(line, name, trouble) if trouble else Entry(name, data, line)


def _last_of_each(found: Iterable[Entry | Skipped], hidden: Mapping[str, int]) -> Parsed:
    items = list(found)
    last = {item.name: item.line for item in items if item.name is not None}
    for name, line in hidden.items():
        last[name] = max(line, last.get(name, 0))
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    for item in items:
        if isinstance(item, Skipped):
            skipped.append(item)
        elif last[item.name] == item.line:
            entries.append(item)
        else:
            # If the last assignment was itself skipped, the name is left out: its value is that
            # one.
            skipped.append(Skipped(item.line, item.name, f"comes again in line {last[item.name]}"))
    return Parsed(tuple(entries), tuple(skipped))
