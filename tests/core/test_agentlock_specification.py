"""docs/agent-lock.md, written a second time: with libraries alone, and nothing of Backpack's.

What this program reads out of the vectors of version 2, and what Backpack reads out of a file that
this program wrote, is what the specification says and not what one implementation happens to do.
"""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backpackd.core.agentlock import locks
from backpackd.core.agentlock.document import read
from backpackd.core.sealing.identity import Identity

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "agent-lock-v2"
GOOD = [
    path.name.removesuffix(".expect.json")
    for path in sorted(VECTORS.glob("*.expect.json"))
    if "opens" in json.loads(path.read_text(encoding="utf-8"))
]
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
LABEL = b"backpack/agent-lock/v2/"
LAYERS = ("credentials", "personality", "memory")


def context(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def derive(key: bytes, salt: bytes, purpose: str) -> bytes:
    info = b"backpack/v1/" + purpose.encode()
    return HKDF(hashes.SHA256(), length=32, salt=salt, info=info).derive(key)


def compact(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def digest_of(lock_id: bytes, name: str, count: int, sealed: bytes) -> str:
    place = (LABEL + b"layer", lock_id, name.encode(), count.to_bytes(8, "big"))
    return hashlib.sha256(context(*place, sealed)).hexdigest()


def fingerprint(public: bytes) -> str:
    return hashlib.sha256(
        context(b"backpack/v1/identity", public[:1216], public[1216:])
    ).hexdigest()


def padded(content: bytes) -> bytes:
    framed = len(content).to_bytes(4, "big") + content
    steps = [256, 512, 1024, 2048, 4096]
    size = next((step for step in steps if len(framed) <= step), -(-len(framed) // 4096) * 4096)
    return framed + bytes(size - len(framed))


def opened(document: bytes, decryption: bytes, public: bytes) -> dict[str, Any]:
    """Open a lock as the specification says, with all of its checks that a good file passes."""
    data = json.loads(document)
    assert document == json.dumps(data, indent=2).encode() + b"\n"
    header, lock_id = data["header"], bytes.fromhex(data["header"]["lock_id"])
    recipients = {
        base64.b64decode(one["identity"]): base64.b64decode(one["wrap"])
        for one in header["recipients"]
    }
    (author,) = (one for one in recipients if fingerprint(one) == header["author"])
    statement = context(LABEL + b"header", compact(header))
    signature = base64.b64decode(data["signature"])
    Ed25519PublicKey.from_public_bytes(author[1216:]).verify(signature, statement)

    private = MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(decryption[:64]),
        X25519PrivateKey.from_private_bytes(decryption[64:]),
    )
    commitment = bytes.fromhex(header["lock_key"])
    info = context(LABEL + b"wrap", lock_id, commitment, public)
    key = SUITE.decrypt(recipients[public], private, info)
    assert hmac.compare_digest(derive(key, lock_id, "agent-lock/commitment"), commitment)

    found = {}
    for name in LAYERS:
        count, sealed = (
            data["layers"][name]["count"],
            base64.b64decode(data["layers"][name]["sealed"]),
        )
        anchor = header["layers"][name]
        if name != "memory" or count == anchor["count"]:
            assert anchor == {"count": count, "digest": digest_of(lock_id, name, count, sealed)}
        kind = f"agent-lock/{name}/{count}"
        plain = AESGCM(derive(key, sealed[:32], kind)).decrypt(
            bytes(12), sealed[32:], context(kind.encode(), context(lock_id))
        )
        content = plain[4 : 4 + int.from_bytes(plain[:4], "big")]
        assert plain == padded(content)
        found[name] = json.loads(content)
    return found


def made(contents: dict[str, Any], private: bytes, signing: bytes, public: bytes) -> bytes:
    """Write a new lock as the specification says, for its author alone."""
    lock_id, key = b"\x01" * 16, b"\x02" * 32
    layers, anchors = {}, {}
    for number, name in enumerate(LAYERS):
        kind, salt = f"agent-lock/{name}/1", bytes([number]) * 32
        # Free to a writer: white space, the order of members, characters as they are.
        content = padded(json.dumps(contents[name], ensure_ascii=False, indent=3).encode())
        bound_to = context(kind.encode(), context(lock_id))
        sealed = salt + AESGCM(derive(key, salt, kind)).encrypt(bytes(12), content, bound_to)
        layers[name] = {"count": 1, "sealed": base64.b64encode(sealed).decode()}
        anchors[name] = {"count": 1, "digest": digest_of(lock_id, name, 1, sealed)}
    commitment = derive(key, lock_id, "agent-lock/commitment")
    to = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:1184]),
        X25519PublicKey.from_public_bytes(public[1184:1216]),
    )
    wrap = SUITE.encrypt(key, to, context(LABEL + b"wrap", lock_id, commitment, public))
    header = {
        "lock_id": lock_id.hex(),
        "generation": 1,
        "previous": "0" * 64,
        "author": fingerprint(public),
        "lock_key": commitment.hex(),
        "layers": anchors,
        "recipients": [
            {
                "identity": base64.b64encode(public).decode(),
                "wrap": base64.b64encode(wrap).decode(),
            }
        ],
    }
    statement = context(LABEL + b"header", compact(header))
    signature = Ed25519PrivateKey.from_private_bytes(signing).sign(statement)
    data = {
        "version": "2.0",
        "header": header,
        "signature": base64.b64encode(signature).decode(),
        "layers": layers,
    }
    return json.dumps(data, indent=2).encode() + b"\n"


def vector(name: str) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Return a vector's expectation, and its identity: two private keys, and the public one."""
    found = json.loads((VECTORS / f"{name}.expect.json").read_text(encoding="utf-8"))
    who = found["identity"]
    line = who["text"].removeprefix("backpack-identity-v1:")
    data = base64.b64decode(line)
    checksum = hashlib.sha256(context(b"backpack/v1/identity", data[:1248])).digest()[:6]
    assert data[1248:] == checksum
    keys = (base64.b64decode(who["decryption"]), base64.b64decode(who["signing"]))
    return found, *keys, data[:1248]


@pytest.mark.parametrize("name", GOOD)
def test_the_specification_opens_what_backpack_wrote(name: str) -> None:
    found, decryption, _, public = vector(name)
    document = (VECTORS / f"{name}.agent.lock").read_bytes()
    assert opened(document, decryption, public) == found["opens"]


@pytest.mark.parametrize("name", GOOD)
def test_backpack_opens_what_the_specification_writes(name: str) -> None:
    found, decryption, signing, public = vector(name)
    wanted = found["opens"]
    who = Identity.from_private(decryption, signing)
    contents = locks.open_lock(read(made(wanted, decryption, signing, public)), who).contents
    values = {
        key: None if one.value is None else one.value.decode()
        for key, one in contents.credentials.items()
    }
    found_now = (values, contents.personality, contents.memory)
    assert found_now == (wanted["credentials"], wanted["personality"], wanted["memory"])
