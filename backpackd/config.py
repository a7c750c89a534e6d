"""The daemon's settings: command line, environment, and the configuration file.

The user's processes can write all of these. So nothing here widens what is granted: the file's
policy tightens the sealed one (`core.access.policy.Policy.tightened`), and its times can only make
the vault lock sooner.
"""

import argparse
import codecs
import logging
import os
import pwd
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backpackd import __version__
from backpackd.adapters.home.files import UNWRITABLE, UnsafeFileError, open_file
from backpackd.core.access import policy
from backpackd.core.access.grants import LONGEST_TTL
from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.errors import HomeError, InvalidRequestError
from backpackd.core.render import render

CONFIG_NAME = "backpackd.toml"
"""The configuration file in the home, read if no other file is named."""
MAX_CONFIG = 64 * 1024
"""The longest configuration file, in bytes."""
MAX_LINE = 1024
"""The longest line of it, in bytes. The parser's time grows with the square of the dots in a key:
one line of 64 KiB would block the daemon for a quarter of a minute."""
IDLE = 4 * 3600
"""Seconds without use, and without a live lease, after which the vault locks."""
LONGEST = 24 * 3600
"""Seconds after unlocking at which the vault locks, used or not."""

_PROFILE = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
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


_WIDEST = Policy(policy.DEFAULTS[0], policy.LISTINGS[0], (), LONGEST_TTL)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a configuration file adds to the sealed policy and the usual times; by default nothing.

    Attributes:
        policy: tightens the sealed policy.
        idle: seconds, at most `IDLE`.
        longest: seconds, at most `LONGEST`.
        unlock_file: a file with the key of a file slot, read once when the daemon starts. It widens
            nothing, because the operator made the slot that it opens.
        unlock_credential: the same, by its name among the service manager's credentials.
    """

    policy: Policy = _WIDEST
    idle: int = IDLE
    longest: int = LONGEST
    unlock_file: str = ""
    unlock_credential: str = ""

    def describe(self) -> list[str]:
        """Return for people what it tightens: one line for each setting, no line for nothing."""
        nothing = Configuration()
        lines = []
        for name in ("default", "listing"):
            word = getattr(self.policy, name)
            if word != getattr(nothing.policy, name):
                lines.append(f"policy.{name}: {word}, or tighter")
        if self.policy.max_ttl != nothing.policy.max_ttl:
            lines.append(f"policy.max_ttl: {self.policy.max_ttl} s at most")
        for rule in self.policy.deny:
            whom = rule.selector.text if rule.selector else "everybody"
            lines.append(f"policy.deny: {', '.join(rule.patterns)} to {whom}")
        if self.idle != nothing.idle:
            lines.append(f"lock.idle: {self.idle} s")
        if self.longest != nothing.longest:
            lines.append(f"lock.longest: {self.longest} s")
        return lines


class ConfigError(Exception):
    """The configuration file cannot be used. The text says where, and what to write instead."""


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


def read_configuration(settings: Settings) -> Configuration | None:
    """Read the configuration file.

    Returns:
        None if there is none and none was named.

    Raises:
        ConfigError: it cannot be read, cannot be trusted, or is not valid. The message begins with
            its path and, for its contents, the line.
    """
    where = render(str(settings.config), limit=256)
    try:
        data = _read(settings.config)
        if data.startswith(codecs.BOM_UTF8):
            _LOG.warning("%s begins with a byte-order mark, which is left out", where)
        return parse_configuration(data)
    except FileNotFoundError:
        if settings.config_named:
            raise ConfigError(f"{where}: there is no such file") from None
        return None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror})") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def parse_configuration(data: bytes) -> Configuration:
    """Parse the contents of a configuration file.

    Args:
        data: the file.

    Raises:
        ConfigError: not TOML, or a setting is unknown, of the wrong type or out of bounds. The
            message repeats nothing of the file except the name of a setting.
    """
    if len(data) > MAX_CONFIG:
        raise ConfigError(f"longer than {MAX_CONFIG // 1024} KiB: shorten it")
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > MAX_LINE:
            raise ConfigError(f"line {number} is longer than {MAX_LINE} bytes: break it")
    text, found = _decode(data)
    try:
        return _configuration(found)
    except _SettingError as error:
        place = _line_of(text, error.path)
        raise ConfigError(f"line {place}: {error}" if place else str(error)) from None


_Path = tuple[str | int, ...]
"""Where in the file: names of tables and settings, and the number of a table in an array."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)
_CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LOG = logging.getLogger("backpackd")
_MOST_RECORDED = 4096
_AT_LINE = re.compile(r"at line ([0-9]+)")


class _SettingError(Exception):
    """Something is wrong with the setting at `path`."""

    def __init__(self, path: _Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def _read(path: Path) -> bytes:
    try:
        descriptor = open_file(path, refused=UNWRITABLE)
    except UnsafeFileError as error:
        raise ConfigError(error.problem) from None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_CONFIG + 1)


def _decode(data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: not UTF-8: save the file as UTF-8") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The parser's own message may repeat the line's contents.
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        raise ConfigError(f"line {line}: not TOML") from None
    except (ValueError, RecursionError):
        # A number with thousands of digits, or arrays nested thousands deep: no line is known.
        raise ConfigError("a number is too long, or the nesting is too deep") from None


def _configuration(found: dict[str, Any]) -> Configuration:
    _known(found, ("policy", "lock", "unlock"), ())
    made = Configuration()
    rules = _table(found, "policy")
    _known(rules, ("default", "listing", "max_ttl", "deny"), ("policy",))
    laid = made.policy
    if "default" in rules:
        laid = replace(laid, default=_word(rules, "default", policy.DEFAULTS))
    if "listing" in rules:
        laid = replace(laid, listing=_word(rules, "listing", policy.LISTINGS))
    if "max_ttl" in rules:
        laid = replace(laid, max_ttl=_seconds(rules, ("policy", "max_ttl"), LONGEST_TTL))
    laid = replace(laid, deny=_deny(rules.get("deny", [])))
    times = _table(found, "lock")
    _known(times, ("idle", "longest"), ("lock",))
    if "idle" in times:
        made = replace(made, idle=_seconds(times, ("lock", "idle"), IDLE))
    if "longest" in times:
        made = replace(made, longest=_seconds(times, ("lock", "longest"), LONGEST))
    return _unlocking(_table(found, "unlock"), replace(made, policy=laid))


def _unlocking(found: dict[str, Any], made: Configuration) -> Configuration:
    _known(found, ("file", "credential"), ("unlock",))
    if len(found) > 1:
        raise _SettingError(("unlock", "credential"), "'unlock' takes one of file and credential")
    for name, value in found.items():
        if not isinstance(value, str) or not (
            value.startswith("/") if name == "file" else _CREDENTIAL.fullmatch(value)
        ):
            what = "an absolute path" if name == "file" else "the name of a credential"
            raise _SettingError(("unlock", name), f"'{name}' is not {what}")
    return replace(
        made, unlock_file=found.get("file", ""), unlock_credential=found.get("credential", "")
    )


def _deny(rules: object) -> tuple[DenyRule, ...]:
    path: _Path = ("policy", "deny")
    if not isinstance(rules, list):
        raise _SettingError(path, "'deny' is not a list of rules: begin each with [[policy.deny]]")
    if len(rules) > policy.MAX_RULES:
        raise _SettingError((*path, policy.MAX_RULES), f"more than {policy.MAX_RULES} rules")
    return tuple(_rule(rule, (*path, number)) for number, rule in enumerate(rules))


def _rule(rule: object, path: _Path) -> DenyRule:
    if not isinstance(rule, dict):
        raise _SettingError(path, "a rule in 'deny' is not a table: begin it with [[policy.deny]]")
    _known(rule, ("keys", "to"), path)
    if "keys" not in rule:
        raise _SettingError(path, "a rule without 'keys' denies nothing: add 'keys'")
    keys, to = rule["keys"], rule.get("to")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise _SettingError((*path, "keys"), "'keys' is not a list of names, as in [\"PROD_*\"]")
    if "to" in rule and (not isinstance(to, str) or not to):
        raise _SettingError((*path, "to"), "'to' is not a selector: leave it out for everybody")
    part = "keys"
    try:
        made = policy.make_rule(keys, "")
        part = "to"
        return policy.make_rule(keys, to) if to else made
    except InvalidRequestError as error:
        raise _SettingError((*path, part), f"'{part}': {error.message}") from None


def _known(found: dict[str, Any], known: Collection[str], path: _Path) -> None:
    for name in found:
        if name not in known:
            shown = render(name, limit=40)
            raise _SettingError((*path, name), f"'{shown}' is unknown; known: {', '.join(known)}")


def _table(found: dict[str, Any], name: str) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise _SettingError((name,), f"'{name}' is not a table: begin it with [{name}]")
    return table


def _word(found: dict[str, Any], name: str, words: Sequence[str]) -> str:
    word = found[name]
    if not isinstance(word, str) or word not in words:
        choice = ", ".join(f'"{each}"' for each in words)
        raise _SettingError(("policy", name), f"'{name}' is not one of {choice}")
    return word


def _seconds(found: dict[str, Any], path: tuple[str, str], most: int) -> int:
    """Read a duration as the client does: digits, then s, m, h or d; without a unit, seconds."""
    name = path[1]
    given = found[name]
    # Not isinstance: Python counts true and false as numbers.
    written = _DURATION.fullmatch(str(given)) if type(given) in {int, str} else None
    if written is None:
        raise _SettingError(path, f'\'{name}\' is not a duration, such as "90s" or "2h"')
    seconds = int(written[1]) * _UNITS[written[2] or "s"]
    if not 1 <= seconds <= most:
        raise _SettingError(path, f"'{name}' is out of bounds: 1 to {most} seconds")
    return seconds


def _line_of(text: str, path: _Path) -> int | None:
    """Return the line of a setting, or else the line of its table; None if not found.

    The parser does not tell where a setting is, so this looks for a table's head or a setting's
    name. It does not look inside inline tables.
    """
    places: dict[_Path, int] = {}
    heads: dict[_Path, int] = {}
    table: _Path = ()
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("["):
            head = _names(line)
            if not head:
                continue
            if line.lstrip().startswith("[["):
                heads[head] = heads.get(head, -1) + 1
                places.setdefault(head, number)
                head = (*head, heads[head])
            table = head
            names = table
        else:
            names = (*table, *_names(line.partition("=")[0] + "=0"))
        for length in range(1, len(names) + 1):
            places.setdefault(names[:length], number)
    while path and path not in places:
        path = path[:-1]
    return places.get(path)


def _names(fragment: str) -> _Path:
    """Return the names in a table's head or before an equals sign; none if it is neither."""
    try:
        inner: Any = tomllib.loads(fragment)
    except (ValueError, RecursionError):
        return ()
    names: list[str] = []
    while inner:
        inner = inner[0] if isinstance(inner, list) else inner
        if not isinstance(inner, dict) or len(inner) != 1:
            break
        name, inner = next(iter(inner.items()))
        names.append(name)
    return tuple(names)
