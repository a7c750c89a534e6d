from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VaultState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VAULT_STATE_UNSPECIFIED: _ClassVar[VaultState]
    VAULT_STATE_UNINITIALIZED: _ClassVar[VaultState]
    VAULT_STATE_LOCKED: _ClassVar[VaultState]
    VAULT_STATE_UNLOCKED: _ClassVar[VaultState]
VAULT_STATE_UNSPECIFIED: VaultState
VAULT_STATE_UNINITIALIZED: VaultState
VAULT_STATE_LOCKED: VaultState
VAULT_STATE_UNLOCKED: VaultState

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("state", "daemon_version", "daemon_pid", "supervised", "started_at_ms", "protections", "leases_of_tree", "tree_pid", "authorized_until_ms", "slot_kinds", "recovery_drilled_at_ms", "audit_broken_at_ms", "home")
    STATE_FIELD_NUMBER: _ClassVar[int]
    DAEMON_VERSION_FIELD_NUMBER: _ClassVar[int]
    DAEMON_PID_FIELD_NUMBER: _ClassVar[int]
    SUPERVISED_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PROTECTIONS_FIELD_NUMBER: _ClassVar[int]
    LEASES_OF_TREE_FIELD_NUMBER: _ClassVar[int]
    TREE_PID_FIELD_NUMBER: _ClassVar[int]
    AUTHORIZED_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    SLOT_KINDS_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_DRILLED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_BROKEN_AT_MS_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    state: VaultState
    daemon_version: str
    daemon_pid: int
    supervised: bool
    started_at_ms: int
    protections: _containers.RepeatedCompositeFieldContainer[Protection]
    leases_of_tree: int
    tree_pid: int
    authorized_until_ms: int
    slot_kinds: _containers.RepeatedScalarFieldContainer[str]
    recovery_drilled_at_ms: int
    audit_broken_at_ms: int
    home: bytes
    def __init__(self, state: _Optional[_Union[VaultState, str]] = ..., daemon_version: _Optional[str] = ..., daemon_pid: _Optional[int] = ..., supervised: _Optional[bool] = ..., started_at_ms: _Optional[int] = ..., protections: _Optional[_Iterable[_Union[Protection, _Mapping]]] = ..., leases_of_tree: _Optional[int] = ..., tree_pid: _Optional[int] = ..., authorized_until_ms: _Optional[int] = ..., slot_kinds: _Optional[_Iterable[str]] = ..., recovery_drilled_at_ms: _Optional[int] = ..., audit_broken_at_ms: _Optional[int] = ..., home: _Optional[bytes] = ...) -> None: ...

class Protection(_message.Message):
    __slots__ = ("name", "on", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    on: bool
    detail: str
    def __init__(self, name: _Optional[str] = ..., on: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class InitRequest(_message.Message):
    __slots__ = ("passphrase", "recovery")
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    recovery: bool
    def __init__(self, passphrase: _Optional[bytes] = ..., recovery: _Optional[bool] = ...) -> None: ...

class InitResponse(_message.Message):
    __slots__ = ("recovery_code",)
    RECOVERY_CODE_FIELD_NUMBER: _ClassVar[int]
    recovery_code: str
    def __init__(self, recovery_code: _Optional[str] = ...) -> None: ...

class UnlockRequest(_message.Message):
    __slots__ = ("passphrase", "accept_older")
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_OLDER_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    accept_older: bool
    def __init__(self, passphrase: _Optional[bytes] = ..., accept_older: _Optional[bool] = ...) -> None: ...

class UnlockResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LockResponse(_message.Message):
    __slots__ = ("leases_ended",)
    LEASES_ENDED_FIELD_NUMBER: _ClassVar[int]
    leases_ended: int
    def __init__(self, leases_ended: _Optional[int] = ...) -> None: ...

class PanicRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PanicResponse(_message.Message):
    __slots__ = ("leases_ended", "requests_ended")
    LEASES_ENDED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_ENDED_FIELD_NUMBER: _ClassVar[int]
    leases_ended: int
    requests_ended: int
    def __init__(self, leases_ended: _Optional[int] = ..., requests_ended: _Optional[int] = ...) -> None: ...

class AuthorizeRequest(_message.Message):
    __slots__ = ("passphrase",)
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    def __init__(self, passphrase: _Optional[bytes] = ...) -> None: ...

class AuthorizeResponse(_message.Message):
    __slots__ = ("authorized_until_ms",)
    AUTHORIZED_UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    authorized_until_ms: int
    def __init__(self, authorized_until_ms: _Optional[int] = ...) -> None: ...

class ChangePassphraseRequest(_message.Message):
    __slots__ = ("current", "replacement")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    current: bytes
    replacement: bytes
    def __init__(self, current: _Optional[bytes] = ..., replacement: _Optional[bytes] = ...) -> None: ...

class ChangePassphraseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
