import re

import grpc
import pytest

from backpackd.core import errors
from backpackd.core.errors import BackpackError, HomeError, ProcessGoneError, Status


def subclasses(of: type[BackpackError]) -> list[type[BackpackError]]:
    found = [one for one in of.__subclasses__() if one.__module__ == errors.__name__]
    return [*found, *(below for one in found for below in subclasses(one))]


EVERY = subclasses(BackpackError)
# Those that group others are not raised by themselves, so they need no word of their own.
LEAVES = [one for one in EVERY if not one.__subclasses__()]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_has_a_status(kind: type[BackpackError]) -> None:
    assert isinstance(kind.status, Status)


@pytest.mark.parametrize("kind", EVERY)
def test_every_reason_is_in_kebab_case(kind: type[BackpackError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.reason)


def test_no_two_errors_have_the_same_reason() -> None:
    reasons = [kind.reason for kind in LEAVES]
    assert sorted(reasons) == sorted(set(reasons))


def test_every_error_that_is_raised_has_a_reason_of_its_own() -> None:
    assert [kind for kind in LEAVES if "reason" not in vars(kind)] == []


@pytest.mark.parametrize("status", Status)
def test_every_status_is_a_canonical_one_of_grpc(status: Status) -> None:
    assert status.name == status.value
    assert status.value in grpc.StatusCode.__members__


def test_no_error_is_ok_or_an_incident() -> None:
    assert not {"OK", "INTERNAL", "UNKNOWN"} & {status.value for status in Status}


@pytest.mark.parametrize("kind", [ProcessGoneError, HomeError])
def test_what_never_leaves_the_daemon_is_no_error_for_callers(kind: type[Exception]) -> None:
    assert not issubclass(kind, BackpackError)


def test_an_error_may_be_told_with_another_reason_and_more_facts() -> None:
    error = errors.LimitError("full", reason="too-full", retry_after=2.0, facts={"most": "8"})
    found = (str(error), error.message, error.reason, error.retry_after, error.facts)
    assert found == ("full", "full", "too-full", 2.0, {"most": "8"})


def test_a_reason_for_one_error_does_not_stay_with_its_kind() -> None:
    errors.LimitError("full", reason="too-full")
    assert errors.LimitError("full").reason == "limit"


def test_facts_of_one_error_are_not_those_of_another() -> None:
    errors.LimitError("full").facts["most"] = "8"
    assert errors.LimitError("full").facts == {}
