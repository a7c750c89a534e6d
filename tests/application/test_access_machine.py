"""Grants, consents, refusals and revocations through the whole application, against a model.

The model knows what each tree was allowed, in what order, and what each lease is bounded by; it is
written from the description. Whatever happens: nothing is handed out that nothing covers, no lease
outlives a bound, and revoking leaves nothing behind.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backpackd.core.access.grants import LONGEST_TTL
from backpackd.core.access.leases import DEFAULT_TTL, Lease
from backpackd.core.access.policy import DenyRule, Policy
from backpackd.core.errors import DeniedError, LeaseUnknownError, WaitingError
from fakes import UID, World
from thorough import CI

ROOTS = (100, 200, 300)
NAMES = ("K", "L")
TREES = st.sampled_from(ROOTS)
KEYS = st.sampled_from([("K",), ("L",), ("K", "L")])
TTLS = st.sampled_from([0, 30, 600, 10**6])

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Standing:
    """A grant as the model knows it: to one tree, or to all."""

    id: str
    root: int | None
    names: tuple[str, ...]
    max_ttl: int
    until: float | None
    uses: int | None


@dataclass(frozen=True)
class Consented:
    """A consent as the model knows it."""

    id: str
    root: int
    names: tuple[str, ...]
    uses: int | None
    until: float | None


@dataclass(eq=False)
class Held:
    """A lease as the model knows it."""

    root: int
    names: tuple[str, ...]
    rests_on: set[str]
    expires: float
    bound: float
    ttl: float
    issued: float

    def shorten(self, until: float) -> None:
        """Have it end at some time at the latest."""
        self.bound = min(self.bound, until)
        self.expires = min(self.expires, self.bound)


class AccessAgreesWithAModel(RuleBasedStateMachine):
    """Drives one world and one model of it."""

    def __init__(self) -> None:
        super().__init__()
        # Ids break ties, so a run that is to be repeated needs the same ones again.
        numbers = count()
        self.ids = patch("secrets.token_hex", lambda size: f"{next(numbers):0{2 * size}x}")
        self.ids.start()
        self.loop = asyncio.new_event_loop()
        self.world = World(idle=10**7, longest=10**7)
        self.grants: dict[str, Standing] = {}
        self.consents: dict[str, Consented] = {}
        self.withdrawn: set[tuple[int, str]] = set()
        self.had: set[tuple[int, str]] = set()
        self.refused: set[tuple[int, str]] = set()
        self.held: dict[str, Held] = {}
        self.policy = Policy()
        self.denied_by_file: set[str] = set()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(work)

    def step(self, work: Callable[[], _Result]) -> _Result:
        """Do something in the event loop, as the daemon does everything."""

        async def done() -> _Result:
            return work()

        return self.run(done())

    def teardown(self) -> None:
        self.loop.close()
        self.ids.stop()
        self.world.arena.close()

    @property
    def now(self) -> float:
        return self.world.clock.boot()

    @initialize()
    def stock(self) -> None:
        self.run(self.world.stocked())
        for root in ROOTS[1:]:
            self.world.processes.add(root)

    # What the model says.

    def covering(self, root: int, name: str) -> set[str]:
        """Return the ids of what covers a key for a tree now."""
        standing = {
            grant.id
            for grant in self.grants.values()
            if grant.root in {None, root}
            and name in grant.names
            and grant.uses != 0
            and (grant.until is None or self.now < grant.until)
            and (root, name) not in self.withdrawn
        }
        consented = {
            consent.id
            for consent in self.consents.values()
            if consent.root == root
            and name in consent.names
            and consent.uses != 0
            and (consent.until is None or self.now < consent.until)
        }
        return standing | consented

    def answer(self, root: int, names: tuple[str, ...]) -> str:
        """Say what becomes of a call that does not wait: a lease, or which error."""
        if self.denied_by_file & set(names):
            return "denied-by-rule"
        missing = [name for name in names if not self.covering(root, name)]
        if missing and self.policy.default == "deny":
            return "no-grant"
        if self.policy.default == "allow":
            missing = [name for name in missing if (root, name) in self.withdrawn]
        if not missing:
            return "leased"
        refused = {(root, name) for name in missing} & self.refused
        return "refused-by-operator" if refused else "waiting-for-approval"

    def due(self) -> None:
        """End in the model what is over by now."""
        self.end(lambda held: held.expires <= self.now)

    def end(self, over: Any) -> set[str]:
        gone = {lease_id for lease_id, held in self.held.items() if over(held)}
        for lease_id in gone:
            del self.held[lease_id]
        return gone

    # What happens.

    @rule(
        root=st.none() | TREES,
        names=KEYS,
        ttl=st.sampled_from([0, 60, 3600]),
        uses=st.sampled_from([0, 0, 1, 2]),
        valid=st.sampled_from([0, 0, 90]),
    )
    def grant(
        self, *, root: int | None, names: tuple[str, ...], ttl: int, uses: int, valid: int
    ) -> None:
        to = f"uid:{UID}" if root is None else f"tree:{root}"
        made = self.run(self.world.grant(*names, to=to, max_ttl=ttl, uses=uses, valid=valid))
        until = self.now + valid if valid else None
        for held in self.held.values():
            # It may be a grant that there was, on new terms.
            if made.id in held.rests_on:
                held.shorten(held.bound if until is None else until)
        self.grants[made.id] = Standing(made.id, root, names, made.max_ttl, until, uses or None)

    @rule(root=TREES, names=KEYS, ttl=TTLS)
    def get(self, root: int, names: tuple[str, ...], ttl: int) -> None:
        expected = self.answer(root, names)
        covering = {name: self.covering(root, name) for name in names}
        found = "leased"
        try:
            lease = self.run(self.world.lease(*names, pid=root, ttl=ttl))
        except (WaitingError, DeniedError) as error:
            found = error.reason
        assert found == expected
        if found == "leased":
            self.note(root, names, ttl, lease=lease, covering=covering)

    def note(
        self,
        root: int,
        names: tuple[str, ...],
        ttl: int,
        *,
        lease: Lease,
        covering: dict[str, set[str]],
    ) -> None:
        rests_on = set(lease.grant_ids)
        assert lease.holder.pid == root
        for name in names:
            # Each key rests on something that covers it, and on nothing besides.
            assert not covering[name] or covering[name] & rests_on
        assert rests_on <= set().union(*covering.values())
        bounds = [self.now + self.policy.max_ttl]
        for grant_id in rests_on:
            if grant_id in self.grants:
                grant = self.grants[grant_id]
                bounds.append(self.now + grant.max_ttl)
                bounds += [] if grant.until is None else [grant.until]
                if grant.uses is not None:
                    self.grants[grant_id] = replace(grant, uses=grant.uses - 1)
            elif (consent := self.consents[grant_id]).uses is not None:
                self.consents[grant_id] = replace(consent, uses=consent.uses - 1)
        bound = min(bounds)
        life = min(ttl or DEFAULT_TTL, bound - self.now)
        self.held[lease.id] = Held(root, names, rests_on, self.now + life, bound, life, self.now)
        self.had |= {(root, name) for name in names}

    @precondition(lambda self: self.world.approvals.pending())
    @rule(pick=st.integers(0, 20), once=st.booleans())
    def approve(self, pick: int, once: bool) -> None:
        pending = self.world.approvals.pending()
        request = pending[pick % len(pending)]
        self.step(
            lambda: self.world.approvals.approve(request.code, once=once, root_pid=0, by=None)
        )
        (made,) = [c for c in self.world.approvals.consents.in_force() if c.id not in self.consents]
        root, names = request.tree.pid, request.names
        until = self.now + 600 if once else None
        self.consents[made.id] = Consented(made.id, root, names, 1 if once else None, until)
        self.refused -= {(root, name) for name in names}

    @precondition(lambda self: self.world.approvals.pending())
    @rule(pick=st.integers(0, 20))
    def deny(self, pick: int) -> None:
        pending = self.world.approvals.pending()
        request = pending[pick % len(pending)]
        self.step(lambda: self.world.approvals.deny(request.code, by=None))
        self.refused |= {(request.tree.pid, name) for name in request.names}

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 20), ttl=TTLS)
    def renew(self, pick: int, ttl: int) -> None:
        self.due()
        if not self.held:
            return
        lease_id = sorted(self.held)[pick % len(self.held)]
        held = self.held[lease_id]
        renewed = self.step(
            lambda: self.world.renew(self.world.connect(held.root), lease_id, ttl=ttl)
        )
        held.expires = min(self.now + (ttl or held.ttl), held.bound)
        assert renewed.expires_at == held.expires
        stranger = self.world.connect(next(root for root in ROOTS if root != held.root))
        try:
            self.step(lambda: self.world.renew(stranger, lease_id))
        except LeaseUnknownError:
            return
        raise AssertionError("a stranger renewed a lease")

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 20))
    def give_back(self, pick: int) -> None:
        lease_id = sorted(self.held)[pick % len(self.held)]
        held = self.held.pop(lease_id)
        self.step(
            lambda: self.world.revocation.give_back(self.world.tree(held.root), lease_id, by=None)
        )

    @rule(
        what=st.sampled_from(["lease", "key", "tree", "all"]),
        root=TREES,
        name=st.sampled_from(NAMES),
        pick=st.integers(0, 20),
    )
    def revoke(self, what: str, root: int, name: str, pick: int) -> None:
        self.due()
        self.step(self.world.deadlines.review)
        chosen = sorted(self.held)[pick % len(self.held)] if self.held else ""
        if what == "lease":
            self.step(lambda: self.world.revocation.lease(chosen, by=None))
            hit = {lease_id: held for lease_id, held in self.held.items() if lease_id == chosen}
        elif what == "key":
            self.step(lambda: self.world.revocation.key(name, by=None))
            hit = {lease_id: held for lease_id, held in self.held.items() if name in held.names}
        elif what == "tree":
            self.step(lambda: self.world.revocation.tree(root, by=None))
            hit = {lease_id: held for lease_id, held in self.held.items() if held.root == root}
        else:
            self.step(lambda: self.world.revocation.all(by=None))
            hit = dict(self.held)
        pairs = {(held.root, key) for held in hit.values() for key in held.names}
        if what == "key":
            pairs |= {pair for pair in self.had if pair[1] == name}
        elif what == "tree":
            pairs |= {(root, key) for key in NAMES}
        elif what == "all":
            pairs |= self.had
        self.withdrawn |= pairs
        ended = {
            consent.id
            for consent in self.consents.values()
            if what == "all"
            or (what == "key" and name in consent.names)
            or (what == "tree" and consent.root == root)
            or pairs & {(consent.root, key) for key in consent.names}
        }
        for consent_id in ended:
            del self.consents[consent_id]
        self.end(lambda held: held in hit.values() or held.rests_on & ended)

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 20))
    def take_back(self, pick: int) -> None:
        standing = sorted(grant.id for grant in self.world.standing_grants.all())
        if standing:
            gone = standing[pick % len(standing)]
            self.run(self.world.standing_grants.remove(gone, by=None))
            del self.grants[gone]
            self.end(lambda held: gone in held.rests_on)

    @rule(root=TREES)
    def die_and_let_another_have_the_pid(self, root: int) -> None:
        self.step(lambda: self.world.processes.kill(root))
        self.world.processes.add(root)
        # Nothing of the former one is the new one's.
        self.end(lambda held: held.root == root)
        gone = {g.id for g in self.grants.values() if g.root == root}
        self.end(lambda held: held.rests_on & gone)
        self.grants = {g.id: g for g in self.grants.values() if g.root != root}
        self.consents = {c.id: c for c in self.consents.values() if c.root != root}
        self.withdrawn = {pair for pair in self.withdrawn if pair[0] != root}
        self.had = {pair for pair in self.had if pair[0] != root}
        self.refused = {pair for pair in self.refused if pair[0] != root}

    @rule(seconds=st.sampled_from([1, 45, 600, 8 * 3600]), ring=st.booleans())
    def time_passes(self, seconds: int, ring: bool) -> None:
        self.world.clock.pass_(seconds)
        if ring:
            self.step(self.world.deadlines.review)

    @rule(
        default=st.sampled_from(["ask", "ask", "deny", "allow"]),
        longest=st.sampled_from([60, LONGEST_TTL]),
    )
    def rule_otherwise(self, default: str, longest: int) -> None:
        before, self.policy = self.policy, Policy(default=default, max_ttl=longest)
        self.due()
        self.run(self.world.vault_policy.replace(self.policy, by=None))
        if longest < before.max_ttl:
            for held in self.held.values():
                held.shorten(held.issued + longest)
        if before.default == "allow" and default != "allow":
            self.end(lambda held: not self.covered_by_its_own(held))

    def covered_by_its_own(self, held: Held) -> bool:
        names: set[str] = set()
        for grant_id in held.rests_on:
            names.update((self.grants.get(grant_id) or self.consents[grant_id]).names)
        return set(held.names) <= names

    @rule(denied=st.sets(st.sampled_from(NAMES), max_size=1))
    def edit_the_file(self, denied: set[str]) -> None:
        # It says allow, as an agent that edits it would: that must not count for anything.
        rules = tuple(DenyRule((name,)) for name in sorted(denied))
        self.step(lambda: self.world.vault_policy.tighten(Policy("allow", "all", rules)))
        new, self.denied_by_file = denied - self.denied_by_file, denied
        self.end(lambda held: new & set(held.names))

    @rule(unlock=st.booleans())
    def lock(self, unlock: bool) -> None:
        if unlock:
            self.run(self.world.opened_again())
        else:
            self.step(lambda: self.world.revocation.panic(by=None))
            self.withdrawn |= self.had
            assert len(self.world.live_leases) == 0
            self.run(self.world.vault.unlock(b"seven quiet otters", self.world.tree(), by=None))
        self.held.clear()
        self.consents.clear()
        # The trees are kept, and no name: from then on it is every key.
        self.withdrawn = {(root, name) for root, _ in self.withdrawn for name in NAMES}
        self.had.clear()
        self.refused.clear()

    # What always holds.

    @invariant()
    def exactly_the_leases_that_should_live_do(self) -> None:
        self.due()
        live = {lease.id: lease for lease in self.world.live_leases.all()}
        assert live.keys() == self.held.keys()
        for lease_id, held in self.held.items():
            lease = live[lease_id]
            assert lease.expires_at == held.expires <= held.bound
            assert lease.max_expires_at == held.bound

    @invariant()
    def nothing_is_left_of_what_was_revoked(self) -> None:
        consents = self.world.approvals.consents
        assert {consent.id for consent in consents.in_force()} == self.consents.keys()
        assert consents._given.keys() == self.consents.keys()

    @invariant()
    def only_what_matters_is_watched(self) -> None:
        self.step(self.world.deadlines.review)
        needed = {held.root for held in self.held.values()}
        needed |= {request.tree.pid for request in self.world.approvals.pending()}
        needed |= {root for root, _ in self.withdrawn | self.refused | self.had}
        needed |= {consent.root for consent in self.consents.values()}
        grants = {g.id: g for g in self.grants.values() if g.root is not None}
        needed |= {
            grants[grant_id].root or 0
            for held in self.held.values()
            for grant_id in held.rests_on & grants.keys()
        }
        assert {process.pid for process in self.world.process_watches._held} == needed


# Together with those of the lease table, more than two thousand examples in CI.
TestAccessAgreesWithAModel = AccessAgreesWithAModel.TestCase
TestAccessAgreesWithAModel.settings = settings(
    max_examples=800 if CI else 400, stateful_step_count=18
)
