"""Client and daemon in a user namespace that does not map who owns what is above their files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import RunningDaemon
from sandboxes import unshared

pytestmark = pytest.mark.usefixtures("cheap_vault")

OVERFLOW = int(Path("/proc/sys/kernel/overflowuid").read_text())
STRANGER = 12345


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Return a directory that belongs to a user whom a namespace of ours does not map.

    Root's, above what an ordinary user has, is one already. Root itself is mapped.
    """
    place = tmp_path / "theirs"
    place.mkdir(mode=0o755)
    if os.geteuid() == 0:
        os.chown(place, STRANGER, STRANGER)
    return place


@pytest.fixture
def serving(tmp_path: Path, theirs: Path) -> Iterator[RunningDaemon]:
    """Return a daemon with a key, on a socket below a directory of somebody else's."""
    running = RunningDaemon(tmp_path / "home", theirs / "run" / "s")
    (theirs / "run").mkdir(mode=0o700)
    running.start()
    operator = running.operator()
    operator.put("K", b"v")
    operator.grant("K")
    yield running
    running.close()


def get(daemon: RunningDaemon, *namespaces: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(unshared(*namespaces) if namespaces else ()),
            *(sys.executable, "-m", "backpack_client", "get", "K", "--wait", "0"),
        ],
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_the_namespace_does_not_map_above_the_socket_is_no_obstacle(
    serving: RunningDaemon,
) -> None:
    done = get(serving, "--user")
    assert (done.returncode, done.stdout) == (0, "v\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
@pytest.mark.parametrize("uid", [STRANGER, OVERFLOW])
def test_outside_of_a_namespace_the_same_owner_is_refused(
    serving: RunningDaemon, theirs: Path, uid: int
) -> None:
    os.chown(theirs, uid, uid)
    done = get(serving)
    assert done.returncode == 7
    assert f"(uid {uid}), not to you" in done.stderr
    assert "user namespace" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_what_others_can_write_is_refused_whoever_owns_it(
    serving: RunningDaemon, theirs: Path, mode: int
) -> None:
    theirs.chmod(mode)
    done = get(serving, "--user")
    assert done.returncode == 7
    assert "can be written by others" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_the_sockets_own_directory_has_to_be_mapped(serving: RunningDaemon) -> None:
    serving.socket.parent.chmod(0o755)
    os.chown(serving.socket.parent, STRANGER, STRANGER)
    done = get(serving, "--user")
    assert done.returncode == 7
    assert f"belongs to uid {OVERFLOW}, which in a user namespace stands for" in done.stderr


def test_a_daemon_in_the_namespace_takes_a_home_below_what_is_not_mapped(theirs: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from backpackd.adapters.home.home import open_home\n"
        "open_home(Path(sys.argv[1])).close()\n"
    )
    home = theirs / "home"
    home.mkdir(mode=0o700)
    command = [*unshared("--user"), sys.executable, "-c", code, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
