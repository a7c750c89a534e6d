"""A client that is not ours, from the .proto files alone."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from daemons import RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

_HERE = Path(__file__).parent
_CLIENT = _HERE / "grpc_js"
_PROTOS = _HERE.parent.parent / "proto"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node (Debian: nodejs, npm)")
@pytest.mark.skipif(
    not (_CLIENT / "node_modules" / "@grpc").is_dir(), reason="needs npm to install @grpc/grpc-js"
)
def test_grpc_js_lists_and_gets_keys(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    values = {"BINARY": bytes(range(256)), "TEXT": b"v"}
    for name, value in values.items():
        operator.put(name, value)
        operator.grant(name)
    command = ["node", str(_CLIENT / "client.js"), str(_PROTOS), str(daemon.socket), *values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["listed"] == sorted(values)
    assert [base64.b64decode(value) for value in told["values"]] == list(values.values())
    assert told["refused"] == {
        "code": "DEADLINE_EXCEEDED",
        "reason": "waiting-for-approval",
    }
