"""Shared by all commands: finds the daemon, connects, gets operator authority, defines options.

It decides when to ask for a passphrase. `terminal` decides how.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from backpack_client import __version__, address, process_protection
from backpack_client.console import terminal
from backpack_client.failures import from_status

if TYPE_CHECKING:
    from backpack_client.api import Backpack
    from backpack_client.cli.daemon_control import Daemon
    from backpack_client.model import VaultStatus

Command = TypeVar("Command", bound=Callable[..., Any])


class _FileName(click.types.StringParamType):
    """The name of a file, which a shell completes. It is not checked before it is opened."""

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
    """One run of the command line: its daemon, and how to reach it."""

    def __init__(self, environ: Mapping[str, str], socket: str | None) -> None:
        self._environ = environ
        self._socket = socket
        self._shared: Backpack | None = None

    @property
    def daemon(self) -> "Daemon":
        """The daemon of this run."""
        from backpack_client.cli import daemon_control  # noqa: PLC0415 - loads grpc, which help does without

        return daemon_control.find(self._environ, self._socket)

    @property
    def socket(self) -> str:
        """The path of the daemon's socket."""
        return address.socket_path(self._environ, self._socket)

    @property
    def named_socket(self) -> str | None:
        """The path of the socket that the command line names; None if it names none."""
        return self._socket

    @property
    def shared(self) -> bool:
        """Whether all commands use one authorized connection, as they do within `operate`."""
        return self._shared is not None

    @contextmanager
    def share(self, backpack: "Backpack") -> Iterator[None]:
        """Have every command inside the block use this authorized connection."""
        self._shared = backpack
        try:
            yield
        finally:
            self._shared = None

    @contextmanager
    def connect(self, timeout: float | None = None) -> "Iterator[Backpack]":
        """Open a connection to the daemon for the length of a block, or use the shared one.

        Args:
            timeout: how long to wait for each answer, in seconds; None: the default.
        """
        if self._shared is not None:
            yield self._shared
            return
        from backpack_client.api import Backpack  # noqa: PLC0415 - as above
        from backpack_client.calls.call import DEFAULT_TIMEOUT  # noqa: PLC0415 - as above

        with Backpack(self.daemon.socket, timeout or DEFAULT_TIMEOUT) as backpack:
            yield backpack

    @contextmanager
    def operator(self, passphrase_file: str | None) -> "Iterator[Backpack]":
        """Open a connection with operator authority for the length of a block.

        There must be a daemon, and the vault must be unlocked. Otherwise this raises before it asks
        for a passphrase, which would be useless.

        Raises:
            UsageError: a passphrase was given, and the shared connection has authority already.
        """
        if self._shared is not None:
            if passphrase_file is not None:
                raise click.UsageError("--passphrase-file is not needed within operate")
            yield self._shared
            return
        # First of all: another process that opens this one's memory earlier keeps it open.
        process_protection.make_undumpable()
        with self.connect() as backpack:
            status = backpack.status()
            self.note_version(status)
            if status.state != "unlocked":
                raise _not_unlocked(status)
            terminal.right_passphrase("passphrase", passphrase_file, backpack.authorize)
            yield backpack

    @contextmanager
    def reader(self, *, every: bool, passphrase_file: str | None) -> "Iterator[Backpack]":
        """Open a connection for a listing, with operator authority for a listing of everything.

        Raises:
            UsageError: a passphrase was given for a listing that needs none.
        """
        if every:
            with self.operator(passphrase_file) as backpack:
                yield backpack
            return
        if passphrase_file is not None:
            raise click.UsageError("--passphrase-file is for --all only")
        with self.connect() as backpack:
            yield backpack

    def authorize_again(self, backpack: "Backpack") -> None:
        """Ask on the terminal for the passphrase of a connection whose authority has ended.

        Raises:
            Failure: the passphrase was wrong three times, or the daemon refused.
        """
        terminal.say("operator authority has ended; it lasts for five minutes")
        terminal.right_passphrase("passphrase", None, backpack.authorize)

    def note_version(self, status: "VaultStatus") -> None:
        """Note on standard error that client and daemon are of different versions."""
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
    """Add --all; `what` describes what it shows."""
    return click.option("--all", "every", is_flag=True, help=f"{what}; asks for the passphrase.")


TO_SEE_GRANTS = (
    "to see them: backpack-client grants --all; to take one back: backpack-client ungrant ID"
)


def milliseconds(moment: datetime | None) -> int | None:
    """Turn a time into JSON's form: milliseconds since the epoch, as everywhere in the API."""
    return None if moment is None else round(moment.timestamp() * 1000)


def local_time(moment: datetime) -> str:
    """Format a time for people, in their time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds_until(moment: datetime) -> float:
    """Return how long it is until a time, by this machine's clock."""
    return (moment - datetime.now(UTC)).total_seconds()


def count(number: int, noun: str) -> str:
    """Format a number of things: "1 lease", "2 leases"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _not_unlocked(status: "VaultStatus") -> Exception:
    if status.state == "uninitialized":
        return from_status("FAILED_PRECONDITION", "uninitialized", "there is no vault yet", {})
    return from_status("FAILED_PRECONDITION", "locked", "the vault is locked", {})
