"""A version 2 lock as a file: its form, and all checks that need no private key.

Invariants:

1. A `LockFile` that was read is intact: its bytes are the only ones with this meaning, the named
   author signed its header, and its credentials and personality are the header's.
2. Its memory is not older than the header's. With the same count, it is exactly the header's.
3. The author is one of the recipients, and no two recipients share a key.

It does not decide whether to trust the author, or whether a newer version was seen before. It opens
nothing.
"""

import json
from dataclasses import dataclass
from typing import Any

from backpackd.core.agentlock import versions
from backpackd.core.agentlock.content import MAX_RECIPIENTS
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.fields import (
    LAYERS,
    bytes_of,
    count_of,
    digits,
    layers_of,
    object_with,
)
from backpackd.core.agentlock.header import FIRST, WRAP_SIZE, Header, Layer, Recipient
from backpackd.core.agentlock.history import Mark
from backpackd.core.sealing import canonical
from backpackd.core.sealing.identity import (
    PUBLIC_SIZE,
    SIGNATURE_SIZE,
    IdentityError,
    PublicIdentity,
)


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock whose every public claim was checked. Made by `read` and by `locks`.

    Attributes:
        header: what the author signed.
        signature: Ed25519 over `header.statement`.
        sealed: the layers by name.
    """

    header: Header
    signature: bytes
    sealed: dict[str, Layer]

    @property
    def lock_id(self) -> str:
        """The lock's random id, 32 hexadecimal digits."""
        return self.header.lock_id

    @property
    def generation(self) -> int:
        """How often the lock was signed."""
        return self.header.generation

    @property
    def recipients(self) -> tuple[PublicIdentity, ...]:
        """Who can open the lock."""
        return tuple(recipient.identity for recipient in self.header.wraps)

    @property
    def author(self) -> PublicIdentity:
        """The last signer. A signature alone makes nobody trustworthy."""
        (author,) = (one for one in self.recipients if one.fingerprint == self.header.author)
        return author

    @property
    def layers(self) -> dict[str, int]:
        """By layer, the generation it was sealed for; of memory, its counter."""
        return {name: layer.count for name, layer in self.sealed.items()}

    @property
    def memory_counter(self) -> int:
        """How often memory was written."""
        return self.sealed["memory"].count

    @property
    def mark(self) -> Mark:
        """The mark to remember for this version."""
        return Mark(
            self.header.generation,
            self.header.digest,
            self.header.previous,
            self.memory_counter,
            self.sealed["memory"].digest(self.lock_id, "memory"),
        )

    def encode(self) -> bytes:
        """Return the file: the only bytes that `read` accepts for this lock."""
        data = {
            "version": versions.CURRENT,
            "header": self.header.plain(),
            "signature": canonical.to_text(self.signature),
            "layers": {
                name: {
                    "count": self.sealed[name].count,
                    "sealed": canonical.to_text(self.sealed[name].sealed),
                }
                for name in LAYERS
            },
        }
        return json.dumps(data, ensure_ascii=True, indent=2).encode("ascii") + b"\n"


def read(document: bytes) -> LockFile:
    """Read a version 2 file, and make all checks that need no private key.

    Raises:
        LockFileError: it is not a lock, or somebody else has changed it; the reason says which
            check failed.
    """
    data = versions.load(document)
    if data["version"] != versions.CURRENT:
        raise LockFileError(
            "the file is a version 1 agent.lock: migrate it first", reason="lock-version"
        )
    layers = layers_of(data)
    object_with(data, "version", "header", "signature", "layers", what="the whole")
    header = _header(data["header"])
    sealed = {name: _layer(layers[name], name) for name in LAYERS}
    lock = LockFile(
        header, bytes_of(data["signature"], SIGNATURE_SIZE, what="the signature"), sealed
    )
    # White space, other escapes and the order of members would let two files differ that say the
    # same, and a line of version control show a change that is none.
    if lock.encode() != document:
        raise LockFileError(
            "the file is not written as a version 2 agent.lock is, byte for byte (reformatted, or "
            "other line ends?): restore it from version control",
            reason="lock-not-canonical",
        )
    if (header.generation == 1) != (header.previous == FIRST):
        raise LockFileError(
            "the header's generation and what it was made from contradict each other",
            reason="lock-shape",
        )
    _check_recipients(lock)
    if not lock.author.verify(lock.signature, header.statement):
        raise LockFileError(
            "the header was changed after its author signed it: do not use the file, and restore "
            "it from version control",
            reason="lock-signature",
        )
    _check_layers(lock)
    return lock


def _check_recipients(lock: LockFile) -> None:
    recipients = lock.recipients
    apart = ({one.encryption for one in recipients}, {one.verifying for one in recipients})
    if any(len(keys) != len(recipients) for keys in apart):
        raise LockFileError("two recipients in the file share a key", reason="lock-shape")
    if lock.header.author not in {one.fingerprint for one in recipients}:
        raise LockFileError(
            "the author that the file names is not among its recipients", reason="lock-shape"
        )


def _check_layers(lock: LockFile) -> None:
    for name, layer in lock.sealed.items():
        count, digest = lock.header.anchors[name]
        if name != "memory" and count > lock.generation:
            raise LockFileError(
                f"the {name} layer claims a generation that is yet to come", reason="lock-shape"
            )
        if name == "memory" and layer.count > count:
            # Written since, by some recipient: that shows when it is opened.
            continue
        if name == "memory" and layer.count < count:
            raise LockFileError(
                "the memory in the file is older than the header beside it: they come from "
                "different versions; restore the file from version control",
                reason="lock-memory-older",
            )
        if layer.count != count or layer.digest(lock.lock_id, name) != digest:
            raise LockFileError(
                f"the {name} layer is not the one that the header names: it was changed, or comes "
                "from another version or file; restore the file from version control",
                reason="lock-layer-changed",
            )


def _header(data: Any) -> Header:
    found = object_with(
        data,
        "lock_id",
        "generation",
        "previous",
        "author",
        "lock_key",
        "layers",
        "recipients",
        what='"header"',
    )
    layers = object_with(found["layers"], *LAYERS, what='the header\'s "layers"')
    anchors = {name: _anchor(layers[name], name) for name in LAYERS}
    if not isinstance(found["recipients"], list):
        raise LockFileError("the recipients in the file are no list", reason="lock-shape")
    # Before their keys are checked, which takes time.
    if len(found["recipients"]) > MAX_RECIPIENTS:
        raise LockFileError(
            f"the file names more than {MAX_RECIPIENTS} recipients", reason="lock-shape"
        )
    return Header(
        digits(found["lock_id"], 32),
        count_of(found["generation"]),
        digits(found["previous"], 64),
        digits(found["author"], 64),
        digits(found["lock_key"], 64),
        anchors,
        tuple(_recipient(one) for one in found["recipients"]),
    )


def _anchor(data: Any, name: str) -> tuple[int, str]:
    found = object_with(data, "count", "digest", what=f"the header's {name}")
    return count_of(found["count"]), digits(found["digest"], 64)


def _recipient(data: Any) -> Recipient:
    found = object_with(data, "identity", "wrap", what="a recipient")
    try:
        identity = PublicIdentity.decode(
            bytes_of(found["identity"], PUBLIC_SIZE, what="an identity")
        )
    except IdentityError as error:
        raise LockFileError(
            "a recipient in the file is no identity", reason="lock-shape"
        ) from error
    return Recipient(identity, bytes_of(found["wrap"], WRAP_SIZE, what="a wrap"))


def _layer(data: Any, name: str) -> Layer:
    found = object_with(data, "count", "sealed", what=f"the {name} layer")
    return Layer(
        count_of(found["count"]), bytes_of(found["sealed"], None, what=f"the {name} layer")
    )
