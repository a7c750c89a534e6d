"""The package without dependencies, installed by pip into environments as agents have them.

By itself, and beside frameworks that pin other versions of grpcio and protobuf than ours. The
newest of each framework comes from the package registry, which takes up to a minute: in CI two of
them are tried, and with BACKPACK_THOROUGH all. docs/compatibility.md has what was run, and when.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_client import Backpack
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from daemons import PASSPHRASE, RunningDaemon
from thorough import CI, THOROUGH

pytestmark = pytest.mark.usefixtures("cheap_vault")

CLIENT = Path(__file__).parents[2] / "client"
AGENT = Path(__file__).with_name("agent_elsewhere.py")
# What is installed, and what is imported of it. The first two pin a protobuf that ours is beyond.
FRAMEWORKS = {
    "autogen-core": "autogen_core",
    "google-generativeai": "google.generativeai",
    "langchain": "langchain",
    "openai-agents": "agents",
    "crewai": "crewai",
}
IN_CI = ("autogen-core", "google-generativeai")
# What a framework must not send anywhere while it is imported.
SILENT = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true"}


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    """Make an environment that has this package, built as from a clone, and nothing else."""
    # With the hatchling that is here: a build in isolation would fetch another one.
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(CLIENT))
    (wheel,) = tmp_path.glob("backpack_client-*.whl")
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    pip("--python", str(place), "install", "--no-index", str(wheel))
    yield place
    # Not left to pytest, which keeps the directories of three runs: a framework is large.
    shutil.rmtree(place)


@pytest.fixture
def agent(daemon: RunningDaemon, tmp_path: Path) -> Path:
    """Store and grant what the agent needs; return the directory of its lock."""
    operator = daemon.operator()
    operator.put("K", b"a value")
    operator.grant("K")
    with Backpack(str(daemon.socket)) as backpack:
        backpack.authorize(PASSPHRASE)
        lock = backpack.call(agent_calls.create_lock({}, {}, {"runs": 0}))
    place = tmp_path / "agent"
    place.mkdir(mode=0o700)
    lockfiles.create(str(place / "agent.lock"), lock.data)
    return place


def run(environment: Path, agent: Path, daemon: RunningDaemon, module: str = "") -> Any:
    home = agent / "home"
    home.mkdir()
    done = subprocess.run(
        [environment / "bin" / "python", AGENT, module],
        cwd=agent,
        env={
            **SILENT,
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "BACKPACK_SOCKET": str(daemon.socket),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["blocking"] == {
        "listed": ["K"],
        "value": "a value",
        "leases": 1,
        "events": ["live", "renewed", "ended"],
        "left": 0,
        "memory": {"runs": 1},
        "status": "full-package-needed",
    }
    assert told["asyncio"] == {"value": "a value", "event": "live", "leases": 1}
    return told


def test_an_agent_needs_nothing_but_the_package(
    environment: Path, agent: Path, daemon: RunningDaemon
) -> None:
    told = run(environment, agent, daemon)
    assert told["strangers"] == []
    (packages,) = environment.glob("lib/python*/site-packages")
    installed = {path.name.partition("-")[0] for path in packages.iterdir()}
    assert installed == {"backpack_client"}


def test_its_command_leases_and_ends_and_says_what_it_cannot_do(
    environment: Path, agent: Path, daemon: RunningDaemon
) -> None:
    def command(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [environment / "bin" / "backpack-client", *arguments],
            env={"PATH": os.environ["PATH"], "BACKPACK_SOCKET": str(daemon.socket)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    assert command("get", "K") == (0, "a value\n", "")
    for beyond in (["status"], ["put", "K"], ["get", "K", "--lock", "agent.lock"], []):
        code, out, err = command(*beyond)
        assert (code, out) == (1, "")
        assert "install backpackd" in err
        assert "Traceback" not in err
    assert command("lock")[:2] == (0, "")
    assert command("get", "K")[0] == 3


def test_keys_that_were_handed_over_are_read_in_it(
    environment: Path, agent: Path, daemon: RunningDaemon
) -> None:
    program = "from backpack_client import handed_keys; print(handed_keys())"
    python = str(environment / "bin" / "python")
    given = ["run", "--key", "K", "--inject", "fd", "--", python, "-c", program]
    done = subprocess.run(
        [sys.executable, "-m", "backpack_client", *given],
        cwd=environment,
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "{'K': b'a value'}\n"), done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS if THOROUGH else IN_CI)
def test_it_fits_beside_the_newest_of_an_agent_framework(
    framework: str, environment: Path, agent: Path, daemon: RunningDaemon
) -> None:
    if not (CI or THOROUGH):
        pytest.skip("it is fetched from the package registry: set BACKPACK_THOROUGH=1")
    pip("--python", str(environment), "install", framework)
    # What was there is there still, and everything fits.
    pip("--python", str(environment), "check")
    run(environment, agent, daemon, FRAMEWORKS[framework])
