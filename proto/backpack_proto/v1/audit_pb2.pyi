from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditAnchor(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_ANCHOR_UNSPECIFIED: _ClassVar[AuditAnchor]
    AUDIT_ANCHOR_VAULT: _ClassVar[AuditAnchor]
    AUDIT_ANCHOR_FILE: _ClassVar[AuditAnchor]
    AUDIT_ANCHOR_EXPECTED: _ClassVar[AuditAnchor]
AUDIT_ANCHOR_UNSPECIFIED: AuditAnchor
AUDIT_ANCHOR_VAULT: AuditAnchor
AUDIT_ANCHOR_FILE: AuditAnchor
AUDIT_ANCHOR_EXPECTED: AuditAnchor

class ShowAuditRequest(_message.Message):
    __slots__ = ("key", "pid", "events", "since_ms", "until_ms", "newest")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    key: str
    pid: int
    events: _containers.RepeatedScalarFieldContainer[str]
    since_ms: int
    until_ms: int
    newest: int
    def __init__(self, key: _Optional[str] = ..., pid: _Optional[int] = ..., events: _Optional[_Iterable[str]] = ..., since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ..., newest: _Optional[int] = ...) -> None: ...

class ShowAuditResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("number", "event", "at_ms", "actor", "names", "lease_id", "grant_ids", "reason", "count", "details", "claimed_reason", "generation")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_IDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    number: int
    event: str
    at_ms: int
    actor: AuditActor
    names: _containers.RepeatedScalarFieldContainer[str]
    lease_id: str
    grant_ids: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    count: int
    details: _containers.ScalarMap[str, str]
    claimed_reason: str
    generation: int
    def __init__(self, number: _Optional[int] = ..., event: _Optional[str] = ..., at_ms: _Optional[int] = ..., actor: _Optional[_Union[AuditActor, _Mapping]] = ..., names: _Optional[_Iterable[str]] = ..., lease_id: _Optional[str] = ..., grant_ids: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ..., details: _Optional[_Mapping[str, str]] = ..., claimed_reason: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class AuditActor(_message.Message):
    __slots__ = ("uid", "pid", "executable", "root_pid", "root_executable", "unit", "terminal", "connection", "claimed_command", "start", "root_start")
    UID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    ROOT_PID_FIELD_NUMBER: _ClassVar[int]
    ROOT_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_COMMAND_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    ROOT_START_FIELD_NUMBER: _ClassVar[int]
    uid: int
    pid: int
    executable: str
    root_pid: int
    root_executable: str
    unit: str
    terminal: int
    connection: str
    claimed_command: str
    start: int
    root_start: int
    def __init__(self, uid: _Optional[int] = ..., pid: _Optional[int] = ..., executable: _Optional[str] = ..., root_pid: _Optional[int] = ..., root_executable: _Optional[str] = ..., unit: _Optional[str] = ..., terminal: _Optional[int] = ..., connection: _Optional[str] = ..., claimed_command: _Optional[str] = ..., start: _Optional[int] = ..., root_start: _Optional[int] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ("expected_head",)
    EXPECTED_HEAD_FIELD_NUMBER: _ClassVar[int]
    expected_head: str
    def __init__(self, expected_head: _Optional[str] = ...) -> None: ...

class VerifyAuditResponse(_message.Message):
    __slots__ = ("checked", "total", "verdict")
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    checked: int
    total: int
    verdict: AuditVerdict
    def __init__(self, checked: _Optional[int] = ..., total: _Optional[int] = ..., verdict: _Optional[_Union[AuditVerdict, _Mapping]] = ...) -> None: ...

class AuditVerdict(_message.Message):
    __slots__ = ("head", "anchor", "signed_until", "vouched_until", "bad_entry", "problem", "broken_entry", "broken", "later_bad_entry", "later_problem")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    SIGNED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    VOUCHED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    BAD_ENTRY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    BROKEN_ENTRY_FIELD_NUMBER: _ClassVar[int]
    BROKEN_FIELD_NUMBER: _ClassVar[int]
    LATER_BAD_ENTRY_FIELD_NUMBER: _ClassVar[int]
    LATER_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    head: str
    anchor: AuditAnchor
    signed_until: int
    vouched_until: int
    bad_entry: int
    problem: str
    broken_entry: int
    broken: str
    later_bad_entry: int
    later_problem: str
    def __init__(self, head: _Optional[str] = ..., anchor: _Optional[_Union[AuditAnchor, str]] = ..., signed_until: _Optional[int] = ..., vouched_until: _Optional[int] = ..., bad_entry: _Optional[int] = ..., problem: _Optional[str] = ..., broken_entry: _Optional[int] = ..., broken: _Optional[str] = ..., later_bad_entry: _Optional[int] = ..., later_problem: _Optional[str] = ...) -> None: ...

class GetAuditHeadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetAuditHeadResponse(_message.Message):
    __slots__ = ("head",)
    HEAD_FIELD_NUMBER: _ClassVar[int]
    head: str
    def __init__(self, head: _Optional[str] = ...) -> None: ...
