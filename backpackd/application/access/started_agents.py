"""The agents that `run` has started. Leases last as long as their agent, which is told of the end.

A process that is about to become an agent asks for its keys and says so. It is then the root of its
own process tree as long as it lives. Rules:

1. The lease is renewed here while that process lives, up to its maximum. Only the process counts,
   which is held by its own descriptor: its connection ends when it executes the agent.
2. An agent is signalled only if somebody decided something about it: a revocation, a panic, the
   removal of a grant. It gets SIGTERM, and SIGKILL after a grace period. Time, a locked vault, a
   deleted key, a policy and the end of another process cut the agent off, but leave it running. The
   end of the daemon does the same.
3. Only the process that asked for this is ever signalled, through the descriptor that holds it.
4. An agent that was cut off is remembered until it ends. It still has the values that it was given,
   so a panic, and a revocation of its tree, must still reach it.
5. An agent that is its own root is not free of earlier decisions. What was refused to, or revoked
   from, the tree in which it was started still holds (see `PeerFacts.origin`). What is revoked from
   an agent is revoked from that tree. Otherwise a loop that starts agents could never be stopped.
"""

import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from backpackd.application.access.leases import LiveLeases
from backpackd.application.deadlines import Deadlines
from backpackd.core.access.leases import Lease
from backpackd.core.access.orphans import Place, place_of
from backpackd.core.errors import LimitError, PeerUnknownError, ProcessGoneError
from backpackd.core.peer_facts import PeerFacts, ProcessId
from backpackd.ports import Clock, PinnedProcess, Processes

GRACE = 10
"""Seconds between SIGTERM and SIGKILL."""
MOST_AGENTS = 1000
MOST_AGENTS_OF_TREE = 100
MOST_LEASES_OF_AGENT = 100
_TOLD = frozenset({"revoked", "panic", "grant-gone"})


@dataclass(frozen=True, slots=True)
class Start:
    """How a process wants to run as an agent.

    Attributes:
        terminate: whether it is signalled when its lease is taken away; False: only cut off.
        without_values: whether it gets the values itself, later.
    """

    terminate: bool = True
    without_values: bool = False


@dataclass(slots=True, eq=False)
class _Agent:
    """One agent.

    Attributes:
        process: held, to watch and to signal it.
        within: the process itself and all processes above it at its start.
        origin: the root of the tree in which it was started.
        place: where that root ran.
        terminate: as in `Start`. Once True, it stays so: an agent must not be able to undo it.
        leases: when to renew each, in boot-clock seconds. None: not any more, because the lease has
            reached its maximum, or the machine slept past its end.
        told: whether it was sent SIGTERM.
        kill_at: the time of the SIGKILL, in boot-clock seconds.
    """

    process: PinnedProcess
    within: tuple[ProcessId, ...]
    origin: ProcessId
    place: Place
    terminate: bool = False
    leases: dict[str, float | None] = field(default_factory=dict)
    told: bool = False
    kill_at: float | None = None


class StartedAgents:
    """The running agents.

    Its `expire` must run before that of the leases, because a lease that is renewed in time does
    not expire. A lease whose time is over is not renewed, and ends.
    """

    def __init__(
        self, processes: Processes, live_leases: LiveLeases, clock: Clock, deadlines: Deadlines
    ) -> None:
        self._processes = processes
        self._live_leases = live_leases
        self._clock = clock
        self._deadlines = deadlines
        self._agents: dict[ProcessId, _Agent] = {}
        self._coming: float | None = None
        live_leases.on_end.append(self._lease_ended)

    def __len__(self) -> int:
        return len(self._agents)

    def rooted(self, facts: PeerFacts, *, starting: bool = False) -> PeerFacts:
        """Set the root of a caller: the innermost agent that it is or is in.

        Args:
            facts: the caller.
            starting: whether it is about to become an agent itself.
        """
        if starting:
            return replace(facts, root_at=0)
        for place, process in enumerate(facts.chain):
            if process.id in self._agents:
                return replace(facts, root_at=place)
        return facts

    def check_room(self, facts: PeerFacts) -> None:
        """Raise unless a caller may become an agent, or an agent may have one more lease renewed.

        Every renewal looks at all leases that are kept, so their number is bounded.

        Raises:
            LimitError: there are too many agents, or too many leases of this one.
        """
        own = self._agents.get(facts.process.id)
        if own is not None:
            if len(own.leases) >= MOST_LEASES_OF_AGENT:
                raise LimitError("too many leases are kept for this agent: give some back")
            return
        # Counted for every tree that the caller is in: its own terminal must not give it more.
        chain = {process.id for process in facts.chain}
        siblings = sum(agent.origin in chain for agent in self._agents.values())
        if len(self._agents) >= MOST_AGENTS or siblings >= MOST_AGENTS_OF_TREE:
            raise LimitError("too many agents run: let some end, then try again")

    def begin(self, lease: Lease, facts: PeerFacts, start: Start) -> None:
        """Keep a lease as long as its holder lives.

        Args:
            lease: just issued; its holder is the caller.
            facts: the caller.
            start: what it asked for.

        Raises:
            PeerUnknownError: the caller has ended, and the lease with it.
            LimitError: the daemon has no free descriptors; the lease has ended.
        """
        agent = self._agents.get(lease.holder)
        if agent is None:
            try:
                process = self._hold(lease.holder)
            except BaseException:
                self._live_leases.end_id(lease.id, "holder-gone", by=None)
                raise
            within = tuple(each.id for each in facts.chain)
            place = place_of(facts, facts.origin)
            agent = _Agent(process, within, facts.origin.id, place)
            self._agents[lease.holder] = agent
            process.on_exit(lambda: self._gone(lease.holder))
        agent.terminate = agent.terminate or start.terminate
        agent.leases[lease.id] = _half_way(lease, self._clock.boot())
        self._review()

    def tell(self, meant: Callable[[ProcessId], bool] = lambda _: True) -> None:
        """Tell agents to end, also those that were cut off before.

        Args:
            meant: tells which, by their process.
        """
        for process, agent in list(self._agents.items()):
            if meant(process):
                self._tell(agent)
        self._review()

    def ancestors(self) -> set[ProcessId]:
        """Return the agents, and the processes above them at their start."""
        return {process for agent in self._agents.values() for process in agent.within}

    def started_below(self, processes: Collection[ProcessId]) -> set[ProcessId]:
        """Return the agents that are one of these processes or were started below one."""
        return {
            one
            for one, agent in self._agents.items()
            if not set(agent.within).isdisjoint(processes)
        }

    def origin_of(self, process: ProcessId) -> ProcessId | None:
        """Return the root of the tree in which an agent was started; None if it is not an agent."""
        agent = self._agents.get(process)
        return agent.origin if agent is not None else None

    def places(self) -> dict[ProcessId, Place]:
        """Return where the roots ran of the trees in which agents were started."""
        return {agent.origin: agent.place for agent in self._agents.values()}

    def expire(self, now: float) -> float | None:
        """Renew due leases, and kill agents that ignored SIGTERM. A source for `Deadlines`."""
        if self._coming is None or now < self._coming:
            return self._coming
        for agent in list(self._agents.values()):
            if agent.kill_at is not None and agent.kill_at <= now:
                agent.kill_at = None
                agent.process.signal(signal.SIGKILL)
            for lease_id, due in list(agent.leases.items()):
                if due is not None and due <= now:
                    self._renew(agent, lease_id, now)
        self._coming = self._next()
        return self._coming

    def _renew(self, agent: _Agent, lease_id: str, now: float) -> None:
        lease = self._live_leases.keep(lease_id) if agent.process.alive() else None
        agent.leases[lease_id] = None if lease is None else _half_way(lease, now)

    def _lease_ended(self, lease: Lease, reason: str, decided: bool) -> None:
        agent = self._agents.get(lease.holder)
        if agent is None or lease.id not in agent.leases:
            return
        del agent.leases[lease.id]
        if decided and reason in _TOLD:
            self._tell(agent)
        # Handled with the deadlines, which follow: in a panic once, and not once for each lease.
        self._coming = self._clock.boot()

    def _tell(self, agent: _Agent) -> None:
        if agent.terminate and not agent.told and agent.process.signal(signal.SIGTERM):
            agent.told = True
            agent.kill_at = self._clock.boot() + GRACE

    def _gone(self, process: ProcessId) -> None:
        agent = self._agents.pop(process, None)
        if agent is not None:
            agent.process.close()
            self._review()

    def _review(self) -> None:
        self._coming = self._next()
        self._deadlines.review()

    def _next(self) -> float | None:
        moments = [agent.kill_at for agent in self._agents.values()]
        moments += [due for agent in self._agents.values() for due in agent.leases.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _hold(self, process: ProcessId) -> PinnedProcess:
        try:
            return self._processes.hold(process)
        except ProcessGoneError:
            raise _ended() from None


def _half_way(lease: Lease, now: float) -> float | None:
    """Return when to renew a lease; None if no renewal would extend it."""
    if lease.expires_at >= lease.max_expires_at:
        return None
    return now + (lease.expires_at - now) / 2


def _ended() -> PeerUnknownError:
    return PeerUnknownError("the process that was to become the agent has ended: start it again")
