"""Asking the person who typed `run`, in the same terminal: when that is right, and how.

Only where both hold: the parent is the leader of the terminal's session, so an interactive shell
and not some script or agent has started this, and this is in the foreground, so the person is
looking. Elsewhere the code is shown and answered in a terminal of the person's own.

What is shown was attested by the daemon, and is shown before the passphrase is typed. To type it is
to approve: for this process and what it becomes and starts, until it ends.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from backpack_client import process_protection
from backpack_client.cli.consent import request_view
from backpack_client.console import terminal
from backpack_client.failures import Failure
from backpack_client.model import Request

if TYPE_CHECKING:
    from backpack_client.api import Backpack

_ANSWERED = "no-such-request"


def may_ask() -> bool:
    """Tell whether a person at a shell's prompt has started this and waits for it."""
    try:
        screen = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.getppid() == os.getsid(0) and os.tcgetpgrp(screen) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(screen)


def ask(backpack: "Backpack", code: str) -> None:
    """Show this process's own request, ask for the passphrase, and approve it.

    Args:
        backpack: the connection on which the request waits; it has operator authority after it.
        code: the request's.

    Raises:
        Failure: the passphrase was wrong three times, nothing was typed, or it was denied.
    """
    # Before the daemon is asked: what hides itself afterwards has changed since it was shown.
    process_protection.make_undumpable()
    request = _own(backpack, code)
    if request is None:
        terminal.tell_waiting(code)
        return
    for line in request_view.describe(request, request_view.proposed_root(request)):
        terminal.say_line(line)
    terminal.say_line(f"if approved: {request_view.scope(request, os.getpid())}")
    terminal.right_passphrase("passphrase to approve it", None, backpack.authorize)
    try:
        backpack.approve(code, revision=request.revision)
    except Failure as failure:
        # Somebody was faster, in another terminal. How they answered, the waiting call says.
        if failure.reason != _ANSWERED:
            raise


def _own(backpack: "Backpack", code: str) -> Request | None:
    """Find the request as the daemon tells it; only if it is this very process that asks."""
    for request in backpack.requests():
        if request.code == code and request.chain and request.chain[0].pid == os.getpid():
            # What hides is this process, and the person at its terminal has just started it.
            own = replace(request.chain[0], now="")
            return replace(request, chain=(own, *request.chain[1:]))
    return None
