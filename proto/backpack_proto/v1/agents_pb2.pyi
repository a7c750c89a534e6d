from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublicIdentity(_message.Message):
    __slots__ = ("text", "fingerprint")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    text: str
    fingerprint: str
    def __init__(self, text: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class LockAuthor(_message.Message):
    __slots__ = ("fingerprint", "label", "trusted", "own")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    label: str
    trusted: bool
    own: bool
    def __init__(self, fingerprint: _Optional[str] = ..., label: _Optional[str] = ..., trusted: _Optional[bool] = ..., own: _Optional[bool] = ...) -> None: ...

class LockRecipient(_message.Message):
    __slots__ = ("fingerprint", "label", "own")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    label: str
    own: bool
    def __init__(self, fingerprint: _Optional[str] = ..., label: _Optional[str] = ..., own: _Optional[bool] = ...) -> None: ...

class LockCredential(_message.Message):
    __slots__ = ("name", "embedded")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    name: str
    embedded: bool
    def __init__(self, name: _Optional[str] = ..., embedded: _Optional[bool] = ...) -> None: ...

class LockInfo(_message.Message):
    __slots__ = ("version", "lock_id", "author", "generation", "credentials_generation", "personality_generation", "memory_counter", "memory_hash", "recipients", "credentials", "warnings", "unaccepted_names")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOCK_ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_GENERATION_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNTER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HASH_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    UNACCEPTED_NAMES_FIELD_NUMBER: _ClassVar[int]
    version: int
    lock_id: str
    author: LockAuthor
    generation: int
    credentials_generation: int
    personality_generation: int
    memory_counter: int
    memory_hash: str
    recipients: _containers.RepeatedCompositeFieldContainer[LockRecipient]
    credentials: _containers.RepeatedCompositeFieldContainer[LockCredential]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    unaccepted_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., lock_id: _Optional[str] = ..., author: _Optional[_Union[LockAuthor, _Mapping]] = ..., generation: _Optional[int] = ..., credentials_generation: _Optional[int] = ..., personality_generation: _Optional[int] = ..., memory_counter: _Optional[int] = ..., memory_hash: _Optional[str] = ..., recipients: _Optional[_Iterable[_Union[LockRecipient, _Mapping]]] = ..., credentials: _Optional[_Iterable[_Union[LockCredential, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., unaccepted_names: _Optional[_Iterable[str]] = ...) -> None: ...

class IdentityRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IdentityResponse(_message.Message):
    __slots__ = ("identity",)
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    identity: PublicIdentity
    def __init__(self, identity: _Optional[_Union[PublicIdentity, _Mapping]] = ...) -> None: ...

class CreateLockRequest(_message.Message):
    __slots__ = ("personality", "credentials", "memory")
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    personality: bytes
    credentials: _containers.RepeatedCompositeFieldContainer[CredentialEntry]
    memory: bytes
    def __init__(self, personality: _Optional[bytes] = ..., credentials: _Optional[_Iterable[_Union[CredentialEntry, _Mapping]]] = ..., memory: _Optional[bytes] = ...) -> None: ...

class CreateLockResponse(_message.Message):
    __slots__ = ("agent_lock", "info")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class CredentialEntry(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class LegacyKey(_message.Message):
    __slots__ = ("key", "iterations")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    iterations: int
    def __init__(self, key: _Optional[bytes] = ..., iterations: _Optional[int] = ...) -> None: ...

class OpenLockRequest(_message.Message):
    __slots__ = ("agent_lock", "claimed_path", "legacy")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_PATH_FIELD_NUMBER: _ClassVar[int]
    LEGACY_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    claimed_path: str
    legacy: LegacyKey
    def __init__(self, agent_lock: _Optional[bytes] = ..., claimed_path: _Optional[str] = ..., legacy: _Optional[_Union[LegacyKey, _Mapping]] = ...) -> None: ...

class OpenLockResponse(_message.Message):
    __slots__ = ("info", "personality", "memory")
    INFO_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    info: LockInfo
    personality: bytes
    memory: bytes
    def __init__(self, info: _Optional[_Union[LockInfo, _Mapping]] = ..., personality: _Optional[bytes] = ..., memory: _Optional[bytes] = ...) -> None: ...

class EditLockRequest(_message.Message):
    __slots__ = ("agent_lock", "personality", "put_credentials", "remove_credentials")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    PUT_CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    personality: bytes
    put_credentials: _containers.RepeatedCompositeFieldContainer[CredentialEntry]
    remove_credentials: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent_lock: _Optional[bytes] = ..., personality: _Optional[bytes] = ..., put_credentials: _Optional[_Iterable[_Union[CredentialEntry, _Mapping]]] = ..., remove_credentials: _Optional[_Iterable[str]] = ...) -> None: ...

class EditLockResponse(_message.Message):
    __slots__ = ("agent_lock", "info")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class UpdateMemoryRequest(_message.Message):
    __slots__ = ("agent_lock", "claimed_path", "memory", "expected_memory_hash")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_PATH_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MEMORY_HASH_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    claimed_path: str
    memory: bytes
    expected_memory_hash: str
    def __init__(self, agent_lock: _Optional[bytes] = ..., claimed_path: _Optional[str] = ..., memory: _Optional[bytes] = ..., expected_memory_hash: _Optional[str] = ...) -> None: ...

class UpdateMemoryResponse(_message.Message):
    __slots__ = ("agent_lock", "memory_counter", "memory_hash")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNTER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HASH_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    memory_counter: int
    memory_hash: str
    def __init__(self, agent_lock: _Optional[bytes] = ..., memory_counter: _Optional[int] = ..., memory_hash: _Optional[str] = ...) -> None: ...

class MigrateLockRequest(_message.Message):
    __slots__ = ("agent_lock", "legacy", "store_embedded", "replace", "keep_legacy_key")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    LEGACY_FIELD_NUMBER: _ClassVar[int]
    STORE_EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    KEEP_LEGACY_KEY_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    legacy: LegacyKey
    store_embedded: bool
    replace: bool
    keep_legacy_key: bool
    def __init__(self, agent_lock: _Optional[bytes] = ..., legacy: _Optional[_Union[LegacyKey, _Mapping]] = ..., store_embedded: _Optional[bool] = ..., replace: _Optional[bool] = ..., keep_legacy_key: _Optional[bool] = ...) -> None: ...

class MigrateLockResponse(_message.Message):
    __slots__ = ("agent_lock", "info", "stored")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    stored: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ..., stored: _Optional[_Iterable[str]] = ...) -> None: ...

class RewrapLockRequest(_message.Message):
    __slots__ = ("agent_lock",)
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    def __init__(self, agent_lock: _Optional[bytes] = ...) -> None: ...

class RewrapLockResponse(_message.Message):
    __slots__ = ("agent_lock", "info")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class AddRecipientRequest(_message.Message):
    __slots__ = ("agent_lock", "identity", "trust", "label")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    identity: str
    trust: bool
    label: str
    def __init__(self, agent_lock: _Optional[bytes] = ..., identity: _Optional[str] = ..., trust: _Optional[bool] = ..., label: _Optional[str] = ...) -> None: ...

class AddRecipientResponse(_message.Message):
    __slots__ = ("agent_lock", "info")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class RemoveRecipientRequest(_message.Message):
    __slots__ = ("agent_lock", "fingerprint")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    fingerprint: str
    def __init__(self, agent_lock: _Optional[bytes] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class RemoveRecipientResponse(_message.Message):
    __slots__ = ("agent_lock", "info")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    info: LockInfo
    def __init__(self, agent_lock: _Optional[bytes] = ..., info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class TrustLockRequest(_message.Message):
    __slots__ = ("agent_lock", "claimed_path", "author", "label", "names")
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_PATH_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    agent_lock: bytes
    claimed_path: str
    author: str
    label: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agent_lock: _Optional[bytes] = ..., claimed_path: _Optional[str] = ..., author: _Optional[str] = ..., label: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class TrustLockResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: LockInfo
    def __init__(self, info: _Optional[_Union[LockInfo, _Mapping]] = ...) -> None: ...

class TrustedAuthor(_message.Message):
    __slots__ = ("fingerprint", "label", "trusted_at_ms")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    label: str
    trusted_at_ms: int
    def __init__(self, fingerprint: _Optional[str] = ..., label: _Optional[str] = ..., trusted_at_ms: _Optional[int] = ...) -> None: ...

class KnownLock(_message.Message):
    __slots__ = ("lock_id", "generation", "memory_counter", "claimed_path", "accepted_names")
    LOCK_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_COUNTER_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_PATH_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_NAMES_FIELD_NUMBER: _ClassVar[int]
    lock_id: str
    generation: int
    memory_counter: int
    claimed_path: str
    accepted_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lock_id: _Optional[str] = ..., generation: _Optional[int] = ..., memory_counter: _Optional[int] = ..., claimed_path: _Optional[str] = ..., accepted_names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListTrustedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTrustedResponse(_message.Message):
    __slots__ = ("authors", "locks")
    AUTHORS_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    authors: _containers.RepeatedCompositeFieldContainer[TrustedAuthor]
    locks: _containers.RepeatedCompositeFieldContainer[KnownLock]
    def __init__(self, authors: _Optional[_Iterable[_Union[TrustedAuthor, _Mapping]]] = ..., locks: _Optional[_Iterable[_Union[KnownLock, _Mapping]]] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("author", "lock_id")
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    LOCK_ID_FIELD_NUMBER: _ClassVar[int]
    author: str
    lock_id: str
    def __init__(self, author: _Optional[str] = ..., lock_id: _Optional[str] = ...) -> None: ...

class ForgetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
