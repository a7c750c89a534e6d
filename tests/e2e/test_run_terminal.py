"""`run` in an interactive shell: terminal, signals and job control are the agent's own.

The same is typed into the same shell twice, once with `run` in front of the program, and what comes
on the screen must be the same, byte for byte.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backpack_proto.v1 import leases_pb2
from daemons import Client, RunningDaemon
from shell_terminal import PROMPT, ShellTerminal

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

RUN = f"{sys.executable} -m backpack_client run --key K --reason test -- "
AGENT = """
import getpass, os, signal, subprocess, sys

def size():
    columns, lines = os.get_terminal_size()
    return f"{columns}x{lines}"

def resized(*_):
    print("resized", size(), flush=True)

signal.signal(signal.SIGWINCH, resized)
with open("pid", "w") as file:
    file.write(str(os.getpid()))
print("begins", size(), os.getpgrp() == os.getpid(), os.tcgetpgrp(0) == os.getpgrp(), flush=True)
while True:
    try:
        print("agent> ", end="", flush=True)
        words = sys.stdin.readline().split()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        continue
    if words[0] == "hide":
        print("hidden", len(getpass.getpass("quietly: ")), flush=True)
    elif words[0] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        print("woken", flush=True)
    elif words[0] == "child":
        child = subprocess.Popen(["sh", "-c", "kill -STOP $$; echo child woken"])
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        print("child stopped", os.WIFSTOPPED(status), flush=True)
        child.send_signal(signal.SIGCONT)
        child.wait()
    elif words[0] == "quit":
        sys.exit(int(words[1]))
    else:
        print("heard", *words, flush=True)
"""
READY = b"agent> "


@pytest.fixture
def operator(daemon: RunningDaemon, tmp_path: Path) -> Client:
    (tmp_path / "agent.py").write_text(AGENT)
    operator = daemon.operator()
    operator.put("K", b"sk-value")
    operator.grant("K")
    return operator


def shell(place: Path, prefix: str) -> ShellTerminal:
    environ = {**os.environ, "R": prefix, "PYTHON": sys.executable}
    terminal = ShellTerminal(environ)
    terminal.enter(f"cd {place}; set +o history")
    # Typed as a variable, so that what bash says of its jobs is the same in both.
    terminal.enter("$R $PYTHON agent.py", READY)
    return terminal


def agent(place: Path) -> int:
    return int((place / "pid").read_text())


def session(place: Path, prefix: str) -> bytes:
    """Use the agent as a person does; return what the screen showed."""
    with shell(place, prefix) as terminal:
        terminal.resize(100, 30)
        terminal.expect(b"resized 100x30\r\n")
        terminal.enter("hide", b"quietly: ")
        assert not terminal.echoes()
        terminal.enter("unseen words", READY)
        assert terminal.echoes()
        assert b"unseen" not in terminal.transcript
        terminal.type(b"\x03")
        terminal.expect(READY)
        terminal.type(b"\x1a")
        terminal.expect(PROMPT)
        terminal.enter("jobs")
        terminal.enter("fg", b"agent.py\r\n")
        terminal.enter("still there", READY)
        terminal.enter("stop", PROMPT)
        terminal.enter("fg", READY)
        terminal.enter("child", READY)
        terminal.enter("quit 7", PROMPT)
        terminal.enter("echo code $?")
        terminal.enter("$R $PYTHON agent.py", READY)
        terminal.type(b"\x1c")
        terminal.expect(PROMPT)
        terminal.enter("echo code $?")
        terminal.enter("$R $PYTHON agent.py", READY)
        os.kill(agent(place), signal.SIGKILL)
        terminal.expect(PROMPT)
        terminal.enter("echo code $?")
        terminal.enter("$R sh -c 'kill -PIPE $$; echo survived'")
        terminal.enter("echo code $?")
        return terminal.transcript


def test_a_session_with_run_looks_like_the_same_one_without(
    operator: Client, tmp_path: Path
) -> None:
    assert operator.status().leases_of_tree == 0
    without = session(tmp_path, "")
    assert session(tmp_path, RUN) == without
    assert [line for line in without.split(b"\r\n") if line.startswith(b"code")] == [
        b"code 7", b"code 131", b"code 137", b"code 141"
    ]  # fmt: skip


class Watch:
    """What happens to all leases, one by one."""

    def __init__(self, operator: Client) -> None:
        request = leases_pb2.WatchLeasesRequest(all=True)
        self._events: Any = iter(operator.leases.WatchLeases(request, timeout=100))

    def next(self, kind: str) -> Any:
        wanted = leases_pb2.WatchLeasesResponse.Kind.Value(f"KIND_{kind}")
        while (event := next(self._events)).kind != wanted:
            continue
        return event


@pytest.mark.parametrize("how", ["kill -9", "exit"])
def test_the_lease_is_gone_at_the_agents_end(operator: Client, tmp_path: Path, how: str) -> None:
    watch = Watch(operator)
    with shell(tmp_path, RUN) as terminal:
        issued = watch.next("ISSUED")
        assert issued.lease.holder_pid == agent(tmp_path)
        began = time.monotonic()
        if how == "exit":
            terminal.type(b"quit 0\n")
        else:
            os.kill(agent(tmp_path), signal.SIGKILL)
        ended = watch.next("ENDED")
        seconds = time.monotonic() - began
        assert (ended.reason, ended.lease.id) == ("holder-gone", issued.lease.id)
    sys.stdout.write(f"{how}: {seconds * 1000:.1f} ms\n")


def test_an_agent_that_was_stopped_keeps_its_lease(operator: Client, tmp_path: Path) -> None:
    with shell(tmp_path, RUN) as terminal:
        terminal.type(b"\x1a")
        terminal.expect(PROMPT)
        request = leases_pb2.ListLeasesRequest(all=True)
        (lease,) = operator.leases.ListLeases(request).leases
        assert lease.holder_pid == agent(tmp_path)


def test_a_revocation_ends_the_agent_and_the_shell_says_so(
    operator: Client, tmp_path: Path
) -> None:
    with shell(tmp_path, RUN) as terminal:
        operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(key="K"))
        assert b"Terminated" in terminal.expect(PROMPT)
        assert b"code 143" in terminal.enter("echo code $?")
