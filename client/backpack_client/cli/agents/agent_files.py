"""Shared by the agent commands: finds the lock, changes it, lays it out."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from backpack_client.cli.session import count
from backpack_client.console import terminal
from backpack_client.failures import Failure, printable
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LockFile

if TYPE_CHECKING:
    from backpack_client.agent_model import ChangedLock, LockInfo
    from backpack_client.api import Backpack
    from backpack_client.calls.call import Call

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_KEYS = 64
"""The most keys that one request to the daemon can name."""

_ATTEMPTS = 8

_WARNINGS = {
    "default-key": "it was sealed under the old tool's default key, which everybody knows: what is "
    "in it is no secret; replace the values at their issuers",
    "unknown-author": "you have not accepted its author: see backpack-client agent trust",
    "lock-stepped-back": "it is older than one that was seen here: see backpack-client agent trust",
    "lock-forked": "another version of the same generation was seen here: see backpack-client "
    "agent trust",
    "memory-stepped-back": "its memory is older than one that was seen here",
    "memory-forked": "its memory differs from the one that was last seen here",
}


def lock_option(command: Command) -> Command:
    """Add --lock."""
    return click.option(
        "--lock",
        "lock",
        metavar="FILE",
        help="The lock file (default: agent.lock here or above, up to the repository's root).",
    )(command)


def read_lock(named: str | None) -> LockFile:
    """Read the lock that the command is about.

    Raises:
        Failure: there is none, or it cannot be read.
    """
    path = lockfiles.find() if named is None else lockfiles.absolute(named)
    return lockfiles.read(path)


def change(
    backpack: "Backpack",
    seen: LockFile,
    make: "Callable[[LockFile], Call[ChangedLock]]",
    typed: Iterable[str] = (),
) -> "ChangedLock":
    """Have the daemon make a new version of a lock, and replace the file with it.

    The file is read again, because typing a passphrase or an answer took time. It is read once more
    every time that an agent has saved its memory in between.

    Args:
        backpack: with operator authority.
        seen: the file as it was first read.
        make: makes the call for the file as it is now.
        typed: names of values that the operator embeds with this change.

    Raises:
        Failure: the daemon refuses, or others keep writing the file. The file is as it was.
    """
    # The daemon records the change before it answers, so check first that it can be written.
    lockfiles.check_writable(seen.path)
    for left in reversed(range(_ATTEMPTS)):
        current = lockfiles.read(seen.path)
        changed = backpack.call(make(current))
        try:
            lockfiles.replace(current, changed.data)
        except Failure as failure:
            if failure.reason != "lock-changed" or not left:
                raise
        else:
            note_seen(backpack, changed.data, seen.path, changed.info, typed)
            return changed
    raise AssertionError("the last attempt returns or raises")


def note_seen(
    backpack: "Backpack", data: bytes, path: str, info: "LockInfo", typed: Iterable[str] = ()
) -> None:
    """Have the daemon remember the version that was just written, so that an older one is found.

    Args:
        backpack: with operator authority.
        data: the file's bytes.
        path: where it lies.
        info: facts about the lock.
        typed: names of values that the operator has just embedded. To type one is to accept it.
    """
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf, which help does without

    names = [name for name in info.unaccepted_names if name in set(typed)]
    try:
        if names:
            backpack.call(agent_calls.trust_lock(data, "", path=path, names=names))
        else:
            backpack.call(agent_calls.open_lock(data, path=path))
    except Failure as failure:
        # The file is written and stays. The daemon sees it the next time that it is opened.
        terminal.say(f"note: the daemon has not looked at the new version: {failure.message}")


def shown(path: str) -> str:
    """Return a file's name for a person: relative to here if that is shorter."""
    near = os.path.relpath(path)
    return printable(near if len(near) < len(path) else path, 256)


def warn(info: "LockInfo") -> None:
    """Write warnings about a lock to standard error."""
    for word in info.warnings:
        terminal.say(f"warning: {_WARNINGS.get(word, word)}")


def layout(info: "LockInfo") -> list[str]:
    """Lay out the facts about a lock for a person."""
    lines = [f"version      {info.version}"]
    if info.author is not None:
        lines += [
            f"lock         {info.lock_id}, generation {info.generation}",
            f"author       {info.author.fingerprint}  {_who(info.author)}",
            f"sealed       credentials in generation {info.credentials_generation}",
            f"             personality in generation {info.personality_generation}",
            f"             memory, its version {info.memory_counter}",
        ]
    for number, each in enumerate(info.recipients):
        title = "" if number else "recipients"
        label = "this vault" if each.own else each.label
        lines.append(f"{title:<12} {each.fingerprint}  {label}".rstrip())
    for number, credential in enumerate(info.credentials):
        title = "" if number else "credentials"
        where = "embedded: its value is sealed in the lock" if credential.embedded else ""
        if credential.name in info.unaccepted_names:
            where += "; its name is NOT ACCEPTED"
        lines.append(f"{title:<12} {credential.name}  {where}".rstrip())
    if not info.credentials:
        lines.append("credentials  none")
    return lines


def document(info: "LockInfo") -> dict[str, Any]:
    """Lay out the facts about a lock for JSON."""
    author = info.author
    return {
        "version": info.version,
        "lock_id": info.lock_id or None,
        "generation": info.generation or None,
        "author": None
        if author is None
        else {
            "fingerprint": author.fingerprint,
            "label": author.label,
            "trusted": author.trusted,
            "own": author.own,
        },
        "recipients": [
            {"fingerprint": each.fingerprint, "label": each.label, "own": each.own}
            for each in info.recipients
        ],
        "layers": {
            "credentials": info.credentials_generation or None,
            "personality": info.personality_generation or None,
            "memory": info.memory_counter or None,
        },
        "credentials": [
            {"name": each.name, "embedded": each.embedded} for each in info.credentials
        ],
        "unaccepted_names": list(info.unaccepted_names),
        "warnings": list(info.warnings),
    }


def note_many(info: "LockInfo") -> None:
    """Warn the operator if an agent needs more keys than one request can name."""
    if len(info.credentials) > MOST_KEYS:
        terminal.say(
            f"warning: the lock names {len(info.credentials)} keys, and run asks for at most "
            f"{MOST_KEYS} at once: take some out, or it does not start the agent"
        )


def note_missing(backpack: "Backpack", info: "LockInfo") -> None:
    """Tell the operator which keys of the agent are missing in the vault."""
    stored = {key.name for key in backpack.list(all=True)}
    missing = [
        each.name for each in info.credentials if not each.embedded and each.name not in stored
    ]
    if missing:
        terminal.say(
            f"{count(len(missing), 'key')} the agent needs and the vault does not have yet: "
            f"{', '.join(missing)}\nstore each: backpack-client put NAME"
        )


def _who(author: Any) -> str:
    if author.own:
        return "this vault"
    if not author.trusted:
        return "NOT ACCEPTED"
    return f"accepted as {author.label}" if author.label else "accepted"
