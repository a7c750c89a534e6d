"""HTTP/2 by hand, for those who talk to a daemon as no library would."""

FRAME = 16 * 1024


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def _field(name: str, value: str) -> bytes:
    return b"\0" + b"".join(bytes((len(one),)) + one.encode() for one in (name, value))


def begin(stream: int, path: str = "/backpack.v1.Keys/PutKeys") -> bytes:
    """Make the headers of a request."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return frame(1, 4, stream, b"".join(_field(*one) for one in fields.items()))
