from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListSlotsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSlotsResponse(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedCompositeFieldContainer[SlotInfo]
    def __init__(self, slots: _Optional[_Iterable[_Union[SlotInfo, _Mapping]]] = ...) -> None: ...

class SlotInfo(_message.Message):
    __slots__ = ("id", "kind", "authorizes", "stretched", "created_at_ms", "drilled_at_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZES_FIELD_NUMBER: _ClassVar[int]
    STRETCHED_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    DRILLED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    authorizes: bool
    stretched: bool
    created_at_ms: int
    drilled_at_ms: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., authorizes: _Optional[bool] = ..., stretched: _Optional[bool] = ..., created_at_ms: _Optional[int] = ..., drilled_at_ms: _Optional[int] = ...) -> None: ...

class AddSlotRequest(_message.Message):
    __slots__ = ("kind", "secret")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    kind: str
    secret: bytes
    def __init__(self, kind: _Optional[str] = ..., secret: _Optional[bytes] = ...) -> None: ...

class AddSlotResponse(_message.Message):
    __slots__ = ("id", "drawn")
    ID_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    id: str
    drawn: bytes
    def __init__(self, id: _Optional[str] = ..., drawn: _Optional[bytes] = ...) -> None: ...

class RemoveSlotRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RemoveSlotResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateMasterKeyRequest(_message.Message):
    __slots__ = ("end_leases",)
    END_LEASES_FIELD_NUMBER: _ClassVar[int]
    end_leases: bool
    def __init__(self, end_leases: _Optional[bool] = ...) -> None: ...

class RotateMasterKeyResponse(_message.Message):
    __slots__ = ("keys_done", "keys_total", "done", "slots", "leases_ended", "purged", "lock_files")
    KEYS_DONE_FIELD_NUMBER: _ClassVar[int]
    KEYS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_ENDED_FIELD_NUMBER: _ClassVar[int]
    PURGED_FIELD_NUMBER: _ClassVar[int]
    LOCK_FILES_FIELD_NUMBER: _ClassVar[int]
    keys_done: int
    keys_total: int
    done: bool
    slots: int
    leases_ended: int
    purged: bool
    lock_files: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, keys_done: _Optional[int] = ..., keys_total: _Optional[int] = ..., done: _Optional[bool] = ..., slots: _Optional[int] = ..., leases_ended: _Optional[int] = ..., purged: _Optional[bool] = ..., lock_files: _Optional[_Iterable[str]] = ...) -> None: ...

class RecoverRequest(_message.Message):
    __slots__ = ("code", "replacement")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    code: bytes
    replacement: bytes
    def __init__(self, code: _Optional[bytes] = ..., replacement: _Optional[bytes] = ...) -> None: ...

class RecoverResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrillRecoveryRequest(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: bytes
    def __init__(self, code: _Optional[bytes] = ...) -> None: ...

class DrillRecoveryResponse(_message.Message):
    __slots__ = ("drilled_at_ms",)
    DRILLED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    drilled_at_ms: int
    def __init__(self, drilled_at_ms: _Optional[int] = ...) -> None: ...
