"""The mark by which the server knows that a request came in by the door.

The door puts it behind the headers of every request, in a frame of its own, so nothing that the
peer sent has to be read or packed anew. It is one field in HPACK's "never indexed" form (RFC 7541,
section 6.2.3), which leaves the table that both ends compress against as it was.

A peer that ends its headers in the middle of a field takes the mark into that field's value. Then
its request has no mark, and what it might be told of the value is the mark of its own connection,
which is good for nothing else.
"""

from backpackd.adapters.door.frames import CONTINUATION, END_HEADERS, frame

_NEVER_INDEXED = 0x10
_SHORT = 0x7F
"""Strings below this length have one byte for it (RFC 7541, section 5.1)."""


def field(name: str, value: str) -> bytes:
    """Write one header as it stands in a header block.

    Args:
        name: lowercase ASCII, shorter than 127 bytes.
        value: ASCII, shorter than 127 bytes.
    """
    parts = [name.encode("ascii"), value.encode("ascii")]
    assert all(len(part) < _SHORT for part in parts)
    return bytes((_NEVER_INDEXED,)) + b"".join(bytes((len(part),)) + part for part in parts)


def last_headers(stream: int, block: bytes) -> bytes:
    """Make the frame that carries `block` and ends a stream's headers."""
    return frame(CONTINUATION, END_HEADERS, stream, block)
