from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OnConflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_CONFLICT_UNSPECIFIED: _ClassVar[OnConflict]
    ON_CONFLICT_KEEP: _ClassVar[OnConflict]
    ON_CONFLICT_REPLACE: _ClassVar[OnConflict]
    ON_CONFLICT_FAIL: _ClassVar[OnConflict]
ON_CONFLICT_UNSPECIFIED: OnConflict
ON_CONFLICT_KEEP: OnConflict
ON_CONFLICT_REPLACE: OnConflict
ON_CONFLICT_FAIL: OnConflict

class ExportKeysRequest(_message.Message):
    __slots__ = ("passphrase", "recipients", "plaintext")
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    recipients: _containers.RepeatedScalarFieldContainer[str]
    plaintext: bool
    def __init__(self, passphrase: _Optional[bytes] = ..., recipients: _Optional[_Iterable[str]] = ..., plaintext: _Optional[bool] = ...) -> None: ...

class ExportKeysResponse(_message.Message):
    __slots__ = ("data", "keys", "grants")
    DATA_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    keys: int
    grants: int
    def __init__(self, data: _Optional[bytes] = ..., keys: _Optional[int] = ..., grants: _Optional[int] = ...) -> None: ...

class ImportTerms(_message.Message):
    __slots__ = ("passphrase", "on_conflict", "dry_run", "with_grants")
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    ON_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WITH_GRANTS_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    on_conflict: OnConflict
    dry_run: bool
    with_grants: bool
    def __init__(self, passphrase: _Optional[bytes] = ..., on_conflict: _Optional[_Union[OnConflict, str]] = ..., dry_run: _Optional[bool] = ..., with_grants: _Optional[bool] = ...) -> None: ...

class ImportKeysRequest(_message.Message):
    __slots__ = ("terms", "data")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    terms: ImportTerms
    data: bytes
    def __init__(self, terms: _Optional[_Union[ImportTerms, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImportKeysResponse(_message.Message):
    __slots__ = ("created_at_ms", "vault_id", "created", "replaced", "kept", "grants", "policy", "grants_added")
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    VAULT_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    GRANTS_ADDED_FIELD_NUMBER: _ClassVar[int]
    created_at_ms: int
    vault_id: str
    created: int
    replaced: int
    kept: int
    grants: _containers.RepeatedScalarFieldContainer[str]
    policy: _containers.RepeatedScalarFieldContainer[str]
    grants_added: int
    def __init__(self, created_at_ms: _Optional[int] = ..., vault_id: _Optional[str] = ..., created: _Optional[int] = ..., replaced: _Optional[int] = ..., kept: _Optional[int] = ..., grants: _Optional[_Iterable[str]] = ..., policy: _Optional[_Iterable[str]] = ..., grants_added: _Optional[int] = ...) -> None: ...
