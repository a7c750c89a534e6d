"""A process that gets the pid of a granted root gets nothing: forced for real."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

TESTS = Path(__file__).resolve().parents[1]

# Runs as pid 1 of a pid namespace, where it decides which pid comes next. It calls itself an init
# system, so that its children are roots of trees of their own.
SCENE = """
import json, os, signal, subprocess, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from backpack_proto.v1 import leases_pb2
from daemons import RunningDaemon

ASK = '''
import json, sys
import grpc
from backpack_proto.v1 import leases_pb2, leases_pb2_grpc
stub = leases_pb2_grpc.LeasesStub(grpc.insecure_channel("unix:" + sys.argv[1]))
for line in sys.stdin:
    name = line.strip()
    agent = leases_pb2.AgentStart() if name.startswith("as agent ") else None
    request = leases_pb2.GetKeysRequest(names=[name.split()[-1]], agent=agent)
    try:
        found = stub.GetKeys(request).keys[0].value.decode()
    except grpc.RpcError as error:
        found = dict(error.trailing_metadata())["backpack-reason"]
    print(found, flush=True)
'''

class Agent:
    def __init__(self, daemon, pid):
        # A thread that begins in between takes the number; it is free again when that has ended.
        for _ in range(50):
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
            self.process = subprocess.Popen(
                [sys.executable, "-c", ASK, str(daemon.socket)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            if self.process.pid == pid:
                break
            self.kill()
        assert self.process.pid == pid, (self.process.pid, pid)

    def get(self, name):
        print(name, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

Path("/proc/self/comm").write_text("init")
place = Path(sys.argv[2])
daemon = RunningDaemon(place / "home", place / "run" / "s.sock")
daemon.start()
operator = daemon.operator()
for name in ("GRANTED", "CONSENTED"):
    operator.put(name, b"value")

first = Agent(daemon, 30000)
operator.grant("GRANTED", to="tree:30000")
told = {"granted": first.get("GRANTED"), "asked": first.get("CONSENTED")}
(request,) = operator.pending()
told["root"] = [process.pid for process in request.chain if process.proposed_root]
operator.approve(request.code)
told["consented"] = first.get("CONSENTED")
first.kill()
second = Agent(daemon, 30000)
told["again"] = [second.get("GRANTED"), second.get("CONSENTED")]
second.kill()
operator.grant("GRANTED", "OTHER", to="uid:0")
third = Agent(daemon, 30000)
told["agent"] = third.get("as agent GRANTED")
third.kill()
fourth = Agent(daemon, 30000)
operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(all=True))
operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(tree_pid=30000))
told["revoked"] = fourth.get("GRANTED")
told["signalled"] = fourth.process.poll()
fourth.kill()
fifth = Agent(daemon, 30000)
told["after the revoked"] = fifth.get("GRANTED")
fifth.kill()
daemon.close()
print(json.dumps(told))
"""


def test_a_process_with_the_pid_of_a_granted_root_gets_nothing(tmp_path: Path) -> None:
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, from util-linux")
    command = [unshare, *users, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make a pid namespace")
    done = subprocess.run(
        [*command, sys.executable, "-c", SCENE, str(TESTS), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "granted": "value",
        "asked": "waiting-for-approval",
        "root": [30000],
        "consented": "value",
        "again": ["waiting-for-approval", "waiting-for-approval"],
        "agent": "value",
        "revoked": "waiting-for-approval",
        "signalled": None,
        "after the revoked": "value",
    }
