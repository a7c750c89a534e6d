"""The messages by hand, against protobuf itself."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import Failure
from backpack_client.wire import Unknown, agent_messages, messages
from backpack_client.wire.messages import decode, encode
from backpack_proto.v1 import agents_pb2, keys_pb2, leases_pb2, vault_pb2

TABLES = {
    agents_pb2.DESCRIPTOR: {
        "LegacyKey": agent_messages.LEGACY_KEY,
        "LockAuthor": agent_messages.LOCK_AUTHOR,
        "LockCredential": agent_messages.LOCK_CREDENTIAL,
        "LockInfo": agent_messages.LOCK_INFO,
        "LockRecipient": agent_messages.LOCK_RECIPIENT,
        "OpenLockRequest": agent_messages.OPEN_LOCK_REQUEST,
        "OpenLockResponse": agent_messages.OPEN_LOCK_RESPONSE,
        "UpdateMemoryRequest": agent_messages.UPDATE_MEMORY_REQUEST,
        "UpdateMemoryResponse": agent_messages.UPDATE_MEMORY_RESPONSE,
    },
    keys_pb2.DESCRIPTOR: {
        "KeyEntry": agent_messages.KEY_ENTRY,
        "ListKeysRequest": agent_messages.LIST_KEYS_REQUEST,
        "ListKeysResponse": agent_messages.LIST_KEYS_RESPONSE,
    },
    leases_pb2.DESCRIPTOR: {
        "AgentStart": messages.AGENT_START,
        "GetKeysRequest": messages.GET_KEYS_REQUEST,
        "GetKeysResponse": messages.GET_KEYS_RESPONSE,
        "Lease": messages.LEASE,
        "LeasedKey": messages.LEASED_KEY,
        "ListLeasesRequest": agent_messages.LIST_LEASES_REQUEST,
        "ListLeasesResponse": agent_messages.LIST_LEASES_RESPONSE,
        "RenewLeaseRequest": agent_messages.RENEW_LEASE_REQUEST,
        "RenewLeaseResponse": agent_messages.RENEW_LEASE_RESPONSE,
        "RevokeLeasesRequest": agent_messages.REVOKE_LEASES_REQUEST,
        "RevokeLeasesResponse": agent_messages.REVOKE_LEASES_RESPONSE,
        "WatchLeasesRequest": agent_messages.WATCH_LEASES_REQUEST,
        "WatchLeasesResponse": agent_messages.WATCH_LEASES_RESPONSE,
    },
    vault_pb2.DESCRIPTOR: {
        "LockResponse": messages.LOCK_RESPONSE,
        "PanicResponse": messages.PANIC_RESPONSE,
    },
}
MESSAGES: dict[str, tuple[Any, Any]] = {
    name: (file.message_types_by_name[name], table)
    for file, tables in TABLES.items()
    for name, table in tables.items()
}
KINDS = {
    FieldDescriptor.TYPE_STRING: messages.TEXT,
    FieldDescriptor.TYPE_BYTES: messages.BYTES,
    FieldDescriptor.TYPE_UINT32: messages.UINT32,
    FieldDescriptor.TYPE_UINT64: messages.UINT64,
    FieldDescriptor.TYPE_INT64: messages.INT64,
    FieldDescriptor.TYPE_BOOL: messages.BOOL,
    FieldDescriptor.TYPE_ENUM: messages.ENUM,
}
every_message = pytest.mark.parametrize("name", MESSAGES)


def described(field: FieldDescriptor) -> tuple[str, Any]:
    """Return the entry that a table has to have for a field."""
    kind: Any = MESSAGES[field.message_type.name][1] if field.message_type else KINDS[field.type]
    return field.name, [kind] if field.is_repeated else kind


@every_message
def test_a_table_is_what_the_descriptor_says(name: str) -> None:
    descriptor, table = MESSAGES[name]
    assert table == {field.number: described(field) for field in descriptor.fields}
    # In the order of the numbers, in which protobuf writes.
    assert list(table) == sorted(table)


def test_every_table_is_compared() -> None:
    names = vars(messages) | vars(agent_messages)
    tables = [each for each in names.values() if isinstance(each, dict) and 1 in each]
    assert len(tables) == len(MESSAGES)


def test_the_numbers_of_enums_are_those_of_the_descriptors() -> None:
    kinds = leases_pb2.WatchLeasesResponse.Kind
    for name in ("KIND_LIVE", "KIND_ISSUED", "KIND_RENEWED", "KIND_ENDED"):
        assert getattr(agent_messages, name) == kinds.Value(name)
    for name in ("ON_REVOKE_TERMINATE", "ON_REVOKE_KEEP"):
        assert getattr(messages, name) == leases_pb2.AgentStart.OnRevoke.Value(name)


SCALARS: dict[Any, Any] = {
    messages.TEXT: st.text(st.characters(codec="utf-8"), max_size=40),
    messages.BYTES: st.binary(max_size=300),
    messages.UINT32: st.integers(0, 2**32 - 1),
    messages.UINT64: st.integers(0, 2**64 - 1),
    messages.INT64: st.integers(-(2**63), 2**63 - 1),
    messages.BOOL: st.booleans(),
    messages.ENUM: st.integers(0, 2**31 - 1),
}


def values(descriptor: Descriptor, *, sendable: bool = False) -> Any:
    """Draw the fields of a message as `encode` takes them; `sendable` ones have no negatives."""

    def one(field: FieldDescriptor) -> Any:
        if field.message_type:
            return values(field.message_type, sendable=sendable)
        kind = KINDS[field.type]
        drawn = SCALARS[messages.UINT32 if sendable and kind == messages.INT64 else kind]
        # One of several is sent even where it has its default, which no request here has.
        return drawn.filter(bool) if field.containing_oneof else drawn

    strategies = {
        field.name: st.lists(one(field), max_size=3) if field.is_repeated else one(field)
        for field in descriptor.fields
    }
    drawn = st.fixed_dictionaries({}, optional=strategies)
    groups = [[field.name for field in group.fields] for group in descriptor.oneofs]

    def with_one_of_each(chosen: dict[str, Any]) -> dict[str, Any]:
        for group in groups:
            for name in [name for name in group if name in chosen][1:]:
                del chosen[name]
        return chosen

    return drawn.map(with_one_of_each)


def plain(message: Any, descriptor: Descriptor) -> dict[str, Any]:
    """Write a message of protobuf's or of ours as what its fields hold."""
    found = {}
    for field in descriptor.fields:
        value = getattr(message, field.name)
        if not field.message_type:
            found[field.name] = list(value) if field.is_repeated else value
        elif field.is_repeated:
            found[field.name] = [plain(each, field.message_type) for each in value]
        else:
            found[field.name] = plain(value, field.message_type)
    return found


def protobuf(name: str, fields: dict[str, Any]) -> Message:
    return GetMessageClass(MESSAGES[name][0])(**fields)


@every_message
@given(st.data())
def test_what_is_written_is_what_protobuf_writes(name: str, data: st.DataObject) -> None:
    descriptor, table = MESSAGES[name]
    fields = data.draw(values(descriptor, sendable=True))
    assert encode(table, **fields) == protobuf(name, fields).SerializeToString(deterministic=True)


@every_message
@given(st.data())
def test_what_protobuf_writes_is_understood(name: str, data: st.DataObject) -> None:
    descriptor, table = MESSAGES[name]
    message = protobuf(name, data.draw(values(descriptor)))
    assert plain(decode(table, message.SerializeToString()), descriptor) == plain(
        message, descriptor
    )


@every_message
@given(st.data())
def test_two_messages_in_a_row_are_read_as_protobuf_reads_them(
    name: str, data: st.DataObject
) -> None:
    descriptor, table = MESSAGES[name]
    drawn = values(descriptor)
    written = b"".join(protobuf(name, data.draw(drawn)).SerializeToString() for _ in range(2))
    read = GetMessageClass(descriptor).FromString(written)
    if not descriptor.oneofs:  # which of the two holds is not known here, and never read
        assert plain(decode(table, written), descriptor) == plain(read, descriptor)


def read_keys(message: bytes) -> list[tuple[str, bytes]]:
    response = decode(messages.GET_KEYS_RESPONSE, message)
    return [(key.name, key.value) for key in response.keys]


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(b"\xf8\x06\x96\x01", id="a varint"),
        pytest.param(b"\xf9\x06" + bytes(8), id="eight bytes"),
        pytest.param(b"\xfa\x06\x03abc", id="a length and bytes"),
        pytest.param(b"\xfd\x06" + bytes(4), id="four bytes"),
        pytest.param(b"\x10\x05", id="a known number of another kind"),
        pytest.param(b"\x08\x05", id="a lease of another kind"),
        pytest.param(b"\x0a\x02\x08\x05", id="a lease's id of another kind"),
        pytest.param(b"\x0a\x03\x42\x01\x05", id="a lease's number of another kind"),
    ],
)
def test_a_field_of_a_later_version_is_skipped(unknown: bytes) -> None:
    known = leases_pb2.GetKeysResponse(keys=[leases_pb2.LeasedKey(name="A", value=b"v")])
    assert read_keys(unknown + known.SerializeToString() + unknown) == [("A", b"v")]


def test_a_group_is_not_known() -> None:
    with pytest.raises(Unknown):
        read_keys(b"\xfb\x06\xfc\x06")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"\x12\x05ab", id="bytes cut short"),
        pytest.param(b"\x12", id="a length missing"),
        pytest.param(b"\x80", id="a tag cut short"),
        pytest.param(b"\x08" + b"\xff" * 11, id="a number without end"),
        pytest.param(b"\x02\x00", id="field number 0"),
        pytest.param(b"\x16\x00", id="no such kind"),
        pytest.param(b"\x11\x00", id="eight bytes cut short"),
        pytest.param(b"\x12\x03\x0a\x01\xff", id="a name that is not UTF-8"),
        pytest.param(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="an absurd length"),
    ],
)
def test_what_is_broken_is_a_failure(broken: bytes) -> None:
    with pytest.raises(Failure):
        read_keys(broken)


@every_message
@given(st.data())
def test_any_bytes_are_an_answer_or_not_known_or_a_failure(name: str, data: st.DataObject) -> None:
    descriptor, table = MESSAGES[name]
    cut = values(descriptor).map(lambda fields: protobuf(name, fields).SerializeToString()[:-1])
    message = data.draw(st.one_of(st.binary(max_size=200), cut))
    try:
        answer = decode(table, message)
    except (Unknown, Failure):
        return
    try:
        response = GetMessageClass(descriptor).FromString(message)
    except DecodeError:
        # protobuf is as strict about what is skipped here.
        return
    if not descriptor.oneofs:
        assert plain(answer, descriptor) == plain(response, descriptor)


def test_no_repr_of_a_message_shows_a_value() -> None:
    response = leases_pb2.GetKeysResponse(keys=[leases_pb2.LeasedKey(name="A", value=b"marker")])
    read = decode(messages.GET_KEYS_RESPONSE, response.SerializeToString())
    assert "marker" not in repr(read) + repr(read.keys)
