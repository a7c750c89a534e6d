"""Opening version 1 of agent.lock, the form that older tools write. Nothing here writes one.

Each layer is a Fernet token (https://github.com/fernet/spec) under a key that PBKDF2 stretches
from one key string with a salt of the layer's own. Nothing binds the layers to each other or to a
name: anybody with the key string, or an older file, can mix them unseen. That is why these files
are migrated.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from backpackd.core.agentlock.content import Contents, Credential, decode_object
from backpackd.core.agentlock.errors import LockContentError, LockFileError, WrongLegacyKeyError
from backpackd.core.agentlock.fields import LAYERS, bytes_of, layers_of, object_with
from backpackd.core.agentlock.versions import LEGACY, load
from backpackd.core.errors import InvalidRequestError

DEFAULT_KEY = "default-key"
"""What the older tools sealed with when nobody gave them a key string: known to everybody."""
DEFAULT_ITERATIONS = 100_000
MIN_ITERATIONS = 1_000
MAX_ITERATIONS = 10_000_000
MAX_KEY = 4096
"""The longest key string, in bytes of UTF-8."""
PLACEHOLDER = "placeholder_"
"""How the value of a credential starts that stands for the vault's own key of that name."""

_SALT_SIZE = 16
_TOKEN_VERSION = 0x80
_TOKEN_HEAD = 1 + 8 + 16
_BLOCK = 16
_MAC_SIZE = 32


@dataclass(frozen=True, slots=True)
class LegacyLock:
    """A version 1 lock, opened.

    Attributes:
        contents: what it holds, in the terms of version 2. Nothing says that the names of its
            credentials are well-formed, or its parts within the limits: sealing it again checks.
        credentials: name to value, as they were written.
        default_key: it was sealed with `DEFAULT_KEY`: everybody can read it, and could forge it.
    """

    contents: Contents
    credentials: Mapping[str, str] = field(repr=False)
    default_key: bool


def open_legacy(document: bytes, key: str, *, iterations: int = DEFAULT_ITERATIONS) -> LegacyLock:
    """Open a version 1 file. Takes as long as three times PBKDF2.

    Args:
        document: the file.
        key: the key string that the older tool was given.
        iterations: of PBKDF2, as the older tool was set.

    Raises:
        WrongLegacyKeyError: no layer opens, so it is the key string (or the iterations).
        LockFileError: the file is damaged; when only some layers open, those that do not.
        InvalidRequestError: iterations out of bounds, or a key string that is none.
    """
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise InvalidRequestError(
            f"the iterations must be a number from {MIN_ITERATIONS} to {MAX_ITERATIONS}",
            reason="invalid-iterations",
        )
    stretched = _key_bytes(key)
    # All that can be wrong without a key comes first: a damaged file costs no stretching.
    tokens = _tokens(document)
    opened = {
        name: _open(token, hashlib.pbkdf2_hmac("sha256", stretched, salt, iterations))
        for name, (token, salt) in tokens.items()
    }
    plain = {name: data for name, data in opened.items() if data is not None}
    if not plain:
        # A token does not tell a wrong key from an altered token. That all three were altered, and
        # still have the form of tokens, is the less likely of the two.
        raise WrongLegacyKeyError(
            "no layer of the file opens with this key string: it is another one, or the older tool "
            "used another number of iterations"
        )
    for name in LAYERS:
        if name not in plain:
            raise LockFileError(
                f"the {name} layer of the file is damaged: other layers open with this key string, "
                "and this one does not; restore the file from version control",
                reason="lock-layer-changed",
            )
    objects = {name: _object(name, plain[name]) for name in LAYERS}
    credentials = _texts(objects["credentials"])
    contents = Contents(
        {name: _credential(value) for name, value in credentials.items()},
        objects["personality"],
        objects["memory"],
    )
    return LegacyLock(contents, credentials, hmac.compare_digest(stretched, DEFAULT_KEY.encode()))


def _key_bytes(key: str) -> bytes:
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError:
        encoded = b""
    if not 1 <= len(encoded) <= MAX_KEY:
        raise InvalidRequestError(
            f"the key string of the older tool must be text of 1 to {MAX_KEY} bytes"
        )
    return encoded


def _tokens(document: bytes) -> dict[str, tuple[bytes, bytes]]:
    data = load(document)
    if data["version"] != LEGACY:
        raise LockFileError(
            "the file is not a version 1 agent.lock: open it without a key string",
            reason="lock-version",
        )
    layers = layers_of(data)
    object_with(data, "version", "layers", what="the whole")
    tokens = {}
    for name in LAYERS:
        layer = object_with(layers[name], "data", "salt", what=f"the {name} layer")
        salt = bytes_of(layer["salt"], None, what=f"the salt of the {name} layer")
        if len(salt) != _SALT_SIZE:
            raise LockFileError(
                f"the salt of the {name} layer has {len(salt)} bytes instead of {_SALT_SIZE}: "
                "restore the file from version control",
                reason="lock-salt",
            )
        tokens[name] = (_token(name, layer["data"]), salt)
    return tokens


def _token(name: str, data: Any) -> bytes:
    encoded = bytes_of(data, None, what=f"the data of the {name} layer")
    try:
        token = base64.b64decode(encoded, altchars=b"-_", validate=True)
        same = base64.urlsafe_b64encode(token) == encoded
    except ValueError:
        same, token = False, b""
    sealed = len(token) - _TOKEN_HEAD - _MAC_SIZE
    whole = same and sealed >= _BLOCK and sealed % _BLOCK == 0 and token[0] == _TOKEN_VERSION
    if not whole:
        raise LockFileError(
            f"the data of the {name} layer is no Fernet token: restore the file from version "
            "control",
            reason="lock-encoding",
        )
    return token


def _open(token: bytes, key: bytes) -> bytes | None:
    """Open a token of the right form; None when it is not of this key."""
    signed, mac = token[:-_MAC_SIZE], token[-_MAC_SIZE:]
    if not hmac.compare_digest(hmac.digest(key[:16], signed, "sha256"), mac):
        return None
    initial, sealed = signed[_TOKEN_HEAD - _BLOCK : _TOKEN_HEAD], signed[_TOKEN_HEAD:]
    decryptor = Cipher(algorithms.AES128(key[16:]), modes.CBC(initial)).decryptor()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    padded = decryptor.update(sealed) + decryptor.finalize()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def _object(name: str, data: bytes) -> dict[str, Any]:
    try:
        return decode_object(data)
    except LockContentError as error:
        raise _unexpected(name) from error


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in found.values()):
        raise _unexpected("credentials")
    return dict(found)


def _unexpected(name: str) -> LockFileError:
    return LockFileError(
        f"the {name} layer opens, and what it holds is not what the older tool writes",
        reason="lock-content",
    )


def _credential(value: str) -> Credential:
    # An empty value is no value that could be leased.
    if not value or value.startswith(PLACEHOLDER):
        return Credential()
    return Credential(value.encode("utf-8"))
