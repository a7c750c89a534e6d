"""A revoked or refused agent in a shell, and what clone(2) and threads do for it.

With `CLONE_PARENT` the agent gives its shell a child, whose chain does not hold the agent: it looks
like any other command of the shell. A process lives on without its first thread, and stays itself
when another thread executes a program.
"""

import os
import platform
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_proto.v1 import leases_pb2
from daemons import Client, RunningDaemon

# The numbers of clone(2) and of _exit(2), which ends one thread.
CLONE, LEAVE = {"x86_64": (56, 60), "aarch64": (220, 93)}.get(platform.machine(), (0, 0))
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or not CLONE, reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

TOOL = """
import sys
import grpc
from backpack_proto.v1 import leases_pb2, leases_pb2_grpc
stub = leases_pb2_grpc.LeasesStub(grpc.insecure_channel("unix:" + sys.argv[1]))
try:
    told = stub.GetKeys(leases_pb2.GetKeysRequest(names=["K"])).keys[0].value.decode()
except grpc.RpcError as error:
    told = dict(error.trailing_metadata()).get("backpack-reason", str(error))
with open(sys.argv[2], "w") as report:
    report.write(told + "\\n")
"""

# Leads the session of a terminal and starts the agent, as a shell does.
SHELL = """
import fcntl, os, subprocess, sys, termios
os.setsid()
_, own = os.openpty()
fcntl.ioctl(own, termios.TIOCSCTTY, 0)
agent = subprocess.Popen(sys.argv[2:], pass_fds=[int(sys.argv[1])])
while os.wait()[0] != agent.pid:
    pass
"""

AGENT = """
import ctypes, os, signal, socket, sys, threading
clone, leave, connection, *tool = sys.argv[1:]
told = socket.socket(fileno=int(connection))
system = ctypes.CDLL(None).syscall
CLONE_PARENT = 0x8000

def obey():
    told.send(str(os.getpid()).encode())
    while (way := told.recv(100).decode()):
        if way == "go on in another thread":
            threading.Thread(target=obey).start()
            system(int(leave), 0)
        if way == "execute":
            os.execv(sys.executable, sys.orig_argv)
        beside = 0 if way == "below" else CLONE_PARENT
        if system(int(clone), beside | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            if way == "beside, in a process group of its own":
                os.setpgid(0, 0)
            if way == "beside, in a session of its own":
                os.setsid()
            os.execv(tool[0], tool)
        if not beside:
            os.wait()
    os._exit(0)

obey()
"""

PYTHON = [sys.executable, "-c"]
WAYS = [
    "below",
    "beside",
    "beside, in a process group of its own",
    "beside, in a session of its own",
]


class Agent:
    """An agent in a shell, whose tool asks for K in one way or another."""

    def __init__(self, directory: Path, path: Path) -> None:
        directory.mkdir()
        tool = directory / "tool.py"
        tool.write_text(TOOL)
        self._report = directory / "report"
        os.mkfifo(self._report)
        self._reading = os.open(self._report, os.O_RDWR)
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = str(theirs.fileno())
            command = [sys.executable, str(tool), str(path), str(self._report)]
            self._shell = subprocess.Popen(
                [*PYTHON, SHELL, fd, *PYTHON, AGENT, str(CLONE), str(LEAVE), fd, *command],
                pass_fds=[theirs.fileno()],
            )
        self.pid = int(self._told.recv(100))

    def become(self, what: str) -> None:
        """Have it become something else, and remain the same process."""
        self._told.send(what.encode())
        assert int(self._told.recv(100)) == self.pid

    def get(self, way: str) -> str:
        """Return the value or the reason."""
        self._told.send(way.encode())
        ready, _, _ = select.select([self._reading], [], [], 60)
        assert ready, "the tool has not reported"
        return os.read(self._reading, 4096).decode().strip()

    def close(self) -> None:
        # Ends the agent, and with it the shell.
        self._told.close()
        self._shell.wait()
        os.close(self._reading)


@pytest.fixture
def agent(daemon: RunningDaemon, tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent", daemon.socket)
    yield made
    made.close()


@pytest.fixture
def operator(daemon: RunningDaemon) -> Client:
    """Return an operator of a vault with the key K."""
    made = daemon.operator()
    made.put("K", b"v")
    return made


@pytest.mark.parametrize("way", WAYS)
def test_a_revoked_agent_is_asked_about_beside_itself_as_well(
    daemon: RunningDaemon, operator: Client, agent: Agent, way: str
) -> None:
    operator.grant("K")
    assert agent.get(way) == "v"
    request = leases_pb2.RevokeLeasesRequest(tree_pid=agent.pid)
    daemon.client().leases.RevokeLeases(request)
    assert agent.get(way) == "waiting-for-approval"


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_agent_does_not_ask_again_beside_itself(
    operator: Client, agent: Agent, way: str
) -> None:
    assert agent.get("below") == "waiting-for-approval"
    operator.deny(operator.pending()[0].code)
    assert agent.get(way) == "refused-by-operator"
    assert operator.pending() == []


@pytest.mark.parametrize(
    "then", [[], ["execute"]], ids=["without its first thread", "and executes"]
)
def test_an_agent_that_goes_on_in_another_thread_is_the_same_agent(
    daemon: RunningDaemon, operator: Client, agent: Agent, then: list[str]
) -> None:
    operator.grant("K")
    assert agent.get("below") == "v"
    request = leases_pb2.RevokeLeasesRequest(tree_pid=agent.pid)
    daemon.client().leases.RevokeLeases(request)
    for step in ["go on in another thread", *then]:
        agent.become(step)
    assert agent.get("below") == "waiting-for-approval"
    assert agent.get("beside") == "waiting-for-approval"
