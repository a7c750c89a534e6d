"""Where the daemon keeps its things, and its settings: command line, environment, defaults."""

import argparse
import os
import pwd
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backpackd import __version__
from backpackd.core.errors import HomeError

_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
# _CS_DARWIN_USER_TEMP_DIR of confstr(3) on macOS: a directory private to the user.
_DARWIN_USER_TEMP_DIR = 65537


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon was told.

    Attributes:
        home: directory of the vault.
        socket: path of the daemon's socket, where none is passed to it.
        idle: seconds without use, and without a live lease, after which the vault locks.
        longest: seconds after unlocking at which it locks, used or not.
        grace: seconds that requests under way get when the daemon stops.
    """

    home: Path
    socket: str
    idle: float = 4 * 3600.0
    longest: float = 24 * 3600.0
    grace: float = 10.0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the command line and the environment.

    Prints help, version or a usage error and exits where that is asked for.

    Args:
        arguments: without the program's name.
        environ: BACKPACK_HOME, BACKPACK_SOCKET, BACKPACK_PROFILE, and what the platform's user
            directories depend on. An empty variable counts as unset.

    Raises:
        HomeError: BACKPACK_PROFILE is not the name of a profile, or a path is relative.
    """
    parser = argparse.ArgumentParser(
        prog="backpackd",
        description="Hands short-lived leases of stored keys to the processes of one user. Runs in "
        "the foreground and logs to standard error; backpack-client start runs it in the "
        "background.",
    )
    parser.add_argument("--home", metavar="DIR", help="vault and lock (default: BACKPACK_HOME)")
    parser.add_argument("--socket", metavar="PATH", help="where to listen (BACKPACK_SOCKET)")
    parser.add_argument("--version", action="version", version=f"backpackd {__version__}")
    given = parser.parse_args(arguments)
    return Settings(
        home=Path(given.home or home_path(environ)).absolute(),
        socket=str(Path(given.socket or socket_path(environ)).absolute()),
    )


def home_path(environ: Mapping[str, str]) -> str:
    """Say where the vault is: BACKPACK_HOME, else the platform's directory for user data."""
    name = _profiled(environ)
    if given := environ.get("BACKPACK_HOME"):
        return _absolute("BACKPACK_HOME", given)
    if sys.platform == "darwin":
        return f"{_user_home(environ)}/Library/Application Support/{name}"
    data = environ.get("XDG_DATA_HOME", "")
    if data.startswith("/"):
        return f"{data.rstrip('/')}/{name}"
    return f"{_user_home(environ)}/.local/share/{name}"


def socket_path(environ: Mapping[str, str]) -> str:
    """Say where to listen: BACKPACK_SOCKET, else in the platform's runtime directory.

    The client keeps its own copy of this rule, since neither side may import the other; a test
    holds the two against each other.
    """
    name = _profiled(environ)
    if given := environ.get("BACKPACK_SOCKET"):
        return _absolute("BACKPACK_SOCKET", given)
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime.rstrip('/')}/{name}/backpackd.sock"
    if sys.platform == "darwin":
        temporary = os.confstr(_DARWIN_USER_TEMP_DIR) or _user_home(environ)
        return f"{temporary.rstrip('/')}/{name}/backpackd.sock"
    return f"{_user_home(environ)}/.{name}/run/backpackd.sock"


def _profiled(environ: Mapping[str, str]) -> str:
    profile = environ.get("BACKPACK_PROFILE", "")
    if not profile:
        return "backpack"
    if not _PROFILE.fullmatch(profile):
        raise HomeError("BACKPACK_PROFILE is not a name: use 1 to 32 letters, digits, '_' or '-'")
    return f"backpack-{profile}"


def _absolute(name: str, path: str) -> str:
    # Relative to what? Daemon and client need not have the same working directory.
    if not path.startswith("/"):
        raise HomeError(f"{name} is not an absolute path: begin it with /")
    return path


def _user_home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return (home if home.startswith("/") else pwd.getpwuid(os.geteuid()).pw_dir).rstrip("/")
