"""The commands for keys: put, import, list, delete."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backpack_client.cli.session import (
    FILE_NAME,
    TO_SEE_GRANTS,
    Session,
    all_option,
    count,
    json_option,
    local_time,
    milliseconds,
    passphrase_option,
)
from backpack_client.console import inputs, terminal, values
from backpack_client.failures import (
    Failure,
    from_status,
    is_key_name,
    not_a_key_name,
    printable,
    usage,
)
from backpack_client.files import dotenv
from backpack_client.files.references import recognised

if TYPE_CHECKING:
    from backpack_client.api import Backpack
    from backpack_client.model import Stored

# The most that one call carries, see channel.MESSAGE_LIMIT.
_FILE_LIMIT = 8 * 1024 * 1024
_KEYS_AT_ONCE, _BYTES_AT_ONCE = 1000, 4 * 1024 * 1024
"""As many as one call stores, and half of what a message may have: see docs/limits.md."""
_STORED_ALREADY = (
    "stored already, and nothing was changed",
    "add --replace for new values; import also takes --skip-existing",
)
_NOT_STORED = ("not stored, and nothing was deleted", "see: backpack-client list --all")


@click.command("put")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--value-file",
    metavar="FILE",
    type=FILE_NAME,
    help="Of one key: read the value from FILE, or - for standard input, instead of asking.",
)
@click.option("--exact", is_flag=True, help="With --value-file: store every byte of it.")
@click.option("--replace", is_flag=True, help="Give keys that are stored already new values.")
@passphrase_option
@click.pass_obj
def put(
    session: Session,
    *,
    names: tuple[str, ...],
    value_file: str | None,
    exact: bool,
    replace: bool,
    passphrase_file: str | None,
) -> None:
    """Store keys; you are asked for each value.

    You type or paste the values on the terminal, one after the other, and they are not shown. All
    keys are stored, or none. A value has up to 64 KiB. If you paste several lines, you are asked
    whether you meant that.

    With --value-file - you can also type the lines, and end them with ctrl-d.

    From a file or a pipe, the line end of a single line of text is left out, and so is a byte-order
    mark. Everything else (PEM files, other bytes) is stored byte for byte.
    """
    terminal.check_standard_input(value_file, passphrase_file)
    _check_names(names)
    if len(set(names)) < len(names):
        raise usage("a key is named twice", hint="name each key once")
    if value_file is not None and len(names) > 1:
        raise click.UsageError("--value-file is for one key only")
    if exact and value_file is None:
        raise click.UsageError("--exact is for --value-file")
    if value_file is None and passphrase_file != inputs.STANDARD_INPUT:
        terminal.check_nothing_piped("value", "--value-file")
    keys = {}
    if value_file is not None:
        keys[names[0]] = values.value(names[0], value_file, exact=exact)
    with session.operator(passphrase_file) as backpack:
        if not keys:
            if not replace:
                # Before the person types anything in vain. The daemon checks the same again.
                _refuse_stored(backpack, names)
            keys = {name: values.value(name, None) for name in names}
        with _naming_those(backpack, names, stored=True):
            stored = backpack.put(keys, replace=replace)
    _report_put(keys, stored)


def _report_put(keys: Mapping[str, bytes], stored: "Stored") -> None:
    for name, value in keys.items():
        if known := recognised(value.decode(errors="replace")):
            terminal.say(f"note: {name} {known}")
    names = list(keys)
    if len(names) == 1:
        terminal.say(f"{names[0]} is {'replaced' if stored.replaced else 'stored'}")
    else:
        done = f"{count(stored.created, 'new key')} stored, {stored.replaced} replaced"
        terminal.say_line(f"{done}: {' '.join(names)}")
    if stored.created:
        them, which = ("it", names[0]) if len(names) == 1 else ("them", "NAME")
        terminal.say(
            f"to let a process tree lease {them}: backpack-client grant {which} --to tree:PID"
        )


@click.command("import")
@click.argument("file", metavar="FILE.env", type=FILE_NAME)
@click.option("--replace", is_flag=True, help="Give new values to keys that are already stored.")
@click.option("--skip-existing", is_flag=True, help="Skip keys that are already stored.")
@click.option("--dry-run", is_flag=True, help="Say what would be stored, store nothing.")
@passphrase_option
@click.pass_obj
def import_(
    session: Session,
    *,
    file: str,
    replace: bool,
    skip_existing: bool,
    dry_run: bool,
    passphrase_file: str | None,
) -> None:
    """Store the keys of a .env file, all of them or none; over 1000 in several steps.

    Only values that npm's dotenv and python-dotenv read alike are stored. Other lines are skipped,
    each with the reason. Also skipped are empty values, $NAME outside of single quotes, ${NAME},
    and lines that are not NAME=value. Values are never shown.

    With --dry-run, one line for each key: new, exists (so that nothing would be stored), replace
    (with --replace) or keep (with --skip-existing), and its name.
    """
    terminal.check_standard_input(file, passphrase_file)
    if replace and skip_existing:
        raise click.UsageError("--replace and --skip-existing exclude each other")
    shown = printable(file, 256)
    try:
        parsed = dotenv.parse(values.file_bytes(file, _FILE_LIMIT))
    except dotenv.DotenvError as error:
        raise Failure(f"{shown}: {error.message}", reason="not-dotenv") from None
    for skipped in parsed.skipped:
        what = f"{skipped.name} " if skipped.name else ""
        terminal.say(f"line {skipped.line}: skipped: {what}{skipped.reason}")
    if not parsed.entries:
        raise Failure(f"{shown} holds nothing to import", reason="nothing-to-import")
    keys = {entry.name: entry.value for entry in parsed.entries}
    with (
        session.operator(passphrase_file) as backpack,
        _naming_those(backpack, keys, stored=True),
    ):
        if dry_run:
            known = _stored(backpack)
            already = "replace" if replace else "keep" if skip_existing else "exists"
            terminal.print_lines([f"{already if n in known else 'new':<8} {n}" for n in keys])
        stored = _put_in_steps(
            backpack, keys, replace=replace, skip_existing=skip_existing, dry_run=dry_run
        )
    _report_import(stored.created, stored.replaced, stored.skipped, dry_run=dry_run)
    if not dry_run and file != inputs.STANDARD_INPUT and Path(file).is_file():
        terminal.say(f"{shown} still holds the values: delete it when nothing reads it any more")


def _put_in_steps(
    backpack: "Backpack",
    keys: Mapping[str, bytes],
    *,
    replace: bool,
    skip_existing: bool,
    dry_run: bool,
) -> "Stored":
    """Store keys, as many at once as one call takes. Each step is durable."""
    from backpack_client.model import Stored  # noqa: PLC0415 - the weight of the full client

    steps = list(_steps(keys))
    if len(steps) > 1:
        terminal.say(f"{len(keys):,} keys: {len(steps)} steps")
        # What the daemon refuses is refused before the first step.
        for step in steps:
            backpack.put(step, replace=replace, skip_existing=skip_existing, dry_run=True)
    done = Stored(0, 0, ())
    try:
        for step in steps:
            put = backpack.put(step, replace=replace, skip_existing=skip_existing, dry_run=dry_run)
            done = Stored(
                done.created + put.created,
                done.replaced + put.replaced,
                (*done.skipped, *put.skipped),
            )
    except Failure:
        if done.created + done.replaced and not dry_run:
            terminal.say(
                f"{done.created + done.replaced:,} of {len(keys):,} keys are stored; for the rest: "
                "run it again with --skip-existing"
            )
        raise
    return done


def _steps(keys: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    step: dict[str, bytes] = {}
    size = 0
    for name, value in keys.items():
        if len(step) == _KEYS_AT_ONCE or size + len(value) > _BYTES_AT_ONCE:
            yield step
            step, size = {}, 0
        step[name] = value
        size += len(value)
    if step:
        yield step


def _report_import(created: int, replaced: int, skipped: tuple[str, ...], *, dry_run: bool) -> None:
    done = "would store" if dry_run else "stored"
    also = "replace" if dry_run else "replaced"
    terminal.say(f"{done} {count(created, 'new key')}, {also} {replaced}")
    if skipped:
        terminal.say(f"stored already and left alone: {', '.join(skipped)}")


@click.command("list")
@all_option("Every key, and not only those that your process tree may lease")
@json_option
@passphrase_option
@click.pass_obj
def list_(session: Session, every: bool, as_json: bool, passphrase_file: str | None) -> None:
    """List keys, without their values.

    Without --all: those that your process tree may lease.

    JSON: one object with keys: a list of objects with name, created_at_ms, updated_at_ms.
    """
    with session.reader(every=every, passphrase_file=passphrase_file) as backpack:
        keys = backpack.list(all=every)
    if as_json:
        terminal.print_json(
            {
                "keys": [
                    {
                        "name": key.name,
                        "created_at_ms": milliseconds(key.created_at),
                        "updated_at_ms": milliseconds(key.updated_at),
                    }
                    for key in keys
                ]
            }
        )
    elif keys:
        terminal.print_table(
            ("NAME", "STORED", "CHANGED"),
            [(key.name, local_time(key.created_at), local_time(key.updated_at)) for key in keys],
        )
    elif every:
        terminal.say("no keys are stored; store one: backpack-client put NAME")
    else:
        terminal.say("your process tree may lease no key; every key: backpack-client list --all")


@click.command("delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@passphrase_option
@click.pass_obj
def delete(session: Session, names: tuple[str, ...], passphrase_file: str | None) -> None:
    """Delete keys, and end their leases.

    Deletes all of them, or none. This cannot be undone.
    """
    _check_names(names)
    with (
        session.operator(passphrase_file) as backpack,
        _naming_those(backpack, names, stored=False),
    ):
        done = backpack.delete(*names)
    terminal.say(f"{count(done.deleted, 'key')} deleted, {count(done.leases_ended, 'lease')} ended")
    if done.grants_left:
        still = "grant still names" if done.grants_left == 1 else "grants still name"
        terminal.say(
            f"note: {done.grants_left} {still} what was deleted, and would allow it once it is "
            f"stored again\n{TO_SEE_GRANTS}"
        )


@contextmanager
def _naming_those(backpack: "Backpack", names: Iterable[str], *, stored: bool) -> Iterator[None]:
    """Name the keys of a refusal: the daemon only counts them, but the operator may know them."""
    try:
        yield
    except Failure as failure:
        if failure.reason != ("key-exists" if stored else "no-such-key"):
            raise
        known = _stored(backpack)
        about = ", ".join(name for name in names if (name in known) is stored)
        what, hint = _STORED_ALREADY if stored else _NOT_STORED
        raise Failure(
            f"{what}: {about}", exit_code=failure.exit_code, reason=failure.reason, hint=hint
        ) from None


def _check_names(names: Sequence[str]) -> None:
    """Raise unless each argument is a valid key name.

    Raises:
        Failure: a usage failure. The argument is not shown: it may be a value.
    """
    for name in names:
        if not is_key_name(name):
            raise not_a_key_name(name)


def _refuse_stored(backpack: "Backpack", names: Sequence[str]) -> None:
    known = _stored(backpack)
    already = [name for name in names if name in known]
    if already:
        told = f"{', '.join(already)} {'is' if len(already) == 1 else 'are'} stored already"
        raise from_status("ALREADY_EXISTS", "key-exists", told, {})


def _stored(backpack: "Backpack") -> set[str]:
    return {key.name for key in backpack.list(all=True)}


COMMANDS = {command.name: command for command in (put, import_, list_, delete)}
