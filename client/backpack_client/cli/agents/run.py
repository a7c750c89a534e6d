"""The command run: asks once for everything that an agent needs, and becomes the agent.

It finds the program, reads and opens the lock, checks every name, and then requests the keys. In
this order, nobody is asked in vain. `launch` uses the answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from backpack_client import process_protection
from backpack_client.cli.agents import agent_names, inline
from backpack_client.cli.agents.agent_files import MOST_KEYS, lock_option, warn
from backpack_client.cli.session import Session
from backpack_client.console import terminal
from backpack_client.failures import Failure
from backpack_client.fastpath.get import GRACE
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LockFile
from backpack_client.launch import environment, key_descriptor, program

if TYPE_CHECKING:
    from backpack_client.agent_model import OpenedLock
    from backpack_client.api import Backpack
    from backpack_client.calls.call import Call
    from backpack_client.calls.leases import Handout

_ENV, _FD, _NONE = "env", "fd", "none"
_WAIT = "60s"
_INLINE_WAIT = "10m"
_NOTHING: Mapping[str, Any] = {}


@click.command(
    "run",
    # Everything after the command's name belongs to the command, whatever it looks like.
    context_settings={"allow_interspersed_args": False},
)
@lock_option
@click.option("--no-lock", is_flag=True, help="Use no lock file, even if there is one.")
@click.option("--key", "keys", metavar="NAME", multiple=True, help="A key to hand over; repeat it.")
@click.option(
    "--inject",
    "how",
    type=click.Choice([_ENV, _FD, _NONE]),
    default=_ENV,
    show_default=True,
    help="Hand keys over in variables, in the sealed file that BACKPACK_KEYS_FD names, or not at "
    "all: the agent fetches them by itself.",
)
@click.option(
    "--on-revoke",
    type=click.Choice(["terminate", "keep"]),
    default="terminate",
    show_default=True,
    help="What happens to the agent when its keys are revoked: SIGTERM, and SIGKILL 10 seconds "
    "later, or only no more keys.",
)
@click.option(
    "--ttl", metavar="T", help="For how long the daemon renews the lease each time (default: 15m)."
)
@click.option(
    "--wait",
    metavar="T",
    help="How long to wait for a person to approve it in another terminal (default: 60s); 0: not "
    "at all.",
)
@click.option("--reason", metavar="TEXT", default="", help="What it is for; the operator sees it.")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    session: Session,
    *,
    lock: str | None,
    no_lock: bool,
    keys: tuple[str, ...],
    how: str,
    on_revoke: str,
    ttl: str | None,
    wait: str | None,
    reason: str,
    command: tuple[str, ...],
) -> None:
    """Start an agent with its keys.

    Asks once for all keys that agent.lock and --key name. Puts them and the lock's personality
    (AGENT_SYSTEM_PROMPT, AGENT_TONE and so on) into the environment, and becomes COMMAND: same
    process, same terminal, its own exit code. Variables that are set already stay as they are.

    The daemon renews the lease for as long as that process lives. If you type it at a shell's
    prompt without --wait, it asks for the passphrase right here. Otherwise it shows a code and
    waits, as get does. If the lock sets variables that are not credentials, you are asked about
    those once, before the keys.

    Until COMMAND begins, exit codes are those of backpack-client, 126 if COMMAND cannot be
    executed, and 127 if it is not found.
    """
    if lock is not None and no_lock:
        raise click.UsageError("--lock and --no-lock exclude each other")
    began = program.origin()
    environ = dict(began.environ)
    path = program.find(command[0], environ)
    if how == _FD:
        key_descriptor.check_possible()
    seen = None if no_lock else _read_lock(lock, needed=not keys)
    # Of an outer agent: its lock and its keys are not this one's.
    for name in environment.OF_ONE_AGENT:
        environ.pop(name.encode(), None)
    asks_here = wait is None and inline.may_ask()
    with session.connect(float(GRACE)) as backpack:
        named, personality = list(keys), _NOTHING
        embedded: frozenset[str] = frozenset()
        unaccepted: frozenset[str] = frozenset()
        if seen is not None:
            opened = _open(backpack, seen)
            found, personality = opened.info.credentials, opened.personality
            unaccepted = frozenset(opened.info.unaccepted_names)
            named = [credential.name for credential in found] + named
            embedded = frozenset(each.name for each in found if each.embedded)
            environ[environment.LOCK_VARIABLE.encode()] = seen.path.encode(errors="surrogateescape")
        wanted = _wanted(named, keys, how, environ)
        if seen is not None:
            agent_names.have_accepted(
                [name for name in wanted if name in unaccepted],
                seen.path,
                socket=session.named_socket,
                asks_here=asks_here,
            )
        if how == _ENV:
            _warn_of_addresses(name for name in wanted if name in embedded)
        variables = environment.of_personality(personality, environ)
        _report(variables.kept, variables.left_out)
        values: Mapping[str, bytes] = {}
        if wanted:
            from backpack_client.calls import leases as lease_calls  # noqa: PLC0415 - loads protobuf, as in `session`

            call = lease_calls.start_agent(
                wanted,
                ttl=ttl,
                reason=reason,
                wait=wait or (_INLINE_WAIT if asks_here else _WAIT),
                on_revoke=on_revoke,
                without_values=how == _NONE,
                agent_lock=seen.data if seen is not None else b"",
            )

            def on_wait(code: str) -> None:
                # Still open to the user's other processes: the daemon looks once more at what this
                # one runs before it lets a person approve it, and what hides has changed. The
                # passphrase, and the values below, come after it has closed itself.
                if asks_here:
                    inline.ask(backpack, code)
                else:
                    terminal.tell_waiting(code)

            values = _lease(backpack, call, on_wait)
    environ.update(_encoded(variables.values))
    environ.update(_handed(values, how))
    program.become(path, command, environ, began)


def _read_lock(named: str | None, *, needed: bool) -> LockFile | None:
    try:
        path = lockfiles.find() if named is None else lockfiles.absolute(named)
    except Failure as failure:
        if failure.reason != "no-lock" or needed:
            raise
        return None
    return lockfiles.read(path)


def _open(backpack: "Backpack", seen: LockFile) -> "OpenedLock":
    """Have the daemon open a lock."""
    from backpack_client.calls import agents as agent_calls  # noqa: PLC0415 - as above

    opened = backpack.call(agent_calls.open_lock(seen.data, path=seen.path))
    warn(opened.info)
    return opened


def _lease(
    backpack: "Backpack", call: "Call[Handout]", on_wait: Callable[[str], None]
) -> dict[str, bytes]:
    """Lease the keys to this process, and return the values that were handed over."""
    try:
        handed = backpack.call(call, on_wait)
    except Failure as failure:
        if failure.reason != "waiting-for-approval":
            raise
        # The request with the daemon's code belongs to this process, and ends with it.
        raise Failure(
            "nobody has approved it in time",
            exit_code=failure.exit_code,
            reason=failure.reason,
            hint="run it again with a longer --wait, and have it answered while it waits",
        ) from None
    process_protection.make_undumpable()
    return dict(handed.values)


def _wanted(
    named: Sequence[str], typed: Sequence[str], how: str, environ: Mapping[bytes, bytes]
) -> list[str]:
    """Return the keys to request."""
    wanted = list(dict.fromkeys(named))
    if how == _ENV:
        wanted, dangers = environment.check_keys(wanted, typed)
        for name, danger in dangers.items():
            if name in typed:
                terminal.say_line(f"warning: {name} {danger.why}")
            else:
                terminal.say_line(f"note: the lock's {name} is left out: it {danger.why}")
        wanted, kept = environment.of_keys(wanted, environ)
        _report(kept, ())
    if len(wanted) > MOST_KEYS:
        # In parts, one consent would become several, each for a part of the keys.
        raise Failure(
            f"the agent needs {len(wanted)} keys, and at most {MOST_KEYS} can be asked for at once",
            reason="too-many-names",
            hint="remove some from the lock: backpack-client agent set --remove-key NAME",
        )
    return wanted


def _warn_of_addresses(names: Iterable[str]) -> None:
    for name in names:
        if environment.is_address(name):
            terminal.say_line(
                f"warning: the lock itself sets {name}, an address that keys may be sent to: "
                "the author of the lock has chosen it"
            )


def _report(kept: Sequence[str], left_out: Sequence[str]) -> None:
    for name in kept:
        terminal.say_line(f"note: {name} is already set, and stays as it is")
    for member in left_out:
        terminal.say_line(f"note: the lock's {member} cannot be a variable, and is left out")


def _encoded(variables: Mapping[str, bytes]) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in variables.items()}


def _handed(values: Mapping[str, bytes], how: str) -> dict[bytes, bytes]:
    """Return the variables that hand the keys over."""
    if how == _NONE:
        return {}
    if how == _FD:
        return _encoded(key_descriptor.variables(key_descriptor.write_keys(values)))
    environment.check_values(values)
    return _encoded(values)


COMMANDS = {command.name: command for command in (run,)}
