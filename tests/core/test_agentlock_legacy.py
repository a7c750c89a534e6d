import base64
import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.agentlock import legacy, locks
from backpackd.core.agentlock.errors import LockFileError, WrongLegacyKeyError
from backpackd.core.agentlock.legacy import LegacyLock, open_legacy
from backpackd.core.errors import InvalidRequestError, Status
from backpackd.core.sealing import identity
from lockfiles import ANN, DRAW, altered, rendered

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "agent-lock-v1"
NAMES = sorted(path.name.removesuffix(".agent.lock") for path in VECTORS.glob("*.agent.lock"))
BASIC = (VECTORS / "basic.agent.lock").read_bytes()
KEY = "correct-horse-battery-staple-0123456789"
FEW = legacy.MIN_ITERATIONS


def expected(name: str) -> dict[str, Any]:
    found = json.loads((VECTORS / f"{name}.expect.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def opened(name: str) -> LegacyLock:
    return open_legacy((VECTORS / f"{name}.agent.lock").read_bytes(), expected(name)["master_key"])


def written(layers: dict[str, bytes], key: str = KEY, iterations: int = FEW) -> bytes:
    """Write a version 1 file with the library that the older tools used."""
    out = {}
    for number, (name, plain) in enumerate(layers.items()):
        salt = bytes([number]) * 16
        stretched = hashlib.pbkdf2_hmac("sha256", key.encode(), salt, iterations)
        token = Fernet(base64.urlsafe_b64encode(stretched)).encrypt(plain)
        out[name] = {
            "data": base64.b64encode(token).decode(),
            "salt": base64.b64encode(salt).decode(),
        }
    return json.dumps({"version": "1.0", "layers": out}).encode()


EMPTY = {"credentials": b"{}", "personality": b"{}", "memory": b"{}"}


def test_there_are_vectors() -> None:
    assert NAMES == ["basic", "default-key", "embedded-key", "unicode"]


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_opens_to_exactly_its_expectation(name: str) -> None:
    lock, wanted = opened(name), expected(name)
    found = (lock.credentials, lock.contents.personality, lock.contents.memory)
    assert found == (wanted["credentials"], wanted["personality"], wanted["memory"])


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_goes_into_version_2_without_loss(name: str) -> None:
    contents = opened(name).contents
    lock = locks.create(contents, author=ANN, draw=DRAW)
    assert locks.open_lock(lock, ANN).contents == contents


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_embedded_unless_it_starts_as_a_placeholder(name: str) -> None:
    lock = opened(name)
    for key, value in expected(name)["credentials"].items():
        embedded = None if value.startswith("placeholder_") else value.encode()
        assert lock.contents.credentials[key].value == embedded


@pytest.mark.parametrize("name", NAMES)
def test_the_default_key_is_told(name: str) -> None:
    assert opened(name).default_key == (name == "default-key")


def test_an_empty_value_is_no_value_to_lease() -> None:
    lock = open_legacy(written({**EMPTY, "credentials": b'{"A": ""}'}), KEY, iterations=FEW)
    assert not lock.contents.credentials["A"].embedded


def test_nothing_of_the_content_shows_in_a_repr() -> None:
    assert "sk-live" not in repr(opened("embedded-key"))


def test_other_iterations_open_what_was_stretched_with_them() -> None:
    document = written(EMPTY, iterations=1234)
    assert open_legacy(document, KEY, iterations=1234).contents.memory == {}
    with pytest.raises(WrongLegacyKeyError):
        open_legacy(document, KEY, iterations=1235)


@pytest.mark.parametrize("iterations", [-1, 0, FEW - 1, legacy.MAX_ITERATIONS + 1, 2**63])
def test_iterations_out_of_bounds_are_refused_before_any_work(iterations: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        open_legacy(b"", KEY, iterations=iterations)
    assert caught.value.reason == "invalid-iterations"


@pytest.mark.parametrize("key", ["", "x" * 4097, "\ud800"])
def test_a_key_string_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError):
        open_legacy(BASIC, key)


def test_a_wrong_key_is_told_from_damage() -> None:
    with pytest.raises(WrongLegacyKeyError) as caught:
        open_legacy(BASIC, "another")
    assert (caught.value.status, caught.value.reason) == (
        Status.UNAUTHENTICATED,
        "wrong-legacy-key",
    )


def altered_token(data: dict[str, Any], *names: str) -> None:
    for name in names:
        token = bytearray(base64.urlsafe_b64decode(base64.b64decode(data["layers"][name]["data"])))
        token[30] ^= 1
        again = base64.b64encode(base64.urlsafe_b64encode(token)).decode()
        data["layers"][name]["data"] = again


@pytest.mark.parametrize("name", ["credentials", "personality", "memory"])
def test_one_altered_layer_among_others_is_damage_and_named(name: str) -> None:
    document = altered(BASIC, lambda data: altered_token(data, name))
    with pytest.raises(LockFileError, match=name) as caught:
        open_legacy(document, KEY)
    assert (caught.value.status, caught.value.reason) == (Status.DATA_LOSS, "lock-layer-changed")


def test_two_altered_layers_are_damage_as_long_as_one_opens() -> None:
    document = altered(BASIC, lambda data: altered_token(data, "credentials", "personality"))
    with pytest.raises(LockFileError) as caught:
        open_legacy(document, KEY)
    assert caught.value.reason == "lock-layer-changed"


def set_layer(name: str, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["layers"][name].update(fields)


def not_a_token(plain: bytes) -> str:
    return base64.b64encode(plain).decode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(set_layer("memory", data="!!"), "lock-encoding", id="bad base64"),
        pytest.param(set_layer("memory", data="AAAA\n"), "lock-encoding", id="base64 and a line"),
        pytest.param(set_layer("memory", data=""), "lock-encoding", id="no data"),
        pytest.param(set_layer("memory", data=7), "lock-shape", id="data is a number"),
        pytest.param(set_layer("memory", data=not_a_token(b"gAAA")), "lock-encoding", id="cut"),
        pytest.param(
            set_layer("memory", data=not_a_token(base64.urlsafe_b64encode(b"\x81" + bytes(88)))),
            "lock-encoding",
            id="another version of token",
        ),
        pytest.param(
            set_layer("memory", data=not_a_token(base64.urlsafe_b64encode(b"\x80" + bytes(80)))),
            "lock-encoding",
            id="half a block",
        ),
        pytest.param(set_layer("memory", salt="AAAA"), "lock-salt", id="short salt"),
        pytest.param(set_layer("memory", salt="A" * 24), "lock-salt", id="long salt"),
        pytest.param(set_layer("memory", salt="?"), "lock-encoding", id="salt of bad base64"),
        pytest.param(set_layer("memory", salt=None), "lock-shape", id="salt is null"),
        pytest.param(set_layer("memory", more=1), "lock-shape", id="more in a layer"),
        pytest.param(lambda d: d["layers"]["memory"].pop("salt"), "lock-shape", id="no salt"),
        pytest.param(lambda d: d["layers"].pop("memory"), "lock-layer-missing", id="no memory"),
        pytest.param(lambda d: d["layers"].clear(), "lock-layer-missing", id="no layers"),
        pytest.param(lambda d: d["layers"].update(extra={}), "lock-shape", id="a fourth layer"),
        pytest.param(lambda d: d.pop("layers"), "lock-shape", id="no member layers"),
        pytest.param(lambda d: d.update(layers=[]), "lock-shape", id="layers is a list"),
        pytest.param(lambda d: d.update(more=1), "lock-shape", id="more in the file"),
        pytest.param(lambda d: d.pop("version"), "lock-shape", id="no version"),
        pytest.param(lambda d: d.update(version=1), "lock-shape", id="version is a number"),
        pytest.param(lambda d: d.update(version="3.0"), "lock-version", id="another version"),
    ],
)
def test_every_kind_of_damage_is_its_own_error(
    change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(LockFileError) as caught:
        open_legacy(altered(BASIC, change), KEY)
    assert (caught.value.reason, caught.value.status) == (reason, Status.DATA_LOSS)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        pytest.param(b"", "lock-not-json", id="nothing"),
        pytest.param(BASIC[:-20], "lock-not-json", id="cut"),
        pytest.param(b"<<<<<<< HEAD\n" + BASIC, "lock-not-json", id="a merge"),
        pytest.param(b"\xff\xfe" + BASIC, "lock-not-json", id="not UTF-8"),
        pytest.param(b"[" * 200_000, "lock-not-json", id="nested without end"),
        pytest.param(b'{"version":"1.0","version":"1.0"}', "lock-not-json", id="a member twice"),
        pytest.param(b"[]", "lock-shape", id="a list"),
        pytest.param(b"null", "lock-shape", id="null"),
        pytest.param(b" " * (1024 * 1024 + 1), "lock-too-large", id="too large"),
    ],
)
def test_what_is_no_lock_file_is_refused_with_its_reason(document: bytes, reason: str) -> None:
    with pytest.raises(LockFileError) as caught:
        open_legacy(document, KEY)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param({**EMPTY, "memory": b"[]"}, id="memory is a list"),
        pytest.param({**EMPTY, "memory": b'{"a":1,"a":2}'}, id="a member twice"),
        pytest.param({**EMPTY, "personality": b'{"a":NaN}'}, id="NaN"),
        pytest.param({**EMPTY, "personality": b'{"a":1e999}'}, id="infinite"),
        pytest.param({**EMPTY, "personality": b"\xff"}, id="not UTF-8"),
        pytest.param({**EMPTY, "memory": b'{"a":' + b"[" * 50_000}, id="nested without end"),
        pytest.param({**EMPTY, "credentials": b'{"A":1}'}, id="a credential is a number"),
    ],
)
def test_content_that_no_tool_writes_is_refused(layers: dict[str, bytes]) -> None:
    with pytest.raises(LockFileError) as caught:
        open_legacy(written(layers), KEY, iterations=FEW)
    assert caught.value.reason == "lock-content"


def test_a_version_2_file_is_no_version_1_file() -> None:
    document = locks.create(
        opened("basic").contents, author=identity.generate(), draw=DRAW
    ).encode()
    with pytest.raises(LockFileError) as caught:
        open_legacy(document, KEY)
    assert caught.value.reason == "lock-version"


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_whatever_a_layer_holds_it_opens_or_is_a_lock_file_error(plain: bytes) -> None:
    with contextlib.suppress(LockFileError):
        open_legacy(written({**EMPTY, "memory": plain}), KEY, iterations=FEW)


def test_a_file_in_another_layout_opens_as_well() -> None:
    assert open_legacy(json.dumps(json.loads(BASIC)).encode(), KEY).contents.memory == {}
    assert open_legacy(rendered(json.loads(BASIC)), KEY).contents.memory == {}
