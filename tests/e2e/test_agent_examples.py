"""The example agents that the README shows do what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import runner
from daemons import RunningDaemon
from two_vaults import Vault

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VALUE = b"value-of-the-demo-key"


@pytest.fixture
def ann(
    tmp_path: Path,
    daemon: RunningDaemon,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Vault:
    vault = Vault(daemon, runner(tmp_path, monkeypatch, capfd))
    project = tmp_path / "project"
    shutil.copytree(ROOT / "docs" / "examples", project / "docs" / "examples")
    monkeypatch.chdir(project)
    operator = daemon.operator()
    operator.put("DEMO_API_KEY", VALUE)
    operator.grant("DEMO_API_KEY")
    return vault


def from_readme(start: str) -> list[str]:
    """Return the command line of the README that begins like this, without its program."""
    (line,) = re.findall(rf"^\$ backpack-client ({re.escape(start)}.*)$", README, re.MULTILINE)
    return shlex.split(line, comments=True)


def ran(ann: Vault, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the client as a process of its own, which `run` becomes the agent of."""
    command = [sys.executable if word == "python3" else word for word in arguments]
    return subprocess.run(
        [sys.executable, "-m", "backpack_client", *command],
        env={**os.environ, "BACKPACK_SOCKET": str(ann.daemon.socket)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_the_example_agents_run_as_the_readme_says(ann: Vault) -> None:
    ann.ok(*from_readme("agent init"), "PASS")
    ann.ok(*from_readme("agent show"))
    greeted = ran(ann, from_readme("run -- sh"))
    assert greeted.returncode == 0, greeted.stderr
    assert "I was told: Greet whoever asks." in greeted.stdout
    for number in (1, 2):
        remembered = ran(ann, from_readme("run -- python3"))
        assert remembered.returncode == 0, remembered.stderr
        assert "my tone is friendly" in remembered.stdout
        assert f"this was run {number}" in remembered.stdout
        assert VALUE.decode() not in greeted.stdout + remembered.stdout + remembered.stderr
    memory = json.loads(ann.ok(*from_readme("agent memory get")).out)
    assert memory == {"runs": 2, "tasks": ["water the plants"] * 2}
    ann.ok(*from_readme("agent set"), "PASS")
    assert ann.shown()["personality"] == {"system_prompt": "Greet whoever asks.", "tone": "dry"}


def test_the_example_agents_say_how_they_are_started(ann: Vault) -> None:
    for command in (["sh", "docs/examples/agents/greet.sh"], [
        sys.executable, "docs/examples/agents/remember.py"
    ]):  # fmt: skip
        alone = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert alone.returncode == 2
        assert "backpack-client run" in alone.stderr
