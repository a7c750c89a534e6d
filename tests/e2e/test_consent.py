"""One question for a task: a hundred calls of an agent, however its tools are started."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemons import RunningDaemon

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]

# A tool: one call in plain gRPC, that waits for a person. Says which codes it was told and the key.
TOOL = """
import json, sys
import grpc
from backpack_proto.v1 import leases_pb2, leases_pb2_grpc
path, out, wait = sys.argv[1:]
stub = leases_pb2_grpc.LeasesStub(grpc.insecure_channel("unix:" + path))
request = leases_pb2.GetKeysRequest(names=["K"], wait_seconds=int(wait))
call = stub.GetKeys.future(request, timeout=100)
told = dict(call.initial_metadata())
try:
    found = call.result().keys[0].value.decode()
except grpc.RpcError as error:
    trailing = dict(error.trailing_metadata())
    told |= trailing
    found = trailing.get("backpack-reason")
with open(out, "x") as answer:
    json.dump([told.get("backpack-request-code"), found], answer)
"""

# Leaves the tree of whoever starts it, and opens a terminal with a shell that starts the agent.
TERMINAL = """
import os, pty, select, sys
if os.fork():
    os._exit(0)
os.setsid()
middle = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
select.select([middle], [], [])
shell, terminal = pty.fork()
if shell == 0:
    os.execvp("sh", ["sh", "-c", '"$@"; true', "sh", *sys.argv[1:]])
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
"""

# An agent, the root of a tree, that starts its tools all at once in every way there is.
AGENT = """
import os, pty, sys
tool, path, out, count, wait = sys.argv[1:]

def start(number):
    command = [sys.executable, tool, path, f"{out}/{number}", wait]
    kind = number % 4
    if kind == 3:
        child, _ = pty.fork()
        if child:
            return child
    elif child := os.fork():
        return child
    if kind == 1:
        os.setsid()
    elif kind == 2:
        command = ["sh", "-c", '"$@"; true', "sh", *command]
    os.execvp(command[0], command)

running = [start(number) for number in range(int(count))]
for child in running:
    os.waitpid(child, 0)
open(f"{out}/done", "x").close()
"""


class Agent:
    """An agent that runs, and what its tools have got."""

    def __init__(self, daemon: RunningDaemon, directory: Path, calls: int, wait: int) -> None:
        self._out = directory
        self._calls = calls
        directory.mkdir()
        tool = directory.with_suffix(".py")
        tool.write_text(TOOL)
        arguments = [str(tool), str(daemon.socket), str(directory), str(calls), str(wait)]
        subprocess.run(
            [sys.executable, "-c", TERMINAL, sys.executable, "-c", AGENT, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def answers(self) -> list[tuple[str | None, str]]:
        """Wait until it has ended; return code and key, or reason, of each call."""
        while not (self._out / "done").exists():
            time.sleep(0.02)
        return [
            tuple(json.loads((self._out / str(number)).read_text()))
            for number in range(self._calls)
        ]


@pytest.mark.timeout(300)
def test_a_task_of_a_hundred_calls_is_one_question(daemon: RunningDaemon, tmp_path: Path) -> None:
    operator = daemon.operator()
    operator.put("K", b"value")
    agent = Agent(daemon, tmp_path / "first", 100, 200)
    seen: set[str] = set()
    while not any(request.waiting >= 10 for request in operator.pending()):
        seen |= {request.code for request in operator.pending()}
        time.sleep(0.02)
    (request,) = operator.pending()
    operator.approve(request.code)
    seen.add(request.code)
    answers = agent.answers()
    assert [value for _, value in answers] == ["value"] * 100
    seen |= {code for code, _ in answers if code}
    assert seen == {request.code}
    assert operator.pending() == []

    # Its root has ended, so the next task asks; and so does everybody else's, this one's too.
    again = Agent(daemon, tmp_path / "second", 4, 0).answers()
    codes = {code for code, _ in again}
    assert [reason for _, reason in again] == ["waiting-for-approval"] * 4
    assert len(codes) == 1
    assert request.code not in codes


def test_two_agents_at_once_are_two_questions_and_one_answer_is_for_one(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    operator = daemon.operator()
    operator.put("K", b"value")
    agents = [Agent(daemon, tmp_path / name, 4, 100) for name in ("one", "two")]
    while [request.waiting for request in operator.pending()] != [4, 4]:
        time.sleep(0.02)
    granted, refused = operator.pending()
    assert granted.code != refused.code
    operator.approve(granted.code)
    operator.deny(refused.code)
    found = {frozenset(agent.answers()) for agent in agents}
    assert found == {
        frozenset({(granted.code, "value")}),
        frozenset({(refused.code, "refused-by-operator")}),
    }


def test_the_person_sees_the_chain_with_the_agent_as_its_proposed_root(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    operator = daemon.operator()
    operator.put("K", b"value")
    agent = Agent(daemon, tmp_path / "one", 4, 100)
    while [request.waiting for request in operator.pending()] != [4]:
        time.sleep(0.02)
    (request,) = operator.pending()
    (root,) = [process for process in request.chain if process.proposed_root]
    assert root.in_tree
    assert root.may_be_root
    assert request.chain[0].in_tree
    # The tools, in terminals of their own, are below it; the shell that started it is not in it.
    (above,) = [
        p for p, below in zip(request.chain[1:], request.chain, strict=False) if below is root
    ]
    assert not above.in_tree
    assert not request.chain[-1].may_be_root
    assert request.max_ttl_seconds == 30 * 86400
    operator.approve(request.code, root_pid=root.pid)
    assert {value for _, value in agent.answers()} == {"value"}
