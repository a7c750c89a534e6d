"""The vault's format as its document describes it, followed to the letter.

Opens what the daemon sealed with none of the daemon's code for sealing: whoever writes a second
program from the document gets the same bytes.
"""

import base64
import hmac
import json
import re
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backpackd.adapters.stores.formats import FORMATS
from backpackd.adapters.stores.vault_file import APPLICATION_ID
from backpackd.core import rows
from backpackd.core.sealing import hybrid
from backpackd.core.slots import slots
from backpackd.core.vault import authority, records

ROOT = Path(__file__).resolve().parents[1]
VAULT_FORMAT = (ROOT / "docs" / "vault-format.md").read_text(encoding="utf-8")
MASTER, VAULT_ID = bytes(range(32)), bytes(range(16))


def framed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def derived(salt: bytes, purpose: str) -> bytes:
    info = b"backpack/v1/" + purpose.encode()
    return HKDF(hashes.SHA256(), length=32, salt=salt, info=info).derive(MASTER)


def opened(kind: str, bound_to: bytes, sealed: bytes) -> bytes:
    data = framed(kind.encode(), bound_to)
    padded = AESGCM(derived(sealed[:32], kind)).decrypt(bytes(12), sealed[32:], data)
    length = int.from_bytes(padded[:4], "big")
    return padded[4 : 4 + length]


@pytest.mark.parametrize("statement", FORMATS[-1].schema)
def test_the_vaults_format_shows_the_schema(statement: str) -> None:
    assert " ".join(statement.split()) in " ".join(VAULT_FORMAT.split())


def test_the_vaults_format_shows_the_files_marks() -> None:
    assert f"`0x{APPLICATION_ID:08X}`" in VAULT_FORMAT
    assert f"version of its schema:\n{FORMATS[-1].version}." in VAULT_FORMAT


def test_the_vaults_format_shows_the_sizes_of_keys_and_wraps() -> None:
    assert f"| public key | {hybrid.PUBLIC_SIZE} |" in VAULT_FORMAT
    assert f"| private key | {hybrid.PRIVATE_SIZE} |" in VAULT_FORMAT
    assert f"| wrap of 32 bytes | {slots.MASTER_SIZE + hybrid.OVERHEAD} |" in VAULT_FORMAT


def test_a_key_row_opens_by_what_the_document_says() -> None:
    head = records.KeyHead("API_KEY", 1, 2)
    row = records.seal_row(
        MASTER,
        vault_id=VAULT_ID,
        head=head,
        value=b"the value",
        version=7,
        salts=(b"a" * 32, b"b" * 32),
    )
    index_key = derived(VAULT_ID, "row-index")
    assert row.index == hmac.digest(index_key, b"API_KEY", "sha256")
    place = framed(VAULT_ID, row.index, struct.pack(">Q", 7))
    assert opened("key-value", place, row.value) == b"the value"
    described = opened("key-head", place, row.head)
    assert described == b'{"created":1,"name":"API_KEY","updated":2}'


def test_the_hash_over_the_rows_is_what_the_document_says() -> None:
    heads = [rows.RowHead(bytes([n]) * 32, n, bytes([n]) * 32) for n in (1, 2)]
    key = derived(VAULT_ID, "row-set")
    terms = [
        hmac.digest(key, head.index + struct.pack(">Q", head.version) + head.tags, "sha256")
        for head in heads
    ]
    total = sum(int.from_bytes(term, "big") for term in terms) % 2**256
    found = records.RowSet().change(MASTER, VAULT_ID, add=heads, drop=())
    assert found.encode() == f"{total:064x}"


def test_the_authority_record_has_the_members_that_the_document_names() -> None:
    record = authority.Authority(1, 1, records.RowSet(), {}, b"sealed", 5)
    sealed = record.seal(MASTER, VAULT_ID, b"s" * 32)
    members = json.loads(opened("authority", framed(VAULT_ID), sealed))
    section = VAULT_FORMAT.partition("## The authority record")[2].partition("**The hash")[0]
    rows_of_table = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    assert sorted(members) == sorted(re.findall(r"`(\w+)`", " ".join(rows_of_table)))


def test_a_slot_opens_by_what_the_document_says() -> None:
    stretching = slots.rfc_9106_low_memory(b"s" * 16)
    slot = slots.make(
        MASTER,
        vault_id=VAULT_ID,
        slot_id=b"i" * 16,
        generation=1,
        stretching=stretching,
        secret=b"k" * 32,
        signing_key=b"g" * 32,
    )
    body = json.loads(slot.encode())
    parameters = json.dumps(body["stretching"], sort_keys=True, separators=(",", ":")).encode()
    blob_data = framed(b"backpack/v1/slot-blob", VAULT_ID, slot.slot_id, parameters)
    blob = AESGCM(b"k" * 32).decrypt(bytes(12), base64.b64decode(body["sealed"]), blob_data)
    private, verify_key = blob[:96], blob[96:]
    public, wrap = base64.b64decode(body["public"]), base64.b64decode(body["wrap"])
    info = framed(b"backpack/v1/slot-wrap", VAULT_ID, slot.slot_id, struct.pack(">Q", 1))
    Ed25519PublicKey.from_public_bytes(verify_key).verify(
        base64.b64decode(body["signature"]),
        framed(b"backpack/v1/slot-wrap-signature", info, public, wrap),
    )
    assert hybrid.unwrap(wrap, private, info=info) == MASTER
    section = VAULT_FORMAT.partition("## Slots")[2].partition("The way from")[0]
    assert sorted(body) == sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
