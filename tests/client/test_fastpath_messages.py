"""The messages of the fast path by hand, against protobuf itself."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import Failure
from backpack_client.fastpath import HandOver, messages
from backpack_proto.v1 import leases_pb2, vault_pb2

names = st.text(st.sampled_from("ABC_xyz019.-"), min_size=1, max_size=128)
utf8 = st.text(st.characters(codec="utf-8"), max_size=100)
responses = st.builds(
    leases_pb2.GetKeysResponse,
    lease=st.builds(
        leases_pb2.Lease,
        id=utf8,
        names=st.lists(names, max_size=3),
        holder_pid=st.integers(-(2**63), 2**63 - 1),
        grant_ids=st.lists(utf8, max_size=2),
        issued_at_ms=st.integers(-(2**63), 2**63 - 1),
        expires_at_ms=st.integers(-(2**63), 2**63 - 1),
        remaining_seconds=st.integers(0, 2**32 - 1),
    ),
    keys=st.lists(
        st.builds(leases_pb2.LeasedKey, name=utf8, value=st.binary(max_size=300)), max_size=4
    ),
)


@given(st.lists(names, max_size=6), st.integers(0, 2**32 - 1), utf8, st.integers(0, 2**32 - 1))
def test_a_request_is_what_protobuf_makes_of_it(
    asked: list[str], ttl: int, reason: str, wait: int
) -> None:
    request = leases_pb2.GetKeysRequest(
        names=asked, ttl_seconds=ttl, reason=reason, wait_seconds=wait
    )
    assert messages.encode_request(asked, ttl, reason, wait) == request.SerializeToString()


@given(responses)
def test_a_response_of_protobuf_is_understood(response: leases_pb2.GetKeysResponse) -> None:
    answer = messages.decode_response(response.SerializeToString())
    assert answer.keys == [(key.name, key.value) for key in response.keys]
    assert answer.lease_id == response.lease.id
    assert answer.expires_at_ms == response.lease.expires_at_ms
    assert answer.remaining_seconds == response.lease.remaining_seconds


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_counts_of_protobuf_are_understood(leases: int, requests: int) -> None:
    message = vault_pb2.PanicResponse(leases_ended=leases, requests_ended=requests)
    counts = messages.decode_counts(b"\xfa\x06\x03abc" + message.SerializeToString())
    assert (counts.get(1, 0), counts.get(2, 0)) == (leases, requests)


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
    ],
)
def test_a_field_of_a_later_version_is_skipped(unknown: bytes) -> None:
    known = leases_pb2.GetKeysResponse(keys=[leases_pb2.LeasedKey(name="A", value=b"v")])
    answer = messages.decode_response(unknown + known.SerializeToString() + unknown)
    assert answer.keys == [("A", b"v")]


def test_a_group_is_handed_over() -> None:
    with pytest.raises(HandOver):
        messages.decode_response(b"\xfb\x06\xfc\x06")


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
        messages.decode_response(broken)


@given(st.one_of(st.binary(max_size=200), responses.map(lambda r: r.SerializeToString()[:-1])))
def test_any_bytes_are_an_answer_or_handed_over_or_a_failure(message: bytes) -> None:
    try:
        answer = messages.decode_response(message)
    except (HandOver, Failure):
        return
    try:
        response = leases_pb2.GetKeysResponse.FromString(message)
    except DecodeError:
        # protobuf checks text in fields that are skipped here.
        return
    assert answer.keys == [(key.name, key.value) for key in response.keys]
