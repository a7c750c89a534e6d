"""Locks for tests, and what an attacker does to them."""

import json
from collections.abc import Callable
from typing import Any

from backpackd.core.agentlock import locks
from backpackd.core.agentlock.content import Contents, Credential
from backpackd.core.agentlock.document import LockFile
from backpackd.core.sealing import identity as identities
from backpackd.core.sealing.identity import Identity

ANN = identities.generate()
BEN = identities.generate()
STRANGER = identities.generate()

CONTENTS = Contents(
    {"OPENAI_API_KEY": Credential(), "WEATHER_KEY": Credential(b"embedded-value-0123")},
    {"system_prompt": "Réponds 🎒", "tone": "kind", "temperature": 0.7, "nested": {"a": [1, None]}},
    {"history": ["héllo\n\0"], "n": None},
)


def counting() -> locks.Draw:
    """Return a source of bytes that are never the same twice, and the same in every run."""
    calls = 0

    def draw(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return calls.to_bytes(size, "big")

    return draw


DRAW = counting()


def shared(*, author: Identity = ANN, contents: Contents = CONTENTS) -> LockFile:
    """Return a lock of Ann's that Ben can open."""
    return locks.create(contents, author=author, recipients=[BEN.public], draw=DRAW)


def altered(document: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return a file of which `change` altered the data, written as a writer writes it."""
    data = json.loads(document)
    change(data)
    return rendered(data)


def rendered(data: Any) -> bytes:
    return json.dumps(data, indent=2).encode() + b"\n"
