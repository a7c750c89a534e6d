"""The configuration file: what it may contain, and how it is read.

The user's processes can write it. So nothing in it widens what is granted: its policy tightens the
sealed one (`core.access.policy.Policy.tightened`), and its times only make the vault lock sooner.
"""

import codecs
import logging
import os
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backpackd.adapters.home.files import UNWRITABLE, UnsafeFileError, open_file
from backpackd.core.access import policy
from backpackd.core.access.grants import LONGEST_TTL
from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.errors import InvalidRequestError
from backpackd.core.render import render
from backpackd.settings import Settings

MAX_CONFIG = 64 * 1024
"""The longest configuration file, in bytes."""
MAX_LINE = 1024
"""The longest line of it, in bytes. The parser's time grows with the square of the dots in a key:
one line of 64 KiB would block the daemon for a quarter of a minute."""
IDLE = 4 * 3600
"""Seconds without use, and without a live lease, after which the vault locks."""
LONGEST = 24 * 3600
"""Seconds after unlocking at which the vault locks, used or not."""


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
