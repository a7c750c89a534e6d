"""Lengths of time as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.durations import MAXIMUM_SECONDS, format_duration, parse_duration, parse_wait
from backpack_client.failures import EXIT_USAGE, Failure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604800), ("900", 900), ("1", 1), ("007s", 7)],
)
def test_a_number_with_its_unit_is_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "m", "-1", "+1", "1.5h", "1h30m", " 1s", "1s ", "1 s", "1S", "1w", "1_0", "0x1"),
        *("²s", "\u0661m", "1e3", "9" * 40, "1\n", "\ud800", "s1", "ss"),
    ],
)
def test_anything_else_is_a_usage_failure(text: str) -> None:
    with pytest.raises(Failure, match=r"not a duration") as caught:
        parse_duration(text)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("text", ["0", "0s", "0d", "367d", "999999999d"])
def test_what_is_out_of_bounds_is_a_usage_failure_that_tells_the_bounds(text: str) -> None:
    with pytest.raises(Failure, match=r"out of bounds") as caught:
        parse_duration(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert "366d" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("0s", 0), ("0m", 0), ("1", 1), ("60s", 60), ("1h", 3600)]
)
def test_a_wait_may_be_none_at_all(text: str, seconds: int) -> None:
    assert parse_wait(text) == seconds


@pytest.mark.parametrize("text", ["3601", "2h", "", "s", "00", "-0", "0x"])
def test_a_wait_of_another_form_or_longer_than_an_hour_is_a_usage_failure(text: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_wait(text)
    assert caught.value.exit_code == EXIT_USAGE


@given(st.text(max_size=12))
def test_any_text_is_a_duration_within_bounds_or_a_failure(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except Failure:
        return
    assert 1 <= seconds <= MAXIMUM_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (-5, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (90, "1m 30s")),
        *((3600, "1h"), (3601, "1h"), (5400, "1h 30m"), (90061, "1d 1h"), (604800, "7d")),
    ],
)
def test_a_length_is_written_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
