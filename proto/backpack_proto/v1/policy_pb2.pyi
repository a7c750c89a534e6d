from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PolicyDefault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_DEFAULT_UNSPECIFIED: _ClassVar[PolicyDefault]
    POLICY_DEFAULT_ASK: _ClassVar[PolicyDefault]
    POLICY_DEFAULT_ALLOW: _ClassVar[PolicyDefault]
    POLICY_DEFAULT_DENY: _ClassVar[PolicyDefault]

class PolicyListing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_LISTING_UNSPECIFIED: _ClassVar[PolicyListing]
    POLICY_LISTING_GRANTED: _ClassVar[PolicyListing]
    POLICY_LISTING_ALL: _ClassVar[PolicyListing]
POLICY_DEFAULT_UNSPECIFIED: PolicyDefault
POLICY_DEFAULT_ASK: PolicyDefault
POLICY_DEFAULT_ALLOW: PolicyDefault
POLICY_DEFAULT_DENY: PolicyDefault
POLICY_LISTING_UNSPECIFIED: PolicyListing
POLICY_LISTING_GRANTED: PolicyListing
POLICY_LISTING_ALL: PolicyListing

class DenyRule(_message.Message):
    __slots__ = ("patterns", "selector")
    PATTERNS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    patterns: _containers.RepeatedScalarFieldContainer[str]
    selector: str
    def __init__(self, patterns: _Optional[_Iterable[str]] = ..., selector: _Optional[str] = ...) -> None: ...

class PolicyRules(_message.Message):
    __slots__ = ("default", "listing", "deny", "max_ttl_seconds")
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    LISTING_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    default: PolicyDefault
    listing: PolicyListing
    deny: _containers.RepeatedCompositeFieldContainer[DenyRule]
    max_ttl_seconds: int
    def __init__(self, default: _Optional[_Union[PolicyDefault, str]] = ..., listing: _Optional[_Union[PolicyListing, str]] = ..., deny: _Optional[_Iterable[_Union[DenyRule, _Mapping]]] = ..., max_ttl_seconds: _Optional[int] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetPolicyResponse(_message.Message):
    __slots__ = ("sealed", "in_force")
    SEALED_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    sealed: PolicyRules
    in_force: PolicyRules
    def __init__(self, sealed: _Optional[_Union[PolicyRules, _Mapping]] = ..., in_force: _Optional[_Union[PolicyRules, _Mapping]] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: PolicyRules
    def __init__(self, policy: _Optional[_Union[PolicyRules, _Mapping]] = ...) -> None: ...

class SetPolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
