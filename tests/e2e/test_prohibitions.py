"""A revoked, refused or denied agent on a real daemon, and what real processes do to get around it.

The agent has left pytest's tree and has no terminal. It runs a tool that asks for a key in one of
many ways, and each of them makes the root of the tool's tree another one than the agent.
"""

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from backpack_proto.v1 import leases_pb2, policy_pb2
from daemons import Client, RunningDaemon

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

# Leaves the tree of whoever starts it, then runs what it is told to, line by line.
AGENT = """
import json, os, select, subprocess, sys
if os.fork():
    os._exit(0)
os.setsid()
middle = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([middle], [], [])
if sys.argv[1:]:
    with open("/proc/self/comm", "w") as comm:
        comm.write(sys.argv[1])
print(os.getpid(), os.getppid(), flush=True)
own = os.geteuid()
for line in sys.stdin:
    uid, *command = json.loads(line)
    waiting = ["sh", "-c", 'read line; exec "$@"', "sh", *command]
    child = subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    # As when a process executes a setuid program: it is still the same process.
    os.seteuid(uid)
    child.communicate(b"\\n")
    os.seteuid(own)
"""

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

FORK_TWICE = """
import os, pty, select, sys
setsid, terminal, *command = sys.argv[1:]
if os.fork():
    os._exit(0)
if setsid == "setsid":
    os.setsid()
middle = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([middle], [], [])
if terminal == "terminal":
    pty.spawn(command)
else:
    os.execvp(command[0], command)
"""

LEAD = """
import fcntl, os, subprocess, sys, termios
if os.fork() == 0:
    os.setsid()
    main, own = os.openpty()
    fcntl.ioctl(own, termios.TIOCSCTTY, 0)
    subprocess.run(sys.argv[1:])
    os._exit(0)
os.wait()
"""

PYTHON = [sys.executable, "-c"]
WAYS = {
    "by itself": [],
    "on a terminal": ["script"],
    "on a terminal on a terminal": ["script", "script"],
    "leading a session with a terminal": [*PYTHON, LEAD],
    "while the agent runs as another user": ["as another user"],
    "forked twice": [*PYTHON, FORK_TWICE, "-", "-"],
    "forked twice on a terminal": [*PYTHON, FORK_TWICE, "-", "terminal"],
    "forked twice with setsid": [*PYTHON, FORK_TWICE, "setsid", "-"],
    "forked twice with setsid on a terminal": [*PYTHON, FORK_TWICE, "setsid", "terminal"],
}
INSIDE = list(WAYS)[1:5]
NOBODY = 65534


class Agent:
    """An agent that runs its tool in one way or another."""

    def __init__(self, directory: Path, socket: Path, *, name: str = "") -> None:
        directory.mkdir()
        self._report = directory / "report"
        os.mkfifo(self._report)
        self._reading = os.open(self._report, os.O_RDWR)
        self._release = directory / "release"
        os.mkfifo(self._release)
        self._releasing = os.open(self._release, os.O_RDWR)
        tool = directory / "tool.py"
        tool.write_text(TOOL)
        self._tool = [sys.executable, str(tool), str(socket), str(self._report)]
        self._process = subprocess.Popen(
            [*PYTHON, AGENT, *name.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.pid, parent = map(int, self._process.stdout.readline().split())
        name = Path(f"/proc/{parent}/comm").read_text().strip()
        if parent != 1 and name != "systemd":
            pytest.skip("needs orphans to go to pid 1 or the user's service manager")

    def get(self, way: str = "by itself", *, under: Sequence[str] = ()) -> str:
        """Have the tool ask for K in a way, and return the value or the reason.

        Args:
            way: one of `WAYS`.
            under: a program that starts the tool in that way.
        """
        return self._run(way, self._tool, under=under)

    @contextmanager
    def asking(self) -> Iterator[str]:
        """Have the tool ask for K, yield the value or the reason, and keep the tool until the end.

        A request lives as long as the root that asked, and that may be the tool itself.
        """
        yield self._run("by itself", [*self._tool, str(self._release)])
        os.write(self._releasing, b"\n")

    def _run(self, way: str, command: list[str], *, under: Sequence[str] = ()) -> str:
        uid, words = os.geteuid(), WAYS[way]
        if words[:1] == ["as another user"]:
            if uid != 0:
                pytest.skip("needs root, to be another user")
            uid = NOBODY
        elif words[:1] == ["script"]:
            if shutil.which("script") is None:
                pytest.skip("needs script")
            for _ in words:
                command = ["script", "-qec", shlex.join(command), "/dev/null"]
        else:
            command = [*words, *command]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([uid, *under, *command]) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._reading], [], [], 60)
        assert ready, "the tool has not reported"
        return os.read(self._reading, 4096).decode().strip()

    def close(self) -> None:
        # Closes the pipes, which ends the agent, and waits for its first process.
        self._process.communicate()
        os.close(self._reading)
        os.close(self._releasing)


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


def revoke(daemon: RunningDaemon, pid: int) -> None:
    daemon.client().leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(tree_pid=pid))


def deny_program(operator: Client, tmp_path: Path) -> list[str]:
    """Deny K to a program, and return how to start something with it."""
    program = tmp_path / "denied"
    shutil.copy("/bin/sh", program)
    rule = policy_pb2.DenyRule(patterns=["K"], selector=f"exe:{program}")
    operator.set_policy(deny=[rule])
    return [str(program), "-c", '"$@"; true', "denied"]


@pytest.mark.parametrize("way", WAYS)
def test_a_revoked_agent_is_asked_about_however_its_tool_asks(
    daemon: RunningDaemon, operator: Client, agent: Agent, way: str
) -> None:
    operator.grant("K")
    assert agent.get(way) == "v"
    revoke(daemon, agent.pid)
    assert agent.get(way) == "waiting-for-approval"


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_agent_does_not_ask_again_however_its_tool_asks(
    operator: Client, agent: Agent, way: str
) -> None:
    assert agent.get() == "waiting-for-approval"
    operator.deny(operator.pending()[0].code)
    assert agent.get(way) == "refused-by-operator"
    assert operator.pending() == []


@pytest.mark.parametrize("way", INSIDE)
def test_a_rule_denies_what_a_program_starts_in_any_way(
    operator: Client, agent: Agent, way: str, tmp_path: Path
) -> None:
    operator.grant("K")
    denied = deny_program(operator, tmp_path)
    assert agent.get() == "v"
    assert agent.get(way, under=denied) == "denied-by-rule"


@pytest.mark.parametrize("way", list(WAYS)[5:])
def test_what_a_denied_tree_leaves_behind_is_asked_about(
    operator: Client, agent: Agent, way: str, tmp_path: Path
) -> None:
    operator.grant("K")
    denied = deny_program(operator, tmp_path)
    assert agent.get(under=denied) == "denied-by-rule"
    assert agent.get(way, under=denied) == "waiting-for-approval"


@pytest.mark.parametrize("way", ["on a terminal", "forked twice with setsid"])
def test_a_new_daemon_knows_of_a_revocation_however_the_tool_asks(
    daemon: RunningDaemon, operator: Client, agent: Agent, way: str
) -> None:
    operator.grant("K")
    revoke(daemon, agent.pid)
    daemon.terminate()
    daemon.start()
    daemon.client().unlock()
    assert agent.get(way) == "waiting-for-approval"


@pytest.fixture(params=["tmux", "sway", "bash"])
def renamed(
    daemon: RunningDaemon, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Agent]:
    """Return an agent that calls itself a program which starts others for people."""
    made = Agent(tmp_path / "agent", daemon.socket, name=request.param)
    yield made
    made.close()


@pytest.mark.parametrize("way", ["by itself", "on a terminal", "forked twice with setsid"])
def test_a_revoked_agent_is_asked_about_whatever_it_calls_itself(
    daemon: RunningDaemon, operator: Client, renamed: Agent, way: str
) -> None:
    operator.grant("K")
    assert renamed.get() == "v"
    # Each tool has ended by now, and may have been the root of a tree of its own.
    daemon.client().leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(key="K"))
    assert renamed.get(way) == "waiting-for-approval"


@pytest.mark.parametrize("way", ["by itself", "on a terminal", "forked twice with setsid"])
def test_a_refused_agent_does_not_ask_again_whatever_it_calls_itself(
    operator: Client, renamed: Agent, way: str
) -> None:
    with renamed.asking() as told:
        assert told == "waiting-for-approval"
        operator.deny(operator.pending()[0].code)
    assert renamed.get(way) == "refused-by-operator"
