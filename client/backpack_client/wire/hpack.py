"""Header fields of HTTP/2 (HPACK, RFC 7541), as far as one call with an empty table needs them.

The client announces a dynamic table of size 0, so an index can only mean the static table. Huffman
coded strings are handed over. Sans I/O: bytes in, fields out.
"""

from backpack_client.wire import Unknown, malformed

# RFC 7540, section 6.5.2: the size of a list counts 32 bytes of overhead for each field.
FIELD_OVERHEAD = 32
LIST_LIMIT = 32 * 1024

_INTEGER_BYTES = 4
_SIZE_UPDATE_MASK, _SIZE_UPDATE = 0xE0, 0x20

# RFC 7541, appendix A, from index 1.
_STATIC_TABLE = (
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
)


def encode(fields: "list[tuple[str, str]]") -> bytes:
    """Encode fields as literals without indexing (RFC 7541, section 6.2.2), in their order.

    Args:
        fields: ASCII names in lowercase, ASCII values.
    """
    block = bytearray()
    for name, value in fields:
        block.append(0x00)
        for text in (name, value):
            raw = text.encode("ascii")
            block += _encode_length(len(raw))
            block += raw
    return bytes(block)


def decode(block: bytes) -> "list[tuple[str, str]]":
    """Decode one header block.

    Args:
        block: all of it, CONTINUATION frames included.

    Returns:
        The fields in their order; bytes outside of ASCII become the characters of their number.

    Raises:
        Unknown: it holds a Huffman coded string, or an index into a dynamic table.
        Failure: it is no header block, or holds more than LIST_LIMIT.
    """
    fields: list[tuple[str, str]] = []
    size = 0
    position = 0
    while position < len(block):
        first = block[position]
        if first & 0x80:  # indexed field, section 6.1
            index, position = _integer(block, position, 0x7F)
            field = _static(index)
        elif first & _SIZE_UPDATE_MASK == _SIZE_UPDATE:  # table size update, section 6.3
            table_size, position = _integer(block, position, 0x1F)
            if table_size or fields:
                raise malformed("a header table larger than announced")
            continue
        else:  # literal with, without or never indexed, section 6.2; a table of 0 keeps nothing
            index, position = _integer(block, position, 0x3F if first & 0x40 else 0x0F)
            if index:
                name = _static(index)[0]
            else:
                name, position = _string(block, position)
            value, position = _string(block, position)
            field = (name, value)
        fields.append(field)
        size += len(field[0]) + len(field[1]) + FIELD_OVERHEAD
        if size > LIST_LIMIT:
            raise malformed("too many header fields")
    return fields


def _static(index: int) -> tuple[str, str]:
    if not index:
        raise malformed("a header field without an index")
    if index > len(_STATIC_TABLE):
        raise Unknown("an index into a dynamic header table")
    return _STATIC_TABLE[index - 1]


def _string(block: bytes, position: int) -> tuple[str, int]:
    if position >= len(block):
        raise malformed("a header field cut short")
    huffman = block[position] & 0x80
    length, start = _integer(block, position, 0x7F)
    end = start + length
    if end > len(block):
        raise malformed("a header field cut short")
    if huffman:
        raise Unknown("a Huffman coded header field")
    return block[start:end].decode("latin-1"), end


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Read an integer (RFC 7541, section 5.1) whose first bits lie under `mask`."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, 7 * _INTEGER_BYTES, 7):
        if position >= len(block):
            raise malformed("a header field cut short")
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise malformed("a header field with too large a number")


def _encode_length(length: int) -> bytes:
    mask = 0x7F
    if length < mask:
        return bytes((length,))
    encoded = bytearray((mask,))
    length -= mask
    while length > mask:
        encoded.append(length & mask | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)
