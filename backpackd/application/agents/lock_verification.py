"""Reading, judging and opening the agent locks that callers send.

Security depends on the order. A lock is read (form, signature). Then it is judged: is the author
trusted, is the lock older than a known version, or a fork of it? Only then it is opened. Nothing is
sealed or signed on top of a lock that was not judged well, for any caller. An admitted version is
remembered, so that an older one is recognised later.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from backpackd.application.agents.identities import Identities, labels
from backpackd.application.agents.lock_views import LockView, accepted_names, view
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.operators import Operators
from backpackd.application.callers.worker import Worker
from backpackd.application.vault.vault import Session, Vault
from backpackd.core.agentlock import locks
from backpackd.core.agentlock.content import MAX_DOCUMENT, Contents, decode_object
from backpackd.core.agentlock.document import LockFile, read
from backpackd.core.agentlock.errors import LockContentError
from backpackd.core.agentlock.history import Finding, judge, remember
from backpackd.core.agentlock.naming import unaccepted
from backpackd.core.agentlock.versions import version_of
from backpackd.core.errors import (
    LockForkedError,
    LockNamesError,
    LockRefusedError,
    LockSteppedBackError,
)
from backpackd.core.sealing.identity import Identity, PublicIdentity
from backpackd.core.vault.trust import KnownLock, check_path
from backpackd.ports import Connection

LEGACY = "1.0"
_Result = TypeVar("_Result")

_TRUST = "accept it with: backpack-client agent trust"
_MOST_NAMED = 8
"""The most names that an error repeats."""
REFUSALS = {
    LockRefusedError.reason: (
        LockRefusedError,
        "the lock was signed by {author}, whom this vault does not know: compare that fingerprint ",
        "with its owner's, then ",
    ),
    LockSteppedBackError.reason: (
        LockSteppedBackError,
        "the lock is older than one that this vault has seen, as after checking out an older ",
        "commit; if it is meant, ",
    ),
    LockForkedError.reason: (
        LockForkedError,
        "the lock was changed in two ways, as on two branches, and this vault has seen the other ",
        "one; if this one is meant, ",
    ),
}
# A signature must not build on any of these. A memory may build on some, if the operator sees it.
FOR_SIGNING = frozenset(REFUSALS)
FOR_MEMORY = frozenset({LockRefusedError.reason})


@dataclass(frozen=True, slots=True)
class Given:
    """A lock file as a caller sends it.

    Attributes:
        document: its bytes.
        path: where it is, according to the caller.
        legacy_key: for version 1, the older tool's key; empty: the one that was kept.
        iterations: for version 1; 0: the usual number.
    """

    document: bytes
    path: str = ""
    legacy_key: bytes = b""
    iterations: int = 0


@dataclass(frozen=True, slots=True)
class Opening:
    """An opened lock: the facts about it, and personality and memory as JSON."""

    view: LockView
    personality: bytes
    memory: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """A new version of a lock: its bytes, the facts about it, and which keys were stored."""

    document: bytes
    view: LockView
    stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A lock that may be used, with the session, and with warnings for the operator."""

    session: Session
    lock: LockFile
    identity: Identity
    warnings: tuple[str, ...]


class LockVerification:
    """Judges locks for one vault."""

    def __init__(
        self,
        vault: Vault,
        identities: Identities,
        operators: Operators,
        bench: Worker,
        audit_log: AuditLog,
    ) -> None:
        self.vault = vault
        self.identities = identities
        self.operators = operators
        self._bench = bench
        self._audit_log = audit_log

    async def admit(
        self,
        connection: Connection,
        given: Given,
        *,
        never: Collection[str] = (),
        session: Session | None = None,
    ) -> Admitted:
        """Read a lock and decide whether it may be used.

        Args:
            connection: the caller's.
            given: the file.
            never: problems that operator authority does not override.
            session: the session in which the call began; None: it begins now.
        """
        session = session or self.vault.session()
        check_path(given.path)
        lock = await self.work(connection, session, partial(_read, given.document))
        identity = await self.identities.own(session)
        problems = _problems(session, lock, identity)
        hard = [problem for problem in problems if problem in REFUSALS]
        if hard and (hard[0] in never or not self.operators.has(connection)):
            raise refused(hard[0], lock.author)
        return Admitted(session, lock, identity, problems)

    async def admit_to_sign(self, connection: Connection, given: Given) -> Admitted:
        """Read a lock that the operator wants to sign again. Any problem refuses it."""
        return await self.admit(connection, given, never=FOR_SIGNING)

    async def is_legacy(self, connection: Connection, given: Given) -> bool:
        """Return whether a lock is of version 1."""
        work = partial(version_of, given.document)
        return await self.work(connection, self.vault.session(), work) == LEGACY

    async def open(self, connection: Connection, admitted: Admitted) -> Contents:
        """Open the layers of a lock.

        Raises:
            LockFileError: a layer is damaged, or this vault is not a recipient.
        """
        work = partial(locks.open_lock, admitted.lock, admitted.identity)
        return (await self.work(connection, admitted.session, work)).contents

    async def remember(self, connection: Connection, admitted: Admitted, path: str) -> None:
        """Remember the version of a lock, unless the operator only looked at an untrusted one."""
        if any(problem in REFUSALS for problem in admitted.warnings):
            return
        lock = admitted.lock

        def newest(now: Session) -> KnownLock:
            for problem in _problems(now, lock, admitted.identity):
                if problem in REFUSALS and not self.operators.has(connection):
                    raise refused(problem, lock.author)
            known = now.authority.locks.get(lock.lock_id)
            if known is None:
                return KnownLock(lock.mark, path)
            mark = remember(known.mark, lock.mark)
            # Otherwise two checkouts of one lock would write the record with every call.
            return (
                known if mark == known.mark else replace(known, mark=mark, path=path or known.path)
            )

        known = admitted.session.authority.locks.get(lock.lock_id)
        if known is None or newest(admitted.session) != known:
            await self.identities.remember(lock.lock_id, newest)

    async def make(
        self,
        connection: Connection,
        session: Session,
        identity: Identity,
        make: Callable[[], LockFile],
    ) -> Written:
        """Make a new version of a lock, and open it as its next reader would."""
        lock = await self.work(connection, session, make)
        opened = await self.work(connection, session, partial(locks.open_lock, lock, identity))
        return Written(lock.encode(), view(session, identity, lock, opened.contents, ()))

    async def told(
        self,
        connection: Connection,
        session: Session,
        written: Written,
        act: str,
        **about: str,
    ) -> Written:
        """Return a new version of a lock once the audit log says that the operator made it.

        Args:
            connection: the operator's.
            session: in which it was made.
            written: the version.
            act: what was done, a stable word.
            **about: more details; never the value of a credential.

        Raises:
            StoreError: it could not be recorded, so it must not leave the daemon.
            LockedError: the vault was locked during this.
        """
        shown = written.view
        details = {"lock": shown.lock_id, "generation": str(shown.generation), **about}
        event = self._audit_log.event("operator-act", connection, reason=act, details=details)
        await self._audit_log.record(event)
        session.check()
        return written

    async def work(
        self, connection: Connection, session: Session, work: Callable[[], _Result]
    ) -> _Result:
        """Run a function outside the event loop.

        Raises:
            LockedError: the vault was locked during this; the result is dropped.
            LimitError: too many calls of this process tree are waiting.
        """
        result = await self._bench.do(connection.tree, work)
        session.check()
        return result


def _read(document: bytes) -> LockFile:
    if version_of(document) == LEGACY:
        raise LockRefusedError(
            "the lock is of version 1: migrate it first: backpack-client agent migrate FILE",
            reason="legacy-lock",
        )
    return read(document)


def _problems(session: Session, lock: LockFile, identity: Identity) -> tuple[str, ...]:
    """Return the known problems of a lock, the most serious first."""
    problems = []
    author = lock.author
    if author != identity.public and author.fingerprint not in labels(session):
        problems.append("unknown-author")
    known = session.authority.locks.get(lock.lock_id)
    verdict = judge(known.mark if known else None, lock.mark)
    words = {Finding.STEP_BACK: "stepped-back", Finding.FORK: "forked"}
    for part, finding in (("lock", verdict.header), ("memory", verdict.memory)):
        if finding in words:
            problems.append(f"{part}-{words[finding]}")
    return tuple(problems)


def refused(reason: str, author: PublicIdentity) -> LockRefusedError:
    """Create the error for a lock that the operator must check first."""
    kind, what, then = REFUSALS[reason]
    message = f"{what.format(author=author.spoken)}{then}{_TRUST}"
    return kind(message, facts={"author": author.spoken})


def check_names(
    session: Session, lock_id: str, contents: Contents, wanted: Collection[str]
) -> None:
    """Raise unless the operator has accepted every name under which a lock embeds a value.

    Args:
        session: with the accepted names.
        lock_id: the lock.
        contents: the lock's contents.
        wanted: the requested names.

    Raises:
        LockNamesError: some are not accepted.
    """
    asked = {name: each for name, each in contents.credentials.items() if name in wanted}
    missing = unaccepted(asked, accepted_names(session, lock_id))
    if missing:
        more = len(missing) - _MOST_NAMED
        shown = ", ".join(missing[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise LockNamesError(
            f"the lock itself brings values for names that are not accepted for it: {shown}; to "
            f"look at them and {_TRUST}"
        )


def json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object of a request; empty bytes mean an empty object. For the worker.

    A megabyte of empty lists takes most of a second, and no other call should wait for that.

    Raises:
        LockContentError: it is not an object, or longer than any layer may be.
    """
    if len(data) > MAX_DOCUMENT:
        raise LockContentError("the content is longer than a lock file may be")
    return decode_object(data) if data else {}
