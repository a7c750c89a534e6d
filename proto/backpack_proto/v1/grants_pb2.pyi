from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Grant(_message.Message):
    __slots__ = ("id", "patterns", "selector", "max_ttl_seconds", "expires_at_ms", "uses_left", "created_at_ms", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    patterns: _containers.RepeatedScalarFieldContainer[str]
    selector: str
    max_ttl_seconds: int
    expires_at_ms: int
    uses_left: int
    created_at_ms: int
    reason: str
    def __init__(self, id: _Optional[str] = ..., patterns: _Optional[_Iterable[str]] = ..., selector: _Optional[str] = ..., max_ttl_seconds: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., uses_left: _Optional[int] = ..., created_at_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AddGrantRequest(_message.Message):
    __slots__ = ("patterns", "selector", "max_ttl_seconds", "valid_seconds", "uses", "reason")
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VALID_SECONDS_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    selector: str
    max_ttl_seconds: int
    valid_seconds: int
    uses: int
    reason: str
    def __init__(self, patterns: _Optional[_Iterable[str]] = ..., selector: _Optional[str] = ..., max_ttl_seconds: _Optional[int] = ..., valid_seconds: _Optional[int] = ..., uses: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class AddGrantResponse(_message.Message):
    __slots__ = ("grant", "not_stored")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    NOT_STORED_FIELD_NUMBER: _ClassVar[int]
    grant: Grant
    not_stored: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, grant: _Optional[_Union[Grant, _Mapping]] = ..., not_stored: _Optional[_Iterable[str]] = ...) -> None: ...

class ListGrantsRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class ListGrantsResponse(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ...) -> None: ...

class RemoveGrantRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RemoveGrantResponse(_message.Message):
    __slots__ = ("leases_ended",)
    LEASES_ENDED_FIELD_NUMBER: _ClassVar[int]
    leases_ended: int
    def __init__(self, leases_ended: _Optional[int] = ...) -> None: ...
