"""The first process of a container is the agent there: what is proposed for it can be approved.

It also takes the orphans of the container: what is left behind there is asked about as elsewhere.
"""

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
PRELUDE = """
import json, os, subprocess, sys
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
"""

ASKED_ONCE = """
told = {"agent": failure(lambda: operator.get("K"))[1], "first tool": tool()}
(request,) = operator.pending()
told["proposed"] = [process.pid for process in request.chain if process.proposed_root]
operator.approve(request.code)
told["after"] = [operator.value("K").decode(), tool(), tool()]
daemon.close()
print(json.dumps(told))
"""


# The first process has no terminal, and opens one for a shell. There an agent is started, which
# leaves its tool to the first process.
LEFT_BEHIND = """
AGENT = '''
import os, select, subprocess, sys
report, line = int(sys.argv[1]), int(sys.argv[2])
def tell():
    done = subprocess.run(sys.argv[3:], stdout=subprocess.PIPE)
    os.write(report, done.stdout)
os.write(report, str(os.getpid()).encode())
os.read(line, 1)
tell()
os.read(line, 1)
middle = os.fork()
if not middle:
    os.setsid()
    own = os.pidfd_open(os.getpid())
    if os.fork():
        os._exit(0)
    select.select([own], [], [])
    tell()
    os._exit(0)
os.waitpid(middle, 0)
os.read(line, 1)
'''
LEAD = '''
import fcntl, os, sys, termios
os.setsid()
main, own = os.openpty()
# Else the terminal would hang up.
os.set_inheritable(main, True)
fcntl.ioctl(own, termios.TIOCSCTTY, 0)
os.execvp("sh", ["sh", "-c", '"$@"; true', "sh", *sys.argv[1:]])
'''
from backpack_proto.v1 import leases_pb2

operator.grant("K")
heard, report = os.pipe()
line, said = os.pipe()
tool = [sys.executable, "-c", TOOL, str(daemon.socket)]
agent = [sys.executable, "-c", AGENT, str(report), str(line), *tool]
shell = subprocess.Popen([sys.executable, "-c", LEAD, *agent], pass_fds=[report, line])
pid = int(os.read(heard, 100))

def get():
    os.write(said, b"1")
    return os.read(heard, 100).decode().strip()

told = {"before": get()}
daemon.client().leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(tree_pid=pid))
told["left behind"] = get()
told["first"] = os.getpid()
os.write(said, b"1")
shell.wait()
daemon.close()
print(json.dumps(told))
"""


def run(scene: str, directory: Path) -> object:
    """Run a scene as the first process of a pid namespace, and return what it told."""
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, from util-linux")
    command = [unshare, *users, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make a pid namespace")
    done = subprocess.run(
        [*command, sys.executable, "-c", PRELUDE + scene, str(TESTS), str(directory)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_agent_of_a_container_is_asked_about_once(tmp_path: Path) -> None:
    assert run(ASKED_ONCE, tmp_path) == {
        "agent": "waiting-for-approval",
        "first tool": "waiting-for-approval",
        "proposed": [1],
        "after": ["value", "value", "value"],
    }


def test_what_a_revoked_agent_leaves_to_the_first_process_is_asked_about(tmp_path: Path) -> None:
    assert run(LEFT_BEHIND, tmp_path) == {
        "before": "value",
        "left behind": "waiting-for-approval",
        "first": 1,
    }
