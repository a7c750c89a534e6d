"""The size of a request: judged on its raw bytes, and before anything of it is parsed."""

from contextlib import suppress
from typing import Any, SupportsIndex

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from backpack_proto.v1 import agents_pb2, grants_pb2, keys_pb2, leases_pb2, policy_pb2
from backpackd.core.errors import BackpackError
from backpackd.rpc import sizes
from backpackd.rpc.calls import parse
from backpackd.rpc.sizes import MAX_USUAL, SIZES, check_size, size_of
from request_corpus import services

METHODS = [method for service in services() for method in service.methods]
REQUESTS = [method.input_type for method in METHODS]
NAME = "N" * 128


class Untouched:
    """Stands in for a message whose parser must not be reached."""

    def __init__(self, kind: Descriptor) -> None:
        self.DESCRIPTOR = kind

    def FromString(self, _: bytes) -> Any:  # noqa: N802 - protobuf's name
        raise AssertionError("it was parsed")


class Counting(bytes):
    """Bytes that count how many of them are looked at."""

    looked_at = 0

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        self.looked_at += 1
        return super().__getitem__(at)


def refusal(kind: Any, raw: bytes) -> str:
    """Return the reason with which a request is refused without being parsed."""
    stub: Any = Untouched(kind)
    with pytest.raises(BackpackError) as caught:
        parse(stub, raw)
    return caught.value.reason


def test_every_method_has_a_message_of_its_own_and_the_table_names_no_other() -> None:
    ours = [kind.full_name for kind in REQUESTS if kind.full_name.startswith("backpack.")]
    assert len(set(ours)) == len(ours)
    assert set(SIZES) <= set(ours)


def test_no_list_in_a_request_hides_its_length_in_one_field() -> None:
    """Lists of numbers are packed: a thousand of them would count as one field."""
    seen: set[str] = set()

    def packed(kind: Descriptor) -> list[str]:
        if kind.full_name in seen:
            return []
        seen.add(kind.full_name)
        inner = [field.message_type for field in kind.fields if field.message_type is not None]
        text = FieldDescriptor.CPPTYPE_STRING
        found = [
            field.full_name
            for field in kind.fields
            if field.is_repeated and field.message_type is None and field.cpp_type != text
        ]
        return [*found, *(name for each in inner for name in packed(each))]

    assert [name for kind in REQUESTS for name in packed(kind)] == []


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.full_name)
def test_a_request_that_is_a_byte_too_long_is_not_parsed(kind: Descriptor) -> None:
    assert refusal(kind, b"\xff" * (size_of(kind).bytes + 1)) == "request-too-large"


def test_a_call_that_carries_no_lock_backup_or_values_takes_64_kib() -> None:
    usual = {kind.full_name for kind in REQUESTS if size_of(kind).bytes == MAX_USUAL}
    larger = {"PutKeys", "DeleteKeys", "GetKeys", "SetPolicy", "ImportKeys", "MigrateLock"}
    larger |= {"CreateLock", "OpenLock", "EditLock", "UpdateMemory", "RewrapLock", "TrustLock"}
    larger |= {"AddRecipient", "RemoveRecipient"}
    assert {m.name for m in METHODS if m.input_type.full_name not in usual} == larger


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        pytest.param(leases_pb2.GetKeysRequest, b"\x0a\x01A", id="names"),
        pytest.param(keys_pb2.DeleteKeysRequest, b"\x0a\x01A", id="names to delete"),
        pytest.param(grants_pb2.AddGrantRequest, b"\x0a\x01A", id="patterns"),
        pytest.param(keys_pb2.PutKeysRequest, b"\x0a\x00", id="keys of nothing"),
        pytest.param(keys_pb2.PutKeysRequest, b"\x0a\x06\x0a\x01A\x12\x01v", id="keys"),
        pytest.param(policy_pb2.SetPolicyRequest, b"\x0a\x02\x1a\x00", id="rules, merged"),
        pytest.param(agents_pb2.EditLockRequest, b"\x22\x01A", id="names to remove"),
        pytest.param(agents_pb2.CreateLockRequest, b"\x12\x00", id="credentials"),
        pytest.param(agents_pb2.OpenLockRequest, b"\x98\x06\x01", id="fields that nobody knows"),
        pytest.param(agents_pb2.OpenLockRequest, b"\x12\x00", id="one field, over and over"),
        pytest.param(leases_pb2.GetKeysRequest, b"\x2a\x02\x08\x01", id="one message, merged"),
    ],
)
def test_a_flood_of_small_fields_is_refused_after_a_look_at_few(kind: Any, one: bytes) -> None:
    most = size_of(kind.DESCRIPTOR).bytes
    raw = Counting(one * min(700_000, most // len(one)))
    assert refusal(kind.DESCRIPTOR, raw) == "request-too-large"
    assert raw.looked_at <= 10 * size_of(kind.DESCRIPTOR).fields


def test_fields_are_counted_inside_of_messages_in_messages() -> None:
    rule = policy_pb2.DenyRule(patterns=["A"] * 300_000)
    request = policy_pb2.SetPolicyRequest(policy=policy_pb2.PolicyRules(deny=[rule]))
    raw = Counting(request.SerializeToString())
    assert refusal(request.DESCRIPTOR, raw) == "request-too-large"
    assert raw.looked_at < 50_000


@pytest.mark.parametrize("rest", [b"\x0b", b"\x0c", b"\x0e", b"\x0a\x05A", b"\x08" + b"\x80" * 10])
def test_what_could_be_counted_otherwise_than_it_is_read_is_refused(rest: bytes) -> None:
    enough = b"\x12\x01x" * (size_of(leases_pb2.RenewLeaseRequest.DESCRIPTOR).fields - 2)
    assert refusal(leases_pb2.RenewLeaseRequest.DESCRIPTOR, enough + rest) == "malformed-request"


@pytest.mark.parametrize(
    "request_",
    [
        keys_pb2.PutKeysRequest(
            keys=[keys_pb2.KeyValue(name=f"K{at}", value=b"v" * 8000) for at in range(1000)],
            replace=True,
        ),
        keys_pb2.DeleteKeysRequest(names=[NAME] * 1000),
        leases_pb2.GetKeysRequest(names=[NAME] * 64, agent_lock=bytes(1 << 20), reason="é" * 256),
        grants_pb2.AddGrantRequest(patterns=[NAME] * 64, selector="exe:/" + "é" * 4095),
        policy_pb2.SetPolicyRequest(
            policy=policy_pb2.PolicyRules(
                deny=[
                    policy_pb2.DenyRule(patterns=[NAME] * 64, selector="exe:/" + "x" * 4095)
                    for _ in range(100)
                ]
            )
        ),
        agents_pb2.EditLockRequest(
            agent_lock=bytes(1 << 20),
            personality=bytes(1 << 20),
            put_credentials=[
                agents_pb2.CredentialEntry(name=f"{at}" + NAME[:100], value=bytes(1000))
                for at in range(256)
            ],
            remove_credentials=[NAME] * 256,
        ),
        agents_pb2.UpdateMemoryRequest(agent_lock=bytes(1 << 20), memory=bytes(1 << 20)),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
def test_the_largest_request_that_a_call_can_take_is_within_its_size(request_: Any) -> None:
    raw = request_.SerializeToString()
    check_size(request_.DESCRIPTOR, raw)
    assert parse(type(request_), raw) == request_


@given(st.sampled_from(REQUESTS), st.binary(max_size=60))
def test_bytes_are_a_message_for_the_count_where_they_are_one_for_protobuf(
    kind: Descriptor, raw: bytes
) -> None:
    """Any bytes that protobuf reads are counted or refused, and what is counted is read or not."""
    try:
        GetMessageClass(kind).FromString(raw)
    except DecodeError:
        return
    counted = ""
    with suppress(BackpackError):
        sizes._Fields(raw, len(raw)).count(kind, 0, len(raw))
        counted = "counted"
    # The one thing that protobuf reads and this does not: groups.
    assert counted or any(byte & 7 in (3, 4) for byte in raw)
