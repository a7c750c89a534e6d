"""What the application needs of the outside world, as types.

Adapters implement these ports and the composition root hands them in, so the application never
imports an adapter, and a test can put an in-memory one in the same place.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from backpackd.core.peer_facts import PeerFacts, ProcessId
from backpackd.core.rows import AuditRow, Change, KeyRow, RowHead, StoredVault
from backpackd.core.slots.slots import Argon2idParameters


class Clock(Protocol):
    """Two clocks that are not each other."""

    def boot(self) -> float:
        """Seconds since boot, time spent in suspend included. Leases and delays use it."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, as far as this machine knows: for people, for expiry dates."""
        ...


class Timer(Protocol):
    """One alarm on the boot clock."""

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (seconds on the boot clock), at once if that has passed; None: never.

        A later call replaces an earlier one.
        """
        ...

    def close(self) -> None:
        """Never ring again."""
        ...


class SecretArena(Protocol):
    """Memory for the master key that nothing else can read and nothing can swap out."""

    def store(self, secret: bytes | bytearray | memoryview) -> "SecretSlot":
        """Copy `secret` in. The caller drops its own copy.

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
        """Overwrite the secret and give the place back. Wiping twice is harmless."""
        ...


class Stretcher(Protocol):
    """Turns passphrases into slot secrets, slowly on purpose."""

    async def stretch(
        self, passphrase: bytes, parameters: Argon2idParameters, tree: ProcessId
    ) -> bytes:
        """Stretch a normalised passphrase to 32 bytes, in turn with other process trees.

        Raises:
            LimitError: too many of this tree, or of all trees, are waiting.
        """
        ...

    def favor(self, tree: ProcessId) -> None:
        """Remember that a tree has given a right passphrase: others do not keep it out."""
        ...


class PinnedProcess(Protocol):
    """A process held by a descriptor, so that its pid cannot come to mean another one."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def alive(self) -> bool:
        """Tell whether it still runs; a zombie does not."""
        ...

    def uid(self) -> int | None:
        """Tell as which user it runs now (effective uid); None when that cannot be told."""
        ...

    def readable_by(self, uid: int) -> bool:
        """Tell whether a user's other processes can read its memory and take its descriptors.

        Or have it give them: a process that another one traces counts as readable. True also where
        it cannot be told, on a system that has a way to tell.
        """
        ...

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once from the event loop when the process has ended."""
        ...

    def signal(self, number: int) -> bool:
        """Send this very process a signal, and no other one that has its pid by now.

        Returns:
            False when it has ended, was let go, or the system does not let this user signal it.
        """
        ...

    def close(self) -> None:
        """Give the descriptor back; callbacks no longer come. Closing twice is harmless."""
        ...


class Processes(Protocol):
    """Reads facts about processes."""

    def attest(self, process: PinnedProcess, uid: int, gid: int) -> PeerFacts:
        """Read a peer and its ancestors, each checked to be still itself after the reading.

        Raises:
            ProcessGoneError: the peer ended meanwhile.
        """
        ...

    def digest(self, process: ProcessId, executable: str) -> str | None:
        """Hash what a process runs: SHA-256 as lowercase hex; None when it cannot be read.

        Reads a whole file, so it is called outside the event loop.
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
        """Hold this very process.

        Raises:
            ProcessGoneError: it has ended, and its pid may be another process's by now.
            LimitError: too many files are open.
        """
        ...

    def ended(self, process: ProcessId) -> bool:
        """Tell whether a process is known to have ended; False where that cannot be told.

        Raises:
            LimitError: too many files are open to tell.
        """
        ...

    def claimed_commands(self, facts: PeerFacts) -> dict[int, str]:
        """Read what the processes of a chain say of themselves: command lines, by pid.

        Claims, for people to look at: unescaped, at most 4096 characters each, and missing for
        processes that have ended or cannot be read.
        """
        ...

    def boot_id(self) -> str:
        """Name this boot: the same until the machine restarts."""
        ...

    def degraded(self) -> str:
        """Say what weakens attestation on this machine; empty when nothing does."""
        ...


class Notifier(Protocol):
    """Tells the user at the desktop that a request waits."""

    def notify(self, code: str) -> None:
        """Show a request's code and nothing else. Returns at once and never fails."""
        ...


@dataclass(slots=True)
class Peer:
    """Who is at the other end of one connection, as the kernel told it at accept.

    Attributes:
        uid: effective uid at connect.
        gid: effective gid at connect.
        process: the process that connected, pinned.
        exposed: its user's other processes could read it when it was accepted, or at a later call
            that needs authority, and may have taken the connection's descriptor then. Such a
            connection has no operator authority any more.
    """

    uid: int
    gid: int
    process: PinnedProcess
    exposed: bool = False


class Connection(Protocol):
    """One connection through the door.

    Attributes:
        name: a random one, for the audit log.
        peer: who connected.
        tree: the root of the peer's tree at accept, for limits and throttling only; what decides
            is read again for every request.
        on_close: called once, in order, when the connection has closed.
    """

    name: str
    peer: Peer
    tree: ProcessId
    on_close: list[Callable[[], None]]

    def close(self) -> None:
        """Close it now, with all that is under way on it."""
        ...


class Call(Protocol):
    """One call of a method, while it is served."""

    @property
    def connection(self) -> Connection:
        """The one that the call came on."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the call is cancelled because the daemon stops."""
        ...

    async def receive(self) -> bytes | None:
        """Wait for the next message of the request; None: there is no further one."""
        ...

    async def send(self, message: bytes, *, last: bool = False) -> None:
        """Send a message, as fast as the peer takes it; the status follows the last one."""
        ...

    async def announce(self, name: str, text: str) -> None:
        """Tell the caller something ahead of the answer: ASCII, once in a call.

        For a call that waits for a person from then on, and does not count as one in progress.
        """
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Not count as a call in progress inside of the block, which waits for something else."""
        ...


class Method(Protocol):
    """What the server calls for one method.

    Attributes:
        longest: the longest message of a request, in bytes.
        streaming: whether a request is a stream of messages. If not, it is complete, and has one
            message, when the method is called.
        stays_open: whether a call stays open for as long as its caller likes.
    """

    longest: int
    streaming: bool
    stays_open: bool

    async def serve(self, call: Call) -> None:
        """Serve a call. What it raises is the call's status."""
        ...


FindMethod = Callable[[bytes], Method | None]
"""Looks up the method for the path of a request."""

Headers = list[tuple[bytes, bytes]]
"""HTTP/2 header fields, in their order."""


class Spool(Protocol):
    """Bytes on their way, of any number, outside of memory."""

    async def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            DiskFullError: there is no room.
        """
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield what was added, from the start, in pieces of any size."""
        ...

    def close(self) -> None:
        """Forget it. Closing twice is harmless."""
        ...


class Store(Protocol):
    """Durable storage of one vault. It stores what it is given and understands none of it.

    Every method may raise StoreError or DiskFullError, with the old state intact, and DamageError
    when what is stored is not a vault of this format.
    """

    async def load(self) -> StoredVault | None:
        """Read everything but the key rows; None when there is no vault yet."""
        ...

    async def create(self, vault: StoredVault) -> None:
        """Store a new vault, whole or not at all.

        Raises:
            AlreadyInitializedError: there is one.
        """
        ...

    async def heads(self) -> list[RowHead]:
        """Read the heads of all key rows, in no particular order."""
        ...

    async def rows(self, indexes: Iterable[bytes]) -> dict[bytes, KeyRow]:
        """Read the rows with these indexes, those that exist, by index."""
        ...

    async def sealed_heads(self) -> list[tuple[RowHead, bytes]]:
        """Read all key rows without their values: the head of the row and its sealed head."""
        ...

    async def commit(self, change: Change) -> None:
        """Make a change durable before returning.

        Raises:
            DamageError: the stored authority record is not `change.before`.
            StoreError: there are not `change.aside` rows set aside, or there was other trouble.
        """
        ...

    async def set_aside(self, rows: Sequence[KeyRow]) -> None:
        """Keep rows beside the vault, which stays as it is, for a `Change` that takes them in.

        However the daemon ends, what was only set aside is gone when it begins again.
        """
        ...

    async def drop_aside(self) -> None:
        """Forget what was set aside."""
        ...

    async def purge(self) -> None:
        """Leave nothing in the files of what was deleted or replaced up to now."""
        ...

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Append rows to the audit log, durably before returning, all or none.

        Raises:
            StoreError: there is a row of that number already.
        """
        ...

    async def audit_rows(self, after: int, most: int) -> list[AuditRow]:
        """Read rows of the audit log in the order of their numbers.

        Args:
            after: the number after which to begin; 0 for the first that the vault wrote.
            most: how many at most; fewer only at the end.
        """
        ...

    async def audit_last(
        self, kind: int | None = None, before: int | None = None
    ) -> AuditRow | None:
        """Read the last row of the audit log, or the last of a kind; None when there is none.

        Args:
            kind: of which kind; None: any.
            before: only rows with smaller numbers; None: all.

        A row whose number no log can reach, planted by somebody, is no last row.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the files."""
        ...
