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

from backpackd.core import canonical, hybrid
from backpackd.core.audit import events
from backpackd.core.audit.verify import Verifier
from backpackd.core.rows import AuditRow

ROOT = Path(__file__).resolve().parents[2]
AUDIT = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/audit/log.json").read_text())
VAULT_ID = bytes.fromhex(VECTORS["vault_id"])
KEYS = {
    name: bytes.fromhex(VECTORS["keys"][name]) for name in ("private", "signing", "wrap", "verify")
}


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


def unpadded(data: bytes) -> bytes:
    length = int.from_bytes(data[:4], "big")
    return data[4 : 4 + length]


def test_the_log_is_chained_signed_and_opens_as_the_document_says() -> None:
    previous, state, opened = bytes(32), b"", []
    fingerprint = hashlib.sha256(
        framed(b"backpack/v1/audit-public", KEYS["wrap"], KEYS["verify"])
    ).hexdigest()
    states = iter(VECTORS["first_states"])
    for place, row in enumerate(read(VECTORS["rows"]), 1):
        assert (row[0], row[2]) == (place, previous)
        if row[1] == 1:
            header = json.loads(row[3])
            assert header["keys"] == fingerprint == VECTORS["keys"]["fingerprint"]
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
                )
                signature = canonical.from_text(told["signature"])
                Ed25519PublicKey.from_public_bytes(KEYS["verify"]).verify(signature, statement)
            state = derived(state, b"", b"audit-ratchet")
        previous = digest(row)
    assert VECTORS["head"] == f"{place}-{previous.hex()}"
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


def test_the_verifier_finds_the_log_good() -> None:
    judge = judged(VECTORS["rows"])
    assert judge.problem is None
    assert (judge.head.text, judge.signed) == (VECTORS["head"], VECTORS["signed"])


@pytest.mark.parametrize("fault", VECTORS["faults"], ids=lambda fault: fault["fault"])
def test_the_verifier_names_the_one_fault_of_each_other_log(fault: dict[str, Any]) -> None:
    found = judged(fault["rows"]).first
    assert found is not None
    assert found.number == fault["bad"]


def test_every_event_is_in_the_document_and_no_other() -> None:
    section = AUDIT.partition("## Events")[2].partition("## What can be read")[0]
    rows = re.findall(r"^\| ((?:`[a-z-]+` ?)+)\|", section, re.MULTILINE)
    documented = re.findall(r"`([a-z-]+)`", " ".join(rows))
    assert sorted(documented) == sorted(events.KINDS)
