"""A daemon that tests fork is what an executed one is, so what they find of it holds of both."""

import os
import re
import sys
from pathlib import Path

import pytest

from daemons import RunningDaemon

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a daemon's process"),
    pytest.mark.usefixtures("cheap_vault"),
]

COMPARED = re.compile(r"(?m)^(?:Umask|Uid|Gid|Groups|Sig[^Q]\w+|ShdPnd|Cap\w+|NoNewPrivs):.*$")


def looked_at(daemon: RunningDaemon) -> dict[str, object]:
    """Start a daemon, and tell what its process is like and what it says of itself."""
    daemon.start()
    operator = daemon.operator()
    operator.put("K", b"v", replace=True)
    process = Path(f"/proc/{daemon.pid}")
    status = operator.status()
    found: dict[str, object] = {
        "status": COMPARED.findall((process / "status").read_text()),
        "limits": (process / "limits").read_text(),
        "directory": (process / "cwd").readlink(),
        # Which kind each is: numbers and inodes differ between any two daemons.
        "descriptors": sorted(
            re.sub(r"\d+", "", str(each.readlink())) for each in (process / "fd").iterdir()
        ),
        "protections": [(each.name, each.on, each.detail) for each in status.protections],
    }
    operator.close()
    assert daemon.terminate() == 0
    found["log"] = re.sub(r"\d+-\w+|\d+", "", daemon.log_text())
    daemon.log.unlink()
    return found


def test_a_forked_daemon_is_what_an_executed_one_is(
    daemon: RunningDaemon, request: pytest.FixtureRequest
) -> None:
    daemon.terminate()
    daemon.log.unlink()
    executed = looked_at(daemon)
    request.getfixturevalue("quick_start")
    forked = looked_at(daemon)
    assert daemon.process is None
    assert forked == executed
