"""What the application needs from the outside world, as types.

Adapters implement these ports, and the composition root passes them in. So the application never
imports an adapter, and a test can use an in-memory one instead.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from backpackd.core.peer_facts import PeerFacts, ProcessId
from backpackd.core.rows import AuditRow, Change, KeyRow, RowHead, StoredVault
from backpackd.core.slots.slots import Argon2idParameters


class Clock(Protocol):
    """Two independent clocks."""

    def boot(self) -> float:
        """Seconds since boot, including time in suspend. Leases and delays use it."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, according to this machine. For people and for expiry dates."""
        ...


class Timer(Protocol):
    """One alarm on the boot clock."""

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (seconds on the boot clock), or at once if it has passed; None: never.

        A later call replaces an earlier one.
        """
        ...

    def close(self) -> None:
        """Never ring again."""
        ...


class SecretArena(Protocol):
    """Memory for the master key that no other process can read and that is never swapped out."""

    def store(self, secret: bytes | bytearray | memoryview) -> "SecretSlot":
        """Copy `secret` into the arena. The caller drops its own copy.

        Raises:
            LimitError: the arena is full.
        """
        ...


class SecretSlot(Protocol):
    """One secret in the arena."""

    def open(self) -> AbstractContextManager[memoryview]:
        """Lend a read-only view of the secret for the length of a `with` block.

        Raises:
            ValueError: the slot was wiped.
        """
        ...

    def wipe(self) -> None:
        """Overwrite the secret and free its place. Wiping twice is harmless."""
        ...


class Stretcher(Protocol):
    """Turns passphrases into slot secrets. It is slow on purpose."""

    async def stretch(
        self, passphrase: bytes, parameters: Argon2idParameters, tree: ProcessId
    ) -> bytes:
        """Stretch a normalised passphrase to 32 bytes, taking turns with other process trees.

        Raises:
            LimitError: too many calls of this tree, or of all trees, are waiting.
        """
        ...

    def favor(self, tree: ProcessId) -> None:
        """Remember that a tree has given a right passphrase, so that others cannot keep it out."""
        ...


class PinnedProcess(Protocol):
    """A process held by a descriptor, so that its pid cannot come to mean another process."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def alive(self) -> bool:
        """Return whether it still runs. A zombie does not."""
        ...

    def uid(self) -> int | None:
        """Return the user that it runs as now (effective uid); None if unknown."""
        ...

    def readable_by(self, uid: int) -> bool:
        """Return whether the user's other processes can read its memory or take its descriptors.

        They can also take them through a tracer, so a traced process counts as readable. The answer
        is also True if it is unknown, on a system that can tell in general.
        """
        ...

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, from the event loop, when the process has ended."""
        ...

    def signal(self, number: int) -> bool:
        """Send a signal to this exact process, never to another one that reuses its pid.

        Returns:
            False if it has ended, was released, or the system does not let this user signal it.
        """
        ...

    def close(self) -> None:
        """Close the descriptor. Callbacks no longer come. Closing twice is harmless."""
        ...


class Processes(Protocol):
    """Reads facts about processes."""

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read the facts of a peer and its ancestors, and check that each is still the same.

        Raises:
            ProcessGoneError: the peer ended during this.
        """
        ...

    def digest(self, process: ProcessId, executable: str) -> str | None:
        """Hash the program that a process runs: SHA-256 as lowercase hex; None if unreadable.

        It reads a whole file, so call it outside the event loop.
        """
        ...

    def pin(self, pid: int) -> tuple[PinnedProcess, ProcessId]:
        """Hold a running process by its pid.

        Raises:
            ProcessGoneError: there is no such process.
            LimitError: too many files are open.
        """
        ...

    def hold(self, process: ProcessId) -> PinnedProcess:
        """Hold exactly this process.

        Raises:
            ProcessGoneError: it has ended, and its pid may belong to another process now.
            LimitError: too many files are open.
        """
        ...

    def ended(self, process: ProcessId) -> bool:
        """Return whether a process is known to have ended; False if unknown.

        Raises:
            LimitError: too many files are open to find out.
        """
        ...

    def claimed_commands(self, facts: PeerFacts) -> dict[int, str]:
        """Read the command lines of the processes of a chain, by pid.

        These are claims, for people to look at. They are unescaped, at most 4096 characters each,
        and missing for processes that have ended or cannot be read.
        """
        ...

    def boot_id(self) -> str:
        """Return a name for this boot. It stays the same until the machine restarts."""
        ...

    def degraded(self) -> str:
        """Return what weakens attestation on this machine; empty if nothing does."""
        ...


class Notifier(Protocol):
    """Tells the user on the desktop that a request waits."""

    def notify(self, code: str) -> None:
        """Show a request's code and nothing else. Returns at once and never fails."""
        ...


@dataclass(slots=True)
class Peer:
    """The process at the other end of one connection, as the kernel reported it at accept.

    Attributes:
        uid: effective uid at connect.
        gid: effective gid at connect.
        process: the process that connected, pinned.
        exposed: whether its user's other processes could read it at accept, or at a later call that
            needs authority. They may have taken the connection's descriptor then, so such a
            connection has no operator authority any more.
    """

    uid: int
    gid: int
    process: PinnedProcess
    exposed: bool = False


class Connection(Protocol):
    """One connection through the door.

    Attributes:
        name: a random name, for the audit log.
        peer: the process that connected.
        tree: the root of the peer's tree at accept, only for limits and throttling. Facts that
            decide something are read again for every request.
        on_close: functions that are called once, in order, when the connection has closed.
    """

    name: str
    peer: Peer
    tree: ProcessId
    on_close: list[Callable[[], None]]

    def close(self) -> None:
        """Close it now, and end all calls on it."""
        ...


class Call(Protocol):
    """One call of a method, while it is served."""

    @property
    def connection(self) -> Connection:
        """The connection that the call came on."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the call is being cancelled because the daemon stops."""
        ...

    async def receive(self) -> bytes | None:
        """Wait for the next message of the request; None: there is no other."""
        ...

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Send a message, as fast as the peer reads it. The status follows the last message."""
        ...

    async def announce(self, name: str, text: str) -> None:
        """Tell the caller something before the answer: ASCII, once in a call.

        For a call that then waits for a person, and no longer counts as one in progress.
        """
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Inside the block, do not count as a call in progress: it waits for something else."""
        ...


class Method(Protocol):
    """What the server calls for one method.

    Attributes:
        longest: the longest message of a request, in bytes.
        streaming: whether a request is a stream of messages. If not, the method is called when the
            request is complete, and it has one message.
        stays_open: whether a call stays open as long as its caller likes.
    """

    longest: int
    streaming: bool
    stays_open: bool

    async def serve(self, call: Call) -> None:
        """Serve a call. What it raises becomes the call's status."""
        ...


FindMethod = Callable[[bytes], Method | None]
"""Finds the method for the path of a request."""

Headers = list[tuple[bytes, bytes]]
"""HTTP/2 header fields, in order."""


class Spool(Protocol):
    """Bytes in transit, of any number, kept outside memory."""

    async def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            DiskFullError: there is no room.
        """
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield all added bytes, from the start, in pieces of any size."""
        ...

    def close(self) -> None:
        """Drop the content. Closing twice is harmless."""
        ...


class Store(Protocol):
    """Durable storage of one vault. It stores data without understanding it.

    Every method may raise StoreError or DiskFullError, and the old state stays intact. It may raise
    DamageError if the stored data is not a vault of this format.
    """

    async def load(self) -> StoredVault | None:
        """Read everything except the key rows; None if there is no vault yet."""
        ...

    async def create(self, vault: StoredVault) -> None:
        """Store a new vault completely or not at all.

        Raises:
            AlreadyInitializedError: there is one.
        """
        ...

    async def heads(self) -> list[RowHead]:
        """Read the heads of all key rows, in no particular order."""
        ...

    async def rows(self, indexes: Iterable[bytes]) -> dict[bytes, KeyRow]:
        """Read the rows with these indexes, as far as they exist, by index."""
        ...

    async def sealed_heads(self) -> list[tuple[RowHead, bytes]]:
        """Read all key rows without their values: each row's head and its sealed head."""
        ...

    async def commit(self, change: Change) -> None:
        """Make a change durable before returning.

        Raises:
            DamageError: the stored authority record is not `change.before`.
            StoreError: the number of rows set aside is not `change.aside`, or another failure.
        """
        ...

    async def set_aside(self, rows: Sequence[KeyRow]) -> None:
        """Keep rows beside the vault for a `Change` that takes them in. The vault does not change.

        Rows that were only set aside are gone at the next start, however the daemon ends.
        """
        ...

    async def drop_aside(self) -> None:
        """Forget what was set aside."""
        ...

    async def purge(self) -> None:
        """Remove from the files whatever was deleted or replaced until now."""
        ...

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Append rows to the audit log: all or none, durable before returning.

        Raises:
            StoreError: there is already a row with that number.
        """
        ...

    async def audit_rows(self, after: int, most: int) -> list[AuditRow]:
        """Read rows of the audit log in the order of their numbers.

        Args:
            after: the number after which to begin; 0 for the first row of the vault.
            most: the most rows to return; there are fewer only at the end.
        """
        ...

    async def audit_last(
        self, kind: int | None = None, before: int | None = None
    ) -> AuditRow | None:
        """Read the last row of the audit log, or the last of a kind; None if there is none.

        Args:
            kind: the kind; None: any.
            before: only rows with smaller numbers; None: all.

        A row planted with a number that no log can reach does not count as the last row.
        """
        ...

    async def close(self) -> None:
        """Finish the work in progress and release the files."""
        ...
