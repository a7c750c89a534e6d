"""The protobuf messages of the fast path, by hand.

It knows the fields of `backpack.v1.GetKeysRequest` and `GetKeysResponse` that a `get` needs and the
counts that `panic` and `lock` are answered with, skips others strictly, and nothing more of
protobuf (protobuf.dev, "Encoding"). Bytes in, values out.
"""

from backpack_client.fastpath import HandOver, malformed

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_VARINT_BYTES = 10
_UINT32_BITS = 0xFFFFFFFF
_UINT64_BITS = 0xFFFFFFFFFFFFFFFF


class Answer:
    """The content of a GetKeysResponse.

    Attributes:
        keys: names and values in the order in which they came.
        lease_id: the lease they are held under.
        expires_at_ms: when it ends unless renewed, milliseconds since the epoch.
        remaining_seconds: how long it still lives.
    """

    def __init__(self) -> None:
        self.keys: list[tuple[str, bytes]] = []
        self.lease_id = ""
        self.expires_at_ms = 0
        self.remaining_seconds = 0


def encode_request(
    names: "list[str]", ttl_seconds: int, reason: str, wait_seconds: int = 0
) -> bytes:
    """Encode a GetKeysRequest.

    Args:
        names: ASCII.
        ttl_seconds: 0 asks for the daemon's default.
        reason: may be empty.
        wait_seconds: how long to wait for a person; 0: not at all.
    """
    message = bytearray()
    for name in names:
        message += _field(1, name.encode("ascii"))
    if ttl_seconds:
        message += bytes((2 << 3 | _VARINT,)) + _encode_varint(ttl_seconds)
    if reason:
        message += _field(3, reason.encode("utf-8"))
    if wait_seconds:
        message += bytes((4 << 3 | _VARINT,)) + _encode_varint(wait_seconds)
    return bytes(message)


def decode_response(message: bytes) -> Answer:
    """Decode a GetKeysResponse.

    Raises:
        HandOver: it holds a group, the only part of the encoding that is not known here.
        Failure: it is not a protobuf message.
    """
    answer = Answer()
    for number, content in _fields(message):
        if isinstance(content, int):
            continue
        if number == 1:
            _decode_lease(content, answer)
        elif number == 2:  # noqa: PLR2004 - the field's number
            answer.keys.append(_decode_key(content))
    return answer


def decode_counts(message: bytes) -> dict[int, int]:
    """Decode a message of numbers of type uint32, such as a PanicResponse.

    Returns:
        The numbers by their field numbers; a 0 may be missing.

    Raises:
        HandOver: it holds a group.
        Failure: it is not a protobuf message.
    """
    return {
        number: content & _UINT32_BITS
        for number, content in _fields(message)
        if isinstance(content, int)
    }


def _decode_lease(message: bytes, answer: Answer) -> None:
    for number, content in _fields(message):
        if number == 1 and not isinstance(content, int):
            answer.lease_id = _text(content)
        elif number == 6 and isinstance(content, int):  # noqa: PLR2004 - the field's number
            answer.expires_at_ms = content - (content >> 63 << 64)
        elif number == 8 and isinstance(content, int):  # noqa: PLR2004 - the field's number
            answer.remaining_seconds = content & _UINT32_BITS


def _decode_key(message: bytes) -> tuple[str, bytes]:
    name, value = "", b""
    for number, content in _fields(message):
        if isinstance(content, int):
            continue
        if number == 1:
            name = _text(content)
        elif number == 2:  # noqa: PLR2004 - the field's number
            value = content
    return name, value


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
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        elif kind in (_GROUP, _END_GROUP):
            raise HandOver("a group in a message")
        else:
            raise malformed("a field of no known kind")
        end = position + length
        if end > len(message):
            raise malformed("a message cut short")
        if kind == _BYTES:
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


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | _BYTES,)) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits at a time
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
