"""What every command needs: which daemon is meant, a connection to it, operator authority, options.

It decides when a passphrase is asked for; how is `terminal`'s business.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from backpack_client import __version__, address, protecting, terminal
from backpack_client.failures import Failure, from_status

if TYPE_CHECKING:
    from backpack_client.cli.connection import Connection
    from backpack_client.model import VaultStatus
    from backpack_client.startup import Daemon

_ATTEMPTS = 3

Command = TypeVar("Command", bound=Callable[..., Any])


class _FileName(click.types.StringParamType):
    """A file's name, which a shell completes. Nothing is looked at: whoever opens it does that."""

    name = "file"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002 - as above
        incomplete: str,
    ) -> list[CompletionItem]:
        """Leave the completion to the shell, which knows the files."""
        return [CompletionItem(incomplete, type="file")]


FILE_NAME = _FileName()


class Session:
    """One run of the command line."""

    def __init__(self, environ: Mapping[str, str], socket: str | None) -> None:
        self._environ = environ
        self._socket = socket

    @property
    def daemon(self) -> "Daemon":
        """The daemon that is meant."""
        from backpack_client import startup  # noqa: PLC0415 - loads grpc, which help does without

        return startup.find(self._environ, self._socket)

    @property
    def socket(self) -> str:
        """The path of the daemon's socket."""
        return address.socket_path(self._environ, self._socket)

    @property
    def named_socket(self) -> str | None:
        """The path of the socket that the command line names; None: it names none."""
        return self._socket

    def connect(self, timeout: float | None = None) -> "Connection":
        """Make the connection to the daemon; nothing is sent yet.

        Args:
            timeout: how long to wait for each answer, in seconds; None: the default.
        """
        from backpack_client.calls.call import DEFAULT_TIMEOUT  # noqa: PLC0415 - as above
        from backpack_client.cli.connection import Connection  # noqa: PLC0415 - as above

        return Connection(self.daemon.socket, timeout or DEFAULT_TIMEOUT)

    @contextmanager
    def operator(self, passphrase_file: str | None) -> "Iterator[Connection]":
        """Open a connection that has operator authority.

        Nobody is asked for a passphrase that could not be used: there must be a daemon, and the
        vault must be unlocked.
        """
        # First of all: what is opened of this process before that stays open.
        protecting.make_undumpable()
        with self.connect() as backpack:
            status = backpack.status()
            self.note_version(status)
            if status.state != "unlocked":
                raise _not_unlocked(status)
            terminal.right_passphrase("passphrase", passphrase_file, backpack.authorize)
            yield backpack

    @contextmanager
    def reader(self, *, every: bool, passphrase_file: str | None) -> "Iterator[Connection]":
        """Open a connection for a listing: with operator authority where it covers everything.

        Raises:
            UsageError: a passphrase was given, and it does not cover everything.
        """
        if every:
            with self.operator(passphrase_file) as backpack:
                yield backpack
            return
        if passphrase_file is not None:
            raise click.UsageError("--passphrase-file is for --all only")
        with self.connect() as backpack:
            yield backpack

    def authorize_again(self, backpack: "Connection") -> None:
        """Ask on the terminal for the passphrase of a connection whose authority has ended.

        Raises:
            Failure: it was wrong three times, or the daemon refused for another reason.
        """
        terminal.say("operator authority has ended after five minutes")
        for left in reversed(range(_ATTEMPTS)):
            try:
                backpack.authorize(terminal.passphrase("passphrase", None))
            except Failure as failure:
                if failure.reason != "wrong-passphrase" or not left:
                    raise
                terminal.show_failure(failure)
            else:
                return

    def note_version(self, status: "VaultStatus") -> None:
        """Say so on standard error when client and daemon are not of one version."""
        if status.daemon_version != __version__:
            terminal.say(
                f"note: this client is version {__version__}, the daemon {status.daemon_version}: "
                "restart the daemon after an upgrade (backpack-client stop, then start)"
            )


def passphrase_option(command: Command) -> Command:
    """Add --passphrase-file."""
    return click.option(
        "--passphrase-file",
        metavar="FILE",
        type=FILE_NAME,
        help="Read the passphrase from FILE (private to you), or - for standard input, instead of "
        "asking on the terminal.",
    )(command)


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")(
        command
    )


def all_option(what: str) -> Callable[[Command], Command]:
    """Add --all; `what` says of whom else things are shown then."""
    return click.option("--all", "every", is_flag=True, help=f"{what}; asks for the passphrase.")


TO_SEE_GRANTS = (
    "to see them: backpack-client grants --all; to take one back: backpack-client ungrant ID"
)


def milliseconds(moment: datetime | None) -> int | None:
    """Write a time for JSON: milliseconds since the epoch, as everywhere in the API."""
    return None if moment is None else round(moment.timestamp() * 1000)


def local_time(moment: datetime) -> str:
    """Write a time for people, in their own time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds_until(moment: datetime) -> float:
    """Tell how long it is until a time, by this machine's clock."""
    return (moment - datetime.now(UTC)).total_seconds()


def count(number: int, noun: str) -> str:
    """Write a number of things: "1 lease", "2 leases"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _not_unlocked(status: "VaultStatus") -> Exception:
    if status.state == "uninitialized":
        return from_status("FAILED_PRECONDITION", "uninitialized", "there is no vault yet", {})
    return from_status("FAILED_PRECONDITION", "locked", "the vault is locked", {})
