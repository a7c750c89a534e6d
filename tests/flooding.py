"""HTTP/2 by hand, for those who talk to a daemon as no library would."""

FRAME = 16 * 1024


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def field(name: str, value: str) -> bytes:
    """Write a header field as a literal that changes no table (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes((len(one),)) + one.encode() for one in (name, value))


def fields(path: str) -> dict[str, str]:
    return {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }


def headers(stream: int, named: dict[str, str], *, flags: int = 4) -> bytes:
    """Make a HEADERS frame, by default with END_HEADERS."""
    return frame(1, flags, stream, b"".join(field(*one) for one in named.items()))


def begin(stream: int, path: str = "/backpack.v1.Keys/PutKeys") -> bytes:
    """Make the headers of a request."""
    return headers(stream, fields(path))
