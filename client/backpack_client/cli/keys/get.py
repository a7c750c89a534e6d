"""The command that prints values, for calls that the fast path leaves to it: get."""

import click

from backpack_client.cli.session import FILE_NAME, Session, milliseconds
from backpack_client.console import terminal
from backpack_client.fastpath import output
from backpack_client.fastpath.get import GRACE

_DEFAULT_WAIT = "60s"


@click.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--ttl", metavar="T", help="How long the lease lives (default: 15m).")
@click.option(
    "--wait",
    metavar="T",
    default=_DEFAULT_WAIT,
    show_default=True,
    help="How long to wait for a person to approve it; 0: not at all.",
)
@click.option("--reason", metavar="TEXT", default="", help="What it is for; the operator sees it.")
@click.option(
    "--lock",
    metavar="FILE",
    type=FILE_NAME,
    help="An agent's lock, whose embedded values are wanted as well (default: the one that run has "
    "started this agent with).",
)
@click.option("--json", "form", flag_value=output.JSON, help="Write names, values and the lease.")
@click.option("--export", "form", flag_value=output.EXPORT, help="Write lines for a shell to eval.")
@click.pass_obj
def get(
    session: Session,
    *,
    names: tuple[str, ...],
    ttl: str | None,
    wait: str,
    reason: str,
    lock: str | None,
    form: str | None,
) -> None:
    """Lease keys and print their values.

    Writes the value of one key and a newline to standard output. Several keys need --json or
    --export. The lease expires without further action.

    If no grant covers the keys, a person is asked: the command writes a code to standard error and
    waits until somebody has approved or denied the request. One approval covers the whole process
    tree.

    JSON: one object with keys (name to value) and lease: an object with id, expires_at_ms,
    remaining_seconds.
    """
    form = form or output.PLAIN
    output.check_form(names, form)
    with session.connect(float(GRACE)) as backpack:
        values = backpack.get(
            *names, ttl=ttl, reason=reason, wait=wait, on_wait=terminal.tell_waiting, lock=lock
        )
    output.write(
        output.render(
            [(name, values.bytes(name)) for name in names],
            form,
            lease_id=values.lease.id,
            expires_at_ms=milliseconds(values.lease.expires_at) or 0,
            remaining_seconds=values.lease.remaining_seconds,
        )
    )


COMMANDS = {"get": get}
