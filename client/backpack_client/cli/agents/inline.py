"""Asks the person who typed `run` in the same terminal, if that is right.

Two conditions must hold. The parent is the leader of the terminal's session: then an interactive
shell has started this process, and not a script or an agent. And this process is in the foreground:
then the person is looking. Otherwise the code is shown, and the person answers in another terminal.

The screen shows what the daemon attested, before the passphrase is typed. Typing the passphrase
approves the request: for this process and everything that it becomes and starts, until it ends.
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
        backpack: the connection on which the request waits; it has operator authority afterwards.
        code: the request's.

    Raises:
        Failure: the passphrase was wrong three times, nothing was typed, or it was denied.
    """
    # Before the daemon is asked: a process that hides itself later counts as changed.
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
        # Somebody answered earlier in another terminal. The waiting call gets that answer.
        if failure.reason != _ANSWERED:
            raise


def _own(backpack: "Backpack", code: str) -> Request | None:
    """Return the request from the daemon, if this very process asks; otherwise None."""
    for request in backpack.requests():
        if request.code == code and request.chain and request.chain[0].pid == os.getpid():
            # The hidden process is this one, and the person at its terminal has just started it.
            own = replace(request.chain[0], now="")
            return replace(request, chain=(own, *request.chain[1:]))
    return None
