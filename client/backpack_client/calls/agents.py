"""The calls about agent locks and identities: requests built, answers read.

Lock files are sent and received as bytes. The daemon gets their path only to show it to people. No
embedded value ever appears in a message or a repr here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from backpack_client.agent_model import (
    Author,
    ChangedLock,
    Credential,
    Identity,
    KnownLock,
    LockInfo,
    OpenedLock,
    Recipient,
    SavedMemory,
    Trusted,
    TrustedAuthor,
)
from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import LARGEST, moment, text
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import Failure, is_key_name, not_a_key_name, usage
from backpack_client.wire import agent_messages
from backpack_client.wire.messages import Message, decode, encode

if TYPE_CHECKING:
    from backpack_proto.v1 import agents_pb2 as pb
else:
    pb = Stubs("agents_pb2")

PATH_LIMIT = 256
"""The longest path that the daemon takes, in characters. A longer path is cut at its start."""


def identity() -> Call[Identity]:
    """Ask for the vault's public identity. The daemon makes it if there is none yet."""
    return Call(
        PACKAGE + "Agents/Identity",
        pb.IdentityRequest(),
        pb.IdentityResponse.FromString,
        lambda response: Identity(response.identity.text, response.identity.fingerprint),
    )


def create_lock(
    personality: Mapping[str, Any],
    credentials: Mapping[str, bytes | None],
    memory: Mapping[str, Any] | None = None,
) -> Call[ChangedLock]:
    """Make a lock.

    Args:
        personality: settings of the agent; anything that JSON can write.
        credentials: by name, a value to embed, or None for a stored key of the vault.
        memory: what the agent remembers at first.
    """
    request = pb.CreateLockRequest(
        personality=json_bytes("personality", personality),
        credentials=_entries(credentials),
        memory=json_bytes("memory", memory or {}),
    )
    return Call(
        PACKAGE + "Agents/CreateLock",
        request,
        pb.CreateLockResponse.FromString,
        _read_changed,
    )


def open_lock(
    data: bytes, *, path: str = "", legacy_key: bytes = b"", iterations: int = 0
) -> Call[OpenedLock]:
    """Open a lock.

    Args:
        data: the file's bytes.
        path: where it lies.
        legacy_key: the older tool's master key, for version 1; empty: the key that was kept.
        iterations: of PBKDF2, for version 1; 0: the older tool's number.
    """
    return Call(
        PACKAGE + "Agents/OpenLock",
        encode(
            agent_messages.OPEN_LOCK_REQUEST,
            agent_lock=data,
            claimed_path=_claimed(path),
            legacy=_legacy(legacy_key, iterations),
        ),
        partial(decode, agent_messages.OPEN_LOCK_RESPONSE),
        _read_opened,
        for_agents=True,
    )


def edit_lock(
    data: bytes,
    *,
    personality: Mapping[str, Any] | None = None,
    put: Mapping[str, bytes | None] | None = None,
    remove: Sequence[str] = (),
) -> Call[ChangedLock]:
    """Change personality and credentials; everything that is not named stays.

    Args:
        data: the file's bytes.
        personality: the whole new personality; None: it stays.
        put: credentials to add or replace, as in `create_lock`.
        remove: names of credentials to take out.
    """
    request = pb.EditLockRequest(
        agent_lock=data,
        personality=None if personality is None else json_bytes("personality", personality),
        put_credentials=_entries(put or {}),
        remove_credentials=[_name(name) for name in remove],
    )
    return Call(
        PACKAGE + "Agents/EditLock",
        request,
        pb.EditLockResponse.FromString,
        _read_changed,
    )


def update_memory(
    data: bytes, memory: Mapping[str, Any], *, expected: str, path: str = ""
) -> Call[SavedMemory]:
    """Replace the memory, if it has not changed since it was read.

    Args:
        data: the file's bytes.
        memory: the whole new memory.
        expected: the `memory_hash` of the memory that was read.
        path: where the file lies.
    """
    return Call(
        PACKAGE + "Agents/UpdateMemory",
        encode(
            agent_messages.UPDATE_MEMORY_REQUEST,
            agent_lock=data,
            claimed_path=_claimed(path),
            memory=json_bytes("memory", memory),
            expected_memory_hash=text("hash", expected),
        ),
        partial(decode, agent_messages.UPDATE_MEMORY_RESPONSE),
        lambda response: SavedMemory(
            response.agent_lock, response.memory_counter, response.memory_hash
        ),
        for_agents=True,
    )


def migrate_lock(
    data: bytes,
    *,
    legacy_key: bytes = b"",
    iterations: int = 0,
    store_embedded: bool = False,
    replace: bool = False,
    keep_legacy_key: bool = False,
) -> Call[ChangedLock]:
    """Convert a lock of version 1 to version 2; see `open_lock` for the key.

    Args:
        data: the file's bytes.
        legacy_key: as for `open_lock`.
        iterations: as for `open_lock`.
        store_embedded: turn embedded values into stored keys.
        replace: allow keys that are stored already to get the embedded value.
        keep_legacy_key: let the vault keep the older tool's key for other files.
    """
    request = pb.MigrateLockRequest(
        agent_lock=data,
        legacy=pb.LegacyKey(**_legacy(legacy_key, iterations)),
        store_embedded=store_embedded,
        replace=replace,
        keep_legacy_key=keep_legacy_key,
    )
    return Call(
        PACKAGE + "Agents/MigrateLock",
        request,
        pb.MigrateLockResponse.FromString,
        lambda response: ChangedLock(
            response.agent_lock, _info(response.info), tuple(response.stored)
        ),
    )


def rewrap_lock(data: bytes) -> Call[ChangedLock]:
    """Give a lock a new lock key."""
    request = pb.RewrapLockRequest(agent_lock=data)
    return Call(
        PACKAGE + "Agents/RewrapLock",
        request,
        pb.RewrapLockResponse.FromString,
        _read_changed,
    )


def add_recipient(
    data: bytes, identity: str, *, trust: bool = False, label: str = ""
) -> Call[ChangedLock]:
    """Let another vault open a lock.

    Args:
        data: the file's bytes.
        identity: the text of the other vault's identity.
        trust: also accept it as an author.
        label: a name for the author.
    """
    request = pb.AddRecipientRequest(
        agent_lock=data,
        identity=text("identity", identity),
        trust=trust,
        label=text("label", label),
    )
    return Call(
        PACKAGE + "Agents/AddRecipient",
        request,
        pb.AddRecipientResponse.FromString,
        _read_changed,
    )


def remove_recipient(data: bytes, fingerprint: str) -> Call[ChangedLock]:
    """Remove a recipient, and give the lock a new lock key."""
    request = pb.RemoveRecipientRequest(
        agent_lock=data,
        fingerprint=text("fingerprint", fingerprint),
    )
    return Call(
        PACKAGE + "Agents/RemoveRecipient",
        request,
        pb.RemoveRecipientResponse.FromString,
        _read_changed,
    )


def trust_lock(
    data: bytes, author: str, label: str = "", *, path: str = "", names: Sequence[str] = ()
) -> Call[LockInfo]:
    """Accept a lock as it is.

    Args:
        data: the file's bytes.
        author: the fingerprint that was compared; empty if the author is already accepted.
        label: a name for the author.
        path: where the file lies.
        names: of embedded values that may be handed out from now on.
    """
    request = pb.TrustLockRequest(
        agent_lock=data,
        claimed_path=_claimed(path),
        author=text("fingerprint", author),
        label=text("label", label),
        names=[_name(name) for name in names],
    )
    return Call(
        PACKAGE + "Agents/TrustLock",
        request,
        pb.TrustLockResponse.FromString,
        lambda response: _info(response.info),
    )


def list_trusted() -> Call[Trusted]:
    """List accepted authors and known locks."""
    return Call(
        PACKAGE + "Agents/ListTrusted",
        pb.ListTrustedRequest(),
        pb.ListTrustedResponse.FromString,
        lambda response: Trusted(
            tuple(
                TrustedAuthor(each.fingerprint, each.label, moment(each.trusted_at_ms))
                for each in response.authors
            ),
            tuple(
                KnownLock(
                    each.lock_id,
                    each.generation,
                    each.memory_counter,
                    each.claimed_path,
                    tuple(each.accepted_names),
                )
                for each in response.locks
            ),
        ),
    )


def forget(*, author: str | None = None, lock_id: str | None = None) -> Call[None]:
    """Forget an accepted author or a known lock."""
    if author is not None:
        request = pb.ForgetRequest(author=text("fingerprint", author))
    else:
        request = pb.ForgetRequest(lock_id=text("lock id", lock_id or ""))
    return Call(
        PACKAGE + "Agents/Forget",
        request,
        pb.ForgetResponse.FromString,
        lambda _: None,
    )


def json_bytes(what: str, document: Mapping[str, Any]) -> bytes:
    """Write an object as JSON in UTF-8.

    Raises:
        Failure: a usage failure: JSON cannot write it. The message shows nothing of it.
    """
    try:
        written = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return written.encode()
    except (TypeError, ValueError, RecursionError):
        # Not chained: these exceptions repeat the text that they could not write.
        raise usage(
            f"the {what} holds something that JSON cannot write",
            hint="text, numbers, true, false, null, lists, and objects with text as names",
        ) from None


def json_object(what: str, data: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Failure: a usage failure: it is not an object. The message shows nothing of it.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise usage(f"the {what} is not a JSON object", hint='such as {"tone": "friendly"}')
    return found


def _claimed(path: str) -> str:
    # A path may hold bytes that are not text. The daemon only shows it.
    shown = path.encode(errors="replace").decode()
    return shown if len(shown) <= PATH_LIMIT else shown[-PATH_LIMIT:]


def _legacy(key: bytes, iterations: int) -> dict[str, Any]:
    if not 0 <= iterations <= LARGEST:
        raise usage("the number of iterations is out of bounds", hint="")
    return {"key": key, "iterations": iterations}


def _entries(credentials: Mapping[str, bytes | None]) -> list[pb.CredentialEntry]:
    entries = []
    for name, value in credentials.items():
        if value is not None and not value:
            raise usage(f"the value of {_name(name)} is empty", hint="")
        entries.append(pb.CredentialEntry(name=_name(name), value=value or b""))
    return entries


def _name(name: str) -> str:
    if not is_key_name(name):
        raise not_a_key_name(name)
    return name


def _read_opened(response: Message) -> OpenedLock:
    return OpenedLock(_info(response.info), _object(response.personality), _object(response.memory))


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Failure("the daemon's answer has a wrong form", reason="malformed-answer")
    return found


def _read_changed(response: Any) -> ChangedLock:
    return ChangedLock(response.agent_lock, _info(response.info))


def _info(info: pb.LockInfo | Message) -> LockInfo:
    author = info.author
    return LockInfo(
        version=info.version,
        lock_id=info.lock_id,
        author=Author(author.fingerprint, author.label, author.trusted, author.own)
        if author.fingerprint
        else None,
        generation=info.generation,
        credentials_generation=info.credentials_generation,
        personality_generation=info.personality_generation,
        memory_counter=info.memory_counter,
        memory_hash=info.memory_hash,
        recipients=tuple(
            Recipient(each.fingerprint, each.label, each.own) for each in info.recipients
        ),
        credentials=tuple(Credential(each.name, each.embedded) for each in info.credentials),
        warnings=tuple(info.warnings),
        unaccepted_names=tuple(info.unaccepted_names),
    )
