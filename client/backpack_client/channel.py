"""Opens grpc channels to a daemon that can only be this user's or root's.

`address` does the checks. This module configures grpc: one connection for each channel, no proxy,
no retries, nothing on standard error. It makes one call on each channel, to see that it is
connected. The whole package imports grpc from here, so that grpc is quiet from the start.
"""

import asyncio
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backpack_client import address
from backpack_client.durations import format_duration
from backpack_client.failures import EXIT_NO_DAEMON, NO_ANSWER_HINT, Failure, printable
from backpack_client.wire import Ended


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

READY_PATIENCE = 10.0
"""How long connecting may take, in seconds."""

_CHECK = "/grpc.health.v1.Health/Check"

# sun_path of unix(7), without the closing zero byte. grpc accepts no longer path.
_PATH_LIMIT = 107 if sys.platform == "linux" else 103

# grpc takes a target for UTF-8 text with escapes. A path is bytes, and may hold a `%`.
_PLAIN = re.compile(r"[A-Za-z0-9/._~@+-]+", re.ASCII)

_OPTIONS = (
    # Operator authority belongs to a connection: two objects of one process never share one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.enable_http_proxy", 0),
    # Sending a put or a lease twice has another effect than sending it once.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # grpc's minimum backoff is the time that one attempt to connect may take. A daemon with many
    # callers, or a busy machine, needs more than a moment for its first bytes.
    ("grpc.min_reconnect_backoff_ms", int(address.CONNECT_PATIENCE * 1000)),
    # A daemon that restarts is found at once, not after two minutes. If its queue is full, only
    # many attempts get through.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # grpc would send the socket's path as the authority.
    ("grpc.default_authority", "localhost"),
)


@dataclass(slots=True)
class Target:
    """A checked socket in the form that grpc accepts.

    Attributes:
        name: the target, such as `unix:/run/user/1000/backpack/backpackd.sock`.
        descriptor: the socket's directory, or the socket, held while the channel lives where grpc
            cannot be told the path; otherwise -1.
    """

    name: str
    descriptor: int = -1

    def close(self) -> None:
        """Close the directory. Closing twice is harmless."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def check(path: str) -> Target:
    """Check with one connection that the daemon at a socket belongs to this user or root.

    Nobody else can put another socket into the checked directory, so grpc later connects to a
    daemon of the same owner.

    Args:
        path: the socket's path, of any length on Linux.

    Returns:
        The target for a channel. The caller closes it after the channel.

    Raises:
        Failure: `no-daemon` or `socket-not-trusted`, see `address.connect`.
    """
    address.connect(path).close()
    socket = Path(path)
    directory = Path(address.check_directory(str(socket.parent)))
    resolved = directory / socket.name
    if len(os.fsencode(resolved)) <= _PATH_LIMIT and _PLAIN.fullmatch(str(resolved)):
        return Target(f"unix:{resolved}")
    if not _PLAIN.fullmatch(socket.name):
        # Only this very socket can be held then; a daemon that starts again makes another.
        descriptor = os.open(resolved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        return Target(f"unix:/proc/self/fd/{descriptor}", descriptor)
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return Target(f"unix:/proc/self/fd/{descriptor}/{socket.name}", descriptor)


def open_channel(target: Target, path: str, patience: float) -> grpc.Channel:
    """Open a channel for blocking calls that is connected.

    grpc fails a call if its first attempt to connect fails. It fails if others keep the daemon's
    queue of new connections full. So the first call is a standard health check that waits for
    further attempts. Its answer does not matter.

    Args:
        target: as returned by `check`.
        path: the socket's path.
        patience: how long to wait at most, in seconds; never more than `READY_PATIENCE`.

    Raises:
        Failure: `busy`; `no-daemon` if nobody listens any more. Then there is no channel, and
            the target is closed.
    """
    seconds = min(patience, READY_PATIENCE)
    channel = grpc.insecure_channel(target.name, options=_OPTIONS)
    try:
        channel.unary_unary(_CHECK, bytes, bytes)(b"", timeout=seconds, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            channel.close()
            target.close()
            # A daemon that has ended in the meantime is not busy.
            address.connect(path).close()
            raise _not_ready(path, seconds) from None
    except BaseException:
        channel.close()
        target.close()
        raise
    return channel


async def open_async_channel(target: Target, path: str, patience: float) -> grpc.aio.Channel:
    """Do what `open_channel` does, for calls from the running event loop."""
    seconds = min(patience, READY_PATIENCE)
    channel = grpc.aio.insecure_channel(target.name, options=_OPTIONS)
    try:
        await channel.unary_unary(_CHECK, bytes, bytes)(b"", timeout=seconds, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            target.close()
            await channel.close()
            (await asyncio.to_thread(address.connect, path)).close()
            raise _not_ready(path, seconds) from None
    except BaseException:
        target.close()
        await channel.close()
        raise
    return channel


def ended(error: Any) -> Ended:
    """Turn an error of grpc or grpc.aio into what ended the call."""
    return Ended(error.code().name, error.details() or "", facts(error.trailing_metadata() or ()))


def facts(metadata: Iterable[Any] | None) -> dict[str, str]:
    """Read what the daemon told beside its answer, by its names on the wire."""
    return {
        key: value
        for key, value in metadata or ()
        if key.startswith("backpack-") and isinstance(value, str)
    }


def _not_ready(path: str, seconds: float) -> Failure:
    return Failure(
        f"could not connect within {format_duration(seconds)}: the daemon is too busy, or "
        f"{printable(path, 256)} is not a Backpack daemon",
        exit_code=EXIT_NO_DAEMON,
        reason="busy",
        hint=f"{NO_ANSWER_HINT}\nsee BACKPACK_SOCKET",
    )
