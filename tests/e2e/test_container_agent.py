"""The first process of a container is the agent there: what is proposed for it can be approved."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

TESTS = Path(__file__).resolve().parents[1]

# Runs as pid 1 of a pid namespace, with the daemon beside it.
SCENE = """
import json, subprocess, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from daemons import RunningDaemon, failure

TOOL = '''
import sys
import grpc
from backpack_proto.v1 import leases_pb2, leases_pb2_grpc
stub = leases_pb2_grpc.LeasesStub(grpc.insecure_channel("unix:" + sys.argv[1]))
try:
    print(stub.GetKeys(leases_pb2.GetKeysRequest(names=["K"])).keys[0].value.decode())
except grpc.RpcError as error:
    print(dict(error.trailing_metadata())["backpack-reason"])
'''

def tool():
    command = [sys.executable, "-c", TOOL, str(daemon.socket)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

place = Path(sys.argv[2])
daemon = RunningDaemon(place / "home", place / "run" / "s.sock")
daemon.start()
operator = daemon.operator()
operator.put("K", b"value")
told = {"agent": failure(lambda: operator.get("K"))[1], "first tool": tool()}
(request,) = operator.pending()
told["proposed"] = [process.pid for process in request.chain if process.proposed_root]
operator.approve(request.code)
told["after"] = [operator.value("K").decode(), tool(), tool()]
daemon.close()
print(json.dumps(told))
"""


def test_the_agent_of_a_container_is_asked_about_once(tmp_path: Path) -> None:
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
        "agent": "waiting-for-approval",
        "first tool": "waiting-for-approval",
        "proposed": [1],
        "after": ["value", "value", "value"],
    }
