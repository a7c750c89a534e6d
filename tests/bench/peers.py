"""The programs that people keep keys in today, each with a store of its own that ends with it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECRET_SERVICE = ("dbus-daemon", "gnome-keyring-daemon", "secret-tool")
_PASS = ("pass", "gpg")


@contextmanager
def secret_service(place: Path) -> Iterator[dict[str, str] | None]:
    """Run a login keyring on a session bus of its own.

    Yields:
        The environment in which programs find it. It holds `v` for the attribute `bench` = `k`,
        and for the service `bench` and the user name `k`. None: it is not installed.
    """
    if not all(map(shutil.which, _SECRET_SERVICE)):
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
        for attributes in (["bench", "k"], ["service", "bench", "username", "k"]):
            store = ["secret-tool", "store", "--label=bench", *attributes]
            for _ in range(100):
                # It is on the bus before it has made the collection.
                done = subprocess.run(
                    store, input=b"v", env=environ, capture_output=True, check=False
                )
                if done.returncode == 0:
                    break
                time.sleep(0.1)
            done.check_returncode()
        yield environ
    finally:
        keyring.terminate()
        keyring.wait()
        bus.terminate()
        bus.wait()
        bus.stdout.close()


@contextmanager
def password_store(place: Path) -> Iterator[dict[str, str] | None]:
    """Make a store of `pass`, with `v` under the name `k`.

    Yields:
        The environment in which `pass` finds it. None: it is not installed.
    """
    if not all(map(shutil.which, _PASS)):
        yield None
        return
    home = place / "pass"
    home.mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GNUPGHOME": str(home)}
    make = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "bench@localhost"]
    init = ["pass", "init", "bench@localhost"]
    for command in (make, init):
        subprocess.run(command, env=environ, check=True, capture_output=True)
    insert = ["pass", "insert", "--multiline", "k"]
    subprocess.run(insert, input=b"v", env=environ, check=True, capture_output=True)
    try:
        yield environ
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environ, check=False)
