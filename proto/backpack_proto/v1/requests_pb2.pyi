from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProcessFacts(_message.Message):
    __slots__ = ("pid", "executable", "unit", "proposed_root", "in_tree", "may_be_root", "claimed_command", "now")
    PID_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_ROOT_FIELD_NUMBER: _ClassVar[int]
    IN_TREE_FIELD_NUMBER: _ClassVar[int]
    MAY_BE_ROOT_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_COMMAND_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    pid: int
    executable: str
    unit: str
    proposed_root: bool
    in_tree: bool
    may_be_root: bool
    claimed_command: str
    now: str
    def __init__(self, pid: _Optional[int] = ..., executable: _Optional[str] = ..., unit: _Optional[str] = ..., proposed_root: _Optional[bool] = ..., in_tree: _Optional[bool] = ..., may_be_root: _Optional[bool] = ..., claimed_command: _Optional[str] = ..., now: _Optional[str] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("code", "names", "chain", "claimed_reason", "asked_at_ms", "waiting", "max_ttl_seconds", "revision")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_REASON_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    code: str
    names: _containers.RepeatedScalarFieldContainer[str]
    chain: _containers.RepeatedCompositeFieldContainer[ProcessFacts]
    claimed_reason: str
    asked_at_ms: int
    waiting: int
    max_ttl_seconds: int
    revision: int
    def __init__(self, code: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., chain: _Optional[_Iterable[_Union[ProcessFacts, _Mapping]]] = ..., claimed_reason: _Optional[str] = ..., asked_at_ms: _Optional[int] = ..., waiting: _Optional[int] = ..., max_ttl_seconds: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    def __init__(self, requests: _Optional[_Iterable[_Union[Request, _Mapping]]] = ...) -> None: ...

class WatchRequestsRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class WatchRequestsResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Request]
    def __init__(self, requests: _Optional[_Iterable[_Union[Request, _Mapping]]] = ...) -> None: ...

class ApproveRequestRequest(_message.Message):
    __slots__ = ("code", "once", "root_pid", "revision")
    CODE_FIELD_NUMBER: _ClassVar[int]
    ONCE_FIELD_NUMBER: _ClassVar[int]
    ROOT_PID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    code: str
    once: bool
    root_pid: int
    revision: int
    def __init__(self, code: _Optional[str] = ..., once: _Optional[bool] = ..., root_pid: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class ApproveRequestResponse(_message.Message):
    __slots__ = ("root_pid",)
    ROOT_PID_FIELD_NUMBER: _ClassVar[int]
    root_pid: int
    def __init__(self, root_pid: _Optional[int] = ...) -> None: ...

class DenyRequestRequest(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    def __init__(self, code: _Optional[str] = ...) -> None: ...

class DenyRequestResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
