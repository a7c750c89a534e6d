"""Access: attest the caller, decide, ask a person if needed, open the keys, issue the lease.

Security depends on the order in `get_keys`. The caller is attested before every decision. Decisions
use names alone. Uses and the audit entry are on the disk before a value leaves: no log, no lease.
The lease exists, with its holder watched, before the reply is made.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from backpackd.application.access.approvals import Announce, Approvals
from backpackd.application.access.grant_clock import GrantClock
from backpackd.application.access.leases import LiveLeases
from backpackd.application.access.started_agents import Start, StartedAgents
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.peers import user_changed
from backpackd.application.callers.reattestation import digested
from backpackd.application.vault.keys import Keys, Opened
from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.access.decision import (
    Allow,
    Ask,
    Deny,
    Rules,
    applicable,
    decide,
    may_lease,
    needs_digests,
    wanted_names,
)
from backpackd.core.access.grants import MAX_REASON, Grant
from backpackd.core.access.leases import Lease
from backpackd.core.access.orphans import Ancestry
from backpackd.core.access.policy import Policy
from backpackd.core.audit.events import CLAIM_LIMIT, AuditEvent
from backpackd.core.errors import (
    BackpackError,
    DeniedError,
    InvalidRequestError,
    PeerUnknownError,
    ProcessGoneError,
)
from backpackd.core.names import check_names
from backpackd.core.peer_facts import PeerFacts
from backpackd.core.render import render
from backpackd.core.vault.records import KeyHead
from backpackd.ports import Clock, Connection, Processes

MOST_NAMES = 64
LONGEST_WAIT = 3600
"""In seconds."""


@dataclass(frozen=True, slots=True)
class Handout:
    """A lease and the values that it hands over.

    Attributes:
        lease: the new lease.
        values: names and values, in the order of the request.
    """

    lease: Lease
    values: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for.

    Attributes:
        names: key names, as received.
        ttl: requested lifetime in seconds; 0 for the default.
        reason: a claim.
        wait: seconds to wait for a person; 0: do not wait.
        start: the caller is about to become an agent; None: it is not.
        agent_lock: a lock whose embedded values are also requested; empty: none.
    """

    names: Sequence[str]
    ttl: int = 0
    reason: str = ""
    wait: int = 0
    start: Start | None = None
    agent_lock: bytes = field(default=b"", repr=False)

    @property
    def withholds(self) -> bool:
        """Whether only the lease is requested, without values."""
        return self.start is not None and self.start.without_values


class Embedded(Protocol):
    """Opens the values that agent locks embed."""

    async def check(self, connection: Connection, session: Session, document: bytes) -> None:
        """Raise unless the caller may use a lock. This opens no value."""
        ...

    async def embedded(
        self, connection: Connection, session: Session, document: bytes, names: Sequence[str]
    ) -> dict[str, bytes]:
        """Return the values that a lock embeds for these names."""
        ...


class Access:
    """Decides who gets which key, and hands it out."""

    def __init__(
        self,
        vault: Vault,
        keys: Keys,
        processes: Processes,
        clock: Clock,
        *,
        live_leases: LiveLeases,
        approvals: Approvals,
        audit_log: AuditLog,
        tightening: Callable[[], Policy],
        started: StartedAgents,
        embedded: Embedded,
        grant_clock: GrantClock,
    ) -> None:
        self._vault = vault
        self._keys = keys
        self._processes = processes
        self._clock = clock
        self._live_leases = live_leases
        self._approvals = approvals
        self._audit_log = audit_log
        self._tightening = tightening
        self._started = started
        self._embedded = embedded
        self._grant_clock = grant_clock

    def attest(self, connection: Connection) -> PeerFacts:
        """Read the current facts of a caller. A running agent is the root of its own tree.

        Raises:
            PeerUnknownError: the process that connected has ended.
            UserChangedError: it now runs as another user.
        """
        peer = connection.peer
        try:
            facts = self._processes.attest(peer.process, peer.uid, peer.gid)
        except ProcessGoneError:
            raise PeerUnknownError("the process that connected has ended: connect again") from None
        if facts.user_changed:
            raise user_changed()
        return self._started.rooted(facts)

    async def get_keys(self, connection: Connection, wish: Wish, announce: Announce) -> Handout:
        """Lease keys to the caller's process tree, all or none.

        Args:
            connection: the caller's.
            wish: what it asks for: at most 64 names. A longer lifetime than allowed is shortened.
            announce: tells the caller the code of the request that waits for a person.

        Raises:
            InvalidRequestError: a name, the reason or the wait is not valid.
            DeniedError: a rule or a person denies it.
            WaitingError: nobody has answered in the time that the caller waits.
            KeyUnknownError: a covered key is not stored.
            LockedError: the vault is locked.
        """
        session = self._vault.session()
        names = check_names(list(wish.names), most=MOST_NAMES)
        if len(wish.reason) > MAX_REASON:
            raise InvalidRequestError(f"the reason is too long: at most {MAX_REASON} characters")
        if wish.wait > LONGEST_WAIT:
            raise InvalidRequestError(f"the wait is too long: at most {LONGEST_WAIT} seconds")
        if wish.agent_lock:
            await self._embedded.check(connection, session, wish.agent_lock)
        until = self._clock.boot() + wish.wait
        while True:
            permission = await self._allowed(session, connection, names, wish, announce)
            self._check_room(permission.facts, wish)
            try:
                # A revocation that comes meanwhile means this tree as well.
                with self._live_leases.handing_out(permission.facts, names):
                    return await self._hand_out(session, connection, permission, wish)
            except _OvertakenError:
                # Decide from the beginning: this may need a person now.
                wish = replace(wish, wait=int(max(0.0, until - self._clock.boot())))

    async def _hand_out(
        self, session: Session, connection: Connection, permission: "_Permission", wish: Wish
    ) -> Handout:
        """Open the values, record the handout, spend its uses, and issue the lease."""
        facts, names = permission.facts, permission.names
        values = await self._values(session, connection, names, wish)
        lease_id = secrets.token_hex(16)
        entry = self._audit_log.event(
            "withheld" if wish.withholds else "allowed",
            connection,
            facts,
            names=names,
            lease=lease_id,
            grants=permission.ids,
            claimed_reason=render(wish.reason, limit=CLAIM_LIMIT),
        )
        try:
            allowed = await self._spend(session, connection, permission, values, entry)
            # From here to the reply nothing waits, so nothing can come in between.
            self._require_stored(session, names, values)
            # Again: of many that were told at once that there is room, only so many get it.
            self._check_room(facts, wish)
            lease = self._issue(facts, names, allowed, wish, lease_id)
            if wish.start is not None:
                self._started.begin(lease, facts, wish.start)
        except BaseException as error:
            reason = "cancelled"
            if isinstance(error, BackpackError | _OvertakenError):
                reason = error.reason
            event = self._audit_log.event
            told = event("not-handed-out", connection, facts, names=names, lease=lease_id)
            self._audit_log.note(replace(told, reason=reason))
            raise
        if wish.withholds:
            return Handout(lease, ())
        return Handout(lease, tuple((name, values.of(name)) for name in names))

    async def listed(self, connection: Connection) -> Sequence[KeyHead]:
        """Return the heads of the keys whose names the caller's process tree may see.

        If nothing is granted to the caller, nothing is looked up: the time of a lookup would reveal
        how many keys there are.
        """
        session = self._vault.session()
        rules = self.rules(session)
        if rules.policy.listing == "all":
            return await self._keys.list(lambda _: True)
        facts = await self._digested(self.attest(connection), rules, None)
        usable = applicable(facts, rules)
        names = wanted_names(usable, rules)
        suspended = rules.consents.suspended(facts)

        def wanted(name: str) -> bool:
            return may_lease(facts, name, usable, rules, suspended)

        if names is None:
            return await self._keys.list(wanted)
        return await self._keys.heads([name for name in names if wanted(name)])

    async def grants_of(self, connection: Connection) -> list[Grant]:
        """Return the usable grants and consents that cover the caller's process tree."""
        rules = self.rules(self._vault.session())
        return applicable(await self._digested(self.attest(connection), rules, None), rules)

    def rules(self, session: Session) -> Rules:
        """Return the rules from which decisions are made at this moment."""
        authority = session.authority
        return Rules(
            authority.policy.tightened(self._tightening()),
            tuple(authority.grants.values()),
            self._approvals.consents,
            self._grant_clock.now_ms(),
            self._processes.boot_id(),
        )

    async def delete_keys(self, wanted: Sequence[str], *, by: Connection | None) -> int:
        """Delete keys, durably, and end the leases that hold them.

        Returns:
            How many leases ended.

        Raises:
            KeyUnknownError: one is not stored; nothing was deleted.
        """
        ended = 0

        def then() -> None:
            nonlocal ended
            end_key = self._live_leases.end_key
            ended = sum(len(end_key(name, "key-deleted", by=by)) for name in wanted)

        await self._keys.delete(wanted, then, by=by)
        return ended

    async def _allowed(
        self,
        session: Session,
        connection: Connection,
        names: tuple[str, ...],
        wish: Wish,
        announce: Announce,
    ) -> "_Permission":
        """Return the permission of a caller, after asking a person if that is needed."""
        until = self._clock.boot() + wish.wait
        while True:
            session.check()
            facts = self._started.rooted(self.attest(connection), starting=wish.start is not None)
            facts = await self._digested(facts, self.rules(session), names)
            rules = self.rules(session)
            decision = decide(facts, names, rules)
            if isinstance(decision, Deny) and decision.by_rule:
                self._approvals.denied(facts, rules.policy.meant(facts, rules.boot_id))
            try:
                if isinstance(decision, Ask):
                    await self._approvals.ask(
                        facts,
                        decision.names,
                        reason=wish.reason,
                        seconds=max(0.0, until - self._clock.boot()),
                        announce=announce,
                        by=connection,
                    )
                    continue
                return _Permission(facts, names, self._require(decision, facts))
            except DeniedError as error:
                event = self._audit_log.event
                told = event("denied", connection, facts, names=names, reason=error.reason)
                self._audit_log.refused(told)
                raise

    def _require(self, decision: Allow | Ask | Deny, facts: PeerFacts) -> Allow:
        if isinstance(decision, Allow):
            return decision
        if isinstance(decision, Deny) and decision.by_rule:
            raise DeniedError(
                "a rule of the policy denies the keys asked for, and no grant can override it",
                reason="denied-by-rule",
            )
        root, uid = (facts.hooked or facts.root).id.pid, facts.uid
        whose = "the shell whose hook this is" if facts.hooked else "this process tree"
        raise DeniedError(
            f"no grant covers the keys asked for: one to tree:{root} ({whose}) or to uid:{uid} "
            "(every program of this user) would allow them",
            facts={"root-pid": str(facts.root.id.pid), "tree-pid": str(root), "uid": str(uid)},
        )

    async def _digested(
        self, facts: PeerFacts, rules: Rules, names: Sequence[str] | None
    ) -> PeerFacts:
        """Add digests of executables only if they matter for these keys: hashing is slow."""
        return await digested(self._processes, facts) if needs_digests(names, rules) else facts

    def _check_room(self, facts: PeerFacts, wish: Wish) -> None:
        self._live_leases.check_room(facts.root.id)
        if wish.start is not None:
            self._started.check_room(facts)

    async def _values(
        self, session: Session, connection: Connection, names: Sequence[str], wish: Wish
    ) -> "_Values":
        """Open the embedded values of the lock, and the stored values of the other keys."""
        embedded: dict[str, bytes] = {}
        if wish.agent_lock:
            embedded = await self._embedded.embedded(connection, session, wish.agent_lock, names)
        rest = [name for name in names if name not in embedded]
        wanted = rest and not wish.withholds
        return _Values(embedded, await self._keys.read(session, rest) if wanted else Opened())

    def _require_stored(self, session: Session, names: Sequence[str], values: "_Values") -> None:
        """Return if what no lock embeds is stored, with the values that were read.

        Raises:
            KeyUnknownError: a key is not stored.
            _OvertakenError: one has another value by now.
        """
        self._keys.require(session, [name for name in names if name not in values.embedded])
        if not self._keys.are_current(session, values.stored):
            raise _OvertakenError

    async def _spend(
        self,
        session: Session,
        connection: Connection,
        permission: "_Permission",
        values: "_Values",
        entry: AuditEvent,
    ) -> Allow:
        """Write the entry, spend one use of every counted grant, return what the lease rests on.

        Both are durable, and happen in one step if uses are counted. Uses of consents are spent
        last, in memory.

        Raises:
            _OvertakenError: a grant was used up or removed, or the decision has changed.
        """
        if permission.counted:

            async def draft(now: Session) -> Draft:
                # Confirmed in turn: of two callers at once, only one gets the last use.
                allowed = self._confirm(session, permission)
                self._require_stored(session, permission.names, values)
                standing = [grant.used() for grant in allowed.grants if not grant.consent]
                grants = now.authority.with_grants(standing)
                record = now.authority.next(self._grant_clock.now_ms(), grants=grants)
                return Draft(record, events=(entry,))

            await self._vault.change(draft, by=connection)
        else:
            await self._audit_log.record(entry)
        # During the write, a revocation, a rule or a lower limit may have come.
        allowed = self._confirm(session, permission, spent=permission.counted)
        for grant in allowed.grants:
            if grant.consent and not self._approvals.consents.use(grant.id):
                raise _OvertakenError
        return allowed

    def _confirm(
        self, session: Session, permission: "_Permission", *, spent: bool = False
    ) -> Allow:
        """Decide again, and return the decision if it is the same.

        Args:
            session: the session in which the call began.
            permission: the earlier decision.
            spent: its counted uses were just spent, and must not count as missing.

        Raises:
            LockedError: the vault was locked since then.
            _OvertakenError: the decision is now different.
        """
        session.check()
        rules = self.rules(session)
        if spent:
            before = {grant.id: grant for grant in permission.allowed.grants}
            rules = replace(rules, grants=[before.get(grant.id, grant) for grant in rules.grants])
        facts, names = permission.facts, permission.names
        if facts.digests is not None or not needs_digests(names, rules):
            again = decide(facts, names, rules)
            if isinstance(again, Allow) and _Permission(facts, names, again).same_as(permission):
                return again
        raise _OvertakenError

    def _issue(
        self,
        facts: PeerFacts,
        names: tuple[str, ...],
        decision: Allow,
        wish: Wish,
        lease_id: str,
    ) -> Lease:
        now_ms = self._grant_clock.now_ms()
        # A lease ends with the standing grant that it rests on; a consent's time is for using it.
        ends = [grant.expires_at_ms for grant in decision.grants if not grant.consent]
        left = [(end - now_ms) / 1000 for end in ends if end is not None]
        longest = min([float(decision.max_ttl), *left])
        if longest <= 0:
            raise DeniedError(
                "the grant that covers the keys asked for has just expired: have the operator add "
                "another"
            )
        return self._live_leases.issue(
            facts.root.id,
            names,
            decision.grants,
            ttl=wish.ttl,
            longest=longest,
            lease_id=lease_id,
            ancestry=Ancestry.of(facts, facts.root),
        )


class _OvertakenError(Exception):
    """What allowed a request was used up, or has changed, during the handout."""

    reason = "overtaken"


@dataclass(frozen=True, slots=True)
class _Permission:
    """The decision that a caller may have some keys."""

    facts: PeerFacts
    names: tuple[str, ...]
    allowed: Allow

    @property
    def ids(self) -> tuple[str, ...]:
        """The grants and consents that it rests on."""
        return tuple(grant.id for grant in self.allowed.grants)

    @property
    def counted(self) -> bool:
        """Whether the vault counts the uses of a grant that it rests on."""
        standing = (grant for grant in self.allowed.grants if not grant.consent)
        return any(grant.uses_left is not None for grant in standing)

    def same_as(self, other: "_Permission") -> bool:
        """Return whether both rest on the same grants, on the same terms."""
        return self.ids == other.ids and self.allowed.max_ttl == other.allowed.max_ttl


@dataclass(frozen=True, slots=True)
class _Values:
    """The values to hand over, by their source. No repr shows them."""

    embedded: dict[str, bytes] = field(repr=False)
    stored: Opened

    def of(self, name: str) -> bytes:
        """Return the value of a key."""
        return self.embedded[name] if name in self.embedded else self.stored.values[name]
