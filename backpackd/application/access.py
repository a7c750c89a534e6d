"""Access: attest the caller, decide, open the keys, issue the lease. And what ends a lease.

The order in `get_keys` is the security property: the caller is attested anew for every request,
the decision is made on names before anything is looked up, uses are spent durably before a value
leaves, and the lease stands, with its holder watched, before the reply is made.
"""

import asyncio
import errno
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from backpackd.application.deadlines import Deadlines
from backpackd.application.keys import Keys
from backpackd.application.vault import Draft, Session, Vault
from backpackd.core.authority import Authority
from backpackd.core.decision import Allow, Deny, applicable, decide
from backpackd.core.errors import (
    DeniedError,
    InvalidRequestError,
    LeaseUnknownError,
    LimitError,
    PeerUnknownError,
    ProcessGoneError,
)
from backpackd.core.facts import PeerFacts, ProcessId
from backpackd.core.grants import MAX_REASON, Grant
from backpackd.core.leases import DEFAULT_TTL, SHORTEST_TTL, Lease, LeaseTable
from backpackd.core.names import check_name, check_names
from backpackd.ports import Clock, Connection, PinnedProcess, Processes

MOST_NAMES = 64
MOST_LEASES = 100_000
MOST_OF_TREE = 10_000


@dataclass(frozen=True, slots=True)
class Handout:
    """A lease and the values that it hands over.

    Attributes:
        lease: the new lease.
        values: names and values, in the order in which they were asked for.
    """

    lease: Lease
    values: tuple[tuple[str, bytes], ...]


class Access:
    """Who gets which key, and for how long."""

    def __init__(
        self, vault: Vault, keys: Keys, processes: Processes, clock: Clock, deadlines: Deadlines
    ) -> None:
        self._vault = vault
        self._keys = keys
        self._processes = processes
        self._clock = clock
        self._deadlines = deadlines
        self._leases = LeaseTable()
        self._watched: dict[ProcessId | str, PinnedProcess] = {}

    def attest(self, connection: Connection) -> PeerFacts:
        """Read who a caller is, now.

        Raises:
            PeerUnknownError: the process that connected has ended.
        """
        peer = connection.peer
        try:
            return self._processes.attest(peer.process, peer.uid, peer.gid)
        except ProcessGoneError:
            raise PeerUnknownError("the process that connected has ended: connect anew") from None

    async def get_keys(
        self, connection: Connection, wanted: Sequence[str], *, ttl: int, reason: str
    ) -> Handout:
        """Lease keys to the caller's process tree, all or none.

        Args:
            connection: the caller's.
            wanted: 1 to 64 names.
            ttl: wished life in seconds; 0 for the default; cut to what the grants allow.
            reason: the caller's claim; checked for length only.

        Raises:
            InvalidRequestError: a name or the reason is not well-formed.
            DeniedError: no grant covers every name.
            KeyUnknownError: a covered key is not stored.
            LockedError: the vault is locked.
        """
        session = self._vault.session()
        names = check_names(list(wanted), most=MOST_NAMES)
        if len(reason) > MAX_REASON:
            raise InvalidRequestError(f"a reason is at most {MAX_REASON} characters long")
        facts = await self._digested(self.attest(connection), session.authority)
        holder = facts.root.id
        self._decide(facts, names, session.authority)
        self._check_room(holder)
        values = await self._keys.open(session, names)
        decision = await self._spend(session, facts, names)
        # From here to the reply nothing waits, so nothing can come in between.
        session.check()
        self._keys.require(session, names)
        self._check_room(holder)
        lease = self._issue(holder, names, decision, ttl, self._latest_ms(session))
        self._vault.touch()
        self._deadlines.review()
        return Handout(lease, tuple(values.items()))

    async def allowed_names(self, connection: Connection) -> "NameFilter":
        """Return which names the caller's process tree may lease now."""
        session = self._vault.session()
        facts = await self._digested(self.attest(connection), session.authority)
        return NameFilter(self._applicable(facts, session.authority))

    async def grants_of(self, connection: Connection) -> list[Grant]:
        """Return the usable grants that cover the caller's process tree."""
        session = self._vault.session()
        facts = await self._digested(self.attest(connection), session.authority)
        return self._applicable(facts, session.authority)

    def renew(self, connection: Connection, lease_id: str, *, ttl: int) -> Lease:
        """Extend a lease of the caller's process tree from now.

        Args:
            connection: the caller's.
            lease_id: which.
            ttl: seconds; 0 for as long as it was issued for.

        Raises:
            LeaseUnknownError: it has ended, never was, or is of another tree.
        """
        self._vault.session()
        now = self._clock.boot()
        lease = self._leases.get(lease_id, now=now)
        if lease is None or lease.holder != self.attest(connection).root.id:
            raise LeaseUnknownError("no such lease: it has ended, or it is not yours; get anew")
        renewed = self._leases.renew(lease_id, now=now, ttl=max(ttl, SHORTEST_TTL) if ttl else None)
        assert renewed is not None
        # Not a use of the vault: otherwise a forgotten agent keeps it unlocked for ever.
        self._deadlines.review()
        return renewed

    def leases_of(self, holder: ProcessId) -> list[Lease]:
        """Return the live leases of a process tree, oldest first."""
        return self._leases.of_holder(holder, now=self._clock.boot())

    def leases(self) -> list[Lease]:
        """Return every live lease, oldest first."""
        return self._leases.live(now=self._clock.boot())

    def count(self) -> int:
        """Return how many leases there are."""
        return len(self._leases)

    async def delete_keys(self, wanted: Sequence[str]) -> int:
        """Delete keys, durably, and end the leases that hold them.

        Returns:
            How many leases ended.

        Raises:
            KeyUnknownError: one is not stored; nothing was deleted.
        """
        ended = 0

        def then() -> None:
            nonlocal ended
            ended = sum(len(self.revoke_key(name)) for name in wanted)

        await self._keys.delete(wanted, then)
        return ended

    def revoke_id(self, lease_id: str) -> list[Lease]:
        """End one lease."""
        return self._after(self._leases.end(lease_id))

    def revoke_key(self, name: str) -> list[Lease]:
        """End every lease that holds a key.

        Raises:
            InvalidRequestError: not the name of a key.
        """
        return self._after(self._leases.end_key(check_name(name)))

    def revoke_tree(self, pid: int) -> list[Lease]:
        """End every lease of the process trees whose root has this pid."""
        ended = []
        for holder in self._leases.holders():
            if holder.pid == pid:
                ended += self._leases.end_holder(holder)
        return self._after(ended)

    def revoke_grant(self, grant_id: str) -> list[Lease]:
        """End every lease that rests on a grant."""
        return self._after(self._leases.end_grant(grant_id))

    def revoke_all(self) -> list[Lease]:
        """End every lease."""
        return self._after(self._leases.end_all())

    def drop_all(self) -> None:
        """End every lease because the vault is locked."""
        self.revoke_all()

    def grants_in_use(self) -> set[str]:
        """Return the ids of the grants that live leases rest on."""
        return self._leases.grants()

    def expire(self, now: float) -> float | None:
        """End the leases that are due; a source for `Deadlines`."""
        ended, coming = self._leases.expire(now)
        if ended:
            self._let_go()
        return coming

    def _decide(self, facts: PeerFacts, names: Sequence[str], authority: Authority) -> Allow:
        boot_id = self._processes.boot_id()
        decision = decide(facts, names, authority, self._vault.now_ms(), boot_id)
        if isinstance(decision, Allow):
            return decision
        if isinstance(decision, Deny):
            raise DeniedError(
                "a rule of the policy denies the keys asked for; no grant was looked for",
                reason="denied-by-rule",
            )
        root = facts.root.id.pid
        raise DeniedError(
            f"no grant covers the keys asked for: one to tree:{root} (this process tree) or to "
            f"uid:{facts.uid} (every program of this user) would allow them",
            facts={"tree-pid": str(root), "uid": str(facts.uid)},
        )

    def _applicable(self, facts: PeerFacts, authority: Authority) -> list[Grant]:
        boot_id = self._processes.boot_id()
        return applicable(facts, authority, self._vault.now_ms(), boot_id)

    async def _digested(self, facts: PeerFacts, authority: Authority) -> PeerFacts:
        """Add digests of executables where a grant asks for them: hashing is slow."""
        if not any(grant.selector.kind == "sha256" for grant in authority.grants.values()):
            return facts
        digests: dict[str, str] = {}
        for process in facts.tree:
            path = process.executable
            if path is not None:
                digest = await asyncio.to_thread(self._processes.digest, process.id, path)
                if digest is not None:
                    digests[path] = digest
        return replace(facts, digests=digests)

    async def _spend(self, session: Session, facts: PeerFacts, names: Sequence[str]) -> Allow:
        """Spend one use of every counted grant, durably, and return what the lease rests on.

        Decided anew on the record as it is now, and when uses are counted, as it is when the turn
        comes: of two callers at once, only one gets the last use, and a grant that was taken back
        meanwhile allows nothing.
        """
        decision = self._decide(facts, names, session.authority)
        if all(grant.uses_left is None for grant in decision.grants):
            return decision

        async def draft(now: Session) -> Draft:
            nonlocal decision
            session.check()
            self._keys.require(session, names)
            decision = self._decide(facts, names, now.authority)
            grants = now.authority.with_grants([grant.used() for grant in decision.grants])
            return Draft(now.authority.next(self._vault.now_ms(), grants=grants))

        await self._vault.change(draft)
        return decision

    def _latest_ms(self, session: Session) -> int:
        # Never earlier than the record has seen, for a clock that was set back.
        return max(self._vault.now_ms(), session.authority.latest_ms)

    def _check_room(self, holder: ProcessId) -> None:
        # The leases of one tree are counted only where there are enough to matter.
        most = len(self._leases)
        if most >= MOST_LEASES or (
            most >= MOST_OF_TREE and len(self.leases_of(holder)) >= MOST_OF_TREE
        ):
            raise LimitError("too many live leases: give some back, or let them end, and try again")

    def _issue(
        self, holder: ProcessId, names: tuple[str, ...], decision: Allow, ttl: int, now_ms: int
    ) -> Lease:
        ends = [g.expires_at_ms for g in decision.grants if g.expires_at_ms is not None]
        # A lease ends with the grant that it rests on.
        longest = min([float(decision.max_ttl), *((end - now_ms) / 1000 for end in ends)])
        if longest <= 0:
            raise DeniedError(
                "the grant that covers the keys asked for has just expired: the operator can add "
                "another"
            )
        self._watch_all(holder, decision.grants)
        return self._leases.issue(
            lease_id=secrets.token_hex(16),
            names=names,
            holder=holder,
            grant_ids=tuple(grant.id for grant in decision.grants),
            now=self._clock.boot(),
            ttl=max(ttl, SHORTEST_TTL) if ttl else DEFAULT_TTL,
            max_ttl=longest,
        )

    def _watch_all(self, holder: ProcessId, grants: Sequence[Grant]) -> None:
        """Watch for the ends of what a lease rests on: its holder, and the roots of `tree:`."""
        try:
            self._watch(holder, holder, lambda: self._leases.end_holder(holder))
            for grant in grants:
                if grant.selector.process is not None:
                    ended = partial(self._leases.end_grant, grant.id)
                    self._watch(grant.id, grant.selector.process, ended)
        except BaseException:
            self._let_go()
            raise

    def _watch(
        self, what: ProcessId | str, process: ProcessId, end: Callable[[], list[Lease]]
    ) -> None:
        """End leases when a process ends.

        Args:
            what: the holder or the id of the grant that ends with it.
            process: which.
            end: ends the leases.
        """
        held = self._watched.get(what)
        if held is None:
            try:
                held, found = self._processes.pin(process.pid)
            except ProcessGoneError:
                raise _tree_gone() from None
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    raise
                raise LimitError(
                    "too many process trees hold leases: let some end, and try again"
                ) from None
            if found != process:
                # The pid is another process's by now: what was attested has ended.
                held.close()
                raise _tree_gone()
            self._watched[what] = held

            def ended() -> None:
                self._after(end())

            held.on_exit(ended)
        if not held.alive():
            raise _tree_gone()

    def _after(self, ended: list[Lease]) -> list[Lease]:
        if ended:
            self._let_go()
        self._deadlines.review()
        return ended

    def _let_go(self) -> None:
        """Watch no longer what no lease rests on."""
        for what in self._watched.keys() - self._leases.holders() - self._leases.grants():
            self._watched.pop(what).close()


@dataclass(frozen=True, slots=True)
class NameFilter:
    """Which key names a caller may lease.

    Attributes:
        grants: the usable grants that cover the caller.
    """

    grants: Sequence[Grant]

    def __call__(self, name: str) -> bool:
        """Tell whether one of the grants covers a name."""
        return any(grant.covers(name) for grant in self.grants)


def _tree_gone() -> PeerUnknownError:
    return PeerUnknownError("the root of the process tree has ended: start anew")
