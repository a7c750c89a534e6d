"""The vectors of version 2: what opens opens to its contents, and one fault is one reason."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from backpackd.core.agentlock import layers, locks
from backpackd.core.agentlock.document import read
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.sealing.identity import Identity, PublicIdentity

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "agent-lock-v2"
NAMES = sorted(path.name.removesuffix(".agent.lock") for path in VECTORS.glob("*.agent.lock"))
EXPECTED: dict[str, dict[str, Any]] = {
    name: json.loads((VECTORS / f"{name}.expect.json").read_text(encoding="utf-8"))
    for name in NAMES
}
GOOD = [name for name in NAMES if "opens" in EXPECTED[name]]
FAULTY = [name for name in NAMES if "fails" in EXPECTED[name]]


def document(name: str) -> bytes:
    return (VECTORS / f"{name}.agent.lock").read_bytes()


def identity(name: str) -> Identity:
    found = EXPECTED[name]["identity"]
    return Identity.from_private(
        base64.b64decode(found["decryption"]), base64.b64decode(found["signing"])
    )


def test_there_are_vectors_of_both_kinds() -> None:
    assert (len(GOOD), len(FAULTY)) == (7, 30)
    assert sorted(GOOD + FAULTY) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_identity_has_the_same_text_and_fingerprint_as_ever(name: str) -> None:
    public, found = identity(name).public, EXPECTED[name]["identity"]
    assert (public.text, public.fingerprint) == (found["text"], found["fingerprint"])
    assert PublicIdentity.parse(found["text"]) == public


@pytest.mark.parametrize("name", GOOD)
def test_a_good_vector_opens_to_its_contents(name: str) -> None:
    contents = locks.open_lock(read(document(name)), identity(name)).contents
    values = {
        key: None if one.value is None else one.value.decode()
        for key, one in contents.credentials.items()
    }
    opens = EXPECTED[name]["opens"]
    found = (values, contents.personality, contents.memory)
    assert found == (opens["credentials"], opens["personality"], opens["memory"])


@pytest.mark.parametrize("name", GOOD)
def test_a_good_vector_has_its_lock_key_author_and_digests(name: str) -> None:
    lock, wanted = read(document(name)), EXPECTED[name]
    assert layers.unwrap_key(lock, identity(name)).hex() == wanted["lock_key"]
    found = (lock.lock_id, lock.author.fingerprint, lock.mark.encode())
    assert found == (wanted["lock_id"], wanted["author"], wanted["mark"])


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_vector_is_refused_for_its_fault(name: str) -> None:
    with pytest.raises(LockFileError) as caught:
        locks.open_lock(read(document(name)), identity(name))
    assert caught.value.reason == EXPECTED[name]["fails"]
