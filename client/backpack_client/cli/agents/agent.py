"""The commands for an agent's lock: agent init, show, set; its other commands are joined here."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from backpack_client.cli.agents import agent_memory, agent_sharing
from backpack_client.cli.agents.agent_files import (
    change,
    document,
    layout,
    lock_option,
    note_many,
    note_missing,
    note_seen,
    read_lock,
    shown,
    warn,
)
from backpack_client.cli.session import Command, Session, count, json_option, passphrase_option
from backpack_client.console import terminal, values
from backpack_client.failures import Failure, is_key_name, not_one, printable, usage
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LockFile

if TYPE_CHECKING:
    from backpack_client.agent_model import ChangedLock
    from backpack_client.calls.call import Call

DEFAULT_PROMPT = "You are a helpful AI assistant."
DEFAULT_TONE = "professional"

# The largest personality, with room for white space and escapes.
_FILE_LIMIT = 1024 * 1024


@click.group("agent")
def agent() -> None:
    """Make, change and share an agent's lock.

    The lock is a sealed file that travels with the agent's code and is safe to commit. It says
    which keys the agent needs, and holds its personality and its memory, each sealed apart. run
    starts an agent with it.
    """


def _content_options(command: Command) -> Command:
    """Add the options that say what is in a lock."""
    options = [
        click.option("--prompt", metavar="TEXT", help="The system prompt."),
        click.option("--tone", metavar="TEXT", help="The tone."),
        click.option(
            "--set",
            "settings",
            metavar="NAME=VALUE",
            multiple=True,
            help="Another setting of the personality; VALUE is JSON, otherwise text.",
        ),
        click.option(
            "--personality-file",
            metavar="FILE",
            help="A JSON object with the whole personality, or - for standard input.",
        ),
        click.option(
            "--key", "keys", metavar="NAME", multiple=True, help="A stored key the agent needs."
        ),
        click.option(
            "--embed",
            "embeds",
            metavar="NAME[=FILE]",
            multiple=True,
            help="A key whose value is sealed in the lock itself: asked for, or read from FILE.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@agent.command("init")
@click.option(
    "--lock", "lock", metavar="FILE", help="The file to make (default: agent.lock, here)."
)
@_content_options
@click.option("--yes", is_flag=True, help="Ask nothing: use defaults for everything else.")
@passphrase_option
@click.pass_obj
def init(
    session: Session,
    *,
    lock: str | None,
    prompt: str | None,
    tone: str | None,
    settings: tuple[str, ...],
    personality_file: str | None,
    keys: tuple[str, ...],
    embeds: tuple[str, ...],
    yes: bool,
    passphrase_file: str | None,
) -> None:
    """Make a lock for an agent.

    On a terminal and without options it asks for the system prompt, the tone and the keys that the
    agent needs. The file is new, and readable by you alone.
    """
    _check_one_input(personality_file, embeds, passphrase_file)
    path = lockfiles.absolute(lock or lockfiles.LOCK_NAME)
    _check_free(path)
    # The daemon records that it has made a lock, so check first that the file can be written.
    lockfiles.check_writable(path)
    name = printable(path.rpartition("/")[2], 128)
    if not (prompt or tone or settings or personality_file or keys or embeds or yes):
        prompt, tone, keys = _wizard()
    personality: dict[str, Any] = {"system_prompt": DEFAULT_PROMPT, "tone": DEFAULT_TONE}
    if personality_file is not None:
        personality = _personality_file(personality_file)
    personality |= _personality(prompt, tone, settings)
    credentials = _credentials(keys, embeds)
    with session.operator(passphrase_file) as backpack:
        from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf

        made = backpack.call(agent_calls.create_lock(personality, credentials))
        lockfiles.create(path, made.data)
        note_seen(backpack, made.data, path, made.info, credentials)
        terminal.say(
            f"{shown(path)} is made; it is safe to commit\n"
            f"where git changes line ends, put into .gitattributes: {name} -text"
        )
        note_many(made.info)
        note_missing(backpack, made.info)
    terminal.say("to start the agent with it: backpack-client run -- COMMAND")


@agent.command("show")
@click.argument("file", metavar="[FILE]", required=False)
@lock_option
@click.option(
    "--legacy-key-file",
    metavar="FILE",
    help="Of version 1: read the old master key from FILE, or - for standard input.",
)
@click.option("--iterations", type=click.IntRange(1), help="Of version 1: of PBKDF2.")
@json_option
@passphrase_option
@click.pass_obj
def show(
    session: Session,
    *,
    file: str | None,
    lock: str | None,
    legacy_key_file: str | None,
    iterations: int | None,
    as_json: bool,
    passphrase_file: str | None,
) -> None:
    """Show what is in a lock, and who signed it. Values are never shown.

    A lock of version 1, or a lock that you must accept before it is used, needs the passphrase. For
    the latter, give --passphrase-file if there is no terminal to ask on.

    JSON: one object with version, lock_id, generation, author, recipients, layers (the generation
    in which each was sealed; for the memory, its counter), credentials (name, embedded),
    personality, memory, unaccepted_names, and warnings. Version 1 has null for what it does not
    know.
    """
    if file is not None and lock is not None:
        raise click.UsageError("FILE and --lock say the same")
    terminal.check_standard_input(legacy_key_file, passphrase_file)
    seen = read_lock(file or lock)
    opened = agent_sharing.look(
        session, seen, legacy_key_file, iterations or 0, passphrase_file=passphrase_file
    )
    info = opened.info
    if as_json:
        contents = {"personality": opened.personality, "memory": opened.memory}
        terminal.print_json({**document(info), **contents})
        return
    lines = layout(info)
    for number, (name, setting) in enumerate(opened.personality.items()):
        lines.append(f"{'' if number else 'personality':<12} {name}: {_one_line(setting)}")
    lines.append(
        f"{'memory':<12} {count(len(opened.memory), 'entry').replace('entrys', 'entries')}"
    )
    terminal.print_lines(lines)
    warn(info)


@agent.command("set")
@lock_option
@_content_options
@click.option("--unset", metavar="NAME", multiple=True, help="Take a setting out.")
@click.option(
    "--remove-key", "removed", metavar="NAME", multiple=True, help="Take a credential out."
)
@passphrase_option
@click.pass_obj
def set_(
    session: Session,
    *,
    lock: str | None,
    prompt: str | None,
    tone: str | None,
    settings: tuple[str, ...],
    personality_file: str | None,
    keys: tuple[str, ...],
    embeds: tuple[str, ...],
    unset: tuple[str, ...],
    removed: tuple[str, ...],
    passphrase_file: str | None,
) -> None:
    """Change an agent's personality and credentials; settings that you omit stay.

    The new version is signed by your vault. Others who share the lock must have accepted you.
    """
    _check_one_input(personality_file, embeds, passphrase_file)
    fresh = _personality(prompt, tone, settings)
    personal = bool(fresh or unset or personality_file)
    if not (personal or keys or embeds or removed):
        raise click.UsageError("name something to change")
    whole = None if personality_file is None else _personality_file(personality_file)
    credentials = _credentials(keys, embeds)
    seen = read_lock(lock)
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf

    with session.operator(passphrase_file) as backpack:
        before = seen.data

        def make(now: LockFile) -> "Call[ChangedLock]":
            nonlocal before
            before = now.data
            wanted = None
            if personal:
                opened = backpack.call(agent_calls.open_lock(now.data, path=now.path))
                wanted = _changed(opened.personality if whole is None else whole, fresh, unset)
            return agent_calls.edit_lock(
                now.data, personality=wanted, put=credentials, remove=removed
            )

        changed = change(backpack, seen, make, credentials)
        if changed.data == before:
            terminal.say("nothing is changed: the lock already says that")
            return
        terminal.say(f"{shown(seen.path)} is changed: generation {changed.info.generation}")
        note_many(changed.info)
        note_missing(backpack, changed.info)


def _changed(
    personality: Mapping[str, Any], fresh: Mapping[str, Any], unset: Sequence[str]
) -> dict[str, Any]:
    missing = [name for name in unset if name not in personality]
    if missing:
        raise usage(f"no setting is called {printable(missing[0], 64)}", hint="")
    kept = {name: value for name, value in personality.items() if name not in unset}
    return kept | dict(fresh)


def _wizard() -> tuple[str, str, tuple[str, ...]]:
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure(
            "there is no terminal to ask on",
            reason="no-terminal",
            hint="say what the lock should hold (--prompt, --key NAME), or --yes for the defaults",
        )
    terminal.say("what should the lock of your agent hold? an empty line takes the text in []")
    prompt = terminal.answer("system prompt", DEFAULT_PROMPT)
    tone = terminal.answer("tone", DEFAULT_TONE)
    while True:
        names = terminal.answer("keys that it needs, such as OPENAI_API_KEY").replace(",", " ")
        keys = tuple(dict.fromkeys(names.split()))
        if all(map(is_key_name, keys)):
            return prompt, tone, keys
        terminal.say("not a key name: try again, with names only, without values")


def _check_free(path: str) -> None:
    """Refuse early, before the person types anything; creating checks the same again."""
    try:
        lockfiles.read(path)
    except Failure as failure:
        if failure.reason != "no-lock":
            raise
    else:
        raise Failure(
            f"{shown(path)} exists already",
            reason="lock-exists",
            hint="change it: backpack-client agent set\nor name another file: --lock FILE",
        )


def _check_one_input(
    personality_file: str | None, embeds: tuple[str, ...], passphrase_file: str | None
) -> None:
    files = [embed.partition("=")[2] for embed in embeds]
    terminal.check_standard_input(personality_file, passphrase_file, *files)


def _personality_file(path: str) -> dict[str, Any]:
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf

    return agent_calls.json_object("personality", values.file_bytes(path, _FILE_LIMIT))


def _personality(prompt: str | None, tone: str | None, settings: tuple[str, ...]) -> dict[str, Any]:
    import json  # noqa: PLC0415 - only if something is set

    fresh: dict[str, Any] = {}
    if prompt is not None:
        fresh["system_prompt"] = prompt
    if tone is not None:
        fresh["tone"] = tone
    for setting in settings:
        name, equals, written = setting.partition("=")
        if not name or not equals:
            raise usage("a setting is written NAME=VALUE", hint="such as --set temperature=0.7")
        try:
            fresh[name] = json.loads(written)
        except (ValueError, RecursionError):
            fresh[name] = written
    return fresh


def _credentials(keys: tuple[str, ...], embeds: tuple[str, ...]) -> dict[str, bytes | None]:
    credentials: dict[str, bytes | None] = dict.fromkeys(keys)
    for embed in embeds:
        name, _, path = embed.partition("=")
        if not is_key_name(name):
            raise not_one(
                "a key name",
                name,
                "a value is never given on the command line: --embed NAME or NAME=FILE",
            )
        credentials[name] = values.value(name, path or None, f"--embed {name}=FILE")
    return credentials


def _one_line(setting: Any) -> str:
    import json  # noqa: PLC0415 - as above

    return setting if isinstance(setting, str) else json.dumps(setting, ensure_ascii=False)


for _command in (*agent_memory.COMMANDS, *agent_sharing.COMMANDS):
    agent.add_command(_command)

COMMANDS = {"agent": agent}
