"""Talks to the service manager that runs the daemon: sd_notify(3) and its watchdog.

It never stops the daemon: a message that cannot be sent is logged and dropped. `listener` takes
passed sockets.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"

_MICROSECONDS: Final = 1_000_000
# A manager that is busy may not take a message at once; one that hangs must not hang the daemon.
_SEND_TIMEOUT_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


def notify(environ: Mapping[str, str], *assignments: str) -> bool:
    """Send a message to `NOTIFY_SOCKET`, sd_notify(3).

    Args:
        environ: the daemon's environment.
        assignments: such as `READY`, or what `status` returns.

    Returns:
        True when the message was handed over; False without a socket to notify, and after a
        failure, which is logged and has no other consequence.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address[0] not in "/@":
        _log.warning("NOTIFY_SOCKET names no Unix socket: the service manager is not told anything")
        return False
    # An abstract name is spelt with an @ in place of its leading 0 byte.
    target = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_TIMEOUT_SECONDS)
            sender.sendto("\n".join(assignments).encode(errors="replace"), target)
    except (OSError, ValueError) as error:
        _log.warning("the service manager could not be told: %s", type(error).__name__)
        return False
    return True


def status(text: str) -> str:
    """Make the assignment that shows `text` in the service manager's status.

    Args:
        text: one line for people. Control characters become spaces, so that no text can carry
            another assignment with it.

    Returns:
        The assignment, for `notify`.
    """
    return "STATUS=" + "".join(each if each.isprintable() else " " for each in text)


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how often the service manager wants a sign of life, sd_watchdog_enabled(3).

    Args:
        environ: the daemon's environment.
        pid: the daemon's own.

    Returns:
        Seconds between two `WATCHDOG` messages, half of what the manager allows; None when it
        watches nothing, or another process.
    """
    allowed = _number(environ.get("WATCHDOG_USEC", ""))
    if not allowed or _number(environ.get("WATCHDOG_PID", str(pid))) != pid:
        return None
    return allowed / _MICROSECONDS / 2


def keep_alive(environ: Mapping[str, str], pid: int) -> None:
    """Send signs of life to a watching service manager, as long as the event loop turns.

    Args:
        environ: the environment.
        pid: of this process.
    """
    interval = watchdog_interval(environ, pid)
    if interval is not None:
        notify(environ, WATCHDOG)
        asyncio.get_running_loop().call_later(interval, keep_alive, environ, pid)


def supervised(environ: Mapping[str, str], pid: int | None = None) -> bool:
    """Return whether a service manager runs this very process, so that stopping is its job.

    `NOTIFY_SOCKET` does not show it: the client that starts a detached daemon sets it, too. Nor
    does `INVOCATION_ID`: every shell in a desktop's terminal inherits one. systemd says which
    process it started (systemd.exec(5)), and so does the watchdog. launchd names the job, and
    is the parent.

    Args:
        environ: the daemon's environment.
        pid: the daemon's own; by default that of this process.

    Returns:
        True when systemd or launchd started it.
    """
    pid = os.getpid() if pid is None else pid
    if any(_number(environ.get(each, "")) == pid for each in ("SYSTEMD_EXEC_PID", "WATCHDOG_PID")):
        return True
    job = environ.get("XPC_SERVICE_NAME", "0")
    return job not in ("", "0") and not job.startswith("application.") and os.getppid() == 1


def _number(text: str) -> int | None:
    """Read a decimal number; None for anything else, as for what is longer than 64 bits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(2**63)) else None
