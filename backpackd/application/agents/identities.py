"""The vault's identity, and whom it trusts: made, accepted, remembered and forgotten.

Who may do which is not decided here. Everything is part of the authority record, so it changes in
one piece and is sealed with it.
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
"""Bytes of a master key of the older tool."""


_NOTHING: Mapping[str, str] = {}


class Identities:
    """The identity of one vault and the authors that it trusts.

    `by` is the connection of the caller whose doing it is.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def own(self, session: Session) -> Identity:
        """Return the vault's identity for one operation; the first time it is made.

        Raises:
            LockedError: the vault was locked meanwhile.
            DamageError: it does not open.
        """
        if not session.authority.identity:

            async def draft(now: Session) -> Draft | None:
                # Of two at once, one has made it by now.
                return None if now.authority.identity else self._draft(now, identity=_made(now))

            await self._vault.change(draft, by=None)
        with session.open_master() as master:
            return identities.open_identity(master, session.vault_id, session.authority.identity)

    def decryption(self, session: Session) -> tuple[bytes, ...]:
        """Return the private key by which what was sealed to this vault opens, if it has one."""
        if not session.authority.identity:
            return ()
        with session.open_master() as master:
            sealed = session.authority.identity
            return (identities.open_identity(master, session.vault_id, sealed).decryption,)

    async def trust(self, author: PublicIdentity, label: str, *, by: Connection | None) -> None:
        """Accept an author, or give an accepted one another label.

        Raises:
            InvalidRequestError: the label is not well-formed.
            LimitError: there are too many.
        """
        check_label(label)
        fingerprint = author.fingerprint

        async def draft(now: Session) -> Draft | None:
            if labels(now).get(fingerprint) == label:
                return None
            others = [each for each in now.authority.authors if each.fingerprint != fingerprint]
            if len(others) >= MAX_AUTHORS:
                raise LimitError(
                    f"a vault trusts at most {MAX_AUTHORS} authors: forget one that is not needed"
                )
            fresh = TrustedAuthor(fingerprint, label, self._vault.now_ms())
            return self._draft(
                now, "author-accepted", {"author": author.spoken}, authors=(*others, fresh)
            )

        await self._vault.change(draft, by=by)

    async def remember(self, lock_id: str, newest: Callable[[Session], KnownLock]) -> None:
        """Remember how far a lock has come.

        Args:
            lock_id: which.
            newest: says what to remember once the turn has come, since another version may have
                been seen meanwhile; what it raises is raised here, and nothing is changed.

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
        """Let a version of a lock be the one that counts, whatever was seen before.

        Args:
            lock_id: which.
            fresh: the version, with the names that are accepted now.
            embedded: the names of all values that this version embeds. Names that were accepted
                before and are not among them are accepted no more.
            about: what else the audit log is to say of it.
            by: whose doing it is.

        Raises:
            LimitError: too many locks are known, or too many names accepted.
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
                    "lock that is not needed"
                )
            return self._draft(now, "lock-accepted", details, locks=locks)

        await self._vault.change(draft, by=by)

    async def forget_author(self, spoken: str, *, by: Connection | None) -> None:
        """Trust an author no more.

        Raises:
            TrustUnknownError: it was not accepted.
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
                raise TrustUnknownError("no agent lock of that id is known")
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
        """Return the older tool's key: the one that was given, else the one that was kept.

        Raises:
            InvalidRequestError: neither is there, or it is not well-formed; it is not shown.
        """
        key = given
        if not key and session.authority.legacy_key:
            with session.open_master() as master:
                key = open_legacy_key(master, session.vault_id, session.authority.legacy_key)
        if not key:
            raise InvalidRequestError(
                "a lock of version 1 opens with the master key of the tool that wrote it: give it",
                reason="legacy-key-needed",
            )
        try:
            text = key.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or len(key) > MAX_LEGACY_KEY:
            raise InvalidRequestError(
                f"a master key of the older tool is UTF-8 text of at most {MAX_LEGACY_KEY} bytes"
            )
        return text

    def _draft(
        self, now: Session, act: str = "", about: Mapping[str, str] = _NOTHING, **changes: Any
    ) -> Draft:
        """Change the record, and say in the audit log what the operator did, if that is it."""
        now_ms = self._vault.now_ms()
        event = AuditEvent("operator-act", now_ms, reason=act, details=about)
        return Draft(now.authority.next(now_ms, **changes), events=(event,) if act else ())


def _with(now: Session, lock_id: str, fresh: KnownLock) -> dict[str, KnownLock]:
    known = now.authority.locks
    if lock_id not in known and len(known) >= MAX_LOCKS:
        raise LimitError(
            f"a vault knows at most {MAX_LOCKS} agent locks: forget one that is not needed"
        )
    return {**known, lock_id: fresh}


def labels(session: Session) -> Mapping[str, str]:
    """Return what the operator calls the accepted authors, by fingerprint."""
    return {author.fingerprint: author.label for author in session.authority.authors}


def _made(session: Session) -> bytes:
    with session.open_master() as master:
        salt = secrets.token_bytes(SALT_SIZE)
        return identities.seal_identity(master, session.vault_id, identities.generate(), salt)


def known_files(authority: Authority) -> tuple[str, ...]:
    """Return where clients said that the agent locks lie which this vault has opened."""
    return tuple(sorted({lock.path for lock in authority.locks.values() if lock.path}))
