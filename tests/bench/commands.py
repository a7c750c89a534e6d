"""`backpack-client get` as a whole process, beside the commands that people use instead."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.timing import in_turn, milliseconds, ratio
from daemons import RunningDaemon

_RUNS = 60
Line = tuple[str, str, str]


def measure(place: Path) -> list[Line]:
    """Measure the command against `secret-tool lookup` and `pass show`, where they are."""
    lines: list[Line] = []
    with ExitStack() as stack:
        ours = stack.enter_context(_backpack(place))
        for name, start, target in (
            ("secret-tool lookup", _secret_tool, "<= 1.6 x"),
            ("pass show", _pass, "<= 0.7 x"),
        ):
            theirs = stack.enter_context(start(place))
            if theirs is None:
                lines.append((f"backpack-client get / {name}", "not here", target))
                continue
            times = in_turn(ours, theirs, _RUNS)
            lines.append((f"backpack-client get / {name}", ratio(*times), target))
            lines.append(
                ("  as a whole process, each", milliseconds(times[0]), milliseconds(times[1]))
            )
    return lines


@contextmanager
def _backpack(place: Path) -> Iterator[Callable[[], object]]:
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock")
    daemon.start()
    try:
        operator = daemon.operator()
        operator.put("K", b"v")
        operator.grant("K")
        environ = {**os.environ, "BACKPACK_SOCKET": str(daemon.socket)}
        yield _command([str(Path(sys.executable).parent / "backpack-client"), "get", "K"], environ)
    finally:
        daemon.close()


@contextmanager
def _secret_tool(place: Path) -> Iterator[Callable[[], object] | None]:
    """Run a keyring of its own on a session bus of its own."""
    needed = ("dbus-daemon", "gnome-keyring-daemon", "secret-tool")
    if not all(shutil.which(program) for program in needed):
        yield None
        return
    home = place / "keyring"
    home.mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )
    assert bus.stdout is not None
    environ["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
    keyring = subprocess.Popen(
        ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environ,
    )
    try:
        assert keyring.stdin is not None
        keyring.stdin.write(b"pw")
        keyring.stdin.close()
        store = ["secret-tool", "store", "--label=bench", "bench", "k"]
        subprocess.run(store, input=b"v", env=environ, check=True)
        yield _command(["secret-tool", "lookup", "bench", "k"], environ)
    finally:
        keyring.terminate()
        keyring.wait()
        bus.terminate()
        bus.wait()
        bus.stdout.close()


@contextmanager
def _pass(place: Path) -> Iterator[Callable[[], object] | None]:
    if not shutil.which("pass") or not shutil.which("gpg"):
        yield None
        return
    home = place / "pass"
    home.mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GNUPGHOME": str(home)}
    make = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "bench@localhost"]
    subprocess.run(make, env=environ, check=True, capture_output=True)
    subprocess.run(
        ["pass", "init", "bench@localhost"], env=environ, check=True, capture_output=True
    )
    insert = ["pass", "insert", "--multiline", "k"]
    subprocess.run(insert, input=b"v", env=environ, check=True, capture_output=True)
    try:
        yield _command(["pass", "show", "k"], environ)
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=False)


def _command(arguments: list[str], environ: dict[str, str]) -> Callable[[], object]:
    def run() -> None:
        done = subprocess.run(arguments, env=environ, capture_output=True, check=True)
        assert done.stdout.strip() == b"v"

    return run
