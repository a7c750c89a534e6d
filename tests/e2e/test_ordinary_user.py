"""The whole path as an ordinary user: root may do what users may not, and hides what they hit."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import PASSPHRASE

_NOBODY = 65534
_PROJECT = Path(__file__).resolve().parents[2]
# What the daemon and the client import, apart from the project itself; a copy, since the directory
# that holds the tests' environment need not be open to other users.
_NEEDED = (
    "_cffi_backend*", "cffi", "click", "cryptography", "google", "grpc", "grpc_health",
    "grpc_reflection", "markdown_it", "mdurl", "platformdirs", "pygments", "rich",
    "typing_extensions.py",
)  # fmt: skip


def _interpreter() -> str | None:
    """Find a Python of the tests' version that other users can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.access(candidate, os.X_OK):
            return candidate
    return None


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Make a directory of the user's own with an environment in it."""
    interpreter = _interpreter()
    if os.geteuid() != 0 or interpreter is None:
        pytest.skip("needs root, and a Python for all users (Debian: python3-venv)")
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        subprocess.run([interpreter, "-m", "venv", "--without-pip", place / "venv"], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        target = place / "venv" / "lib" / version / "site-packages"
        source = Path(sysconfig.get_path("purelib"))
        for pattern in _NEEDED:
            for found in source.glob(pattern):
                if found.is_dir():
                    shutil.copytree(found, target / found.name)
                else:
                    shutil.copy(found, target)
        for package in ("backpackd", "client/backpack_client", "proto/backpack_proto"):
            shutil.copytree(_PROJECT / package, target / Path(package).name)
        (place / "user").mkdir(mode=0o700)
        os.chown(place / "user", _NOBODY, _NOBODY)
        yield place
    finally:
        shutil.rmtree(place)


def _as_user(
    place: Path, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    user = place / "user"
    return subprocess.run(
        [place / "venv" / "bin" / "python", "-m", "backpack_client", *arguments],
        input=stdin,
        capture_output=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(user),
            "BACKPACK_HOME": str(user / "home"),
            "BACKPACK_SOCKET": str(user / "run" / "backpackd.sock"),
        },
        cwd="/",
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
        timeout=60,
        check=False,
    )


def test_an_ordinary_user_gets_from_nothing_to_a_leased_key(place: Path) -> None:
    passphrase = place / "user" / "passphrase"
    passphrase.write_bytes(PASSPHRASE)
    passphrase.chmod(0o600)
    os.chown(passphrase, _NOBODY, _NOBODY)
    told = ["--passphrase-file", str(passphrase)]
    try:
        done = _as_user(place, "init", *told)
        assert done.returncode == 0, done.stderr
        done = _as_user(place, "put", "K", "--value-file", "-", *told, stdin=b"v")
        assert done.returncode == 0, done.stderr
        done = _as_user(place, "get", "K", "--wait", "0")
        assert done.returncode == 6, done.stderr
        done = _as_user(place, "grant", "K", "--to", f"uid:{_NOBODY}", *told)
        assert done.returncode == 0, done.stderr
        done = _as_user(place, "get", "K")
        assert (done.returncode, done.stdout) == (0, b"v\n"), done.stderr
        status = _as_user(place, "status", "--json")
        assert b'"on": false' not in status.stdout, status.stdout
    finally:
        stopped = _as_user(place, "stop")
    assert stopped.returncode == 0, stopped.stderr


# The client's last step cannot be looked into, and neither can what it runs be read: the daemon has
# to know the agent all the same.
_ASKS = """
import subprocess, sys
run = subprocess.Popen(
    [*sys.argv[1:], "run", "--key", "K", "--", "sh", "-c", 'echo "$K"; kill -STOP $$'],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
)
while "approve" not in (line := run.stderr.readline()):
    assert line
code = line.split()[-1]
told = ["--passphrase-file", "-"]
shown = subprocess.run(
    [*sys.argv[1:], "approve", code, "--yes", *told],
    input=sys.stdin.read(), capture_output=True, text=True, check=True,
)
assert f"{run.pid} (root) /" in shown.stderr, shown.stderr
assert run.stdout.readline() == "v\\n"
listed = subprocess.run([*sys.argv[1:], "revoke", "--key", "K"], check=True)
run.send_signal(18)
assert run.wait() == -15, run.returncode
"""


def test_an_ordinary_user_runs_an_agent_and_ends_it(place: Path) -> None:
    passphrase = place / "user" / "passphrase"
    passphrase.write_bytes(PASSPHRASE)
    passphrase.chmod(0o600)
    os.chown(passphrase, _NOBODY, _NOBODY)
    told = ["--passphrase-file", str(passphrase)]
    user = place / "user"
    python = place / "venv" / "bin" / "python"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(user),
        "BACKPACK_HOME": str(user / "home-of-agents"),
        "BACKPACK_SOCKET": str(user / "run-of-agents" / "backpackd.sock"),
    }

    def client(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [python, *arguments],
            input=stdin,
            capture_output=True,
            env=environ,
            cwd="/",
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            timeout=100,
            check=False,
        )

    try:
        assert client("-m", "backpack_client", "init", *told).returncode == 0
        put = client("-m", "backpack_client", "put", "K", "--value-file", "-", *told, stdin=b"v")
        assert put.returncode == 0, put.stderr
        asked = client("-c", _ASKS, str(python), "-m", "backpack_client", stdin=PASSPHRASE)
        assert asked.returncode == 0, asked.stderr
    finally:
        stopped = client("-m", "backpack_client", "stop")
    assert stopped.returncode == 0, stopped.stderr


_GRABBER = """
import os, subprocess, sys
daemon = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE)
held = []
os.set_blocking(daemon.stderr.fileno(), False)
while b"listening" not in (daemon.stderr.read() or b""):
    try:
        maps = open(f"/proc/{daemon.pid}/maps", "rb", buffering=0)
        held.append((maps, os.open(f"/proc/{daemon.pid}/mem", os.O_RDONLY)))
    except OSError:
        pass
    if len(held) > 300:
        for file, memory in held[:200]:
            file.close()
            os.close(memory)
        del held[:200]
read = 0
for maps, memory in held:
    for line in maps.read(65536).splitlines():
        if line.endswith(b"[heap]"):
            start = int(line.split(b"-")[0], 16)
            read += len(os.pread(memory, 64, start))
daemon.terminate()
daemon.wait()
print(len(held), read)
"""


def test_memory_opened_while_the_daemon_starts_gives_nothing(place: Path) -> None:
    user = place / "user"
    command: list[str | Path] = [
        place / "venv" / "bin" / "python", "-c", _GRABBER,
        place / "venv" / "bin" / "python", "-m", "backpackd",
        "--home", user / "grabbed", "--socket", user / "grabbed-run" / "s",
    ]  # fmt: skip
    # On a busy machine it may not have its turn before the process executes itself anew.
    for _ in range(20):
        done = subprocess.run(
            command,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(user)},
            cwd="/",
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            timeout=60,
            check=True,
        )
        held, read = map(int, done.stdout.split())
        assert read == 0
        if held:
            break
    assert held > 0, "it opened nothing, not even of the process before the re-exec"
