"""Writes tests/vectors/agent-lock-v2: locks that open, and locks with one fault each.

    python tests/vectors/make_agent_lock_v2.py

Identities, lock keys, salts and so the layers come out of fixed seeds. HPKE draws its own
randomness, so the wraps, and what is signed over them, are others in every run: the files are made
once and kept. A second implementation needs the files only.

`NAME.agent.lock` is the file. `NAME.expect.json` names the identities that it is opened with and
what has to come of it: `opens` with the contents, or `fails` with the reason.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backpackd.core.agentlock import layers, locks
from backpackd.core.agentlock.content import Contents, Credential
from backpackd.core.agentlock.document import LockFile
from backpackd.core.agentlock.header import Layer, Recipient
from backpackd.core.sealing import hybrid
from backpackd.core.sealing.canonical import context
from backpackd.core.sealing.identity import Identity
from backpackd.core.sealing.sealing import seal

HERE = Path(__file__).resolve().parent / "agent-lock-v2"


def seeded(seed: str) -> locks.Draw:
    """Return a source of bytes that are the same in every run."""
    calls = 0

    def draw(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(f"{seed}/{calls}".encode()).digest(size)

    return draw


def somebody(name: str) -> Identity:
    """Return the identity that belongs to a name in the vectors."""
    draw = seeded(name)
    return Identity.from_private(draw(hybrid.PRIVATE_SIZE), draw(32))


ANN, BEN, EVE = somebody("ann"), somebody("ben"), somebody("eve")
CONTENTS = Contents(
    {"OPENAI_API_KEY": Credential(), "WEATHER_KEY": Credential(b"embedded-\xf0\x9f\x94\x91")},
    {
        "system_prompt": "Réponds en français. 日本語も。🎒",
        "tone": "дружелюбный",
        "temperature": 0.7,
        "max_tokens": 2000,
        "nested": {"list": [1, 2.5, None, True], "empty": {}},
    },
    {"history": [{"role": "user", "content": "héllo\n\u0000tab\t"}], "n": None, "ok": True},
)


def plain(contents: Contents) -> dict[str, Any]:
    """Return contents as JSON: a credential is null (stored) or its embedded value."""
    return {
        "credentials": {
            name: None if one.value is None else one.value.decode()
            for name, one in contents.credentials.items()
        },
        "personality": contents.personality,
        "memory": contents.memory,
    }


def good() -> dict[str, tuple[LockFile, Identity]]:
    """Return locks that open, each with an identity that opens it."""
    draw = seeded("good")
    first = locks.create(CONTENTS, author=ANN, draw=draw)
    shared = locks.add_recipients(first, ANN, [BEN.public])
    edited = locks.edit(shared, BEN, draw=draw, personality={"tone": "brisk", "limit": 1e16})
    written = locks.update_memory(edited, BEN, {"runs": 2}, draw=draw)
    shut = locks.remove_recipients(written, BEN, [ANN.public.fingerprint], draw=draw)
    large = {"text": "x" * 5000}
    return {
        "first": (first, ANN),
        "empty": (locks.create(Contents({}, {}, {}), author=ANN, draw=draw), ANN),
        "shared": (shared, BEN),
        "edited-by-another": (edited, ANN),
        "memory-written-since": (written, ANN),
        "recipient-removed": (shut, BEN),
        "padded-by-steps": (locks.update_memory(first, ANN, large, draw=draw), ANN),
    }


def signed(lock: LockFile, by: Identity, **header: Any) -> LockFile:
    """Sign whatever there is, as a program would that checks nothing."""
    return locks._signed(replace(lock.header, **header), lock.sealed, by)


def with_layers(lock: LockFile, **sealed: Layer) -> LockFile:
    return replace(lock, sealed={**lock.sealed, **sealed})


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def sealed_with(lock: LockFile, name: str, content: bytes, count: int = 1) -> Layer:
    key, salt = layers.unwrap_key(lock, ANN), seeded("fault")(32)
    return layers.seal_layer(key, content, lock_id=lock.lock_id, name=name, count=count, salt=salt)


def unpadded(lock: LockFile) -> Layer:
    layer, key = lock.sealed["memory"], layers.unwrap_key(lock, ANN)
    bound_to = context(bytes.fromhex(lock.lock_id))
    sealed = seal(key, b"{}", kind="agent-lock/memory/2", bound_to=bound_to, salt=layer.sealed[:32])
    return Layer(2, sealed)


def split(lock: LockFile) -> LockFile:
    """Give Ben another lock key than Ann."""
    info = layers._wrap_info(lock.lock_id, lock.header.commitment, BEN.public)
    wrap = hybrid.wrap(bytes(32), BEN.public.encryption, info=info)
    return signed(lock, ANN, wraps=(lock.header.wraps[0], Recipient(BEN.public, wrap)))


def text(lock: LockFile, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the data of a file and write it as a writer writes it."""
    data = json.loads(lock.encode())
    change(data)
    return json.dumps(data, indent=2).encode() + b"\n"


def faults() -> dict[str, tuple[bytes, Identity, str]]:
    """Return files with one fault each, who opens them, and the reason of the refusal."""
    draw = seeded("faulty")
    lock = locks.create(CONTENTS, author=ANN, recipients=[BEN.public], draw=draw)
    other = locks.create(CONTENTS, author=ANN, recipients=[BEN.public], draw=draw)
    later = locks.edit(
        locks.update_memory(lock, ANN, {"a": 1}, draw=draw), ANN, draw=draw, personality={"a": 1}
    )
    sealed, header = lock.sealed, lock.header
    swapped = {"credentials": sealed["personality"], "personality": sealed["credentials"]}
    stranger = Recipient(EVE.public, header.wraps[0].wrap)
    found: dict[str, tuple[LockFile | bytes, str]] = {
        "not-json": (lock.encode()[:-3], "lock-not-json"),
        "repeated-member": (
            lock.encode().replace(b'"version"', b'"version": "2.0",\n  "version"'),
            "lock-not-json",
        ),
        "unknown-version": (text(lock, lambda d: d.update(version="9.0")), "lock-version"),
        "unknown-member": (text(lock, lambda d: d["header"].update(note="hello")), "lock-shape"),
        "missing-member": (text(lock, lambda d: d["header"].pop("previous")), "lock-shape"),
        "missing-layer": (text(lock, lambda d: d["layers"].pop("memory")), "lock-layer-missing"),
        "bad-base64": (text(lock, lambda d: d.update(signature="?")), "lock-encoding"),
        "other-line-ends": (lock.encode().replace(b"\n", b"\r\n"), "lock-not-canonical"),
        "on-one-line": (json.dumps(json.loads(lock.encode())).encode(), "lock-not-canonical"),
        "generation-zero": (signed(lock, ANN, generation=0), "lock-shape"),
        "first-with-a-previous": (signed(lock, ANN, previous="1" * 64), "lock-shape"),
        "author-no-recipient": (signed(lock, ANN, wraps=header.wraps[1:]), "lock-shape"),
        "recipient-twice": (signed(lock, ANN, wraps=header.wraps + header.wraps), "lock-shape"),
        "signature-flipped": (
            replace(lock, signature=flipped(lock.signature, 9)),
            "lock-signature",
        ),
        "signed-by-another": (signed(lock, EVE), "lock-signature"),
        "recipient-added-unsigned": (
            replace(lock, header=replace(header, wraps=(*header.wraps, stranger))),
            "lock-signature",
        ),
        "credentials-flipped": (
            with_layers(
                lock,
                credentials=replace(
                    sealed["credentials"], sealed=flipped(sealed["credentials"].sealed, 40)
                ),
            ),
            "lock-layer-changed",
        ),
        "layers-swapped": (with_layers(lock, **swapped), "lock-layer-changed"),
        "layers-swapped-and-signed": (
            signed(with_layers(lock, **swapped), ANN),
            "lock-layer-changed",
        ),
        "personality-of-an-older-generation": (
            with_layers(later, personality=sealed["personality"]),
            "lock-layer-changed",
        ),
        "memory-older-than-the-header": (
            with_layers(later, memory=sealed["memory"]),
            "lock-memory-older",
        ),
        "memory-of-another-lock": (
            with_layers(
                lock, memory=locks.update_memory(other, ANN, {"a": 1}, draw=draw).sealed["memory"]
            ),
            "lock-layer-changed",
        ),
        "memory-count-raised": (
            with_layers(lock, memory=replace(sealed["memory"], count=2)),
            "lock-layer-changed",
        ),
        "memory-without-padding": (with_layers(lock, memory=unpadded(lock)), "lock-layer-changed"),
        "memory-is-a-list": (
            with_layers(lock, memory=sealed_with(lock, "memory", b"[]", 2)),
            "lock-content",
        ),
        "memory-with-a-member-twice": (
            with_layers(lock, memory=sealed_with(lock, "memory", b'{"a":1,"a":2}', 2)),
            "lock-content",
        ),
        "credential-with-a-bad-name": (
            signed(
                with_layers(lock, credentials=sealed_with(lock, "credentials", b'{"a b":null}')),
                ANN,
            ),
            "lock-content",
        ),
        "layer-of-a-generation-to-come": (
            signed(with_layers(lock, personality=sealed_with(lock, "personality", b"{}", 2)), ANN),
            "lock-shape",
        ),
    }
    cases = {
        name: (one if isinstance(one, bytes) else one.encode(), ANN, reason)
        for name, (one, reason) in found.items()
    }
    cases["two-lock-keys"] = (split(lock).encode(), BEN, "lock-key")
    cases["not-a-recipient"] = (lock.encode(), EVE, "not-a-recipient")
    return cases


def identity_of(who: Identity) -> dict[str, str]:
    return {
        "decryption": base64.b64encode(who.decryption).decode(),
        "signing": base64.b64encode(who.signing).decode(),
        "text": who.public.text,
        "fingerprint": who.public.fingerprint,
    }


def write(name: str, document: bytes, expectation: dict[str, Any]) -> None:
    (HERE / f"{name}.agent.lock").write_bytes(document)
    text = json.dumps(expectation, indent=1, ensure_ascii=False)
    (HERE / f"{name}.expect.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Write every vector anew."""
    HERE.mkdir(exist_ok=True)
    for name, (lock, who) in good().items():
        opens = plain(locks.open_lock(lock, who).contents)
        facts = {
            "lock_id": lock.lock_id,
            "lock_key": layers.unwrap_key(lock, who).hex(),
            "author": lock.author.fingerprint,
            "mark": lock.mark.encode(),
        }
        write(name, lock.encode(), {"identity": identity_of(who), "opens": opens, **facts})
    for name, (document, who, reason) in faults().items():
        write(name, document, {"identity": identity_of(who), "fails": reason})


if __name__ == "__main__":
    main()
