import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.agentlock import content
from backpackd.core.agentlock.content import Contents, Credential
from backpackd.core.agentlock.errors import LockContentError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**1023), 2**1023)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


def typed(value: Any) -> Any:
    """Return `value` with the type of every part, since 1 equals 1.0 and True."""
    if isinstance(value, dict):
        return {name: typed(member) for name, member in value.items()}
    return [typed(one) for one in value] if isinstance(value, list) else (type(value), repr(value))


@given(OBJECTS)
def test_every_json_object_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert typed(content.decode_object(content.encode_object(value))) == typed(value)


@given(OBJECTS)
def test_the_same_object_is_the_same_bytes_in_whatever_order(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert content.encode_object(value) == content.encode_object(backwards)
    assert content.encode_object(value).isascii()


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": [float("-inf")]},
        {"a": b"bytes"},
        {"a": (1, 2)},
        {"a": {1: 2}},
        {1: 2},
        {"a": {1, 2}},
        {"a": "\ud800"},
        {"\udfff": 1},
        {"a": 2**1024},
        {"a": object()},
    ],
)
def test_what_json_has_no_form_for_is_refused(value: Mapping[str, Any]) -> None:
    with pytest.raises(LockContentError):
        content.encode_object(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"a":1}x',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":' + str(2**1024).encode() + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_json_that_does_not_mean_one_thing_is_refused(data: bytes) -> None:
    with pytest.raises(LockContentError):
        content.decode_object(data)


def nested(levels: int) -> dict[str, Any]:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    assert isinstance(value, dict)
    return value


def test_nesting_ends_where_the_limit_says() -> None:
    assert content.decode_object(content.encode_object(nested(content.MAX_DEPTH)))
    with pytest.raises(LockContentError):
        content.encode_object(nested(content.MAX_DEPTH + 1))
    with pytest.raises(LockContentError):
        content.decode_object(json.dumps(nested(content.MAX_DEPTH + 1)).encode())


def test_an_object_that_holds_itself_is_refused() -> None:
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(LockContentError):
        content.encode_object(value)


def test_a_refusal_holds_nothing_of_the_content() -> None:
    with pytest.raises(LockContentError) as caught:
        content.decode_object(b'{"a": "sk-live-0123", "a": 1}')
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "sk-live" not in f"{shown!s}{shown!r}{vars(shown)}"
        shown = shown.__context__


@given(st.dictionaries(NAMES, st.none() | st.text(min_size=1, max_size=50), max_size=8))
def test_credentials_come_back_as_they_were(found: dict[str, str | None]) -> None:
    credentials = {
        name: Credential(None if value is None else value.encode()) for name, value in found.items()
    }
    encoded = content.encode_credentials(credentials)
    assert content.decode_credentials(encoded) == credentials


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param({"not a name": Credential()}, id="a name that is none"),
        pytest.param({"": Credential()}, id="no name"),
        pytest.param({"A": Credential(b"")}, id="an empty value"),
        pytest.param({"A": Credential(b"\xff")}, id="a value that is no text"),
        pytest.param({"A": Credential(b"x" * 65537)}, id="a value too long"),
        pytest.param({f"A{i}": Credential() for i in range(257)}, id="too many"),
        pytest.param({f"A{i}": Credential(b"x" * 65536) for i in range(5)}, id="too much"),
    ],
)
def test_credentials_of_another_form_are_refused(credentials: dict[str, Credential]) -> None:
    with pytest.raises(LockContentError):
        content.encode_credentials(credentials)


@pytest.mark.parametrize(
    "data", [b'{"A":1}', b'{"A":""}', b'{"A":{}}', b'{"A B":null}', b'{"A":true}', b"[]"]
)
def test_a_credentials_layer_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(LockContentError):
        content.decode_credentials(data)


def test_as_many_credentials_as_the_limit_says_are_taken() -> None:
    credentials = {f"A{i}": Credential() for i in range(content.MAX_CREDENTIALS)}
    encoded = content.encode_credentials(credentials)
    assert content.decode_credentials(encoded) == credentials


@pytest.mark.parametrize(
    ("encode", "decode", "most"),
    [
        (content.encode_personality, content.decode_personality, content.MAX_PERSONALITY_BYTES),
        (content.encode_memory, content.decode_memory, content.MAX_MEMORY_BYTES),
    ],
)
def test_a_layer_may_be_as_large_as_its_limit_and_no_larger(
    encode: Any, decode: Any, most: int
) -> None:
    fits = {"a": "x" * (most - len('{"a":""}'))}
    assert decode(encode(fits)) == fits
    with pytest.raises(LockContentError):
        encode({"a": fits["a"] + "x"})
    with pytest.raises(LockContentError):
        decode(json.dumps({"a": fits["a"] + "x"}).encode())


def test_no_value_shows_in_a_repr() -> None:
    contents = Contents({"A": Credential(b"embedded")}, {"p": "embedded"}, {"m": "embedded"})
    assert "embedded" not in repr(contents) + repr(contents.credentials)


def test_scalars_of_a_personality_become_variables() -> None:
    personality = {"system_prompt": "p", "tone": "t", "temperature": 0.7, "n": 3, "on": True}
    assert content.variables(personality) == {
        "AGENT_SYSTEM_PROMPT": "p",
        "AGENT_TONE": "t",
        "AGENT_TEMPERATURE": "0.7",
        "AGENT_N": "3",
        "AGENT_ON": "true",
    }


@pytest.mark.parametrize(
    "personality",
    [
        {"nested": {"a": 1}},
        {"list": [1]},
        {"nothing": None},
        {"with space": "x"},
        {"a=b": "x"},
        {"": "x"},
        {"1": "x"},
        {"é": "x"},
        {"text": "a\0b"},
        {"line\n": "x"},
        {"master_key": "x"},
        {"MASTER_key": "x"},
        {"tone": "x", "TONE": "y"},
    ],
)
def test_what_cannot_be_a_variable_is_left_out(personality: dict[str, Any]) -> None:
    assert content.variables(personality) == {}


@given(OBJECTS)
def test_a_variable_is_always_one_of_an_agent_and_fit_for_an_environment(
    personality: dict[str, Any],
) -> None:
    for name, text in content.variables(personality).items():
        assert name.startswith("AGENT_")
        assert "=" not in name
        assert "\0" not in name + text
