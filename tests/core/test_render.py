"""Text from outside, as it is shown: on one line, in bounds, and no escape forged."""

import ast
from collections.abc import Iterator
from typing import SupportsIndex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.render import render

TEXTS = st.text(st.characters(), max_size=60)


@given(TEXTS, st.integers(4, 80))
@settings(max_examples=500)
def test_the_result_is_printable_and_within_its_limit(text: str, limit: int) -> None:
    shown = render(text, limit=limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert shown.splitlines() in ([], [shown])


@given(TEXTS)
@settings(max_examples=500)
def test_what_was_escaped_can_be_told_from_what_looks_like_it(text: str) -> None:
    shown = render(text, limit=1000)
    assert ast.literal_eval('"' + shown.replace('"', '\\"') + '"') == text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, blacklist_characters="\\")))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert render(text, limit=max(4, len(text))) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("a\r\x1b[2Kb", "a\\r\\x1b[2Kb"),
        ("\x9b31m", "\\x9b31m"),
        ("a\tb", "a\\tb"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("/bin/\u202ehs.exe", "/bin/\\u202ehs.exe"),
        ("\u2066x\u2069\u200e\u200f\u061c", "\\u2066x\\u2069\\u200e\\u200f\\u061c"),
        ("a\u200bb\ufeffc", "a\\u200bb\\ufeffc"),
        ("a\u00a0b\u3000c", "a\\xa0b\\u3000c"),
        ("\ud800", "\\ud800"),
        ("\ue000\U000e0041", "\\ue000\\U000e0041"),
        ("a\u3164b\u2800c\u115f\u1160\uffa0", "a\\u3164b\\u2800c\\u115f\\u1160\\uffa0"),
        ("a\ufe0fb\U000e0100", "a\\ufe0fb\\U000e0100"),
        ("nai\u0308ve", "nai\u0308ve"),
        ("e\u0301\u0302\u0303", "e\u0301\\u0302\\u0303"),
        ("\u0301a /\u0301", "\\u0301a /\\u0301"),
        ("\\n", "\\\\n"),
        ("naïve Straße 日本", "naïve Straße 日本"),
        ("", ""),
    ],
)
def test_what_could_deceive_is_escaped(text: str, shown: str) -> None:
    assert render(text, limit=100) == shown


def test_an_escape_is_not_cut_in_two() -> None:
    assert render("ab\n\n\n", limit=7) == "ab\\n..."
    assert render("ab\n\n\n", limit=6) == "ab..."


def test_text_that_just_fits_is_not_cut() -> None:
    assert render("abcdef", limit=6) == "abcdef"
    assert render("abcdefg", limit=6) == "abc..."


@pytest.mark.parametrize("character", ["x", "é"])
def test_a_long_text_is_read_no_further_than_it_is_shown(character: str) -> None:
    read = 0

    class Counting(str):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            nonlocal read
            for place, each in enumerate(str.__iter__(self), start=1):
                read = max(read, place)
                yield each

        def __getitem__(self, wanted: SupportsIndex | slice) -> str:
            nonlocal read
            found = str.__getitem__(self, wanted)
            read = max(read, len(found))
            return found

        def isprintable(self) -> bool:
            raise AssertionError("the whole of it was looked at")

    render(Counting(character * 10_000), limit=10)
    assert 0 < read <= 11
