"""Where the daemon's files are and what it is told to do: command line and environment."""

import argparse
import os
import pwd
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backpackd import __version__
from backpackd.adapters.home.files import UNWRITABLE, UnsafeFileError, open_file
from backpackd.core.errors import HomeError

CONFIG_NAME = "backpackd.toml"
"""The configuration file in the home, read if no other file is named."""

_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_MOST_RECORDED = 4096
# _CS_DARWIN_USER_TEMP_DIR of confstr(3) on macOS: a private directory of the user.
_DARWIN_USER_TEMP_DIR = 65537


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings from the command line and the environment.

    Attributes:
        home: directory of the vault.
        socket: path of the daemon's socket, used if none is passed to the daemon.
        config: the configuration file.
        config_named: whether the command line names the file, so that it must exist.
        check: what to check: `config` for the configuration file, `all` for the vault as well;
            empty: nothing, run the daemon.
        passphrase_file: where the check finds a passphrase; empty: none, or ask for it.
        salvage: a new file for what the check can still read; empty: none.
        grace: seconds that calls in progress get when the daemon stops.
    """

    home: Path
    socket: str
    config: Path
    config_named: bool = False
    check: str = ""
    passphrase_file: str = ""
    salvage: str = ""
    grace: float = 10.0


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the command line and the environment.

    If the command line asks for help or the version, or is wrong, this prints and exits.

    Args:
        arguments: without the program's name.
        environ: BACKPACK_HOME, BACKPACK_SOCKET, BACKPACK_PROFILE, and what the platform's user
            directories depend on. An empty variable counts as unset.

    Raises:
        HomeError: BACKPACK_PROFILE is not a valid name, or a path is relative.
    """
    parser = argparse.ArgumentParser(
        prog="backpackd",
        description="Hands short-lived leases of stored keys to the processes of one user. Runs in "
        "the foreground and logs to standard error; backpack-client start runs it in the "
        "background.",
    )
    parser.add_argument("--home", metavar="DIR", help="vault and lock (default: BACKPACK_HOME)")
    parser.add_argument("--socket", metavar="PATH", help="where to listen (BACKPACK_SOCKET)")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"tightens the policy; read again on SIGHUP (default: {CONFIG_NAME} in the home)",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        const="all",
        default="",
        choices=("config", "all"),
        help="check the configuration file and, unless it says config, every record of the vault; "
        "change nothing",
    )
    parser.add_argument(
        "--passphrase-file", metavar="FILE", default="", help="with --check: open the records, too"
    )
    parser.add_argument(
        "--salvage",
        metavar="FILE",
        default="",
        help="with --check: seal the keys that can be read into the new FILE, for import-vault",
    )
    parser.add_argument("--version", action="version", version=f"backpackd {__version__}")
    given = parser.parse_args(arguments)
    if (given.passphrase_file or given.salvage) and given.check != "all":
        parser.error("--passphrase-file and --salvage need --check")
    home = Path(given.home or home_path(environ)).absolute()
    return Settings(
        home=home,
        config=Path(given.config).absolute() if given.config else home / CONFIG_NAME,
        config_named=bool(given.config),
        check=given.check,
        passphrase_file=given.passphrase_file,
        salvage=given.salvage,
        socket=str(Path(given.socket or socket_path(environ)).absolute()),
    )


def home_path(environ: Mapping[str, str]) -> str:
    """Return where the vault is.

    BACKPACK_HOME, the choice that `init` recorded, or the platform's directory for user data. The
    client has its own copy of this rule.
    """
    name = _profiled(environ)
    if given := environ.get("BACKPACK_HOME"):
        return _absolute("BACKPACK_HOME", given)
    if sys.platform == "darwin":
        return f"{_user_home(environ)}/Library/Application Support/{name}"
    user = _user_home(environ)
    if recorded := _recorded_home(f"{user}/.config/backpack/{name}.home"):
        return recorded
    usual = f"{user}/.local/share/{name}"
    data = environ.get("XDG_DATA_HOME", "")
    # The variable differs between terminals of one user. It does not hide a vault that is there.
    if data.startswith("/") and not Path(usual, "vault.db").exists():
        return f"{data.rstrip('/')}/{name}"
    return usual


def _recorded_home(path: str) -> str:
    """Read the choice that `init` recorded; empty where there is none that can be trusted."""
    try:
        descriptor = open_file(Path(path), refused=UNWRITABLE)
    except (OSError, UnsafeFileError):
        return ""
    with os.fdopen(descriptor, "rb") as file:
        found = os.fsdecode(file.read(_MOST_RECORDED).removesuffix(b"\n"))
    return found if found.startswith("/") and "\n" not in found else ""


def socket_path(environ: Mapping[str, str]) -> str:
    """Return where to listen: BACKPACK_SOCKET, or a path in the platform's runtime directory.

    The client has its own copy of this rule, because neither side may import the other. A test
    compares the two.
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
    # Without the variable (cron, su, a program that passes few variables) it is there all the same.
    usual = f"/run/user/{os.getuid()}"
    with suppress(OSError):
        if Path(usual).stat().st_uid == os.getuid():
            return f"{usual}/{name}/backpackd.sock"
    return f"{_user_home(environ)}/.{name}/run/backpackd.sock"


def _profiled(environ: Mapping[str, str]) -> str:
    profile = environ.get("BACKPACK_PROFILE", "")
    if not profile:
        return "backpack"
    if not _PROFILE.fullmatch(profile):
        raise HomeError("BACKPACK_PROFILE is not a name: use 1 to 32 letters, digits, '_' or '-'")
    return f"backpack-{profile}"


def _absolute(name: str, path: str) -> str:
    # A relative path would be ambiguous: daemon and client may have different working directories.
    if not path.startswith("/"):
        raise HomeError(f"{name} is not an absolute path: begin it with /")
    return path


def _user_home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return (home if home.startswith("/") else pwd.getpwuid(os.geteuid()).pw_dir).rstrip("/")
