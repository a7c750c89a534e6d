"""The environment of a new agent: which variables may be set, and which value wins.

Pure. Its rules:

1. A lock comes with foreign code, so its names are not trusted. `dangerous_names` lists the names
   that do harm, with the reason for each. A name that changes which code programs load is refused.
   Another one is left out if it comes from a lock, and handed over with a warning if the operator
   typed it. The list has known names. It stops a lock that takes over the tools of the person who
   runs it. It does not stop the agent's own code.
2. A variable that is already set wins, even an empty one, and its key is not requested.
3. A name that says where a program sends its keys (`OPENAI_BASE_URL`) is not refused, because locks
   have good reasons for one. But it is shown if the lock itself brings the address. The daemon
   hands out such a value, and every other value whose name is not a credential's, only after the
   operator has accepted the name for the lock. This list holds in addition, whatever was accepted.
4. Values are bytes. A value that a variable cannot hold is refused, never cut or escaped.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backpack_client.failures import Failure, is_key_name, not_a_key_name, printable
from backpack_client.launch.dangerous_names import Danger, danger_of

PREFIX = "AGENT_"
LOCK_VARIABLE = "BACKPACK_AGENT_LOCK"
KEYS_VARIABLE = "BACKPACK_KEYS_FD"
KEYS_PATH_VARIABLE = "BACKPACK_KEYS_PATH"
OF_ONE_AGENT = (LOCK_VARIABLE, KEYS_VARIABLE, KEYS_PATH_VARIABLE)
"""What `run` sets for the one agent that it starts."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ADDRESS = re.compile(
    r"(.+_)?(URL|URI|ADDR|ADDRESS|HOST|HOSTNAME|ENDPOINT|PROXY|REPOSITORY|REGISTRY|BASE|SERVER"
    r"|ORIGIN|DOMAIN|DSN|WEBHOOK|PEER|BROKER|GATEWAY|REMOTE)S?"
    r"|.+_ENDPOINT_URL_.+",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Variables:
    """Variables to set, and notes about the others.

    Attributes:
        values: by name.
        kept: names that are already set.
        left_out: members of the personality that cannot be variables, by their names in the lock.
    """

    values: dict[str, bytes] = field(repr=False)
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def is_address(name: str) -> bool:
    """Return whether a name tells programs where to send their data."""
    return _ADDRESS.fullmatch(name.upper()) is not None


def check_keys(
    names: Iterable[str], typed: Collection[str] = ()
) -> tuple[list[str], dict[str, Danger]]:
    """Sort keys by what a variable of their name does.

    Args:
        names: of keys.
        typed: those that the operator named. The others come from a lock.

    Returns:
        The keys to hand over, and the dangers of the others and of what was typed. A dangerous name
        from a lock is left out; one that was typed is handed over.

    Raises:
        Failure: a name is refused (`variable-refused`), or cannot be the name of a variable.
    """
    usable: list[str] = []
    dangers: dict[str, Danger] = {}
    for name in names:
        if not is_key_name(name):
            raise not_a_key_name(name)
        if not _VARIABLE.fullmatch(name):
            # Not shown: a value that was typed by mistake often has the form of a name.
            raise Failure(
                "a key's name cannot be the name of a variable: it holds a . or -",
                reason="no-variable",
                hint="store it under a name of letters, digits and _, or add --inject fd",
            )
        danger = danger_of(name)
        if danger is not None and danger.always:
            raise Failure(
                f"a key must not set {name}: it {danger.why}",
                reason="variable-refused",
                hint="store it under another name, or add --inject fd",
            )
        if danger is not None:
            dangers[name] = danger
        if danger is None or name in typed:
            usable.append(name)
    return usable, dangers


def of_keys(names: Iterable[str], environ: Mapping[bytes, bytes]) -> tuple[list[str], list[str]]:
    """Split keys into keys to request and keys whose variables are already set."""
    wanted: list[str] = []
    kept: list[str] = []
    for name in names:
        (kept if name.encode() in environ else wanted).append(name)
    return wanted, kept


def check_values(values: Mapping[str, bytes]) -> None:
    """Raise unless a variable can hold every value.

    Raises:
        Failure: a value holds a zero byte (`no-variable`); the message does not show it.
    """
    for name, value in values.items():
        if b"\0" in value:
            raise Failure(
                f"the value of {printable(name, 128)} holds a zero byte, which no variable can",
                reason="no-variable",
                hint="add --inject fd",
            )


def of_personality(personality: Mapping[str, Any], environ: Mapping[bytes, bytes]) -> Variables:
    """Turn a personality into variables: its member `tone` becomes `AGENT_TONE`.

    Text, numbers and booleans become variables; nested members are left out. If two members would
    be the same variable, neither is set.
    """
    found: dict[str, bytes] = {}
    members: dict[str, list[str]] = {}
    left_out: list[str] = []
    for member, value in personality.items():
        name = PREFIX + member.upper()
        text = _text(value)
        if text is None or not _VARIABLE.fullmatch(member) or danger_of(name):
            left_out.append(member)
            continue
        members.setdefault(name, []).append(member)
        found[name] = text
    for name, sources in members.items():
        if len(sources) > 1:
            left_out += sources
            del found[name]
    kept = tuple(name for name in found if name.encode() in environ)
    values = {name: value for name, value in found.items() if name not in kept}
    return Variables(values, kept, tuple(left_out))


def _text(value: object) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float):
        return json.dumps(value).encode()
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None
