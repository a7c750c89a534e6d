"""Ends leases for a person so that they cannot come back unasked, and ends everything at once.

Every process of the user may do this, because it only makes things safer. A revocation takes effect
at once. `keep` then stores the part that must outlive the daemon.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from backpackd.application.access.approvals import Approvals, roots
from backpackd.application.access.leases import LiveLeases
from backpackd.application.access.started_agents import StartedAgents
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.callers.reattestation import read_place
from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.access.consents import EVERY_KEY
from backpackd.core.access.grants import Grant
from backpackd.core.access.leases import Lease
from backpackd.core.access.orphans import Place
from backpackd.core.access.revocations import MOST_TREES, Revocations
from backpackd.core.errors import (
    BackpackError,
    LimitError,
    LockedError,
    PeerUnknownError,
    ProcessGoneError,
    RevocationNotKeptError,
    StoreError,
)
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import Connection, Processes

Revoked = tuple[ProcessId, Collection[str]]
"""The root of a tree, and the keys that are revoked from it."""


@dataclass(frozen=True, slots=True)
class Panicked:
    """What a panic ended.

    Attributes:
        leases: the number of leases.
        requests: the number of requests.
    """

    leases: int
    requests: int


class Revocation:
    """Ends leases for a person, so that it sticks.

    `by` is the connection of the caller whose doing it is.
    """

    def __init__(
        self,
        vault: Vault,
        live_leases: LiveLeases,
        approvals: Approvals,
        processes: Processes,
        process_watches: ProcessWatches,
        *,
        started: StartedAgents,
        audit_log: AuditLog,
    ) -> None:
        self._audit_log = audit_log
        self._vault = vault
        self._live_leases = live_leases
        self._approvals = approvals
        self._started = started
        self._processes = processes
        self._process_watches = process_watches
        self._consents = approvals.consents
        vault.on_unlock.append(lambda: self.restore(vault.session().authority.revoked))

    async def keep(self) -> None:
        """Store the trees of revocations, so that a new daemon knows them, too.

        Raises:
            RevocationNotKeptError: they cannot be stored. The revocations still hold in memory.
        """

        async def draft(session: Session) -> Draft | None:
            held = self._consents.revocations(self._processes.boot_id())
            if held == session.authority.revoked:
                return None
            return Draft(session.authority.next(self._vault.now_ms(), revoked=held))

        try:
            # What was revoked is in the log already, with whose doing it was.
            await self._vault.change(draft, by=None)
        except (LockedError, StoreError) as error:
            raise RevocationNotKeptError(
                f"revoked, for as long as this daemon runs, but not stored: {error.message}; "
                "correct that and revoke again, or end the process"
            ) from None

    def restore(self, kept: Revocations) -> None:
        """Restore stored revocations, for every key, from those trees that still live.

        If an older version has not stored where a root runs, this is read again.
        """
        if kept.boot_id != self._processes.boot_id():
            return
        for tree in kept.trees:
            try:
                self._process_watches.watch(tree)
            except PeerUnknownError:
                continue
            except BackpackError:
                # Its end will not be noticed, but the revocation must hold in any case.
                pass
            place = kept.places.get(tree) or read_place(self._processes, tree)
            self._consents.restore(tree, place=place)
        if kept.everybody:
            self._consents.restore(None)

    def give_back(self, holder: ProcessId, lease_id: str, *, by: Connection | None) -> list[Lease]:
        """End a lease of the caller's own tree; what it rests on stays."""
        lease = self._live_leases.find(lease_id)
        if lease is None or lease.holder != holder:
            return []
        return self._live_leases.end_id(lease_id, "given-back", by=by)

    def lease(self, lease_id: str, *, by: Connection | None) -> list[Lease]:
        """Revoke one lease."""
        ended = self._live_leases.end_id(lease_id, "revoked", by=by)
        if ended:
            self._note("lease", by, lease=lease_id)
        return self._stick(ended, by)

    def key(self, name: str, *, by: Connection | None) -> list[Lease]:
        """Revoke a key from every tree that has or had it, and the consents to it.

        Raises:
            InvalidRequestError: that is not the name of a key.
        """
        ended = self._live_leases.end_key(name, "revoked", by=by)
        had = self._live_leases.had(name)
        # An agent keeps the values that it was given, even after its lease.
        self._started.tell({tree for tree, _ in had}.__contains__)
        self._note("key", by, names=(name,))
        inside = self._live_leases.had_inside(name)
        return self._stick(ended, by, lambda consent: consent.covers(name), [*had, *inside])

    def tree(self, pid: int, *, by: Connection | None) -> list[Lease]:
        """Revoke all that a process and what it has started have, or would get by a grant.

        This includes agents that were started below it, and other roots there, such as tools on
        their own terminals.
        """
        meant = self._meant(pid)
        if meant:
            self._note("tree", by, details={"tree-pid": str(pid)})
        agents = self._started.started_below(meant)
        ended = self._live_leases.end_below(meant, "revoked", by=by)
        self._started.tell(agents.__contains__)
        roots = meant | agents
        every: list[Revoked] = [(each, (EVERY_KEY,)) for each in roots]
        return self._stick(ended, by, lambda consent: consent.selector.process in roots, every)

    def all(self, *, by: Connection | None) -> list[Lease]:
        """Revoke every lease and every consent, also from trees that have no lease any more."""
        ended = self._live_leases.end_all("revoked", by=by)
        self._started.tell()
        self._note("all", by)
        had = [*self._live_leases.had(), *self._live_leases.had_inside()]
        return self._stick(ended, by, lambda _: True, had)

    def panic(self, *, by: Connection | None) -> Panicked:
        """End every lease and request, and drop the master key, before anything else happens.

        This never waits, so no other call is served in between. After it, the vault is locked and
        refuses all calls. Once it is unlocked again, a person is asked before a tree that had a key
        gets one under a standing grant.
        """
        leases = len(self._live_leases.end_all("panic", by=by))
        had = [*self._live_leases.had(), *self._live_leases.had_inside()]
        trees = frozenset(tree for tree, _ in [*had, *self._origins(had)])
        many = len(trees) > MOST_TREES
        places = {} if many else self._places(trees)
        kept = frozenset() if many else trees
        self.restore(Revocations(self._processes.boot_id(), kept, everybody=many, places=places))
        self._live_leases.drop_all("panic", by=by)
        # Before the lock, which tells no agent: and those that an earlier lock has cut off as well.
        self._started.tell()
        requests = len(self._approvals.pending())
        self._audit_log.note(self._audit_log.event("panic", by))
        self._vault.lock(by=by)
        return Panicked(leases, requests)

    def _note(self, what: str, by: Connection | None, **further: Any) -> None:
        self._audit_log.refused(self._audit_log.event("revoked", by, reason=what, **further))

    def _meant(self, pid: int) -> set[ProcessId]:
        """Return the process that has a pid; if it has ended, known processes that had this pid."""
        try:
            process, identity = self._processes.pin(pid)
        except (ProcessGoneError, LimitError, OSError):
            known = self._live_leases.ancestors() | self._started.ancestors()
            return {one for one in known if one.pid == pid}
        process.close()
        return {identity}

    def _places(self, trees: Iterable[ProcessId]) -> dict[ProcessId, Place]:
        """Return where the roots of trees run, for those where this is known."""
        origins = self._started.places()
        found = {
            tree: self._live_leases.place_of(tree)
            or origins.get(tree)
            or read_place(self._processes, tree)
            for tree in trees
        }
        return {tree: place for tree, place in found.items() if place is not None}

    def _stick(
        self,
        ended: list[Lease],
        by: Connection | None,
        meant: Callable[[Grant], bool] = lambda _: False,
        further: Collection[Revoked] = (),
    ) -> list[Lease]:
        """Withdraw the permissions under the leases, so that a person is asked about their holders.

        The given consents end with or without a lease on them. Otherwise an agent that gives back
        every lease at once could not be stopped by a revocation.
        """
        widened = [*ended, *self._with_origins(ended)]
        others = [*further, *self._origins(further)]
        rested: list[Lease] = []
        for consent in self._withdraw(widened, meant, others):
            rested += self._live_leases.end_grant(consent.id, "revoked", by=by)
        return ended + rested

    def _withdraw(
        self, leases: list[Lease], meant: Callable[[Grant], bool], further: Collection[Revoked]
    ) -> list[Grant]:
        """Set aside the permissions under ended leases, and end consents; return these consents.

        Args:
            leases: the ended leases.
            meant: tells which other consents end, with or without a lease on them.
            further: what is revoked from trees that hold no such lease now.
        """
        ended: list[Grant] = []
        held: dict[ProcessId, tuple[set[str], set[str]]] = {}
        for lease in leases:
            names, rested_on = held.setdefault(lease.holder, (set(), set()))
            names.update(lease.names)
            rested_on.update(lease.grant_ids)
        for tree, also in further:
            held.setdefault(tree, (set(), set()))[0].update(also)
        places = self._places(held)
        for holder, (names, rested_on) in held.items():
            place = places.get(holder)
            ended += self._consents.withdraw(holder, names, rested_on, place=place)
            # The revocation is remembered until the tree ends, so its end must be noticed. If that
            # is not possible, the revocation still holds, until the daemon ends.
            try:
                self._process_watches.watch(holder)
            except PeerUnknownError:
                ended += self._consents.end_tree(holder)
            except BackpackError:
                pass
        ended += self._consents.end_consents(meant)
        self._process_watches.let_go(roots(ended))
        return ended

    def _origins(self, revoked: Collection[Revoked]) -> list[Revoked]:
        """Name the trees that these lie in, which outlive them."""
        found = [(self._origin_of(tree), names) for tree, names in revoked]
        return [(origin, names) for origin, names in found if origin is not None]

    def _with_origins(self, leases: Collection[Lease]) -> list[Lease]:
        """Return, for each lease of a tree inside another one, one like it of that other one.

        For what is remembered of a revocation. Otherwise an agent whose tools, each the root of a
        tree of its own, end with their work would get the keys back.
        """
        found = [(self._origin_of(lease.holder), lease) for lease in leases]
        return [replace(lease, holder=origin) for origin, lease in found if origin is not None]

    def _origin_of(self, tree: ProcessId) -> ProcessId | None:
        origin = self._live_leases.origin_of(tree) or self._started.origin_of(tree)
        return origin if origin != tree else None
