"""Adding, listing and removing grants, for the operator. The caller checks that authority."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from backpackd.application.access.grant_clock import GrantClock
from backpackd.application.access.leases import LiveLeases
from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.access import selectors
from backpackd.core.access.grants import (
    DEFAULT_MAX_TTL,
    LONGEST_TTL,
    MAX_REASON,
    Grant,
    check_patterns,
    check_room,
)
from backpackd.core.access.selectors import Selector
from backpackd.core.audit.events import CLAIM_LIMIT, PATH_LIMIT, AuditEvent
from backpackd.core.errors import (
    GrantUnknownError,
    InvalidRequestError,
    ProcessGoneError,
    ProcessUnknownError,
)
from backpackd.core.render import render
from backpackd.ports import Connection, Processes

_LONGEST_VALID = 10 * 365 * 24 * 3600
_MOST_USES = 1_000_000


class StandingGrants:
    """The grants of one vault.

    Attributes:
        on_add: functions that are called, in order, when a new grant starts to count.

    Args:
        vault: holds the grants in its authority record.
        live_leases: knows which leases rest on the grants.
        processes: looks up the roots of process trees.
        uid: the user whom the daemon serves.
        grant_clock: the date by which grants expire.
    """

    def __init__(
        self,
        vault: Vault,
        live_leases: LiveLeases,
        processes: Processes,
        uid: int,
        grant_clock: GrantClock,
    ) -> None:
        self._vault = vault
        self._live_leases = live_leases
        self._processes = processes
        self._uid = uid
        self._grant_clock = grant_clock
        self.on_add: list[Callable[[], None]] = []

    async def add(
        self,
        patterns: Sequence[str],
        selector: str,
        *,
        by: Connection | None,
        max_ttl: int,
        valid: int,
        uses: int,
        reason: str,
    ) -> Grant:
        """Add a grant, durably before this returns.

        If there is a similar grant, it takes the new terms instead: a grant to the same subject for
        the same keys with the same longest lease, where both expire or neither does, and both count
        uses or neither does. Keeping both would allow more than was meant.

        Args:
            patterns: 1 to 64 key names or patterns.
            selector: whom it is given to.
            by: whose doing it is.
            max_ttl: the longest a lease may live, in seconds; 0 for the default.
            valid: for how many seconds it stands; 0 until taken back.
            uses: how many leases it allows; 0 for any number.
            reason: at most 256 characters.

        Raises:
            InvalidRequestError: an argument is not valid or out of bounds.
            ProcessUnknownError: the root of a `tree:` is not running.
            LimitError: there are too many grants.
        """
        checked = check_patterns(patterns)
        if len(reason) > MAX_REASON:
            raise InvalidRequestError(f"the reason is too long: at most {MAX_REASON} characters")
        if max_ttl > LONGEST_TTL:
            raise InvalidRequestError(f"a lease may last at most {LONGEST_TTL // 86400} days")
        if valid > _LONGEST_VALID or uses > _MOST_USES:
            raise InvalidRequestError("a grant is valid for at most 10 years and a million uses")
        now_ms = self._grant_clock.now_ms()
        grant = Grant(
            id=secrets.token_hex(8),
            patterns=tuple(dict.fromkeys(checked)),
            selector=self._resolve(selectors.parse(selector)),
            max_ttl=max_ttl or DEFAULT_MAX_TTL,
            expires_at_ms=now_ms + valid * 1000 if valid else None,
            uses_left=uses or None,
            created_at_ms=now_ms,
            reason=reason,
        )

        async def draft(session: Session) -> Draft | None:
            nonlocal grant
            kept = {old.id: old for old in self._standing(session)}
            same = next((old for old in kept.values() if _same(old, grant)), None)
            if same is not None:
                grant = replace(grant, id=same.id, created_at_ms=same.created_at_ms)
                if grant == same:
                    return None
            grants = {**kept, grant.id: grant}
            check_room(grants.values())
            record = session.authority.next(now_ms, grants=grants)
            return Draft(record, events=(event("granted", grant, now_ms),))

        await self._vault.change(draft, lambda: self._in_force(grant), by=by)
        return grant

    def _in_force(self, grant: Grant) -> None:
        if grant.expires_at_ms is not None:
            # It may have replaced the terms of an older grant, and end sooner than that.
            left = (grant.expires_at_ms - self._grant_clock.now_ms()) / 1000
            self._live_leases.bound_grant(grant.id, left)
        for callback in self.on_add:
            callback()

    def naming(self, names: Iterable[str]) -> int:
        """Count the standing grants that name one of these keys exactly, not only by a pattern."""
        wanted = set(names)
        standing = self._standing(self._vault.session())
        return sum(not wanted.isdisjoint(grant.patterns) for grant in standing)

    def all(self) -> list[Grant]:
        """Return every grant that can still allow something, oldest first."""
        standing = self._standing(self._vault.session())
        return sorted(standing, key=lambda grant: (grant.created_at_ms, grant.id))

    async def remove(self, grant_id: str, *, by: Connection | None) -> int:
        """Take a grant back, durably, and end the leases that rest on it.

        Args:
            grant_id: which.
            by: whose doing it is.

        Returns:
            How many leases ended.

        Raises:
            GrantUnknownError: there is no such grant.
        """

        async def draft(session: Session) -> Draft:
            grants = dict(session.authority.grants)
            grant = grants.pop(grant_id, None)
            if grant is None:
                raise GrantUnknownError("no such grant: see the list of grants")
            now_ms = self._grant_clock.now_ms()
            record = session.authority.next(now_ms, grants=grants)
            return Draft(record, events=(event("ungranted", grant, now_ms),))

        ended = 0

        def then() -> None:
            nonlocal ended
            # The entry of the grant says whose doing it is.
            ended = len(self._live_leases.end_grant(grant_id, "grant-gone", by=None))

        await self._vault.change(draft, then, by=by)
        return ended

    def _resolve(self, selector: Selector) -> Selector:
        """Tie a `tree:` to the process that has this pid now."""
        if selector.kind == "uid" and int(selector.value) != self._uid:
            raise InvalidRequestError(
                f"this daemon serves uid {self._uid} only: grant to uid:{self._uid}",
                reason="invalid-selector",
            )
        if selector.kind != "tree":
            return selector
        try:
            process, found = self._processes.pin(int(selector.value))
            try:
                manager = self._processes.attest(process, self._uid, 0).process.manager
            finally:
                process.close()
        except ProcessGoneError:
            raise ProcessUnknownError(
                "no process with this pid is running: grant to a tree while its root runs"
            ) from None
        if manager:
            raise InvalidRequestError(
                "every program runs below a service manager, so its tree is not an agent: grant to "
                f"the agent's own pid, or to uid:{self._uid} if you mean every program",
                reason="invalid-selector",
            )
        return replace(selector, process=found, boot_id=self._processes.boot_id())

    def _standing(self, session: Session) -> Iterable[Grant]:
        """Return the grants, except those that can never allow anything again."""
        now_ms = self._grant_clock.now_ms()
        for grant in session.authority.grants.values():
            spent = grant.uses_left == 0 and not self._live_leases.rests_on(grant.id)
            if not grant.expired(now_ms) and not spent and self._subject_lives(grant.selector):
                yield grant

    def _subject_lives(self, selector: Selector) -> bool:
        if selector.kind != "tree":
            return True
        if selector.boot_id != self._processes.boot_id():
            return False
        assert selector.process is not None
        try:
            self._processes.hold(selector.process).close()
        except ProcessGoneError:
            return False
        return True


def event(kind: str, grant: Grant, now_ms: int) -> AuditEvent:
    """Describe for the audit log what a grant allows, and to whom."""
    return AuditEvent(
        kind,
        now_ms,
        names=grant.patterns,
        grants=(grant.id,),
        details={
            "to": render(grant.selector.text, limit=PATH_LIMIT),
            "max-ttl": str(grant.max_ttl),
            "uses": str(grant.uses_left or 0),
            "expires-at-ms": str(grant.expires_at_ms or 0),
            "reason": render(grant.reason, limit=CLAIM_LIMIT),
        },
    )


def _same(one: Grant, other: Grant) -> bool:
    return (
        one.selector == other.selector
        and set(one.patterns) == set(other.patterns)
        and one.max_ttl == other.max_ttl
        and (one.expires_at_ms is None) == (other.expires_at_ms is None)
        and (one.uses_left is None) == (other.uses_left is None)
    )
