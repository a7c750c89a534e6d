"""A memory in use: changes are seen however deep, and joined with what others have saved."""

from typing import Any

import pytest

from backpack_client.failures import Failure
from backpack_client.handles.agent_memory import HeldMemory


def held(memory: dict[str, Any]) -> HeldMemory:
    begun = HeldMemory()
    begun.take(memory, "one")
    return begun


def test_a_memory_that_was_only_read_is_not_changed() -> None:
    assert not held({"a": [1, {"b": None}], "c": 0.1}).changed


@pytest.mark.parametrize("path", ["append", "value", "delete", "add", "kind"])
def test_a_change_is_seen_however_deep(path: str) -> None:
    begun = held({"list": [1, {"deep": []}], "one": 1})
    if path == "append":
        begun.current["list"][1]["deep"].append("x")
    elif path == "value":
        begun.current["one"] = 2
    elif path == "delete":
        del begun.current["one"]
    elif path == "add":
        begun.current["two"] = None
    else:
        begun.current["one"] = True
    assert begun.changed


def test_what_was_saved_is_not_changed_any_more_and_what_came_after_is() -> None:
    begun = held({})
    begun.current["a"] = 1
    assert begun.saving() == {"a": 1}
    begun.current["b"] = 2
    begun.saved("two")
    assert (begun.hash, begun.changed) == ("two", True)
    begun.saving()
    begun.saved("three")
    assert not begun.changed


def test_changes_of_different_entries_are_joined() -> None:
    begun = held({"mine": 1, "theirs": 1, "gone": 1, "kept": 1})
    shown = begun.current
    shown["mine"] = 2
    del shown["gone"]
    shown["new"] = [1]
    begun.rebase({"mine": 1, "theirs": 2, "gone": 1, "kept": 1, "other": 3}, "two")
    assert shown == {"mine": 2, "theirs": 2, "kept": 1, "new": [1], "other": 3}
    assert (begun.hash, begun.changed) == ("two", True)


@pytest.mark.parametrize(("mine", "theirs"), [({"a": 2}, {"a": 3}), ({}, {"a": 3}), ({"a": 2}, {})])
def test_one_entry_that_both_have_changed_is_a_conflict(
    mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    begun = held({"a": 1})
    begun.current.clear()
    begun.current.update(mine)
    with pytest.raises(Failure, match="changed by somebody else") as caught:
        begun.rebase(theirs, "two")
    assert caught.value.reason == "memory-conflict"
    assert (begun.current, begun.hash) == (mine, "one")


def test_the_same_change_on_both_sides_is_no_conflict() -> None:
    begun = held({"a": 1})
    begun.current["a"] = 2
    begun.rebase({"a": 2}, "two")
    assert not begun.changed


@pytest.mark.parametrize("wrong", [{"a": {1, 2}}, {"a": float("nan")}, {"a": b"bytes"}, {1: "a"}])
def test_what_json_cannot_write_is_refused_and_not_shown(wrong: dict[Any, Any]) -> None:
    begun = held({})
    begun.current.update(wrong)
    with pytest.raises(Failure) as caught:
        _ = begun.changed
    assert caught.value.reason == "usage"
    assert caught.value.__cause__ is None
