"""Parts that tests put in place of the outside world: clocks that stand still, work that waits.

`World` joins them into a whole application as the composition root does, without door and gRPC.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

from backpackd.adapters.processes.memory import MemoryProcesses
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.stores.memory import MemoryStore
from backpackd.application.access.access import Access, Handout, Wish
from backpackd.application.access.approvals import Announce, Approvals
from backpackd.application.access.grant_clock import GrantClock
from backpackd.application.access.grants import StandingGrants
from backpackd.application.access.leases import LiveLeases
from backpackd.application.access.policy import VaultPolicy
from backpackd.application.access.review import Review
from backpackd.application.access.revocation import Revocation
from backpackd.application.access.started_agents import Start, StartedAgents
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.audit.reader import AuditReader
from backpackd.application.callers.operators import Operators, PassphraseGate
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.deadlines import Deadlines
from backpackd.application.vault.autolock import AutoLock
from backpackd.application.vault.keys import Keys
from backpackd.application.vault.recovery import Recovery
from backpackd.application.vault.rotation import Rotation
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Session, Vault
from backpackd.core.access.grants import Grant
from backpackd.core.access.leases import Lease
from backpackd.core.access.requests import Request
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import AuditRow, Change, KeyRow
from backpackd.core.slots.slots import Argon2idParameters
from backpackd.core.vault import records
from backpackd.core.vault.states import State
from backpackd.ports import Connection, Peer, Store

GOOD = b"seven quiet otters"
OTHER = b"nine loud herons fly"
WRONG = b"not the passphrase"
UID = 1000


class FakeClock:
    """Implements `ports.Clock` with two integers that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000
        self.epoch = 1_700_000_000

    def boot(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.epoch

    def pass_(self, seconds: int) -> None:
        self.seconds += seconds
        self.epoch += seconds


class FakeTimer:
    """Implements `ports.Timer` and remembers what it was set to."""

    def __init__(self) -> None:
        self.deadline: float | None = None

    def set(self, deadline: float | None) -> None:
        self.deadline = deadline

    def close(self) -> None:
        self.deadline = None


class FakeNotifier:
    """Implements `ports.Notifier` and remembers the codes."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def notify(self, code: str) -> None:
        self.codes.append(code)


async def unheard(_: str) -> None:
    """Take a request's code and tell nobody."""


class Gate:
    """Holds work up until a test lets it through."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def reached(self) -> None:
        """Wait until the work has come here."""
        await self._reached.wait()

    def open(self) -> None:
        self._opened.set()

    async def pass_(self) -> None:
        self._reached.set()
        await self._opened.wait()


class FakeStretcher:
    """Implements `ports.Stretcher` with a hash, and a gate where a test wants one."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate: Gate | None = None
        self.favored: list[ProcessId] = []

    async def stretch(
        self, passphrase: bytes, parameters: Argon2idParameters, _: ProcessId
    ) -> bytes:
        self.calls += 1
        # Others get their chance in between, as with the real one.
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.pass_()
        return hashlib.sha256(parameters.salt + passphrase).digest()

    def favor(self, tree: ProcessId) -> None:
        self.favored.append(tree)


class GatedStore(MemoryStore):
    """The in-memory store with a gate before its operations where a test wants one."""

    def __init__(self) -> None:
        super().__init__()
        self.before_commit: Gate | None = None
        self.after_commit: Gate | None = None
        self.before_append: Gate | None = None
        self.before_aside: Gate | None = None
        self.before_rows: Gate | None = None
        self.after_rows: Gate | None = None
        self.asked: list[int] = []

    async def commit(self, change: Change) -> None:
        if self.before_commit is not None:
            await self.before_commit.pass_()
        await super().commit(change)
        if self.after_commit is not None:
            await self.after_commit.pass_()

    async def append(self, rows: Sequence[AuditRow]) -> None:
        if self.before_append is not None:
            await self.before_append.pass_()
        await super().append(rows)

    async def set_aside(self, rows: Sequence[KeyRow]) -> None:
        if self.before_aside is not None:
            await self.before_aside.pass_()
        await super().set_aside(rows)

    async def rows(self, indexes: Iterable[bytes]) -> dict[bytes, KeyRow]:
        wanted = list(indexes)
        self.asked.append(len(wanted))
        if self.before_rows is not None:
            await self.before_rows.pass_()
        found = await super().rows(wanted)
        if self.after_rows is not None:
            await self.after_rows.pass_()
        return found


class FakeEmbedded:
    """Implements `access.Embedded`: a lock is any bytes, and all embed the same values."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.refusal: Exception | None = None

    async def check(self, *_: object) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def embedded(
        self, connection: Connection, session: Session, document: bytes, names: Iterable[str]
    ) -> dict[str, bytes]:
        await self.check(connection, session, document)
        return {name: self.values[name] for name in names if name in self.values}


@dataclass(eq=False)
class PlayedConnection:
    """A connection without a socket. Implements `ports.Connection`."""

    name: str
    peer: Peer
    tree: ProcessId
    on_close: list[Callable[[], None]] = field(default_factory=list)
    closed: bool = False

    def close(self) -> None:
        self.closed = True


class PlayedCall:
    """A call without a stream. Implements `ports.Call` as far as services use it."""

    stopping = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.announced: list[tuple[str, str]] = []

    async def receive(self) -> bytes | None:
        return None

    async def send(self, _: bytes, *, last: bool = False) -> None:  # noqa: ARG002 - the port
        raise AssertionError("a service returns its answers")

    async def announce(self, name: str, text: str) -> None:
        self.announced.append((name, text))

    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext()


class World:
    """A whole application on fakes, with one agent: pid 100, and its tool, pid 101."""

    def __init__(self, *, idle: int = 600, longest: int = 3600, store: Store | None = None) -> None:
        self.clock = FakeClock()
        self.timer = FakeTimer()
        # Another one has no gates: its tests use none.
        self.store = GatedStore() if store is None else cast("GatedStore", store)
        self.stretcher = FakeStretcher()
        self.processes = MemoryProcesses()
        self.arena = Arena()
        self.audit_log = AuditLog(self.store, self.arena, self.processes, self.clock)
        self.vault = Vault(self.store, self.arena, self.stretcher, self.clock, self.audit_log)
        self.slots = Slots(self.vault, self.stretcher)
        self.recovery = Recovery(self.vault, self.slots, self.store, self.stretcher)
        self.rotation = Rotation(self.vault, self.store, self.arena)
        self.deadlines = Deadlines(self.clock)
        self.deadlines.attach(self.timer)
        self.keys = Keys(self.vault, self.store)
        self.process_watches = ProcessWatches(self.processes)
        self.live_leases = LiveLeases(
            self.process_watches, self.clock, self.deadlines, self.audit_log
        )
        self.started = StartedAgents(self.processes, self.live_leases, self.clock, self.deadlines)
        self.embedded = FakeEmbedded()
        self.notifier = FakeNotifier()
        self.grant_clock = GrantClock(self.vault, self.clock)
        self.approvals = Approvals(
            self.processes,
            self.process_watches,
            self.deadlines,
            self.clock,
            self.notifier,
            audit_log=self.audit_log,
            grant_clock=self.grant_clock,
        )
        self.vault_policy = VaultPolicy(self.vault, self.audit_log)
        self.access = Access(
            self.vault,
            self.keys,
            self.processes,
            self.clock,
            live_leases=self.live_leases,
            approvals=self.approvals,
            audit_log=self.audit_log,
            tightening=self.vault_policy.tightening,
            started=self.started,
            embedded=self.embedded,
            grant_clock=self.grant_clock,
        )
        self.revocation = Revocation(
            self.vault,
            self.live_leases,
            self.approvals,
            self.processes,
            self.process_watches,
            started=self.started,
            audit_log=self.audit_log,
        )
        self.operators = Operators(self.clock, self.audit_log)
        self.standing_grants = StandingGrants(
            self.vault, self.live_leases, self.processes, UID, self.grant_clock
        )
        self.review = Review(self.vault, self.access, self.live_leases, self.approvals)
        self.standing_grants.on_add.append(self.review.granted)
        self.vault_policy.on_change.append(self.review.ruled)
        self.reading = AuditReader(self.store, self.audit_log)
        self.gate = PassphraseGate(self.clock, self.audit_log, self.stretcher)
        autolock = AutoLock(self.vault, self.live_leases.__len__, idle=idle, longest=longest)
        for source in (
            self.started.expire,
            self.live_leases.expire,
            self.approvals.expire,
            self.audit_log.expire,
            autolock.expire,
        ):
            self.deadlines.add(source)

        self.vault.on_lock += [
            lambda by: self.live_leases.drop_all("locked", by=by),
            lambda _: self.approvals.drop_all(),
            lambda _: self.operators.drop_all(),
        ]
        self.processes.add(100, executable="/usr/bin/agent")
        self.processes.add(101, parent=100, executable="/usr/bin/tool")
        self._names = 0

    async def unlocked(self) -> "World":
        """Make the vault."""
        await self.vault.init(GOOD, self.tree(), by=None)
        await self.audit_log.ready()
        return self

    def tree(self, pid: int = 100) -> ProcessId:
        return self.processes.pin(pid)[1]

    def connect(self, pid: int = 101) -> Connection:
        """Open a connection of a process."""
        process, _ = self.processes.pin(pid)
        peer = Peer(UID, UID, process)
        self._names += 1
        root = self.processes.attest(process, UID, UID).root.id
        return PlayedConnection(f"connection-{self._names}", peer, root)

    async def grant(self, *patterns: str, to: str = f"uid:{UID}", **terms: Any) -> Grant:
        given = {"max_ttl": 0, "valid": 0, "uses": 0, "reason": "", **terms}
        return await self.standing_grants.add(patterns, to, **given, by=None)

    async def hand_out(
        self,
        connection: Connection,
        *names: str,
        ttl: int = 0,
        reason: str = "",
        wait: int = 0,
        announce: Announce = unheard,
    ) -> Handout:
        """Get keys on a connection."""
        return await self.access.get_keys(connection, Wish(names, ttl, reason, wait), announce)

    async def run(
        self,
        *names: str,
        pid: int = 101,
        terminate: bool = True,
        without_values: bool = False,
        ttl: int = 0,
        agent_lock: bytes = b"",
        wait: int = 0,
    ) -> Handout:
        """Get keys for a process that is about to become an agent."""
        start = Start(terminate=terminate, without_values=without_values)
        wish = Wish(names or ("K",), ttl, wait=wait, start=start, agent_lock=agent_lock)
        return await self.access.get_keys(self.connect(pid), wish, unheard)

    async def get(
        self, *names: str, pid: int = 101, ttl: int = 0, wait: int = 0
    ) -> dict[str, bytes]:
        handout = await self.hand_out(self.connect(pid), *names, ttl=ttl, wait=wait)
        return dict(handout.values)

    def renew(self, connection: Connection, lease_id: str, *, ttl: int = 0) -> Lease:
        return self.live_leases.renew(self.access.attest(connection).root.id, lease_id, ttl=ttl)

    def asks(self, *names: str, pid: int = 101, wait: int = 60) -> "asyncio.Task[dict[str, bytes]]":
        """Begin to get keys, and wait for a person where that is needed."""
        return asyncio.create_task(self.get(*names, pid=pid, wait=wait))

    async def waiting(self, calls: int = 1) -> Request:
        """Let the loop turn until one request is pending, with so many calls; return it."""
        await turns(lambda: [request.waiting for request in self.approvals.pending()] == [calls])
        return self.approvals.pending()[0]

    async def stocked(self) -> "World":
        """Make the vault, with the keys K and L, and forget what was asked for meanwhile."""
        await self.unlocked()
        await self.keys.put([("K", b"k"), ("L", b"l")], by=None)
        self.store.asked.clear()
        return self

    async def lease(self, *names: str, pid: int = 101, ttl: int = 0) -> Lease:
        """Lease K, or these keys."""
        return (await self.hand_out(self.connect(pid), *(names or ("K",)), ttl=ttl)).lease

    async def put(self, name: str, value: bytes = b"value") -> None:
        await self.keys.put([(name, value)], replace=True, by=None)

    def row_of(self, name: str) -> bytes:
        """Return the index of a key's row, which only the vault can tell."""

        session = self.vault.session()
        with session.open_master() as master:
            return records.row_index(master, session.vault_id, name)

    async def opened_again(self) -> None:
        """Lock and unlock, as a daemon that starts anew on the same store would."""
        self.vault.lock(by=None)
        await self.vault.unlock(GOOD, self.tree(), by=None)


async def settled(*tasks: "asyncio.Task[Any]") -> list[Any]:
    """Wait for tasks and return what they returned or raised."""
    return await asyncio.gather(*tasks, return_exceptions=True)


async def turns(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds; a hang is the test's timeout."""
    # There is no event to wait for: what is waited for is that the loop comes round.
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def state_of(world: World) -> State:
    """Return the vault's state, which mypy would otherwise take for one that stands still."""
    return world.vault.state
