from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from backpack_client.calls import grants, keys, leases, vault
from backpack_client.calls.call import Call, failure_of
from backpack_client.calls.fields import seconds as as_seconds
from backpack_client.channel import ended as grpc_ended
from backpack_client.failures import Failure
from backpack_client.wire import Ended
from backpack_proto.v1 import grants_pb2

MARK = "marker-of-a-value"


def error(code: str, details: str = "told", **facts: str) -> Ended:
    metadata = [(f"backpack-{name.replace('_', '-')}", text) for name, text in facts.items()]
    return grpc_ended(
        SimpleNamespace(
            code=lambda: SimpleNamespace(name=code),
            details=lambda: details,
            trailing_metadata=lambda: [*metadata, ("other", "x"), ("backpack-bin", b"x")],
        )
    )


def failure(told: Ended, call: Call[Any] | None = None, *, was_closed: bool = False) -> Failure:
    return failure_of(
        told, call or vault.status(), socket_path="/s", timeout=30.0, was_closed=was_closed
    )


@pytest.mark.parametrize(
    ("told", "exit_code", "reason"),
    [
        (error("FAILED_PRECONDITION", reason="locked"), 3, "locked"),
        (error("NOT_FOUND", reason="no-such-key"), 4, "no-such-key"),
        (error("PERMISSION_DENIED", reason="no-grant"), 5, "no-grant"),
        (error("UNAUTHENTICATED", reason="wrong-passphrase"), 8, "wrong-passphrase"),
        (error("UNAVAILABLE"), 7, "no-daemon"),
        (error("UNAVAILABLE", reason="store-failed"), 1, "store-failed"),
        (error("DEADLINE_EXCEEDED"), 7, "no-answer"),
        (error("DEADLINE_EXCEEDED", reason="waiting-for-approval"), 6, "waiting-for-approval"),
        (
            error("DEADLINE_EXCEEDED", reason="waiting-for-something-new"),
            6,
            "waiting-for-something-new",
        ),
        (error("CANCELLED"), 7, "no-daemon"),
        (error("INTERNAL"), 1, "internal"),
    ],
)
def test_a_grpc_error_becomes_a_failure(told: Ended, exit_code: int, reason: str) -> None:
    became = failure(told)
    assert (became.exit_code, became.reason) == (exit_code, reason)


def test_a_call_that_ended_with_its_own_connection_is_told_apart_from_a_daemon_that_stopped() -> (
    None
):
    assert failure(error("CANCELLED"), was_closed=True).reason == "closed"


def test_a_get_that_nobody_answers_is_not_one_that_waits_for_approval() -> None:
    call = leases.get_keys(["A"], ttl=None, reason="")
    became = failure(error("DEADLINE_EXCEEDED"), call)
    assert (became.exit_code, became.reason) == (7, "no-answer")
    assert "kill -CONT" in became.hint


def test_grpcs_own_words_about_a_lost_connection_are_not_shown() -> None:
    assert "failed to connect" not in failure(error("UNAVAILABLE", "failed to connect")).message


def test_the_names_asked_for_come_into_the_hint_of_a_refusal() -> None:
    call = leases.get_keys(["A", "B"], ttl=None, reason="")
    told = error("PERMISSION_DENIED", reason="no-grant", tree_pid="42")
    assert "grant A B --to tree:42" in failure(told, call).hint


def test_how_long_to_wait_is_told() -> None:
    told = error("RESOURCE_EXHAUSTED", reason="throttled", retry_after_ms="4000")
    assert "4 s" in failure(told).hint


@pytest.mark.parametrize(
    "call",
    [
        vault.init(MARK),
        vault.unlock(MARK),
        vault.authorize(MARK),
        vault.change_passphrase(MARK, MARK),
        keys.put_keys({"K": MARK}, replace=False, dry_run=False, skip_existing=False),
    ],
)
def test_no_repr_of_a_call_shows_a_passphrase_or_a_value(call: Call[Any]) -> None:
    assert MARK not in repr(call)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A/B", "A" * 129, "\udc80", "A\n"])
def test_a_name_that_no_key_can_have_is_a_usage_failure(name: str) -> None:
    with pytest.raises(Failure) as caught:
        leases.get_keys([name], ttl=None, reason="")
    assert caught.value.exit_code == 2


def test_a_text_value_that_is_not_text_is_refused_without_showing_it() -> None:
    with pytest.raises(Failure) as caught:
        keys.put_keys({"K": MARK + "\udc80"}, replace=False, dry_run=False, skip_existing=False)
    assert MARK not in caught.value.message
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"lease_id": "x", "every": True},
        {"key": "K", "tree": 1},
        {"tree": 0},
        {"tree": 2**63},
    ],
)
def test_revoking_takes_exactly_one_thing(what: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        leases.revoke_leases(**what)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("uses", [0, -1, 2**32])
def test_a_number_of_uses_out_of_bounds_is_refused(uses: int) -> None:
    with pytest.raises(Failure):
        grants.add_grant(["K"], "uid:0", ttl=None, valid_for=None, uses=uses, reason="")


@pytest.mark.parametrize(("ttl", "seconds"), [(None, 0), ("15m", 900), (90, 90), ("90", 90)])
def test_a_duration_is_seconds_or_text(ttl: str | int | None, seconds: int) -> None:
    assert as_seconds(ttl) == seconds


@pytest.mark.parametrize("ttl", [0, -5, "0s", "x", "1.5h", True])
def test_a_duration_of_another_form_is_refused(ttl: str | int) -> None:
    with pytest.raises(Failure):
        as_seconds(ttl)


@pytest.mark.parametrize(
    "make",
    [
        lambda: leases.get_keys([["A", "B"]], ttl=None, reason=""),  # type: ignore[list-item]
        lambda: keys.delete_keys([("A",)]),  # type: ignore[list-item]
        lambda: grants.add_grant([["A"]], "uid:0", ttl=None, valid_for=None, uses=None, reason=""),  # type: ignore[list-item]
    ],
)
def test_a_list_of_names_in_place_of_a_name_says_how_several_are_given(
    make: Callable[[], object],
) -> None:
    with pytest.raises(TypeError, match=r"one by one: 'A', 'B', or \*names"):
        make()


def test_a_grant_with_no_uses_left_is_not_taken_for_one_without_a_limit() -> None:
    call = grants.list_grants(every=True)
    told = grants_pb2.ListGrantsResponse(grants=[grants_pb2.Grant(uses_left=0), grants_pb2.Grant()])
    assert [grant.uses_left for grant in call.read(told)] == [0, None]


@pytest.mark.parametrize("lease_id", ["", "K", "0" * 31, "0" * 33, "A" * 32])
def test_what_can_be_no_lease_is_not_revoked(lease_id: str) -> None:
    with pytest.raises(Failure, match="not a lease's id"):
        leases.revoke_leases(lease_id=lease_id)
