"""Sharing and migrating locks: agent add-recipient, remove-recipient, rewrap, trust, migrate."""

import sys
from typing import TYPE_CHECKING

import click

from backpack_client.cli.agents import agent_names
from backpack_client.cli.agents.agent_files import (
    change,
    layout,
    lock_option,
    note_many,
    note_missing,
    note_seen,
    read_lock,
    shown,
    warn,
)
from backpack_client.cli.session import Session, count, json_option, local_time, passphrase_option
from backpack_client.cli.session import milliseconds as as_milliseconds
from backpack_client.cli.vault.identity import full_fingerprint, identity_line, spoken
from backpack_client.console import terminal, values
from backpack_client.failures import Failure, is_key_name, printable
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LockFile

if TYPE_CHECKING:
    from backpack_client.agent_model import LockInfo, OpenedLock
    from backpack_client.api import Backpack

# The operator may look at such a lock, and no program may use it.
_LOOKED_AT = frozenset({"unknown-author", "lock-stepped-back", "lock-forked"})
_SUFFIX = ".v1"
_LOCK_ID_DIGITS = 32


def look(
    session: Session,
    seen: LockFile,
    legacy_key_file: str | None,
    iterations: int,
    *,
    passphrase_file: str | None,
) -> "OpenedLock":
    """Open a lock to show it: with operator authority where it takes that.

    Args:
        session: of this command.
        seen: the file.
        legacy_key_file: with the old master key, for version 1.
        iterations: for version 1; 0: the usual number.
        passphrase_file: holds the passphrase; None: a person at the terminal is asked if it is
            needed.
    """
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf, which help does without

    try:
        with session.connect() as backpack:
            return backpack.call(agent_calls.open_lock(seen.data, path=seen.path))
    except Failure as failure:
        legacy = failure.reason == "legacy-lock"
        if not legacy:
            asked = passphrase_file is not None or (sys.stdin is not None and sys.stdin.isatty())
            if failure.reason not in _LOOKED_AT or not asked:
                raise
            terminal.say(f"note: {failure.message}")
    with session.operator(passphrase_file) as backpack:
        if not legacy:
            return backpack.call(agent_calls.open_lock(seen.data, path=seen.path))
        return _with_legacy_key(backpack, seen, legacy_key_file, iterations)[1]


@click.command("add-recipient")
@click.argument("identity", metavar="IDENTITY")
@lock_option
@click.option(
    "--fingerprint",
    metavar="F",
    help="The fingerprint that your teammate has told you; without it you are asked.",
)
@click.option("--trust", is_flag=True, help="Also accept what the teammate signs, from now on.")
@click.option("--label", metavar="TEXT", default="", help="With --trust: a name for it.")
@click.option("--yes", is_flag=True, help="Do not ask whether the fingerprint is right.")
@passphrase_option
@click.pass_obj
def add_recipient(
    session: Session,
    *,
    identity: str,
    lock: str | None,
    fingerprint: str | None,
    trust: bool,
    label: str,
    yes: bool,
    passphrase_file: str | None,
) -> None:
    """Let a teammate's vault open the lock.

    IDENTITY is the line that backpack-client identity prints there, a file with it, or - for
    standard input. Somebody who can swap that line on its way would get in instead: compare the
    fingerprint over another channel.
    """
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    if label and not trust:
        raise click.UsageError("--label is for --trust only")
    terminal.check_standard_input(identity, passphrase_file)
    line = identity_line(identity)
    digits = full_fingerprint(line)
    fresh = spoken(digits)
    seen = read_lock(lock)
    with session.operator(passphrase_file) as backpack:
        before = backpack.call(agent_calls.open_lock(seen.data, path=seen.path))
        if fresh in {each.fingerprint for each in before.info.recipients}:
            raise Failure(f"{fresh} is a recipient already", reason="invalid-recipients")
        _compare(
            (fresh, digits),
            fingerprint,
            f"let {fresh} open {shown(seen.path)}?",
            yes=yes,
        )
        change(
            backpack,
            seen,
            lambda now: agent_calls.add_recipient(now.data, line, trust=trust, label=label),
        )
    terminal.say(f"{fresh} can open {shown(seen.path)} from this version on")


@click.command("remove-recipient")
@click.argument("recipient", metavar="FINGERPRINT")
@lock_option
@passphrase_option
@click.pass_obj
def remove_recipient(
    session: Session, recipient: str, lock: str | None, passphrase_file: str | None
) -> None:
    """Shut a teammate's vault out of every later version of the lock.

    FINGERPRINT is one that `agent show` lists, or the label of an accepted author. The lock gets a
    new lock key. What was opened before, the teammate may have kept: replace embedded values at
    their issuers.
    """
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    seen = read_lock(lock)
    with session.operator(passphrase_file) as backpack:
        before = backpack.call(agent_calls.open_lock(seen.data, path=seen.path)).info
        labelled = [each.fingerprint for each in before.recipients if each.label == recipient]
        fingerprint = labelled[0] if len(labelled) == 1 else recipient
        change(backpack, seen, lambda now: agent_calls.remove_recipient(now.data, fingerprint))
        trusted = {each.fingerprint for each in backpack.call(agent_calls.list_trusted()).authors}
    terminal.say(f"{printable(fingerprint, 64)} opens no later version of {shown(seen.path)}")
    if fingerprint in trusted:
        terminal.say(
            "it is still an accepted author here: a version of this lock that it signs would be "
            "taken for a good one. To withdraw that, here and by everybody who has accepted it: "
            f"backpack-client agent trust --forget {fingerprint}"
        )
    if any(each.embedded for each in before.credentials):
        terminal.say("it may have kept the embedded values: replace them at their issuers")


@click.command("rewrap")
@lock_option
@passphrase_option
@click.pass_obj
def rewrap(session: Session, lock: str | None, passphrase_file: str | None) -> None:
    """Give the lock a new lock key, for the recipients that it has."""
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    seen = read_lock(lock)
    with session.operator(passphrase_file) as backpack:
        changed = change(backpack, seen, lambda now: agent_calls.rewrap_lock(now.data))
    recipients = count(len(changed.info.recipients), "recipient")
    terminal.say(f"{shown(seen.path)} has a new lock key, wrapped to {recipients}")


@click.command("trust")
@lock_option
@click.option(
    "--fingerprint",
    metavar="F",
    help="The author's fingerprint, as its owner told it; without it you are asked.",
)
@click.option("--label", metavar="TEXT", default="", help="What to call the author.")
@click.option(
    "--name",
    "names",
    metavar="NAME",
    multiple=True,
    help="A name that the lock may set beside credentials; repeat it. Without it you are asked.",
)
@click.option("--yes", is_flag=True, help="Do not ask; accepts no names.")
@click.option("--list", "listing", is_flag=True, help="List accepted authors and known locks.")
@click.option(
    "--forget", metavar="F", help="Forget the author with this fingerprint, or a lock by its id."
)
@json_option
@passphrase_option
@click.pass_obj
def trust(
    session: Session,
    *,
    lock: str | None,
    fingerprint: str | None,
    label: str,
    names: tuple[str, ...],
    yes: bool,
    listing: bool,
    forget: str | None,
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Accept a lock as it is: its author, and this version as the one that counts.

    You need this once for every author other than yourself. You also need it if a lock steps back
    or forks, as after a checkout of an older commit or another branch.

    A lock may also bring values under names that are not names of credentials, such as addresses.
    You are asked about these once: an accepted name stays accepted for this lock, whatever its
    value.

    JSON, with --list: one object with authors (fingerprint, label, trusted_at_ms) and locks
    (lock_id, generation, memory_counter, claimed_path, accepted_names).
    """
    if as_json and not listing:
        raise click.UsageError("--json is for --list only")
    if listing:
        _list(session, passphrase_file, as_json=as_json)
    elif forget is not None:
        _forget(session, passphrase_file, forget)
    else:
        _trust(
            session,
            read_lock(lock),
            fingerprint,
            label,
            names=names,
            yes=yes,
            passphrase_file=passphrase_file,
        )


@click.command("migrate")
@click.argument("file", metavar="FILE")
@click.option(
    "--legacy-key-file",
    metavar="FILE",
    help="Read the old master key from FILE, or - for standard input, instead of asking.",
)
@click.option("--iterations", type=click.IntRange(1), help="Of PBKDF2 (default: 100000).")
@click.option("--store-embedded", is_flag=True, help="Store embedded values as keys of the vault.")
@click.option(
    "--replace",
    is_flag=True,
    help="With --store-embedded: replace the values of keys that are already stored.",
)
@click.option("--keep-key", is_flag=True, help="Keep the old master key, sealed, for other files.")
@passphrase_option
@click.pass_obj
def migrate(
    session: Session,
    *,
    file: str,
    legacy_key_file: str | None,
    iterations: int | None,
    store_embedded: bool,
    replace: bool,
    keep_key: bool,
    passphrase_file: str | None,
) -> None:
    """Convert a lock of version 1 to version 2.

    The old file stays beside it as FILE.v1. Delete it when nothing reads it any more: everybody who
    has the old master key can open it.
    """
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    terminal.check_standard_input(legacy_key_file, passphrase_file)
    if replace and not store_embedded:
        raise click.UsageError("--replace is for --store-embedded only")
    seen = read_lock(file)
    with session.operator(passphrase_file) as backpack:
        key, old = _with_legacy_key(backpack, seen, legacy_key_file, iterations or 0)
        _check_names(old.info)
        if old.info.version == 1:
            # Otherwise keys would be stored although the old file cannot be kept.
            lockfiles.check_beside(seen, _SUFFIX)
        # The daemon records what it has done, so check first that it can be done.
        lockfiles.check_writable(seen.path)
        call = agent_calls.migrate_lock(
            seen.data,
            legacy_key=key,
            iterations=iterations or 0,
            store_embedded=store_embedded,
            replace=replace,
            keep_legacy_key=keep_key,
        )
        migrated = backpack.call(call)
        kept = lockfiles.keep_beside(seen, _SUFFIX)
        lockfiles.replace(seen, migrated.data)
        note_seen(backpack, migrated.data, seen.path, migrated.info)
        terminal.say(
            f"{shown(seen.path)} is of version 2 now; the old one is {shown(kept)}: delete it once "
            "nothing reads it any more"
        )
        if migrated.stored:
            terminal.say(f"now stored in the vault: {', '.join(migrated.stored)}")
        warn(migrated.info)
        note_many(migrated.info)
        note_missing(backpack, migrated.info)


def _check_names(info: "LockInfo") -> None:
    """Raise unless every credential of an old lock has a valid key name.

    Raises:
        Failure: a name is not valid; the message shows it.
    """
    wrong = [each.name for each in info.credentials if not is_key_name(each.name)]
    if wrong:
        raise Failure(
            f"no key can have the name of the credential {printable(wrong[0], 64)}",
            reason="lock-content",
            hint="nothing was changed: rename it with the tool that made the lock, then migrate "
            "again\na name has letters, digits, _, . and -, up to 128, a letter or _ first",
        )


def _trust(
    session: Session,
    seen: LockFile,
    fingerprint: str | None,
    label: str,
    *,
    names: tuple[str, ...],
    yes: bool,
    passphrase_file: str | None,
) -> None:
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    with session.operator(passphrase_file) as backpack:
        info = backpack.call(agent_calls.open_lock(seen.data, path=seen.path)).info
        if info.author is None:
            raise Failure(
                "a lock of version 1 has no author",
                reason="legacy-lock",
                hint="migrate it: backpack-client agent migrate FILE",
            )
        author = info.author.fingerprint
        both = (author, _author_digits(seen))
        new = bool(info.warnings or label)
        if not new and fingerprint is not None:
            _compare(both, fingerprint, "", yes=yes)
        if not new and not info.unaccepted_names and not names:
            terminal.say(f"{shown(seen.path)} is accepted already")
            return
        for line in layout(info):
            terminal.say(line)
        warn(info)
        if new:
            _compare(both, fingerprint, _question(info), yes=yes)
        accepted = agent_names.to_accept(info, names, yes=yes)
        if not new and not accepted:
            return
        call = agent_calls.trust_lock(seen.data, author, label, path=seen.path, names=accepted)
        backpack.call(call)
    terminal.say(f"{shown(seen.path)} is accepted, generation {info.generation} of {author}")
    if accepted:
        terminal.say(f"from now on it may set: {', '.join(accepted)}")


def _question(info: "LockInfo") -> str:
    if info.author is not None and not info.author.trusted:
        return f"accept what {info.author.fingerprint} signs, from now on?"
    return "accept this version as the one that counts?"


def _author_digits(seen: LockFile) -> str:
    """Return all digits of the author's fingerprint, from a file that the daemon has verified."""
    import json  # noqa: PLC0415 - rarely used

    return str(json.loads(seen.data)["header"]["author"])


def _compare(found: tuple[str, str], told: str | None, question: str, *, yes: bool) -> None:
    """Compare a fingerprint with the given one, or have the person compare it.

    Args:
        found: the fingerprint as people compare it, and all of its digits.
        told: either form, as the person has heard it; None: not given.
        question: asks the person, if it was not given.
        yes: do not ask.

    Raises:
        Failure: the fingerprints differ, or the person said no.
    """
    spoken, full = (each.replace("-", "") for each in found)
    if told is not None:
        digits = "".join(told.split()).replace("-", "").lower()
        # The half that was not shown to the person is compared as well.
        if digits != spoken and not (digits == full and full.startswith(spoken)):
            raise Failure(
                f"the fingerprint is another one: {found[0]}",
                reason="other-fingerprint",
                hint="nothing was changed: ask your teammate again, over another channel",
            )
        return
    if not yes and not terminal.confirm(question):
        raise Failure("nothing was changed", reason="not-confirmed")


def _with_legacy_key(
    backpack: "Backpack", seen: LockFile, path: str | None, iterations: int
) -> "tuple[bytes, OpenedLock]":
    """Open a lock of version 1: with the key in a file, the kept key, or a typed key."""
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    def opened(key: bytes) -> "OpenedLock":
        return backpack.call(
            agent_calls.open_lock(seen.data, path=seen.path, legacy_key=key, iterations=iterations)
        )

    if path is not None:
        key = values.legacy_key(path)
        return key, opened(key)
    try:
        return b"", opened(b"")
    except Failure as failure:
        # The kept key may be the key of other files.
        if failure.reason not in ("legacy-key-needed", "wrong-legacy-key"):
            raise
    key = values.legacy_key(None)
    return key, opened(key)


def _list(session: Session, passphrase_file: str | None, *, as_json: bool) -> None:
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    with session.operator(passphrase_file) as backpack:
        trusted = backpack.call(agent_calls.list_trusted())
    if as_json:
        terminal.print_json(
            {
                "authors": [
                    {
                        "fingerprint": each.fingerprint,
                        "label": each.label,
                        "trusted_at_ms": as_milliseconds(each.trusted_at),
                    }
                    for each in trusted.authors
                ],
                "locks": [
                    {
                        "lock_id": each.lock_id,
                        "generation": each.generation,
                        "memory_counter": each.memory_counter,
                        "claimed_path": each.claimed_path,
                        "accepted_names": list(each.accepted_names),
                    }
                    for each in trusted.locks
                ],
            }
        )
        return
    terminal.print_table(
        ("AUTHOR", "LABEL", "ACCEPTED"),
        [(each.fingerprint, each.label, local_time(each.trusted_at)) for each in trusted.authors],
    )
    terminal.print_table(
        ("LOCK", "GENERATION", "MEMORY", "NAMES", "SEEN AT"),
        [
            (
                each.lock_id,
                str(each.generation),
                str(each.memory_counter),
                " ".join(each.accepted_names),
                each.claimed_path,
            )
            for each in trusted.locks
        ],
    )


def _forget(session: Session, passphrase_file: str | None, what: str) -> None:
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    is_lock = len(what) == _LOCK_ID_DIGITS and what.isalnum()
    call = agent_calls.forget(lock_id=what) if is_lock else agent_calls.forget(author=what)
    with session.operator(passphrase_file) as backpack:
        backpack.call(call)
    terminal.say(f"{printable(what, 64)} is forgotten")


COMMANDS = (add_recipient, remove_recipient, trust, migrate, rewrap)
