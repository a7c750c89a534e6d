"""The calls of the service Keys: stored keys, without their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import key_names, moment
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import usage
from backpack_client.model import Deleted, KeyEntry, Stored
from backpack_client.wire import agent_messages
from backpack_client.wire.messages import Message, decode, encode

if TYPE_CHECKING:
    from backpack_proto.v1 import keys_pb2
else:
    keys_pb2 = Stubs("keys_pb2")


def put_keys(
    keys: Mapping[str, str | bytes], *, replace: bool, dry_run: bool, skip_existing: bool
) -> Call[Stored]:
    """Store keys, all or none."""
    request = keys_pb2.PutKeysRequest(
        keys=[
            keys_pb2.KeyValue(name=name, value=_value_bytes(name, value))
            for name, value in zip(key_names(keys), keys.values(), strict=True)
        ],
        replace=replace,
        dry_run=dry_run,
        skip_existing=skip_existing,
    )
    return Call(
        PACKAGE + "Keys/PutKeys",
        request,
        keys_pb2.PutKeysResponse.FromString,
        lambda response: Stored(response.created, response.replaced, tuple(response.skipped)),
    )


def delete_keys(names: Sequence[str]) -> Call[Deleted]:
    """Delete keys, all or none."""
    return Call(
        PACKAGE + "Keys/DeleteKeys",
        keys_pb2.DeleteKeysRequest(names=key_names(names)),
        keys_pb2.DeleteKeysResponse.FromString,
        lambda response: Deleted(response.deleted, response.leases_ended, response.grants_left),
    )


def list_keys(*, every: bool) -> Call[list[KeyEntry]]:
    """List keys without values."""
    return Call(
        PACKAGE + "Keys/ListKeys",
        encode(agent_messages.LIST_KEYS_REQUEST, all=every),
        partial(decode, agent_messages.LIST_KEYS_RESPONSE),
        _read_keys,
        streams=True,
        for_agents=not every,
    )


def _value_bytes(name: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise usage(
            f"the value of {name} is not valid text", hint="give its bytes instead"
        ) from None


def _read_keys(responses: Sequence[Message]) -> list[KeyEntry]:
    return [
        KeyEntry(key.name, moment(key.created_at_ms), moment(key.updated_at_ms))
        for response in responses
        for key in response.keys
    ]
