"""A daemon that is played by hand: it accepts one connection and says what the test tells it to."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backpack_client.wire import hpack

PATIENCE = 30.0


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


HELLO = frame(4)
BEGIN = HELLO + frame(
    1, 4, 1, hpack.encode([(":status", "200"), ("content-type", "application/grpc")])
)


def ending(*fields: tuple[str, str]) -> bytes:
    return frame(1, 5, 1, hpack.encode(list(fields)))


def message(content: bytes) -> bytes:
    return frame(0, 0, 1, b"\0" + len(content).to_bytes(4, "big") + content)


OK = ending(("grpc-status", "0"))
DENIED = ending(("grpc-status", "7"), ("backpack-reason", "no-grant"), ("other", "x"))


class Peer:
    """Says `says` to everybody who connects, and keeps the connection until the client ends it.

    Attributes:
        path: its socket.
        says: what it says to the next one, at once.
        asked: set when somebody has said something.
        left: set when the client has hung up.
        connections: those that it has accepted.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.says = b""
        self.asked = threading.Event()
        self.left = threading.Event()
        self.connections: list[socket.socket] = []

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            with connection:
                try:
                    connection.sendall(self.says)
                    while connection.recv(65536):
                        self.asked.set()
                except OSError:
                    pass
                self.left.set()

    def say(self, data: bytes) -> None:
        """Say something more on the newest connection."""
        self.connections[-1].sendall(data)

    def hang_up(self) -> None:
        self.connections[-1].shutdown(socket.SHUT_RDWR)


@contextmanager
def played_peer(directory: Path) -> Iterator[Peer]:
    """Serve on a socket in `directory` until the block ends."""
    peer = Peer(directory / "peer.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(peer.path)
        listener.listen()
        thread = threading.Thread(target=peer.serve, args=(listener,))
        thread.start()
        try:
            yield peer
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in peer.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            thread.join()
