"""Protobuf messages by hand (protobuf.dev, "Encoding"), driven by tables.

A table maps the number of a field to its name and its kind: one of the words here; a table, for a
message; a list with one of these, for a repeated field. Fields that a table does not have are
skipped strictly. What no message of the API uses is not known: groups, and repeated numbers. Bytes
in, values out.

The tables are those of `proto/backpack_proto/v1`: a test compares each with its descriptor. An enum
is a number here; what it means stands beside its table.
"""

from backpack_client.wire import Unknown, malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Kind = str | dict[int, tuple[str, "Kind"]] | list["Kind"]
    Table = dict[int, tuple[str, Kind]]

TEXT = "string"
BYTES = "bytes"
UINT32 = "uint32"
UINT64 = "uint64"
INT64 = "int64"
BOOL = "bool"
ENUM = "enum"

LEASE: "Table" = {
    1: ("id", TEXT),
    2: ("names", [TEXT]),
    3: ("holder_pid", INT64),
    4: ("grant_ids", [TEXT]),
    5: ("issued_at_ms", INT64),
    6: ("expires_at_ms", INT64),
    7: ("max_expires_at_ms", INT64),
    8: ("remaining_seconds", UINT32),
}

ON_REVOKE_TERMINATE = 1
ON_REVOKE_KEEP = 2
AGENT_START: "Table" = {1: ("on_revoke", ENUM), 2: ("without_values", BOOL)}
GET_KEYS_REQUEST: "Table" = {
    1: ("names", [TEXT]),
    2: ("ttl_seconds", UINT32),
    3: ("reason", TEXT),
    4: ("wait_seconds", UINT32),
    5: ("agent", AGENT_START),
    6: ("agent_lock", BYTES),
}
LEASED_KEY: "Table" = {1: ("name", TEXT), 2: ("value", BYTES)}
GET_KEYS_RESPONSE: "Table" = {1: ("lease", LEASE), 2: ("keys", [LEASED_KEY])}

PANIC_RESPONSE: "Table" = {1: ("leases_ended", UINT32), 2: ("requests_ended", UINT32)}
LOCK_RESPONSE: "Table" = {1: ("leases_ended", UINT32)}

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_VARINT_BYTES = 10
_UINT32_BITS = 0xFFFFFFFF
_UINT64_BITS = 0xFFFFFFFFFFFFFFFF


class Message:
    """A message that was read: each field of its table is an attribute.

    What was not sent has its default: 0, False, empty, a message of defaults.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Give a field by its name."""


def encode(table: "Table", **values: "Any") -> bytes:
    """Write a message.

    Two messages in a row are read as one, so a field can be added to what was written already.

    Args:
        table: of the message.
        values: fields by their names: text, bytes, numbers from 0 on, lists of these, and
            dictionaries for messages. Defaults are not sent, but a dictionary always is.
    """
    message = bytearray()
    for number, (name, kind) in table.items():
        if name not in values:
            continue
        value = values[name]
        repeated = isinstance(kind, list)
        if not repeated and not value and not isinstance(value, dict):
            continue
        for each in value if repeated else (value,):
            message += _field(number, kind[0] if isinstance(kind, list) else kind, each)
    return bytes(message)


def decode(table: "Table", message: bytes) -> Message:
    """Read a message.

    Raises:
        Unknown: it holds a group, the one part of the encoding that is not known here.
        Failure: it is not a protobuf message.
    """
    found = Message()
    values = found.__dict__
    for name, kind in table.values():
        values[name] = _default(kind)
    for number, content in _fields(message):
        if number not in table:
            continue
        name, kind = table[number]
        if isinstance(kind, list):
            if (value := _value(kind[0], content)) is not None:
                values[name].append(value)
        elif isinstance(kind, dict):
            # Of a message that comes in several pieces, the pieces make one.
            values[name] += content if isinstance(content, bytes) else b""
        elif (value := _value(kind, content)) is not None:
            values[name] = value
    for name, kind in table.values():
        if isinstance(kind, dict):
            values[name] = decode(kind, values[name])
    return found


def _default(kind: "Kind") -> "Any":
    if isinstance(kind, list):
        return []
    if isinstance(kind, dict) or kind == BYTES:
        return b""
    return "" if kind == TEXT else False if kind == BOOL else 0


def _value(kind: "Kind", content: int | bytes) -> "Any":
    """Read a field's content; None where it is not of the kind, like a field that is not known."""
    if isinstance(content, int):
        read = _NUMBERS.get(kind) if isinstance(kind, str) else None
        return None if read is None else read(content)
    if isinstance(kind, dict):
        return decode(kind, content)
    if kind == TEXT:
        return _text(content)
    return content if kind == BYTES else None


def _signed(bits: int, number: int) -> int:
    return number - (number >> (bits - 1) << bits)


_NUMBERS: "dict[str, Callable[[int], int]]" = {
    UINT32: lambda number: number & _UINT32_BITS,
    UINT64: lambda number: number,
    INT64: lambda number: _signed(64, number),
    BOOL: lambda number: number != 0,
    ENUM: lambda number: _signed(32, number & _UINT32_BITS),
}


def _fields(message: bytes) -> "list[tuple[int, int | bytes]]":
    """Split a message into fields: numbers with contents, int for varints, bytes for the rest.

    Fixed-width fields are skipped: none of these messages has one.
    """
    fields: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise malformed("a field without a number")
        if kind == _VARINT:
            value, position = _varint(message, position)
            fields.append((number, value))
            continue
        if kind == _LENGTH:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        elif kind in (_GROUP, _END_GROUP):
            raise Unknown("a group in a message")
        else:
            raise malformed("a field of no known kind")
        end = position + length
        if end > len(message):
            raise malformed("a message cut short")
        if kind == _LENGTH:
            fields.append((number, message[position:end]))
        position = end
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        if position >= len(message):
            raise malformed("a message cut short")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
            return value & _UINT64_BITS, position
    raise malformed("a number that does not end")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("text that is not UTF-8") from None


def _field(number: int, kind: "Kind", value: "Any") -> bytes:
    if isinstance(kind, dict):
        content = encode(kind, **value)
    elif kind == TEXT:
        content = value.encode("utf-8")
    elif kind == BYTES:
        content = value
    else:
        return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)
    return _encode_varint(number << 3 | _LENGTH) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits at a time
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
