"""The audit log as its document describes it, followed to the letter on the vectors.

Verifies and opens with none of the daemon's code for it: whoever writes a second program from the
document finds the same.
"""

import hashlib
import hmac
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backpackd.core.audit import events
from backpackd.core.audit.verify import Verifier
from backpackd.core.rows import AuditRow
from backpackd.core.sealing import canonical, hybrid

ROOT = Path(__file__).resolve().parents[2]
AUDIT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
VECTORS: dict[str, dict[str, Any]] = {
    name: json.loads((ROOT / f"tests/vectors/audit/{name}.json").read_text())
    # The first is of a version whose checkpoints name no record: such logs stay readable.
    for name in ("log", "log-naming-records")
}
VAULT_ID = bytes.fromhex(VECTORS["log"]["vault_id"])
KEYS = {
    name: bytes.fromhex(VECTORS["log"]["keys"][name])
    for name in ("private", "signing", "wrap", "verify")
}
FAULTS = [
    pytest.param(fault, id=f"{name}-{fault['fault']}")
    for name, vectors in VECTORS.items()
    for fault in vectors["faults"]
]
both = pytest.mark.parametrize("vectors", VECTORS.values(), ids=VECTORS)


def framed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def derived(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, b"backpack/v1/" + purpose + b"\x01", "sha256")


def number(value: int) -> bytes:
    return struct.pack(">Q", value)


def read(rows: list[list[Any]]) -> list[tuple[int, int, bytes, bytes]]:
    return [(n, kind, bytes.fromhex(prev), bytes.fromhex(body)) for n, kind, prev, body in rows]


def digest(row: tuple[int, int, bytes, bytes]) -> bytes:
    label = b"backpack/v1/audit-row"
    return hashlib.sha256(
        framed(label, VAULT_ID, number(row[0]), number(row[1]), row[2], row[3])
    ).digest()


def named(checkpoint: dict[str, Any]) -> list[bytes]:
    """Return what a checkpoint signs of the authority record; nothing in older ones."""
    if "record" not in checkpoint:
        return []
    return [number(checkpoint["generation"]), bytes.fromhex(checkpoint["record"])]


def unpadded(data: bytes) -> bytes:
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length]


@both
def test_the_log_is_chained_signed_and_opens_as_the_document_says(vectors: dict[str, Any]) -> None:
    previous, state, opened = bytes(32), b"", []
    fingerprint = hashlib.sha256(
        framed(b"backpack/v1/audit-public", KEYS["wrap"], KEYS["verify"])
    ).hexdigest()
    states = iter(vectors["first_states"])
    for place, row in enumerate(read(vectors["rows"]), 1):
        assert (row[0], row[2]) == (place, previous)
        if row[1] == 1:
            header = json.loads(row[3])
            assert header["keys"] == fingerprint == vectors["keys"]["fingerprint"]
            info = framed(
                b"backpack/v1/audit-segment",
                VAULT_ID,
                number(header["segment"]),
                fingerprint.encode(),
            )
            wrap = canonical.from_text(header["wrap"])
            state = hybrid.unwrap(wrap, KEYS["private"], info=info)
            assert state.hex() == next(states)
            segment = header["segment"]
        else:
            if row[1] == 2:
                key = derived(state, row[3][:16], b"audit-entry")
                data = framed(b"backpack/v1/audit-entry", VAULT_ID, number(place), previous)
                plain = AESGCM(key).decrypt(bytes(12), row[3][16:], data)
                opened.append(json.loads(unpadded(plain)))
            else:
                told = json.loads(row[3])
                statement = framed(
                    b"backpack/v1/audit-checkpoint",
                    VAULT_ID,
                    number(segment),
                    number(place),
                    previous,
                    number(told["at"]),
                    told["why"].encode(),
                    told["known"].encode(),
                    *named(told),
                )
                signature = canonical.from_text(told["signature"])
                Ed25519PublicKey.from_public_bytes(KEYS["verify"]).verify(signature, statement)
            state = derived(state, b"", b"audit-ratchet")
        previous = digest(row)
    assert vectors["head"] == f"{place}-{previous.hex()}"
    assert [event["kind"] for event in opened][:2] == ["started", "unlocked"]
    section = AUDIT.partition("## Events")[2].partition("| event |")[0]
    for name in opened[1].keys() | opened[1]["who"].keys():
        assert f"`{name}`" in section


def judged(rows: list[list[Any]]) -> Verifier:
    judge = Verifier(VAULT_ID, KEYS["verify"])
    for row in read(rows):
        judge.feed(AuditRow(*row))
    judge.finish()
    return judge


@both
def test_the_verifier_finds_the_log_good(vectors: dict[str, Any]) -> None:
    judge = judged(vectors["rows"])
    assert judge.problem is None
    assert (judge.head.text, judge.signed) == (vectors["head"], vectors["signed"])


def test_the_newest_checkpoint_names_the_record_as_the_document_says() -> None:
    vectors = VECTORS["log-naming-records"]
    sealed = bytes.fromhex(vectors["authority"])
    newest = [json.loads(row[3]) for row in read(vectors["rows"]) if row[1] == 3][-1]
    digest = hashlib.sha256(framed(b"backpack/v1/authority-record", VAULT_ID, sealed)).hexdigest()
    assert (newest["record"], newest["generation"]) == (digest, vectors["generation"])
    judge = judged(vectors["rows"])
    judge.hold_record(sealed)
    assert judge.first is None
    judge.hold_record(bytes.fromhex(vectors["older"]))
    assert judge.first is not None


def test_a_log_of_an_older_version_says_nothing_of_the_record() -> None:
    judge = judged(VECTORS["log"]["rows"])
    judge.hold_record(b"any")
    assert judge.first is None


@pytest.mark.parametrize("fault", FAULTS)
def test_the_verifier_names_the_one_fault_of_each_other_log(fault: dict[str, Any]) -> None:
    found = judged(fault["rows"]).first
    assert found is not None
    assert found.number == fault["bad"]


def test_every_event_is_in_the_document_and_no_other() -> None:
    section = AUDIT.partition("## Events")[2].partition("## What can be read")[0]
    rows = re.findall(r"^\| ((?:`[a-z-]+` ?)+)\|", section, re.MULTILINE)
    documented = re.findall(r"`([a-z-]+)`", " ".join(rows))
    assert sorted(documented) == sorted(events.KINDS)
