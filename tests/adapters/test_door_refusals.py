"""Refusals in the log: one line each, and a count in a flood."""

import logging

import pytest

from backpackd.adapters.door.refusals import Refusals

LOG = logging.getLogger("test_door_refusals")


@pytest.fixture
def refusals(caplog: pytest.LogCaptureFixture) -> Refusals:
    caplog.set_level(logging.WARNING, LOG.name)
    return Refusals(LOG)


def test_the_first_of_a_kind_is_logged_at_once(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.note("a connection of uid 7", 0)
    refusals.note("a connection of uid 8", 0)
    assert caplog.messages == ["refused a connection of uid 7", "refused a connection of uid 8"]


def test_a_flood_is_one_line_and_a_count(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        refusals.note("x", 0)
    refusals.flush(9)
    refusals.flush(10)
    assert caplog.messages == ["refused x", "refused x, 999 more times"]


def test_a_flood_that_goes_on_is_summed_up_once_per_period(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for now in range(100):
        refusals.note("x", now)
        refusals.flush(now)
    assert len(caplog.messages) == 1 + 9


def test_what_did_not_recur_is_forgotten_and_logged_anew(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.note("x", 0)
    refusals.flush(10)
    assert not refusals.pending
    refusals.note("x", 11)
    assert caplog.messages == ["refused x", "refused x"]


def test_kinds_without_end_are_told_together(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for uid in range(10_000):
        refusals.note(f"a connection of uid {uid}", 0)
    refusals.flush(10)
    assert len(caplog.messages) < 100
    assert caplog.messages[-1].startswith("refused connections for further reasons, 99")
