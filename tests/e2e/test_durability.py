"""A put is on the disk before it is acknowledged, as the kernel sees it."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from daemons import READY_SECONDS, RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault")

NAME = "DURABLE_KEY_OF_THIS_TEST"
# The response's gRPC frame: not compressed, 2 bytes long, `created: 1`.
ACKNOWLEDGED = r"\0\0\0\0\2\10\1"


def test_a_put_is_synced_before_its_reply_is_sent(daemon: RunningDaemon, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace (Debian package strace)")
    if os.geteuid() != 0:
        pytest.skip("needs root: the daemon lets nobody else trace it")
    operator = daemon.operator()
    operator.put("BEFORE", b"v")
    trace = tmp_path / "trace"
    calls = "trace=fdatasync,fsync,recvfrom,recvmsg,read,sendto,sendmsg,write,writev"
    command = [strace, "-f", "-y", "-s", "8192", "-o", os.fspath(trace), "-e", calls]
    with subprocess.Popen(
        [*command, "-p", str(daemon.pid)], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"needs leave to trace: {said}")
        operator.put(NAME, b"v")
        _await(trace, ACKNOWLEDGED)
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=READY_SECONDS)
    lines = trace.read_text(errors="replace").splitlines()
    received = _first(lines, rf"(recv|read).*{NAME}")
    synced = _first(lines, r"(fdatasync|fsync)\(.*vault\.db-wal", received)
    if "unfinished" in lines[synced]:
        pid = lines[synced].split()[0]
        synced = _first(lines, rf"^{pid} <\.\.\. (fdatasync|fsync) resumed", synced)
    assert lines[synced].endswith("= 0")
    acknowledged = _first(lines, rf"(send|write).*{re.escape(ACKNOWLEDGED)}", received)
    assert received < synced < acknowledged


def _first(lines: list[str], pattern: str, start: int = 0) -> int:
    for number in range(start, len(lines)):
        if re.search(pattern, lines[number]):
            return number
    raise AssertionError(f"nothing in the trace is {pattern}")


def _await(trace: Path, text: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while text not in trace.read_text(errors="replace"):
        assert time.monotonic() < until, "the reply is not in the trace"
        time.sleep(0.01)
