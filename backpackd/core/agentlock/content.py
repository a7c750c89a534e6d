"""The content of a lock's layers: credentials, personality and memory, as JSON.

Sealed content has its own JSON, apart from `core.sealing.canonical`: an agent's memory holds
anything that JSON can hold, including fractions and every character. Writing is deterministic: the
same content is the same bytes. Reading takes any JSON object that means one thing: no repeated
members, no infinities, no nesting without end. Nothing here encrypts.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backpackd.core.agentlock import strictjson
from backpackd.core.agentlock.errors import LockContentError
from backpackd.core.agentlock.strictjson import StrictJsonError
from backpackd.core.errors import InvalidRequestError
from backpackd.core.names import check_name, check_value

MAX_DOCUMENT = 1024 * 1024
"""The largest lock file, in bytes. The limits below keep every lock within it."""
MAX_RECIPIENTS = 64
MAX_CREDENTIALS = 256
MAX_CREDENTIALS_BYTES = 256 * 1024
MAX_PERSONALITY_BYTES = 64 * 1024
MAX_MEMORY_BYTES = 256 * 1024
MAX_DEPTH = 100
"""How deep objects and lists may lie in each other."""
MAX_INTEGER_BITS = 1024

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VARIABLE_PREFIX = "AGENT_"
_RESERVED_VARIABLES = {"AGENT_MASTER_KEY"}


@dataclass(frozen=True, slots=True)
class Credential:
    """One key that the agent needs.

    Attributes:
        value: a value embedded in the lock, 1 to 65,536 bytes of UTF-8; None: the vault's own key
            of that name.
    """

    value: bytes | None = field(default=None, repr=False)

    @property
    def embedded(self) -> bool:
        """Whether the lock itself holds the value."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class Contents:
    """The opened content of a lock.

    Attributes:
        credentials: by key name.
        personality: a JSON object; its scalars become variables of the agent.
        memory: a JSON object that the agent wrote: untrusted input.
    """

    credentials: Mapping[str, Credential] = field(repr=False)
    personality: Mapping[str, Any] = field(repr=False)
    memory: Mapping[str, Any] = field(repr=False)


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Encode a JSON object: ASCII, members sorted by code point, no white space.

    Numbers with a fraction or exponent are IEEE 754 doubles, in the shortest form that reads back
    as the same double.

    Raises:
        LockContentError: it holds what JSON does not, or what `decode_object` would refuse.
    """
    plain = dict(value)
    _check(plain, MAX_DEPTH)
    encoded = json.dumps(
        plain, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return encoded.encode("ascii")


def decode_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object (RFC 8259, UTF-8) that means one thing to every reader.

    Raises:
        LockContentError: anything else; it holds nothing of the data.
    """
    try:
        value = strictjson.loads(data, fractions=True)
    except StrictJsonError:
        raise LockContentError("the content is not JSON that means one thing") from None
    if not isinstance(value, dict):
        raise LockContentError("the content is not a JSON object")
    _check(value, MAX_DEPTH)
    return value


def encode_credentials(credentials: Mapping[str, Credential]) -> bytes:
    """Encode the credentials layer: name to null, or to the embedded value as text.

    Raises:
        LockContentError: a name or a value is not one of a key, or there are too many.
    """
    plain: dict[str, str | None] = {}
    for name, credential in credentials.items():
        _check_name(name)
        plain[name] = None if credential.value is None else _value_text(credential.value)
    if len(plain) > MAX_CREDENTIALS:
        raise LockContentError(f"a lock holds at most {MAX_CREDENTIALS} credentials")
    return _bounded(encode_object(plain), MAX_CREDENTIALS_BYTES, "the credentials")


def decode_credentials(data: bytes) -> dict[str, Credential]:
    """Decode what `encode_credentials` wrote.

    Raises:
        LockContentError: anything else.
    """
    found = decode_object(data)
    credentials = {}
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            raise LockContentError("a credential is neither null nor text")
        credentials[name] = Credential(None if value is None else _utf8(value))
    encode_credentials(credentials)
    return credentials


def encode_personality(personality: Mapping[str, Any]) -> bytes:
    """Encode the personality layer.

    Raises:
        LockContentError: not a JSON object, or over the limit.
    """
    return _bounded(encode_object(personality), MAX_PERSONALITY_BYTES, "the personality")


def decode_personality(data: bytes) -> dict[str, Any]:
    """Decode the personality layer.

    Raises:
        LockContentError: not a JSON object, or over the limit.
    """
    found = decode_object(data)
    encode_personality(found)
    return found


def encode_memory(memory: Mapping[str, Any]) -> bytes:
    """Encode the memory layer.

    Raises:
        LockContentError: not a JSON object, or over the limit.
    """
    return _bounded(encode_object(memory), MAX_MEMORY_BYTES, "the memory")


def decode_memory(data: bytes) -> dict[str, Any]:
    """Decode the memory layer.

    Raises:
        LockContentError: not a JSON object, or over the limit.
    """
    found = decode_object(data)
    encode_memory(found)
    return found


def variables(personality: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that a personality sets.

    Each scalar member `name` becomes `AGENT_NAME`. What cannot be a variable is left out: nested
    values and null, names that are none of a variable, text with NUL. So is `AGENT_MASTER_KEY`,
    which the daemon itself reads: a lock must not set it for a daemon that the agent starts. Of
    two members that would be one variable, neither is set.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    for name, value in personality.items():
        if not _VARIABLE.fullmatch(name):
            continue
        variable = _VARIABLE_PREFIX + name.upper()
        text = _scalar_text(value)
        if text is None:
            continue
        if variable in found:
            twice.add(variable)
        found[variable] = text
    return {
        name: text
        for name, text in found.items()
        if name not in twice and name not in _RESERVED_VARIABLES
    }


def _scalar_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return json.dumps(value)
    return value if isinstance(value, str) and "\0" not in value else None


def _check(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise LockContentError(f"the content is nested more than {MAX_DEPTH} levels deep")
        members = value
        if isinstance(value, dict):
            for name in value:
                _check_member_name(name)
            members = list(value.values())
        for member in members:
            _check(member, depth - 1)
    else:
        _check_scalar(value)


def _check_member_name(name: Any) -> None:
    if not isinstance(name, str):
        raise LockContentError("a member of the content has a name that is not text")
    _utf8(name)


def _check_scalar(value: Any) -> None:
    match value:
        case None | bool():
            pass
        case str():
            _utf8(value)
        case int():
            if value.bit_length() > MAX_INTEGER_BITS:
                raise LockContentError(f"an integer of more than {MAX_INTEGER_BITS} bits")
        case float():
            if not math.isfinite(value):
                raise LockContentError("a number that is not finite, which JSON does not have")
        case _:
            raise LockContentError("a value that JSON does not have")


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except InvalidRequestError as error:
        raise LockContentError(error.message) from None


def _value_text(value: bytes) -> str:
    try:
        return check_value(value).decode("utf-8")
    except InvalidRequestError as error:
        message = error.message
    except UnicodeDecodeError:
        message = "an embedded value is not UTF-8 text: store it as a key instead"
    # Raised out here: the error that was caught holds the value.
    raise LockContentError(message)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        message = "text with half a character (a lone surrogate), which no file can hold"
    raise LockContentError(message)


def _bounded(data: bytes, most: int, what: str) -> bytes:
    if len(data) > most:
        raise LockContentError(f"{what} would take more than {most // 1024} KiB as JSON")
    return data
