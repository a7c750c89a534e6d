"""Requests for every method: a committed corpus, and mutations of it that know what a field is.

The corpus lies in `vectors/requests`, a file for each service, in protobuf's JSON. Texts and bytes
that begin with `@` stand for what only a running daemon has: see `Standins`.
"""

import importlib
import json
import pkgutil
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import backpack_proto.v1
from backpackd.rpc.sizes import MAX_MESSAGE

CORPUS = Path(__file__).parent / "vectors" / "requests"
Standins = Mapping[str, bytes]

_HALF = "@half of a character@"
_LONE_SURROGATE = b"\xed\xa0\x80".ljust(len(_HALF), b"x")
_TEXTS = (
    "", "K", "kéy", "*", "**", "@code", "@hash", "@identity", "\x00", "K\x00", "\x1b[2J",
    "\u202eK", "\ufeff", "\u0131", "٣", "tree:0", "tree:٣", "uid:-1", "exe:/", "A" * 129, "é" * 300,
    "x" * 70_000, "-" * 5000, "1-" + "0" * 64, _HALF, "\U0010ffff",
)  # fmt: skip
_BYTES = (
    b"", b"\x00", b"\xff", "é".encode(), b"x" * 1025, b"{}", b"[]", b'{"a":"\\ud800"}',
    b'{"a":1e999}', b"@lock", b"@legacy", b"@deep", b"@digits", b"x" * 70_000,
)  # fmt: skip
_MANY = (2, 65, 257, 1001, 20_000)


@dataclass(frozen=True)
class Request:
    """One request of the corpus.

    Attributes:
        method: its descriptor.
        message: with stand-ins in it.
    """

    method: MethodDescriptor
    message: Message


def services() -> list[ServiceDescriptor]:
    """Return every service that a daemon serves, as the proto files describe them."""
    files: list[Any] = [health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR]
    files += [
        importlib.import_module(f"backpack_proto.v1.{module.name}").DESCRIPTOR
        for module in pkgutil.iter_modules(backpack_proto.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    return [service for file in files for service in file.services_by_name.values()]


def corpus(service: ServiceDescriptor) -> list[Request]:
    """Read the requests of a service."""
    path = CORPUS / f"{service.name.lower()}.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["service"] == service.full_name
    requests = []
    for each in found["requests"]:
        method = service.methods_by_name[each["method"]]
        message = json_format.ParseDict(each["request"], GetMessageClass(method.input_type)())
        requests.append(Request(method, message))
    return requests


def encoded(message: Message, standins: Standins) -> bytes:
    """Return a message as it goes over the wire, with what its stand-ins stand for."""
    real = type(message)()
    real.CopyFrom(message)
    _replace(real, standins)
    return real.SerializeToString().replace(_HALF.encode(), _LONE_SURROGATE)


def mutations(
    requests: list[Request], count: int, chance: random.Random, standins: Standins
) -> Iterator[bytes]:
    """Make requests for one method that differ from those of the corpus in one to three places."""
    for _ in range(count):
        message = type(requests[0].message)()
        message.CopyFrom(chance.choice(requests).message)
        for _ in range(chance.randint(1, 3)):
            _mutate(message, chance)
        raw = encoded(message, standins)
        if len(raw) > MAX_MESSAGE:
            # gRPC's own affair: none of ours sees it.
            continue
        if raw and chance.random() < 0.1:
            place = chance.randrange(len(raw))
            raw = raw[:place] + chance.choice((b"", b"\xff", b"\x0b", raw[:9])) + raw[place + 1 :]
        yield raw


def _mutate(message: Message, chance: random.Random) -> None:
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    if not fields:
        return
    field = chance.choice(fields)
    if field.is_repeated:
        _mutate_list(getattr(message, field.name), field, chance)
    elif field.message_type is not None:
        match chance.randrange(4):
            case 0:
                message.ClearField(field.name)
            case 1:
                getattr(message, field.name).SetInParent()
            case _:
                _mutate(getattr(message, field.name), chance)
    elif chance.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, chance))


def _mutate_list(found: Any, field: FieldDescriptor, chance: random.Random) -> None:
    kind = chance.randrange(3)
    if kind == 0:
        del found[:]
    elif field.message_type is None:
        text = _scalar(field, chance)
        # Of long ones only a few: what is too long altogether is one case, not all of them.
        many = chance.choice(_MANY) if kind == 1 and len(text) < 10 else 1
        found.extend([text] * many if chance.random() < 0.5 else [f"N{at}" for at in range(many)])
    elif kind == 1:
        for _ in range(chance.choice(_MANY)):
            found.add()
    else:
        _mutate(chance.choice(found) if found else found.add(), chance)


def _scalar(field: FieldDescriptor, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(_TEXTS if field.type == FieldDescriptor.TYPE_STRING else _BYTES)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_UINT32:
            return chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
        case FieldDescriptor.CPPTYPE_INT64:
            return chance.choice((0, 1, -1, 2**31, 2**32, 2**63 - 1, -(2**63)))
        case _:
            # int32 and enumerations, which may hold numbers that have no name.
            return chance.choice((0, 1, 2, 3, 99, -1, 2**31 - 1, -(2**31)))


def _replace(message: Message, standins: Standins) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                _replace(inner, standins)
        elif field.is_repeated and field.type == FieldDescriptor.TYPE_STRING:
            value[:] = [_real(each, standins) for each in value]
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            setattr(message, field.name, _real(value, standins))


def _real(value: Any, standins: Standins) -> Any:
    if isinstance(value, bytes):
        return standins.get(value.decode("latin-1"), value)
    for name, real in standins.items():
        if name in value:
            return value.replace(name, real.decode())
    return value
