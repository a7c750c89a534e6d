"""The vault's identity, and the authors and locks that it trusts.

The caller checks who may do this. Everything is part of the authority record, so it changes
together with the record and is sealed with it.
"""

import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import InvalidRequestError, LimitError, TrustUnknownError
from backpackd.core.sealing import identity as identities
from backpackd.core.sealing.identity import Identity, PublicIdentity
from backpackd.core.sealing.sealing import SALT_SIZE
from backpackd.core.vault.authority import Authority, open_legacy_key, seal_legacy_key
from backpackd.core.vault.trust import (
    MAX_AUTHORS,
    MAX_LOCKS,
    MAX_NAMES,
    KnownLock,
    TrustedAuthor,
    check_label,
)
from backpackd.ports import Connection

MAX_LEGACY_KEY = 1024
"""The most bytes of a master key of the older tool."""


_NOTHING: Mapping[str, str] = {}


class Identities:
    """The identity of one vault and the authors that it trusts.

    `by` is the connection of the caller whose doing it is.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def own(self, session: Session) -> Identity:
        """Return the vault's identity for one operation. The first call creates it.

        Raises:
            LockedError: the vault was locked during this.
            DamageError: it cannot be opened.
        """
        if not session.authority.identity:

            async def draft(now: Session) -> Draft | None:
                # Of two callers at once, the other one may have created it.
                return None if now.authority.identity else self._draft(now, identity=_made(now))

            await self._vault.change(draft, by=None)
        with session.open_master() as master:
            return identities.open_identity(master, session.vault_id, session.authority.identity)

    def decryption(self, session: Session) -> tuple[bytes, ...]:
        """Return the private key that opens what was sealed to this vault, if it has one."""
        if not session.authority.identity:
            return ()
        with session.open_master() as master:
            sealed = session.authority.identity
            return (identities.open_identity(master, session.vault_id, sealed).decryption,)

    async def trust(self, author: PublicIdentity, label: str, *, by: Connection | None) -> None:
        """Accept an author, or give an accepted one another label.

        Raises:
            InvalidRequestError: the label is not valid.
            LimitError: there are too many authors.
        """
        check_label(label)
        fingerprint = author.fingerprint

        async def draft(now: Session) -> Draft | None:
            if labels(now).get(fingerprint) == label:
                return None
            others = [each for each in now.authority.authors if each.fingerprint != fingerprint]
            if len(others) >= MAX_AUTHORS:
                raise LimitError(
                    f"a vault trusts at most {MAX_AUTHORS} authors: forget one that you do not need"
                )
            fresh = TrustedAuthor(fingerprint, label, self._vault.now_ms())
            return self._draft(
                now, "author-accepted", {"author": author.spoken}, authors=(*others, fresh)
            )

        await self._vault.change(draft, by=by)

    async def remember(self, lock_id: str, newest: Callable[[Session], KnownLock]) -> None:
        """Remember the newest version of a lock.

        Args:
            lock_id: the lock.
            newest: returns what to remember. It is called in turn, because another version may have
                been seen since. What it raises is raised here, and nothing changes.

        Raises:
            LimitError: too many locks are known.
        """

        async def draft(now: Session) -> Draft | None:
            fresh = newest(now)
            if now.authority.locks.get(lock_id) == fresh:
                return None
            return self._draft(now, locks=_with(now, lock_id, fresh))

        await self._vault.change(draft, by=None)

    async def accept(
        self,
        lock_id: str,
        fresh: KnownLock,
        embedded: Collection[str],
        about: Mapping[str, str],
        *,
        by: Connection | None,
    ) -> None:
        """Let a version of a lock count as the newest, whatever was seen before.

        Args:
            lock_id: the lock.
            fresh: the version, with the names that are accepted now.
            embedded: the names of all values that this version embeds. Names that were accepted
                before and are not among them are accepted no more.
            about: what else the audit log is to say of it.
            by: whose doing it is.

        Raises:
            LimitError: there are too many known locks or accepted names.
        """
        mark = fresh.mark
        details = {
            "lock": lock_id,
            "generation": str(mark.generation),
            "memory": str(mark.memory_counter),
            **about,
        }

        async def draft(now: Session) -> Draft | None:
            known = now.authority.locks.get(lock_id)
            before = known.names if known is not None else ()
            names = tuple(sorted({*before, *fresh.names} & set(embedded)))
            accepted = replace(fresh, names=names)
            if accepted == known:
                return None
            locks = _with(now, lock_id, accepted)
            if sum(len(each.names) for each in locks.values()) > MAX_NAMES:
                raise LimitError(
                    f"a vault keeps at most {MAX_NAMES} accepted names of agent locks: forget a "
                    "lock that you do not need"
                )
            return self._draft(now, "lock-accepted", details, locks=locks)

        await self._vault.change(draft, by=by)

    async def forget_author(self, spoken: str, *, by: Connection | None) -> None:
        """Trust an author no more.

        Raises:
            TrustUnknownError: the author is not trusted.
        """

        async def draft(now: Session) -> Draft:
            rest = tuple(each for each in now.authority.authors if each.spoken != spoken)
            if len(rest) == len(now.authority.authors):
                raise TrustUnknownError("no accepted author has that fingerprint")
            return self._draft(now, "author-forgotten", {"author": spoken}, authors=rest)

        await self._vault.change(draft, by=by)

    async def forget_lock(self, lock_id: str, *, by: Connection | None) -> None:
        """Forget how far a lock has come; it is met anew the next time.

        Raises:
            TrustUnknownError: it is not known.
        """

        async def draft(now: Session) -> Draft:
            rest = {each: known for each, known in now.authority.locks.items() if each != lock_id}
            if len(rest) == len(now.authority.locks):
                raise TrustUnknownError("no agent lock with that id is known")
            return self._draft(now, "lock-forgotten", {"lock": lock_id}, locks=rest)

        await self._vault.change(draft, by=by)

    async def keep_legacy_key(self, key: bytes, *, by: Connection | None) -> None:
        """Keep the master key of the older tool, in place of one that was kept before."""

        async def draft(now: Session) -> Draft | None:
            kept = now.authority.legacy_key
            with now.open_master() as master:
                if kept and hmac.compare_digest(open_legacy_key(master, now.vault_id, kept), key):
                    return None
                salt = secrets.token_bytes(SALT_SIZE)
                sealed = seal_legacy_key(master, now.vault_id, key, salt)
            return self._draft(now, "legacy-key-kept", legacy_key=sealed)

        await self._vault.change(draft, by=by)

    def legacy_key(self, session: Session, given: bytes) -> str:
        """Return the older tool's key: the given one, or else the one that was kept.

        Raises:
            InvalidRequestError: there is neither, or it is not valid; the error does not show it.
        """
        key = given
        if not key and session.authority.legacy_key:
            with session.open_master() as master:
                key = open_legacy_key(master, session.vault_id, session.authority.legacy_key)
        if not key:
            raise InvalidRequestError(
                "a lock of version 1 opens with the master key of the tool that wrote it: add it",
                reason="legacy-key-needed",
            )
        try:
            text = key.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or len(key) > MAX_LEGACY_KEY:
            raise InvalidRequestError(
                f"an older tool's master key must be UTF-8 text of at most {MAX_LEGACY_KEY} bytes"
            )
        return text

    def _draft(
        self, now: Session, act: str = "", about: Mapping[str, str] = _NOTHING, **changes: Any
    ) -> Draft:
        """Change the record, and add an audit entry if `act` says what the operator did."""
        now_ms = self._vault.now_ms()
        event = AuditEvent("operator-act", now_ms, reason=act, details=about)
        return Draft(now.authority.next(now_ms, **changes), events=(event,) if act else ())


def _with(now: Session, lock_id: str, fresh: KnownLock) -> dict[str, KnownLock]:
    known = now.authority.locks
    if lock_id not in known and len(known) >= MAX_LOCKS:
        raise LimitError(
            f"a vault knows at most {MAX_LOCKS} agent locks: forget one that you do not need"
        )
    return {**known, lock_id: fresh}


def labels(session: Session) -> Mapping[str, str]:
    """Return the operator's labels for the accepted authors, by fingerprint."""
    return {author.fingerprint: author.label for author in session.authority.authors}


def _made(session: Session) -> bytes:
    with session.open_master() as master:
        salt = secrets.token_bytes(SALT_SIZE)
        return identities.seal_identity(master, session.vault_id, identities.generate(), salt)


def known_files(authority: Authority) -> tuple[str, ...]:
    """Return the paths of the agent locks that this vault has opened, as clients told them."""
    return tuple(sorted({lock.path for lock in authority.locks.values() if lock.path}))
