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
    "_cffi_backend*", "cffi", "click", "cryptography", "google", "grpc", "h2",
    "hpack", "hyperframe", "markdown_it", "mdurl", "platformdirs", "pygments", "rich",
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


class User:
    """An ordinary user with a daemon, a vault, a key and a passphrase in a file."""

    def __init__(self, place: Path, name: str) -> None:
        user = place / "user"
        self.passphrase = user / "passphrase"
        self.passphrase.write_bytes(PASSPHRASE)
        self.passphrase.chmod(0o600)
        os.chown(self.passphrase, _NOBODY, _NOBODY)
        self._python = place / "venv" / "bin" / "python"
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(user),
            "BACKPACK_HOME": str(user / f"home-{name}"),
            "BACKPACK_SOCKET": str(user / f"run-{name}" / "backpackd.sock"),
            "PASSPHRASE": PASSPHRASE.decode(),
        }

    def python(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [self._python, *arguments],
            input=stdin,
            capture_output=True,
            env=self._environ,
            cwd="/",
            user=_NOBODY,
            group=_NOBODY,
            extra_groups=[],
            timeout=100,
            check=False,
        )

    def client(self, *arguments: str, stdin: bytes = b"") -> None:
        done = self.python("-m", "backpack_client", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def user(place: Path) -> Iterator[User]:
    """Return a user whose daemon runs, with K in its vault."""
    made = User(place, "of-programs")
    told = ["--passphrase-file", str(made.passphrase)]
    made.client("init", *told)
    try:
        made.client("put", "K", "--value-file", "-", *told, stdin=b"v")
        yield made
    finally:
        made.client("stop")


# A client that nobody here wrote: plain gRPC, with or without prctl(PR_SET_DUMPABLE).
_FOREIGN = """
import ctypes, os, sys
import grpc
from backpack_proto.v1 import keys_pb2, keys_pb2_grpc, vault_pb2, vault_pb2_grpc

def dumpable(yes):
    assert ctypes.CDLL(None).prctl(4, yes, 0, 0, 0) == 0

def told(call):
    try:
        call()
    except grpc.RpcError as error:
        return dict(error.trailing_metadata())["backpack-reason"]
    return "done"

def do(step):
    if step == "close":
        dumpable(0)
    elif step == "open":
        dumpable(1)
    elif step == "status":
        vault.Status(vault_pb2.StatusRequest())
    elif step == "authorize":
        print(told(lambda: vault.Authorize(vault_pb2.AuthorizeRequest(passphrase=passphrase))))
    elif step == "unlock":
        print(told(lambda: vault.Unlock(vault_pb2.UnlockRequest(passphrase=passphrase))))
    else:
        delete = keys_pb2.DeleteKeysRequest(names=["NONE"])
        print(told(lambda: keys.DeleteKeys(delete)))

passphrase = os.environ["PASSPHRASE"].encode()
channel = grpc.insecure_channel(
    "unix:" + os.environ["BACKPACK_SOCKET"], options=[("grpc.default_authority", "localhost")]
)
vault, keys = vault_pb2_grpc.VaultStub(channel), keys_pb2_grpc.KeysStub(channel)
for step in sys.argv[1:]:
    do(step)
"""


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("authorize delete", "not-protected not-authorized"),
        ("unlock", "not-protected"),
        # The connection was made, and could have been taken, before.
        ("status close authorize delete", "not-protected not-authorized"),
        ("close authorize delete", "done no-such-key"),
        ("close authorize open delete", "done not-protected"),
        ("close authorize open delete close delete", "done not-protected not-protected"),
        ("close authorize open delete close authorize", "done not-protected not-protected"),
    ],
)
def test_a_client_in_any_language_has_authority_only_while_others_are_kept_out(
    user: User, steps: str, told: str
) -> None:
    done = user.python("-c", _FOREIGN, *steps.split())
    assert (done.stdout.decode().split(), done.returncode) == (told.split(), 0), done.stderr


# A tracer that has attached while the client was open: it may have it do whatever it likes.
_TRACES = """
import ctypes, os, subprocess, sys
client = subprocess.Popen(
    [sys.executable, "-c", "input(); exec(__import__('sys').argv.pop(1))", *sys.argv[1:]],
    stdin=subprocess.PIPE, text=True,
)
assert ctypes.CDLL(None).ptrace(0x4206, client.pid, 0, 0) == 0
client.communicate("go\\n")
sys.exit(client.returncode)
"""


def test_a_client_that_is_traced_has_no_authority_however_closed_it_is(user: User) -> None:
    done = user.python("-c", _TRACES, _FOREIGN, "close", "authorize", "delete")
    told = done.stdout.decode().split()
    assert (told, done.returncode) == (["not-protected", "not-authorized"], 0), done.stderr


# Looks at the other end of a pipe for a process, and takes every descriptor of it that it gets.
_TAKES = """
import ctypes, os, sys
pidfd = os.pidfd_open(int(sys.argv[1]))
taken = [fd for fd in range(3, 64) if ctypes.CDLL(None).syscall(438, pidfd, fd, 0) >= 0]
print(len(taken))
"""
_AUTHORIZES = """
import asyncio, os, subprocess, sys
from backpack_client import AsyncBackpack, Backpack

def taken():
    found = subprocess.run(
        [sys.executable, "-c", sys.argv[1], str(os.getpid())], capture_output=True, check=True
    )
    return int(found.stdout)

async def asynchronously():
    async with AsyncBackpack() as backpack:
        await backpack.status()
        before = taken()
        await backpack.authorize(os.environ["PASSPHRASE"])
        print(before > 0, taken(), [key.name for key in await backpack.list(all=True)])

def blocking():
    with Backpack() as backpack:
        backpack.status()
        before = taken()
        backpack.authorize(os.environ["PASSPHRASE"])
        print(before > 0, taken(), [key.name for key in backpack.list(all=True)])

blocking() if sys.argv[2] == "blocking" else asyncio.run(asynchronously())
"""


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_no_other_process_takes_the_connection_that_the_python_api_has_authorized(
    user: User, kind: str
) -> None:
    done = user.python("-c", _AUTHORIZES, _TAKES, kind)
    assert done.stdout.decode().split() == ["True", "0", "['K']"], done.stderr


# An agent that has asked becomes something else while its question stands on the screen. The one
# who answers has seen it before.
_AGENT = """
import ctypes, os, shutil, subprocess, sys
client = [sys.executable, "-m", "backpack_client", "get", "K", "--wait", "60s"]
if "AGAIN" not in os.environ:
    subprocess.Popen(client, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    sys.stdin.readline()
waits = "echo ready; read line"
if sys.argv[1] == "in memory":
    fd = os.memfd_create("sh")
    with open("/bin/sh", "rb") as source, os.fdopen(fd, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    os.execv(f"/proc/self/fd/{fd}", ["sh", "-c", waits])
elif sys.argv[1] == "unlinked":
    path = os.path.expanduser(f"~/unlinked-{os.getpid()}")
    shutil.copy("/bin/sh", path)
    os.execv(path, ["sh", "-c", f"rm {path}; " + waits])
elif sys.argv[1] == "another script":
    other = "print('ready', flush=True); input()"
    os.execv(sys.executable, [sys.executable, "-c", other])
elif sys.argv[1] == "the same command line":
    if "AGAIN" not in os.environ:
        os.environ["AGAIN"] = "yes"
        os.execv(sys.executable, sys.orig_argv)
elif sys.argv[1] == "hidden":
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
print("ready", flush=True)
input()
"""
_ANSWERS = """
import os, subprocess, sys
from backpack_client import Backpack
from backpack_client.failures import Failure

agent = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1], sys.argv[2]], stdin=-1, stdout=-1, text=True
)
def own(requests):
    # Another test of the same user may have left a question.
    return [one for one in requests if any(each.pid == agent.pid for each in one.chain)]

with Backpack() as backpack:
    backpack.authorize(os.environ["PASSPHRASE"])
    while not (shown := own(backpack.requests(all=True))):
        pass
    agent.stdin.write("go\\n")
    agent.stdin.flush()
    assert agent.stdout.readline() == "ready\\n"
    try:
        backpack.approve(shown[0].code, revision=shown[0].revision)
    except Failure as failure:
        print(failure.reason)
    else:
        print("approved")
    (root,) = [each for each in own(backpack.requests(all=True))[0].chain if each.pid == agent.pid]
    print(root.now or "named")
    backpack.deny(shown[0].code)
agent.kill()
"""


@pytest.mark.parametrize(
    ("becomes", "now"),
    [
        ("in memory", "unnamed"),
        ("unlinked", "unnamed"),
        ("hidden", "hidden"),
        ("another script", "named"),
        ("the same command line", "named"),
    ],
)
def test_what_became_something_else_since_it_was_shown_is_not_approved(
    user: User, becomes: str, now: str
) -> None:
    done = user.python("-c", _ANSWERS, _AGENT, becomes)
    assert done.stdout.decode().split() == ["request-changed", now], done.stderr


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
