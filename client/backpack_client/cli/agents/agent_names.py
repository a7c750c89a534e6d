"""Names that a lock sets besides credentials: shows them to the operator, who may accept them.

The daemon decides which names need acceptance, and hands out none of their values before. This
module only asks the person.
"""

import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backpack_client.console import terminal
from backpack_client.failures import EXIT_DENIED, Failure, printable
from backpack_client.launch import environment
from backpack_client.launch.dangerous_names import danger_of

if TYPE_CHECKING:
    from backpack_client.agent_model import LockInfo

_NOT_ACCEPTED = "lock-names"


def to_accept(info: "LockInfo", given: Sequence[str], *, yes: bool) -> tuple[str, ...]:
    """Return the names that the operator accepts: typed names, or all after a yes.

    Args:
        info: of the lock.
        given: names that were typed; with any, nobody is asked.
        yes: ask nothing. Names that were not typed are then not accepted: nobody has seen them.

    Raises:
        Failure: the person said no, or there is no terminal to ask on.
    """
    left = [name for name in info.unaccepted_names if name not in given]
    if not left:
        return tuple(given)
    if given or yes:
        terminal.say_line(f"note: not accepted, so run does not set it: {', '.join(left)}")
        return tuple(given)
    if not terminal.has_terminal():
        raise Failure(
            f"there is no terminal to ask on, and these names are not accepted: {', '.join(left)}",
            reason="no-terminal",
            hint="name each that you accept: --name NAME; or add --yes to accept none",
        )
    terminal.say("besides credentials, the lock itself brings values for:")
    for name in left:
        terminal.say_line(f"  {described(name)}")
    terminal.say("everybody who signs a version of the lock chooses these values")
    if not terminal.confirm("let this lock set them from now on?"):
        raise Failure("nothing was changed", reason="not-confirmed")
    return tuple(left)


def described(name: str) -> str:
    """Describe a variable: its name, and what it may do."""
    if danger := danger_of(name):
        return f"{name}  {danger.why}: run does not set it anyway, except with --inject fd"
    if environment.is_address(name):
        return f"{name}  an address that keys may be sent to"
    return name


def have_accepted(names: Sequence[str], lock: str, *, socket: str | None, asks_here: bool) -> None:
    """Have the operator accept names that an agent needs, before its keys are requested.

    Args:
        names: names that are not accepted yet.
        lock: the file's path.
        socket: of the daemon, if the command line named one.
        asks_here: whether a person sits at this terminal.

    Raises:
        Failure: they are not accepted.
    """
    if not names:
        return
    listed = "; ".join(described(name).replace("  ", ", ") for name in names)
    if not asks_here:
        raise Failure(
            f"the lock itself brings values for names that you have not accepted: {listed}",
            exit_code=EXIT_DENIED,
            reason=_NOT_ACCEPTED,
            hint=f"look at them: backpack-client agent trust --lock {printable(lock, 256)}",
        )
    # Another process takes the passphrase. This one must stay readable: otherwise the daemon could
    # not show the person who approves the keys what it runs. -EP: neither a module in this
    # directory, which is the agent's, nor one that PYTHONPATH names may be loaded there.
    command = [sys.executable, "-EP", "-m", "backpack_client"]
    command += ["--socket", socket] if socket is not None else []
    done = subprocess.run([*command, "agent", "trust", "--lock", lock], check=False)
    if done.returncode != 0:
        raise Failure(
            f"not accepted: {listed}",
            exit_code=done.returncode if done.returncode > 0 else EXIT_DENIED,
            reason=_NOT_ACCEPTED,
        )
