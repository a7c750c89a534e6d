"""Starts real processes for tests of attestation, and attests them."""

import os
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from backpackd.adapters.processes.linux import LinuxProcesses, open_process
from backpackd.core.peer_facts import PeerFacts

NOBODY = 65534

WAITING = "import sys; exec(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
"""A child that does what it is told by code on its arguments, says so, and waits to be ended."""

Start = Callable[..., int]
"""Starts a command that prints a line when it is ready, and gives its pid."""


def python(code: str) -> tuple[str | Path, ...]:
    """Make the command of a process that runs some code and waits."""
    return (sys.executable, "-c", WAITING, textwrap.dedent(code))


def attest(pid: int, uid: int | None = None) -> PeerFacts:
    """Attest a process as a peer of a uid; None: the test's own."""
    with closing(open_process(pid)) as process, closing(LinuxProcesses()) as processes:
        return processes.attest(process, os.geteuid() if uid is None else uid, 0)
