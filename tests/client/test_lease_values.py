import os
import pickle
from datetime import UTC, datetime

import pytest

from backpack_client.calls.leases import Handout
from backpack_client.failures import EXIT_LOCKED, Failure
from backpack_client.handles.lease_values import LONGEST_WAIT, LeaseValues, Values
from backpack_client.model import LeaseInfo

MARK = "marker-of-a-value"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def info(remaining: int, *, more: bool = True) -> LeaseInfo:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    most = datetime(2027, 1, 1, tzinfo=UTC) if more else at
    return LeaseInfo("lease-1", ("K",), 66, ("grant-1",), at, at, most, remaining)


def held(remaining: int = 100, *, more: bool = True) -> tuple[LeaseValues, Clock]:
    clock = Clock()
    keys = LeaseValues(("K",), clock)
    keys.begin(Handout(info(remaining, more=more), {"K": MARK.encode()}), clock.now)
    return keys, clock


def reason(keys: LeaseValues) -> str:
    with pytest.raises(Failure) as caught:
        keys["K"]
    return caught.value.reason


def test_values_are_text_or_bytes() -> None:
    values = Values(Handout(info(1), {"K": b"text", "B": b"\xff"}))
    assert values["K"] == "text"
    assert values.bytes("B") == b"\xff"


def test_a_value_that_is_not_text_is_an_error_without_the_value() -> None:
    values = Values(Handout(info(1), {"B": MARK.encode() + b"\xff"}))
    with pytest.raises(Failure, match="not text") as caught:
        values["B"]
    assert MARK not in repr(caught.value) + caught.value.render()
    assert caught.value.__suppress_context__


def test_a_name_that_was_not_asked_for_is_a_key_error() -> None:
    keys, _ = held()
    with pytest.raises(KeyError):
        keys["OTHER"]
    assert "OTHER" not in keys
    assert keys.get("OTHER") is None


def test_no_repr_shows_a_value() -> None:
    keys, _ = held()
    handout = Handout(info(1), {"K": MARK.encode()})
    assert MARK not in repr(keys) + repr(Values(handout)) + repr(handout)
    assert "K" in repr(keys)


def test_values_are_not_pickled() -> None:
    keys, _ = held()
    with pytest.raises(TypeError):
        pickle.dumps(keys)


def test_before_it_is_open_nothing_can_be_read() -> None:
    assert reason(LeaseValues(("K",))) == "lease-not-open"


def test_after_the_end_nothing_can_be_read_and_nothing_is_kept() -> None:
    keys, _ = held()
    keys.end()
    assert reason(keys) == "lease-over"
    assert MARK not in str(vars(keys))


def test_after_its_time_nothing_can_be_read() -> None:
    keys, clock = held(100)
    clock.now += 99.9
    assert keys["K"] == MARK
    clock.now += 0.1
    assert reason(keys) == "lease-expired"
    assert MARK not in str(vars(keys))


def test_it_is_renewed_half_way_to_the_end() -> None:
    keys, clock = held(100)
    assert keys.wait() == 50.0
    clock.now += 50.0
    assert keys.wait() == 0.0
    keys.extend(info(100), clock.now)
    assert keys.wait() == 50.0
    clock.now += 99.0
    assert keys["K"] == MARK


def test_nobody_waits_longer_than_a_suspend_may_hide() -> None:
    keys, _ = held(100_000)
    assert keys.wait() == LONGEST_WAIT


def test_a_lease_at_its_longest_is_not_renewed_and_then_expires() -> None:
    keys, clock = held(100, more=False)
    assert keys.wait() is None
    assert keys["K"] == MARK
    clock.now += 100.0
    assert reason(keys) == "lease-expired"


def test_trouble_in_between_is_tried_again_sooner_and_sooner() -> None:
    keys, clock = held(100)
    clock.now += 50.0
    keys.note(Failure("nobody there", reason="no-daemon", exit_code=7))
    assert keys["K"] == MARK
    assert keys.wait() == 25.0


def test_trouble_until_the_end_is_named_when_it_expires() -> None:
    keys, clock = held(100)
    keys.note(Failure("nobody there", reason="no-daemon", exit_code=7))
    clock.now += 100.0
    with pytest.raises(Failure, match="nobody there") as caught:
        keys["K"]
    assert (caught.value.reason, caught.value.exit_code) == ("lease-expired", 7)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("gone", reason="no-such-lease"),
        Failure("locked", reason="locked", exit_code=EXIT_LOCKED),
    ],
)
def test_what_cannot_get_better_ends_the_lease_at_once(failure: Failure) -> None:
    keys, _ = held()
    keys.note(failure)
    assert reason(keys) == failure.reason
    assert keys.wait() is None
    assert MARK not in str(vars(keys))


def test_a_renewal_that_comes_after_the_end_opens_nothing_again() -> None:
    keys, clock = held()
    keys.end()
    keys.extend(info(100), clock.now)
    assert reason(keys) == "lease-over"


def test_a_forked_child_is_told_at_its_first_access_and_drops_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, _ = held()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(Failure, match="before a fork") as caught:
        keys["K"]
    assert caught.value.reason == "forked"
    assert "in the child" in caught.value.hint
    assert MARK not in str(vars(keys))
    assert reason(keys) == "forked"


def test_a_fork_is_told_also_where_the_copy_has_expired_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, clock = held(100)
    clock.now += 1000.0
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert reason(keys) == "forked"


def test_a_lease_that_a_child_opens_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    keys, _ = held()
    assert keys["K"] == MARK
