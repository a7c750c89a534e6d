import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backpackd.core.errors import InvalidRequestError
from backpackd.core.names import (
    MAX_NAME,
    MAX_VALUE,
    check_name,
    check_names,
    check_pattern,
    check_value,
    matches,
)

NOT_NAMES = [
    pytest.param("", id="empty"),
    pytest.param("1KEY", id="digit first"),
    pytest.param("-KEY", id="hyphen first"),
    pytest.param(".KEY", id="point first"),
    pytest.param("A KEY", id="space"),
    pytest.param("KEY\n", id="line end"),
    pytest.param("KEY\0", id="nul"),
    pytest.param("A/KEY", id="slash"),
    pytest.param("A=KEY", id="equals sign"),
    pytest.param("A%KEY", id="per cent"),
    pytest.param("K\N{LATIN CAPITAL LETTER E WITH ACUTE}Y", id="not ASCII"),
    pytest.param("KEY\N{ARABIC-INDIC DIGIT ONE}", id="digit of another script"),
    pytest.param("\N{KELVIN SIGN}EY", id="folds to a letter"),
    pytest.param("A" * (MAX_NAME + 1), id="too long"),
]


def slowly_matches(pattern: str, name: str) -> bool:
    """Match the obvious way, trying everything that an asterisk may stand for."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(slowly_matches(pattern[1:], name[place:]) for place in range(len(name) + 1))
    return name[:1] == pattern[0] and slowly_matches(pattern[1:], name[1:])


@pytest.mark.parametrize("name", ["A", "_", "OPENAI_API_KEY", "a.b-c_9", "A" * MAX_NAME])
def test_a_name_of_the_form_is_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", NOT_NAMES)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_name(name)
    assert caught.value.reason == "invalid-name"


@given(st.text())
def test_a_text_is_a_name_exactly_when_it_has_the_documented_form(text: str) -> None:
    documented = re.compile(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z")
    try:
        accepted = check_name(text) == text
    except InvalidRequestError:
        accepted = False
    assert accepted == bool(documented.search(text))


def test_a_refused_name_is_not_repeated() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_name("sk-MARKER a value in the wrong place")
    assert "MARKER" not in str(caught.value)


def test_the_names_of_a_request_come_back_in_their_order() -> None:
    assert check_names(["B", "A", "C"], most=3) == ("B", "A", "C")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no-names"),
        (["A", "B", "C", "D"], "too-many-names"),
        (["A", "B", "A"], "repeated-name"),
        (["A", "B C"], "invalid-name"),
    ],
)
def test_a_request_with_names_at_fault_is_refused(names: list[str], reason: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_names(names, most=3)
    assert caught.value.reason == reason


@pytest.mark.parametrize("value", [b"\0", b"v", bytes(MAX_VALUE)])
def test_a_value_of_1_to_65536_bytes_is_accepted(value: bytes) -> None:
    assert check_value(value) == value


@pytest.mark.parametrize("value", [b"", bytes(MAX_VALUE + 1)])
def test_a_value_of_another_size_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_value(value)
    assert caught.value.reason == "invalid-value"


@pytest.mark.parametrize("pattern", ["A", "*", "**", "OPENAI_*", "*_KEY", "A*B*C", "*" * MAX_NAME])
def test_a_pattern_of_the_form_is_accepted(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", [*NOT_NAMES, "A?", "A[B]", "A{B,C}", "A\\*", "A* ", "!A"])
def test_a_pattern_of_another_form_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_pattern(pattern)
    assert caught.value.reason == "invalid-pattern"


@settings(max_examples=1000)
@given(
    st.text(alphabet="aB*", min_size=1, max_size=8), st.text(alphabet="aB", min_size=1, max_size=10)
)
@example("a*a", "a")
@example("aB*Ba", "aBa")
@example("*a*a*", "aBa")
@example("*aB*aB", "aBaB")
@example("*a*a*", "a")
@example("*aB*B*", "aB")
def test_matching_agrees_with_trying_everything(pattern: str, name: str) -> None:
    assert matches(pattern, name) == slowly_matches(pattern, name)


@given(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,20}\Z"))
def test_only_an_asterisk_stands_for_other_characters(name: str) -> None:
    assert matches(name, name)
    assert not matches(name, name + "x")
    assert not matches(name, name.swapcase()) or name == name.swapcase()


def test_a_point_in_a_pattern_is_only_a_point() -> None:
    assert not matches("A.B*", "AXBC")


def test_matching_takes_no_time_that_grows_with_the_ways_to_match() -> None:
    # Backtracking would try more ways than there are atoms; the test's timeout would end it.
    assert not matches("*a" * 63 + "*b", "a" * MAX_NAME)
