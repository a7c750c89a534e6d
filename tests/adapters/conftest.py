"""Fixtures that several tests of adapters share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from doors import Puppet, Setting


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
