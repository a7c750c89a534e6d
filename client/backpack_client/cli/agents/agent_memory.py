"""The commands for what an agent remembers: agent memory get, put, clear."""

from typing import TYPE_CHECKING

import click

from backpack_client.cli.agents.agent_files import lock_option, shown
from backpack_client.cli.session import Session
from backpack_client.console import inputs, terminal, values
from backpack_client.files import lockfiles

if TYPE_CHECKING:
    from backpack_client.handles.agent import Agent

# The largest memory, with room for white space and escapes.
_FILE_LIMIT = 1024 * 1024


@click.group("memory")
def memory() -> None:
    """Read, replace or erase what an agent remembers.

    Memory is the agent's to write, so none of these needs the passphrase. Erased text is
    still in older versions of the file, such as those in git.
    """


@memory.command("get")
@lock_option
@click.pass_obj
def get(session: Session, lock: str | None) -> None:
    """Print the memory as one JSON object."""
    with session.connect() as backpack:
        agent = backpack.agent(_named(lock))
    terminal.print_json(agent.memory)


@memory.command("put")
@click.argument("file", metavar="[FILE]", default=inputs.STANDARD_INPUT)
@lock_option
@click.pass_obj
def put(session: Session, file: str, lock: str | None) -> None:
    """Replace the memory by the JSON object in FILE, or from standard input."""
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - loads protobuf

    fresh = agent_calls.json_object("memory", values.file_bytes(file, _FILE_LIMIT))
    with session.connect() as backpack:
        agent = backpack.agent(_named(lock))
        _replace(agent, fresh)
    terminal.say(f"the memory in {shown(agent.path)} is replaced")


@memory.command("clear")
@lock_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def clear(session: Session, lock: str | None, yes: bool) -> None:
    """Erase the memory."""
    with session.connect() as backpack:
        agent = backpack.agent(_named(lock))
        if not agent.memory:
            terminal.say(f"the memory in {shown(agent.path)} is empty already")
            return
        if not yes and not terminal.confirm(f"erase the memory in {shown(agent.path)}?"):
            terminal.say("nothing was erased")
            return
        _replace(agent, {})
    terminal.say(f"the memory in {shown(agent.path)} is erased")


def _named(lock: str | None) -> str:
    # Not the lock of an agent that this command may run under: the person's choice counts.
    return lockfiles.find() if lock is None else lock


def _replace(agent: "Agent", fresh: dict[str, object]) -> None:
    def change(memory: dict[str, object]) -> None:
        memory.clear()
        memory.update(fresh)

    # Not `save`, which keeps entries that somebody else has added in the meantime.
    agent.update(change)


COMMANDS = (memory,)
