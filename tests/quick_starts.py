"""Starts daemons by forking a process that has loaded the daemon's code already.

Loading it is nearly all that a start costs, and hundreds of tests start a daemon without looking at
what comes before. From the fork on, a daemon does all that a real one does after it executed itself
anew: it runs `main`, on the same allocator and with the same environment. It differs in its command
line and in its executable, which other processes of the user may read.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from backpackd.adapters.secrets import scrubbing

MOST = 64 * 1024
"""Bytes of a message: one start, with its environment."""


class Starting:
    """The process that starts daemons, one after the other, and learns how they ended."""

    def __init__(self) -> None:
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **scrubbing._SCRUB, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def start(
        self, arguments: list[str], *, log: BinaryIO, environ: dict[str, str]
    ) -> "QuicklyStarted":
        wanted = {"arguments": arguments, "environ": environ, "directory": str(Path.cwd())}
        socket.send_fds(self._end, [json.dumps(wanted).encode()], [log.fileno()])
        return QuicklyStarted(int(self._end.recv(MOST)), self)

    def status(self, pid: int) -> int:
        """Wait until a daemon ends, and return its status as `Popen.returncode` says it."""
        self._end.sendall(json.dumps({"ended": pid}).encode())
        return int(self._end.recv(MOST))

    def close(self) -> None:
        self._end.close()
        self._process.wait()


class QuicklyStarted:
    """A daemon that was forked, with what tests use of a `Popen`."""

    def __init__(self, pid: int, starting: Starting) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._starting = starting
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._status(timeout)
        if status is None:
            raise TimeoutError(f"process {self.pid} did not end")
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], timeout)[0]:
            os.close(self._pidfd)
            self.returncode = self._starting.status(self.pid)
        return self.returncode


def main() -> int:
    """Fork a daemon for each request; return the status of one, in its own process."""
    # All that a daemon loads when it begins, and what cryptography loads at its first use.
    from cryptography.hazmat.backends.openssl import backend  # noqa: F401, PLC0415

    from backpackd import __main__, daemon  # noqa: F401, PLC0415

    # A daemon looks through none of it for garbage, which would also copy it.
    gc.collect()
    gc.freeze()
    end = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(end, MOST, 1)
        if not message:
            return 0
        wanted = json.loads(message)
        if "ended" in wanted:
            _, status = os.waitpid(wanted["ended"], 0)
            end.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        elif pid := os.fork():
            os.close(descriptors[0])
            end.sendall(str(pid).encode())
        else:
            end.close()
            break
    nothing = os.open(os.devnull, os.O_RDONLY)
    for mine, number in ((nothing, 0), (descriptors[0], 1), (descriptors[0], 2)):
        os.dup2(mine, number)
    os.close(nothing)
    os.close(descriptors[0])
    os.chdir(wanted["directory"])
    os.environ.clear()
    os.environ.update(scrubbing.clean_environment(wanted["environ"]))
    os.environ[scrubbing._MARKER] = str(os.getpid())
    sys.argv = ["backpackd", *wanted["arguments"]]
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
