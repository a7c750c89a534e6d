"""Opens grpc channels to a daemon that can only be this user's or root's.

The checks are `address`'s; what is added here is how grpc is to behave: one connection of its own
for every channel, no proxy, no retries, no words on standard error. It makes no calls. Everything
in this package that needs grpc gets it from here, so that it is quiet from the start.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backpack_client import address


@contextmanager
def _quiet() -> Iterator[None]:
    # grpc reads once, while it is imported, how much to write to standard error. The variable is
    # gone again afterwards, so that no child inherits it; a user who has set it is debugging.
    name = "GRPC_VERBOSITY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "NONE"
    try:
        yield
    finally:
        del os.environ[name]


with _quiet():
    import grpc
    import grpc.aio

RpcError = grpc.RpcError
UsageError = grpc.aio.UsageError
EOF = grpc.aio.EOF

MESSAGE_LIMIT = 8 * 1024 * 1024

# sun_path of unix(7), without the closing zero byte; grpc takes no longer path.
_PATH_LIMIT = 107 if sys.platform == "linux" else 103

_OPTIONS = (
    # Operator authority belongs to a connection: two objects of one process never share one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.enable_http_proxy", 0),
    # A put or a lease that is sent twice is not the same as one that is sent once.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # What grpc calls the least backoff is how long one attempt to connect may take. A daemon that
    # many call at once, or a busy machine, needs more than a moment for the first word.
    ("grpc.min_reconnect_backoff_ms", int(address.CONNECT_PATIENCE * 1000)),
    # A daemon that is starting again is found within a second, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # What grpc would send as the authority is the socket's path.
    ("grpc.default_authority", "localhost"),
)


@dataclass(slots=True)
class Target:
    """A checked socket in the form that grpc takes.

    Attributes:
        name: the target, such as `unix:/run/user/1000/backpack/backpackd.sock`.
        descriptor: the socket's directory, held while the channel lives where the path is too long
            for a socket address; else -1.
    """

    name: str
    descriptor: int = -1

    def close(self) -> None:
        """Let go of the directory. Closing twice is harmless."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check(path: str) -> Target:
    """Check that the daemon at a socket is this user's or root's, by one connection to it.

    The directory lets nobody else put another socket there, so what grpc connects to later is as
    good as what was checked.

    Args:
        path: the socket's path, of any length on Linux.

    Returns:
        Where to open a channel to. The caller closes it after the channel.

    Raises:
        Failure: `no-daemon` or `socket-not-trusted`, see `address.connect`.
    """
    address.connect(path).close()
    socket = Path(path)
    directory = Path(address.check_directory(str(socket.parent)))
    resolved = directory / socket.name
    if len(os.fsencode(resolved)) <= _PATH_LIMIT:
        return Target(f"unix:{resolved}")
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return Target(f"unix:/proc/self/fd/{descriptor}/{socket.name}", descriptor)


def open_channel(target: Target) -> grpc.Channel:
    """Open a channel for blocking calls. It connects with the first call."""
    return grpc.insecure_channel(target.name, options=_OPTIONS)


def open_async_channel(target: Target) -> grpc.aio.Channel:
    """Open a channel for calls from the running event loop. It connects with the first call."""
    return grpc.aio.insecure_channel(target.name, options=_OPTIONS)
