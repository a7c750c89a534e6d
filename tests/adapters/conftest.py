"""Fixtures that several tests of adapters share."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from doors import Puppet, Setting
from real_processes import Start


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(str(tmp_path / "run" / "s"))
    yield made
    for door in made.doors:
        for connection in door.connections():
            connection.close()
        await door.close()
    for end in made.clients:
        end.close()


@pytest.fixture
def puppet(setting: Setting) -> Iterator[Puppet]:
    made = Puppet(setting.path)
    yield made
    made.process.communicate()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands that print a line when they are ready, and end them after the test."""
    running: list[subprocess.Popen[str]] = []

    def _start(*command: str | Path) -> int:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child.pid

    yield _start
    for child in running:
        child.kill()
        child.communicate()
