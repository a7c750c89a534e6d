"""How values are laid out and written."""

import json
import os
import random
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import EXIT_FAILED, EXIT_USAGE, Failure
from backpack_client.fastpath import output

texts = st.text(st.characters(codec="utf-8"), max_size=60)
shell_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(st.binary(max_size=60))
def test_the_plain_form_is_the_value_and_a_newline(value: bytes) -> None:
    assert output.render([("A", value)], output.PLAIN) == value + b"\n"


@given(st.dictionaries(st.sampled_from(["A", "B.c", "_d-e"]), texts, max_size=3), texts)
def test_json_reads_as_what_it_was_made_of(values: dict[str, str], lease_id: str) -> None:
    keys = [(name, text.encode()) for name, text in values.items()]
    rendered = output.render(keys, output.JSON, lease_id=lease_id, expires_at_ms=1)
    assert rendered.count(b"\n") == 1
    assert json.loads(rendered) == {
        "keys": values,
        "lease": {"id": lease_id, "expires_at_ms": 1, "remaining_seconds": 0},
    }


def test_a_shell_reads_exported_values_as_they_are() -> None:
    values = ["", "'", "''\\''", "$(exit 9)`exit 9`", "a\nb\n", '"\\ !*~', "\u00e4\u202e", "-n"]
    keys = [(f"K{number}", value.encode()) for number, value in enumerate(values)]
    script = output.render(keys, output.EXPORT) + b"env -0"
    shown = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, env={})
    lines = dict(line.split(b"=", 1) for line in shown.stdout.split(b"\0") if b"=" in line)
    assert {name: lines[name.encode()] for name, _ in keys} == dict(keys)


@given(st.lists(shell_texts, min_size=1, max_size=40))
def test_a_shell_reads_any_exported_text_as_it_is(values: list[str]) -> None:
    script = b"".join(
        output.render([("K", value.encode())], output.EXPORT) + b"printf '%s\\0' \"$K\"\n"
        for value in values
    )
    shown = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True, env={})
    assert shown.stdout == b"".join(value.encode() + b"\0" for value in values)


@pytest.mark.parametrize("form", [output.JSON, output.EXPORT])
def test_a_value_that_is_not_text_is_refused_by_name(form: str) -> None:
    with pytest.raises(Failure, match=f"the value of A is not UTF-8 text, which --{form}"):
        output.render([("B", b"fine"), ("A", b"\xff")], form)


def test_a_value_with_a_zero_byte_cannot_be_exported() -> None:
    with pytest.raises(Failure, match="zero byte"):
        output.render([("A", b"a\0b")], output.EXPORT)


def test_several_names_in_the_plain_form_are_a_usage_failure() -> None:
    with pytest.raises(Failure, match="--json or --export") as caught:
        output.check_form(["A", "B"], output.PLAIN)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("name", ["A.B", "A-B"])
def test_a_name_that_no_shell_variable_can_have_is_a_usage_failure(name: str) -> None:
    with pytest.raises(Failure, match="shell variable") as caught:
        output.check_form([name], output.EXPORT)
    assert caught.value.exit_code == EXIT_USAGE
    assert name not in caught.value.render()
    output.check_form([name], output.PLAIN)


def test_nothing_is_asked_for_when_standard_output_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Failure, match="closed") as caught:
        output.check_form(["A"], output.PLAIN)
    assert caught.value.exit_code == EXIT_FAILED


def test_a_reader_that_went_away_is_a_failure_without_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(output, "_STANDARD_OUTPUT", writing)
    with pytest.raises(Failure) as caught:
        output.write(b"value")
    os.close(writing)
    assert (caught.value.message, caught.value.exit_code) == ("", EXIT_FAILED)


def test_a_full_disk_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - its descriptor is the point
        monkeypatch.setattr(output, "_STANDARD_OUTPUT", full.fileno())
        with pytest.raises(Failure, match="no space left"):
            output.write(b"value")


def test_a_pipe_that_takes_little_at_a_time_gets_everything(
    monkeypatch: pytest.MonkeyPatch, chance: random.Random
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    monkeypatch.setattr(output, "_STANDARD_OUTPUT", writing)
    data = chance.randbytes(1 << 20)
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(os.read(reading, 3000))

    thread = threading.Thread(target=read)
    thread.start()
    output.write(data)
    thread.join()
    os.close(reading)
    os.close(writing)
    assert got == data
