"""Asking a person: pending requests, the answers, and which calls an answer reaches.

A request is shown with the attested facts, and a person with operator authority answers it. The
waiting calls wake at once and are decided again. So an answer is never more than a grant to the
root of one process tree, in memory, until that root ends or the vault is locked.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from backpackd.application.access.grant_clock import GrantClock
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.callers.reattestation import look_again
from backpackd.application.callers.watchers import Watchers
from backpackd.application.deadlines import Deadlines
from backpackd.core.access.consents import Consents
from backpackd.core.access.grants import LONGEST_TTL, Grant
from backpackd.core.access.orphans import place_of
from backpackd.core.access.requests import CODE_ALPHABET, CODE_LENGTH, LIFE, Request, RequestTable
from backpackd.core.access.selectors import Selector
from backpackd.core.audit.events import CLAIM_LIMIT
from backpackd.core.errors import (
    BackpackError,
    DeniedError,
    InvalidRequestError,
    LimitError,
    PeerUnknownError,
    RequestChangedError,
    RequestUnknownError,
    ShuttingDownError,
    WaitingError,
)
from backpackd.core.peer_facts import PeerFacts, ProcessId
from backpackd.core.render import render
from backpackd.ports import Clock, Connection, Notifier, Processes

MOST_WAITING_OF_TREE = 256
_ONCE_SECONDS = 600
LOOK_EVERY = 1.0
"""Seconds for which the last look at a request's processes is recent enough for a listing."""
MOST_WATCHERS = 64
MOST_WATCHERS_OF_TREE = 16

Announce = Callable[[str], Awaitable[None]]
"""Tells a waiting caller its request's code before the answer."""
_Failure = Callable[[], BackpackError]


@dataclass(slots=True, eq=False)
class _Wait:
    """What the calls of one request wait for.

    Attributes:
        over: set when the request has ended.
        failure: makes the error that the calls fail with; None: they are decided again.
    """

    over: asyncio.Event = field(default_factory=asyncio.Event)
    failure: _Failure | None = None


class Approvals:
    """The pending requests of one vault, while it is unlocked."""

    def __init__(
        self,
        processes: Processes,
        process_watches: ProcessWatches,
        deadlines: Deadlines,
        clock: Clock,
        notifier: Notifier,
        *,
        audit_log: AuditLog,
        grant_clock: GrantClock,
    ) -> None:
        self._audit_log = audit_log
        self._processes = processes
        self._process_watches = process_watches
        self._deadlines = deadlines
        self._clock = clock
        self._notifier = notifier
        self._grant_clock = grant_clock
        self._table = RequestTable()
        self._waits: dict[str, _Wait] = {}
        self._watchers: Watchers[asyncio.Event] = Watchers(
            "requests", most=MOST_WATCHERS, of_tree=MOST_WATCHERS_OF_TREE
        )
        self._closing = False
        self.consents = Consents()
        process_watches.add(self._needed, self._root_ended)

    async def ask(
        self,
        facts: PeerFacts,
        names: Sequence[str],
        *,
        reason: str,
        seconds: float,
        announce: Announce,
        by: Connection,
    ) -> None:
        """Wait until a person has answered. After that, the caller decides again.

        Args:
            facts: the caller, just attested.
            names: the keys that no grant covers for it.
            reason: the caller's words, a claim.
            seconds: how long to wait; 0: do not wait, but keep the request.
            announce: called with the code before waiting.
            by: the caller's connection.

        Raises:
            DeniedError: a person refused it, now or before.
            WaitingError: there was no answer in that time; the request stays for a while.
            LimitError: too many requests, or too many calls of this tree, wait.
            PeerUnknownError: the root of the tree has ended.
        """
        if self._closing:
            raise _stopping()
        tree = facts.root.id
        if self.consents.refused_to(facts, names):
            raise _refused()
        request = self._table.find(tree, names) or self._add(facts, names, reason, by)
        if request.waiting >= MOST_WAITING_OF_TREE:
            raise LimitError("too many calls of this process tree wait for approval: end some")
        wait = self._waits[request.code]
        request.waiting += 1
        self._changed()
        try:
            await announce(request.code)
            with suppress(TimeoutError):
                await asyncio.wait_for(wait.over.wait(), seconds)
        finally:
            request.waiting -= 1
            request.until = self._clock.boot() + LIFE
            self._changed()
            self._deadlines.review()
        if not wait.over.is_set():
            raise WaitingError(
                "still waiting for approval: have the operator approve the request, then ask again",
                facts={
                    "request-code": request.code,
                    "root-pid": str(tree.pid),
                    "tree-pid": str((facts.hooked or facts.root).id.pid),
                    "uid": str(facts.uid),
                },
            )
        if wait.failure is not None:
            raise wait.failure()
        # A refusal to another tree does not end this wait, because this request may just have been
        # approved. The caller decides again, and is refused as above if there is no consent.
        if self.consents.refused_above(facts, names):
            raise _refused()

    def pending(self) -> list[Request]:
        """Return the pending requests in the order in which to show them to a person."""
        return self._table.shown()

    def pending_for(self, facts: PeerFacts) -> list[Request]:
        """Return the pending requests that a caller may see: those of its tree, and its own."""
        own = {facts.root.id, facts.process.id}
        return [request for request in self._table.shown() if request.tree in own]

    def look(self, requests: Iterable[Request], *, every: float = LOOK_EVERY) -> None:
        """Read again what the processes of requests run, before a person sees the requests.

        If this fails for lack of file descriptors, they are shown as they were last read, and
        approving them fails.

        Args:
            requests: the requests to read again.
            every: seconds for which an earlier look is recent enough.
        """
        now = self._clock.boot()
        for request in requests:
            if now - request.looked_at >= every:
                with suppress(LimitError):
                    self._look(request)

    def approve(
        self,
        code: str,
        *,
        by: Connection | None,
        once: bool,
        root_pid: int,
        revision: int = 0,
    ) -> ProcessId:
        """Allow a request.

        A process can execute another program while the question is on a screen. So its chain is
        read once more, and approval fails if it is not as it was shown.

        Args:
            code: as typed.
            by: whose doing it is.
            once: only for the calls that wait, or for the next one where none does.
            root_pid: of another process of the request's chain to be the root; 0: the proposed.
            revision: of the request as it was shown to the person; 0: as anybody was last shown it.

        Returns:
            The root of the tree that may now lease the keys.

        Raises:
            RequestUnknownError: it was answered or has ended.
            InvalidRequestError: that process is not in the chain, or may not be a root.
            PeerUnknownError: the root has ended.
            RequestChangedError: it is not as it was shown; the next listing shows the change.
            LimitError: too many files are open to read the chain.
        """
        request = self._pending(code)
        root = _root_of(request, root_pid)
        if self._look(request) or revision not in (0, request.revision):
            raise RequestChangedError(
                "the request has changed since it was shown, and was not approved: look again"
            )
        self._process_watches.watch(root)
        now_ms = self._grant_clock.now_ms()
        self.consents.consent(
            Grant(
                id=f"consent-{secrets.token_hex(8)}",
                patterns=request.names,
                selector=Selector("tree", str(root.pid), root, self._processes.boot_id()),
                max_ttl=LONGEST_TTL,
                expires_at_ms=now_ms + _ONCE_SECONDS * 1000 if once else None,
                uses_left=max(1, request.waiting) if once else None,
                created_at_ms=now_ms,
                reason="",
                consent=True,
            ),
            request.origin,
        )

        def answered(other: Request) -> bool:
            # Requests that the consent also covers need no question.
            known = any(process.id == root for process in other.facts.chain)
            return not once and known and set(other.names) <= set(request.names)

        self._note(
            "approved", by, request, **{"root-pid": str(root.pid), "once": str(once).lower()}
        )
        self._end(lambda other: other is request or answered(other))
        return root

    def deny(self, code: str, *, by: Connection | None) -> None:
        """Refuse a request, and remember that for as long as the tree lives.

        Args:
            code: as typed.
            by: whose doing it is.

        Raises:
            RequestUnknownError: it was answered or has ended.
        """
        request = self._pending(code)
        # The refusal is for the tree in which the asker was started. Otherwise a loop of agents,
        # each the root of its own tree, could ask forever.
        self._process_watches.watch(request.origin)
        place = place_of(request.facts, request.facts.origin)
        self.consents.refuse(request.origin, request.names, place=place)
        self._note("refused", by, request)
        self._end(lambda other: self.consents.refused_to(other.facts, other.names))

    def denied(self, facts: PeerFacts, selectors: frozenset[Selector]) -> None:
        """Remember that rules deny a caller: a person is asked about what its tree leaves behind.

        This is remembered only while the root lives. For an ended root, nothing can be remembered.

        Args:
            facts: the caller, just denied.
            selectors: of the rules that mean the caller; none if the rules mean everybody.
        """
        if not selectors:
            return
        with suppress(LimitError):
            try:
                self._process_watches.watch(facts.origin.id)
            except PeerUnknownError:
                return
        self.consents.deny(facts.origin.id, place_of(facts, facts.origin), selectors)

    async def changes(self, event: asyncio.Event) -> None:
        """Wait for the next change of the pending requests since the last call with this event."""
        await event.wait()
        event.clear()

    def subscribe(self, tree: ProcessId | None) -> asyncio.Event:
        """Return an event that is set whenever the pending requests change.

        Args:
            tree: the root of the caller's process tree; None for the operator, whom the watches of
                others cannot keep out.

        Raises:
            LimitError: there are too many watches.
        """
        return self._watchers.add(tree, asyncio.Event())

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Remove an event."""
        self._watchers.discard(event)

    def look_again(self, settled: Callable[[Request], bool]) -> None:
        """Have the waiting calls decided again: what is allowed without a person has changed.

        Args:
            settled: tells which requests need no answer any more, by the process that first asked.
        """
        self._end(settled)
        for code, wait in list(self._waits.items()):
            # Other processes of the tree than the first asker may now be allowed, or denied.
            self._waits[code] = _Wait()
            wait.over.set()

    def close(self) -> None:
        """End all waits: the daemon is stopping."""
        self._closing = True
        self._wake(self._table.end_all(), _stopping)

    def drop_all(self) -> None:
        """End every request and forget every answer: the vault is locked.

        The trees of revocations are not forgotten, see `Consents.lock`.
        """
        known = self._table.trees() | self.consents.trees() | roots(self.consents.in_force())
        ended = self._table.end_all()
        self._ended(ended, "locked")
        self._wake(ended)
        self.consents.lock()
        self._process_watches.let_go(known)
        # Even if nothing was pending: every watch must learn that the vault is locked.
        self._changed()

    def expire(self, now: float) -> float | None:
        """End the requests that no call waits for any more. A source for `Deadlines`."""
        ended, coming = self._table.expire(now)
        if ended:
            self._ended(ended, "expired")
            self._wake(ended)
            self._process_watches.let_go({request.tree for request in ended})
        return coming

    def _look(self, request: Request) -> bool:
        """Read what a request's chain runs now; return whether it differs from what was shown."""
        facts = look_again(self._processes, request.facts)
        request.looked_at = self._clock.boot()
        commands = self._processes.claimed_commands(facts)
        differs = request.differs(facts, commands)
        request.change(facts, commands)
        if differs:
            self._changed()
        return differs

    def _add(self, facts: PeerFacts, names: Sequence[str], reason: str, by: Connection) -> Request:
        # First, so that a flood does not make the daemon read about its processes each time.
        self._table.check_room(facts)
        now = self._clock.boot()
        request = Request(
            code=self._fresh_code(),
            facts=facts,
            names=tuple(names),
            reason=reason,
            commands=self._processes.claimed_commands(facts),
            asked_at=now,
            until=now + LIFE,
        )
        self._process_watches.watch(request.tree)
        try:
            gave_way = self._table.add(request)
        except LimitError:
            self._process_watches.let_go({request.tree})
            raise
        # Their calls fail. If these asked again, they would push out other requests, and so on.
        self._ended(gave_way, "gave-way")
        self._wake(gave_way, _gave_way)
        self._process_watches.let_go({other.tree for other in gave_way})
        self._waits[request.code] = _Wait()
        self._notifier.notify(request.code)
        claim = render(reason, limit=CLAIM_LIMIT)
        details = {"code": request.code}
        self._audit_log.note(
            self._audit_log.event(
                "pending",
                by,
                facts,
                request.commands,
                names=request.names,
                details=details,
                claimed_reason=claim,
            )
        )
        return request

    def _note(self, kind: str, by: Connection | None, request: Request, **details: str) -> None:
        """Note what a person answered."""
        told = {"code": request.code, "tree-pid": str(request.tree.pid), **details}
        self._audit_log.note(self._audit_log.event(kind, by, names=request.names, details=told))

    def _ended(self, requests: Sequence[Request], reason: str) -> None:
        """Record that requests have ended without an answer."""
        for request in requests:
            told = {"code": request.code, "tree-pid": str(request.tree.pid)}
            self._audit_log.note(
                self._audit_log.own_event(
                    "request-ended", names=request.names, reason=reason, details=told
                )
            )

    def _fresh_code(self) -> str:
        while True:
            code = "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))
            if self._table.get(code) is None:
                return code

    def _pending(self, code: str) -> Request:
        request = self._table.get(code)
        if request is None:
            raise RequestUnknownError("no such request: it was answered or has ended")
        return request

    def _end(self, over: Callable[[Request], bool]) -> None:
        ended = self._table.end(over)
        self._wake(ended)
        self._process_watches.let_go({request.tree for request in ended})
        self._deadlines.review()

    def _wake(self, requests: Sequence[Request], failure: _Failure | None = None) -> None:
        for request in requests:
            wait = self._waits.pop(request.code)
            wait.failure = failure
            wait.over.set()
        if requests:
            self._changed()

    def _changed(self) -> None:
        for event in self._watchers:
            event.set()

    def _needed(self, processes: Collection[ProcessId]) -> set[ProcessId]:
        known = self._table.trees() | roots(self.consents.in_force())
        return {one for one in processes if one in known or self.consents.about(one)}

    def _root_ended(self, process: ProcessId) -> None:
        self.consents.end_tree(process)
        # The rest of the tree now belongs to other trees, so the code is no longer valid for it.
        ended = self._table.end_tree(process)
        self._ended(ended, "root-gone")
        self._wake(ended, _root_gone)


def roots(consents: Iterable[Grant]) -> set[ProcessId]:
    """Return the roots of the process trees that have these consents."""
    return {consent.selector.process for consent in consents if consent.selector.process}


def _root_of(request: Request, root_pid: int) -> ProcessId:
    if not root_pid:
        return request.tree
    for process in request.possible_roots:
        if process.id.pid == root_pid:
            return process.id
    raise InvalidRequestError(
        "that process is not in the request's chain, or starts the programs of others too: choose "
        "one of the possible roots that were shown",
        reason="invalid-root",
    )


def _refused() -> DeniedError:
    return DeniedError(
        "a person refused these keys to this process tree, and nobody is asked again while the "
        "tree lives",
        reason="refused-by-operator",
    )


def _stopping() -> ShuttingDownError:
    return ShuttingDownError("the daemon is stopping: start it again, then ask again")


def _gave_way() -> LimitError:
    return LimitError(
        "too many requests wait for approval, and this one was dropped: have them answered first",
        reason="too-many-requests",
    )


def _root_gone() -> PeerUnknownError:
    return PeerUnknownError("the root of the process tree has ended: start it again")
