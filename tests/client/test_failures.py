"""From the daemon's answer to an exit code and a next step."""

import ast
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client import failures
from backpack_client.failures import (
    Failure,
    from_status,
    is_key_name,
    no_daemon,
    printable,
    waiting_notice,
)

BIDI = "\u202e\u2066\u200f"


def test_the_exit_codes_are_those_of_the_contract() -> None:
    codes = {name: code for name, code in vars(failures).items() if name.startswith("EXIT_")}
    assert codes == {
        "EXIT_DONE": 0,
        "EXIT_FAILED": 1,
        "EXIT_USAGE": 2,
        "EXIT_LOCKED": 3,
        "EXIT_NO_SUCH_KEY": 4,
        "EXIT_DENIED": 5,
        "EXIT_WAITING": 6,
        "EXIT_NO_DAEMON": 7,
        "EXIT_WRONG_PASSPHRASE": 8,
        "EXIT_UNVOUCHED": 9,
    }


@pytest.mark.parametrize(
    ("status", "reason", "exit_code"),
    [
        ("FAILED_PRECONDITION", "locked", 3),
        ("FAILED_PRECONDITION", "uninitialized", 3),
        ("NOT_FOUND", "no-such-key", 4),
        ("NOT_FOUND", "no-such-lease", 1),
        ("NOT_FOUND", "no-such-request", 1),
        ("PERMISSION_DENIED", "refused-by-operator", 5),
        ("DEADLINE_EXCEEDED", "waiting-for-approval", 6),
        ("INVALID_ARGUMENT", "invalid-policy", 2),
        ("INVALID_ARGUMENT", "invalid-root", 2),
        ("RESOURCE_EXHAUSTED", "too-slow", 1),
        ("PERMISSION_DENIED", "no-grant", 5),
        ("PERMISSION_DENIED", "denied-by-rule", 5),
        ("UNAUTHENTICATED", "not-authorized", 5),
        ("UNAUTHENTICATED", "wrong-passphrase", 8),
        ("RESOURCE_EXHAUSTED", "throttled", 1),
        ("INVALID_ARGUMENT", "invalid-request", 2),
        ("DEADLINE_EXCEEDED", "", 7),
        ("UNAVAILABLE", "", 7),
        ("UNAVAILABLE", "shutting-down", 7),
        ("UNAVAILABLE", "store-failed", 1),
        ("UNAVAILABLE", "a-reason-of-tomorrow", 1),
        ("PERMISSION_DENIED", "a-reason-of-tomorrow", 5),
        ("INTERNAL", "", 1),
        ("UNKNOWN", "", 1),
        ("NO_SUCH_STATUS", "", 1),
    ],
)
def test_status_and_reason_decide_the_exit_code(status: str, reason: str, exit_code: int) -> None:
    failure = from_status(status, reason, "it did not work", {})
    assert failure.exit_code == exit_code
    assert failure.message == "it did not work"
    assert failure.reason == reason or not reason


def test_every_reason_that_the_daemon_can_give_has_its_row() -> None:
    source = Path(__file__).parents[2] / "backpackd" / "core" / "errors.py"
    reasons = {
        node.value.value
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "reason"
        and isinstance(node.value, ast.Constant)
    }
    assert len(reasons) > 10
    assert reasons <= set(failures._BY_REASON)


@pytest.mark.parametrize(
    ("reason", "command"),
    [("locked", "unlock"), ("uninitialized", "init"), ("shutting-down", "start")],
)
def test_the_hint_is_the_command_that_helps(reason: str, command: str) -> None:
    assert from_status("", reason, "", {}).hint == f"run: backpack-client {command}"


def test_no_daemon_says_how_to_start_one() -> None:
    failure = no_daemon("/run/x.sock", "there is no such socket")
    assert failure.exit_code == 7
    assert failure.hint == "run: backpack-client start"


def test_without_a_grant_the_hint_is_the_line_that_would_allow_it() -> None:
    facts = {"backpack-names": "OPENAI_API_KEY OTHER", "backpack-tree-pid": "4711"}
    hint = from_status("PERMISSION_DENIED", "no-grant", "no grant", facts).hint
    assert "backpack-client grant OPENAI_API_KEY OTHER --to tree:4711\n" in hint
    assert (
        f"every program of yours: backpack-client grant OPENAI_API_KEY OTHER --to uid:{os.getuid()}"
        in hint
    )


def test_a_request_that_waits_hints_at_the_approval_and_at_the_grant() -> None:
    facts = {
        "backpack-names": "K",
        "backpack-request-code": "K7QF",
        "backpack-tree-pid": "4711",
        "backpack-uid": "1234",
    }
    hint = from_status("DEADLINE_EXCEEDED", "waiting-for-approval", "", facts).hint.splitlines()
    assert hint[0] == "to approve it: backpack-client approve K7QF"
    assert hint[1].endswith("backpack-client grant K --to tree:4711")
    assert hint[2].endswith("backpack-client grant K --to uid:1234")


@pytest.mark.parametrize("reason", ["no-grant", "waiting-for-approval"])
def test_a_hook_of_a_shell_is_told_of_the_shell_that_lives_on(reason: str) -> None:
    facts = {
        "backpack-names": "K",
        "backpack-request-code": "K7QF",
        "backpack-tree-pid": "4711",
        "backpack-root-pid": "4712",
    }
    hint = from_status("DEADLINE_EXCEEDED", reason, "", facts).hint
    assert "for the shell, process 4711, and all that you start in it" in hint
    assert "backpack-client grant K --to tree:4711\n" in hint
    # The request ends with the hook, so nobody could approve it by then.
    assert "approve" not in hint


@pytest.mark.parametrize("code", ["", "A;reboot", "$(reboot)", "A\nreboot", "A" * 17, "\u0660"])
def test_a_code_that_is_none_never_gets_into_the_line_to_copy(code: str) -> None:
    facts = {"backpack-request-code": code}
    hint = from_status("DEADLINE_EXCEEDED", "waiting-for-approval", "", facts).hint
    assert hint.splitlines()[0] == "to approve it: backpack-client approve CODE"
    assert waiting_notice(code) == ""


@pytest.mark.parametrize("pid", ["", "-1", "1;reboot", "$(reboot)", "٣", "1" * 40])
def test_a_pid_that_is_none_never_gets_into_the_line_to_copy(pid: str) -> None:
    hint = from_status("PERMISSION_DENIED", "no-grant", "", {"backpack-tree-pid": pid}).hint
    assert "tree:PID" in hint
    assert "reboot" not in hint


@pytest.mark.parametrize("name", ["A;reboot", "$(reboot)", "A\nreboot", "--to=reboot", "A  reboot"])
def test_a_name_with_shell_text_never_gets_into_the_line_to_copy(name: str) -> None:
    hint = from_status("PERMISSION_DENIED", "no-grant", "", {"backpack-names": name}).hint
    assert "reboot" not in hint
    assert "grant NAME... --to" in hint


@pytest.mark.parametrize(("delay", "text"), [("1", "1 s"), ("1500", "2 s"), ("30000", "30 s")])
def test_throttling_tells_the_delay_rounded_up(delay: str, text: str) -> None:
    failure = from_status("", "throttled", "", {"backpack-retry-after-ms": delay})
    assert failure.hint == f"wait {text}, then try again"


def test_throttling_without_a_delay_still_says_to_wait() -> None:
    assert "wait" in from_status("", "throttled", "", {}).hint


def test_a_message_from_elsewhere_cannot_move_the_cursor_or_forge_a_line() -> None:
    failure = from_status("INTERNAL", "bad\nreason", f"a\x1b[2J\nb\r{BIDI}", {})
    assert failure.message == "a\\x1b[2J\\x0ab\\x0d\\u202e\\u2066\\u200f"
    assert failure.reason == "bad\\x0areason"


def test_a_message_that_is_missing_is_made_of_the_status() -> None:
    assert from_status("DATA_LOSS", "", "", {}).message == "the daemon answered DATA_LOSS"


def test_a_failure_renders_as_its_message_and_the_indented_hint() -> None:
    failure = Failure("it is locked", hint="first\nsecond")
    assert failure.render() == "backpack-client: it is locked\n  first\n  second\n"


@given(st.text(max_size=80), st.integers(1, 40))
def test_what_is_printable_is_so_and_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= 10 * limit + 3


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")), max_size=30))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text, 30) == text


@pytest.mark.parametrize("name", ["A", "_", "a.b-c_1", "A" * 128])
def test_a_key_can_have_this_name(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize(
    "name", ["", "1A", ".A", "-A", "A B", "A\n", "Ä", "A²", "A" * 129, "A/B", "A=", "\ud800"]
)
def test_a_key_cannot_have_this_name(name: str) -> None:
    assert not is_key_name(name)


def test_a_call_that_a_stopping_daemon_left_behind_is_told_in_words() -> None:
    failure = from_status("CANCELLED", "", "CANCELLED", {})
    assert (failure.exit_code, failure.reason) == (7, "no-daemon")
    assert failure.message == "the daemon ended the call before it answered"


def test_a_key_that_is_not_stored_is_named_where_it_was_asked_for() -> None:
    facts = {"backpack-names": "A B C", "backpack-missing": "B $(x) D"}
    hint = failures.from_status("NOT_FOUND", "no-such-key", "1 of 3", facts).hint
    assert hint == "store it with: backpack-client put B"
