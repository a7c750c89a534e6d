from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetKeysRequest(_message.Message):
    __slots__ = ("names", "ttl_seconds", "reason", "wait_seconds", "agent", "agent_lock")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_LOCK_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    ttl_seconds: int
    reason: str
    wait_seconds: int
    agent: AgentStart
    agent_lock: bytes
    def __init__(self, names: _Optional[_Iterable[str]] = ..., ttl_seconds: _Optional[int] = ..., reason: _Optional[str] = ..., wait_seconds: _Optional[int] = ..., agent: _Optional[_Union[AgentStart, _Mapping]] = ..., agent_lock: _Optional[bytes] = ...) -> None: ...

class AgentStart(_message.Message):
    __slots__ = ("on_revoke", "without_values")
    class OnRevoke(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ON_REVOKE_UNSPECIFIED: _ClassVar[AgentStart.OnRevoke]
        ON_REVOKE_TERMINATE: _ClassVar[AgentStart.OnRevoke]
        ON_REVOKE_KEEP: _ClassVar[AgentStart.OnRevoke]
    ON_REVOKE_UNSPECIFIED: AgentStart.OnRevoke
    ON_REVOKE_TERMINATE: AgentStart.OnRevoke
    ON_REVOKE_KEEP: AgentStart.OnRevoke
    ON_REVOKE_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_VALUES_FIELD_NUMBER: _ClassVar[int]
    on_revoke: AgentStart.OnRevoke
    without_values: bool
    def __init__(self, on_revoke: _Optional[_Union[AgentStart.OnRevoke, str]] = ..., without_values: _Optional[bool] = ...) -> None: ...

class GetKeysResponse(_message.Message):
    __slots__ = ("lease", "keys")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    keys: _containers.RepeatedCompositeFieldContainer[LeasedKey]
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[LeasedKey, _Mapping]]] = ...) -> None: ...

class LeasedKey(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "names", "holder_pid", "grant_ids", "issued_at_ms", "expires_at_ms", "max_expires_at_ms", "remaining_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    HOLDER_PID_FIELD_NUMBER: _ClassVar[int]
    GRANT_IDS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    names: _containers.RepeatedScalarFieldContainer[str]
    holder_pid: int
    grant_ids: _containers.RepeatedScalarFieldContainer[str]
    issued_at_ms: int
    expires_at_ms: int
    max_expires_at_ms: int
    remaining_seconds: int
    def __init__(self, id: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., holder_pid: _Optional[int] = ..., grant_ids: _Optional[_Iterable[str]] = ..., issued_at_ms: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., max_expires_at_ms: _Optional[int] = ..., remaining_seconds: _Optional[int] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "ttl_seconds")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    ttl_seconds: int
    def __init__(self, lease_id: _Optional[str] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class RevokeLeasesRequest(_message.Message):
    __slots__ = ("lease_id", "key", "tree_pid", "all", "give_back")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TREE_PID_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    GIVE_BACK_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    key: str
    tree_pid: int
    all: bool
    give_back: bool
    def __init__(self, lease_id: _Optional[str] = ..., key: _Optional[str] = ..., tree_pid: _Optional[int] = ..., all: _Optional[bool] = ..., give_back: _Optional[bool] = ...) -> None: ...

class RevokeLeasesResponse(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: int
    def __init__(self, ended: _Optional[int] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class ListLeasesResponse(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ...) -> None: ...

class WatchLeasesRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: _Optional[bool] = ...) -> None: ...

class WatchLeasesResponse(_message.Message):
    __slots__ = ("kind", "lease", "reason")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[WatchLeasesResponse.Kind]
        KIND_LIVE: _ClassVar[WatchLeasesResponse.Kind]
        KIND_ISSUED: _ClassVar[WatchLeasesResponse.Kind]
        KIND_RENEWED: _ClassVar[WatchLeasesResponse.Kind]
        KIND_ENDED: _ClassVar[WatchLeasesResponse.Kind]
    KIND_UNSPECIFIED: WatchLeasesResponse.Kind
    KIND_LIVE: WatchLeasesResponse.Kind
    KIND_ISSUED: WatchLeasesResponse.Kind
    KIND_RENEWED: WatchLeasesResponse.Kind
    KIND_ENDED: WatchLeasesResponse.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: WatchLeasesResponse.Kind
    lease: Lease
    reason: str
    def __init__(self, kind: _Optional[_Union[WatchLeasesResponse.Kind, str]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ListHandoutsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListHandoutsResponse(_message.Message):
    __slots__ = ("handouts",)
    HANDOUTS_FIELD_NUMBER: _ClassVar[int]
    handouts: _containers.RepeatedCompositeFieldContainer[HandoutEntry]
    def __init__(self, handouts: _Optional[_Iterable[_Union[HandoutEntry, _Mapping]]] = ...) -> None: ...

class HandoutEntry(_message.Message):
    __slots__ = ("at_ms", "names", "pid", "executable", "root_pid", "root_executable", "lease_id")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    ROOT_PID_FIELD_NUMBER: _ClassVar[int]
    ROOT_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    names: _containers.RepeatedScalarFieldContainer[str]
    pid: int
    executable: str
    root_pid: int
    root_executable: str
    lease_id: str
    def __init__(self, at_ms: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ..., pid: _Optional[int] = ..., executable: _Optional[str] = ..., root_pid: _Optional[int] = ..., root_executable: _Optional[str] = ..., lease_id: _Optional[str] = ...) -> None: ...
