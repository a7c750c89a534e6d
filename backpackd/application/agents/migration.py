"""Locks of version 1, as an older tool wrote them: shown, and converted into version 2.

They are not signed, and everybody who knows their key can have written them. So they open only for
the operator, who has the key, and become locks of this vault.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from backpackd.application.agents.lock_verification import Given, LockVerification, Opening, Written
from backpackd.application.agents.lock_views import legacy_view
from backpackd.application.vault.keys import Keys
from backpackd.application.vault.vault import Session
from backpackd.core.agentlock import legacy, locks
from backpackd.core.agentlock.content import Credential, encode_object
from backpackd.core.agentlock.legacy import LegacyLock
from backpackd.core.errors import InvalidRequestError, KeyUnknownError, LockRefusedError
from backpackd.core.vault.trust import check_path
from backpackd.ports import Connection


class Migration:
    """Opens locks of version 1 for one vault."""

    def __init__(self, verification: LockVerification, keys: Keys) -> None:
        self._verification = verification
        self._keys = keys

    async def open(self, connection: Connection, given: Given) -> Opening:
        """Open a lock for the operator to look at.

        Raises:
            LockRefusedError: the connection has no operator authority.
            LockFileError: it is damaged, or the key is wrong.
            InvalidRequestError: there is no key for it, or the iterations are out of bounds.
        """
        session = self._verification.vault.session()
        if not self._verification.operators.has(connection):
            raise LockRefusedError(
                "the lock is of version 1, which is not signed: have the operator migrate it "
                "with: backpack-client agent migrate FILE",
                reason="legacy-lock",
            )
        found = await self._legacy(connection, session, given)
        return Opening(
            legacy_view(found, _legacy_warnings(found)),
            encode_object(found.contents.personality),
            encode_object(found.contents.memory),
        )

    async def migrate(
        self,
        connection: Connection,
        given: Given,
        *,
        store: bool = False,
        replace_stored: bool = False,
        keep_key: bool = False,
    ) -> Written:
        """Convert a lock of version 1 into version 2.

        Args:
            connection: the caller's.
            given: the file, and the older tool's key.
            store: turn embedded values into stored keys.
            replace_stored: allow this to replace values of stored keys.
            keep_key: keep the older tool's key for other files.

        Raises:
            KeyExistsError: an embedded value has the name of a stored key with another value.
            LockContentError: a credential's name is not a key name.
        """
        session = self._verification.vault.session()
        if not await self._verification.is_legacy(connection, given):
            raise InvalidRequestError(
                "the lock is already of version 2: there is nothing to migrate",
                reason="already-migrated",
            )
        key = self._verification.identities.legacy_key(session, given.legacy_key)
        found = await self._legacy(connection, session, given)
        if keep_key and found.default_key:
            raise InvalidRequestError("default-key is known to everybody, and is never kept")
        contents = found.contents
        embedded = {name: each.value for name, each in contents.credentials.items() if each.value}
        if store:
            stored = {name: Credential() for name in embedded}
            contents = replace(contents, credentials={**contents.credentials, **stored})
        identity = await self._verification.identities.own(session)
        # Made before anything is stored: if this fails, nothing must have been stored.
        make = partial(locks.create, contents, author=identity, draw=secrets.token_bytes)
        written = await self._verification.make(connection, session, identity, make)
        if store:
            await self._store(connection, session, embedded, replace_stored=replace_stored)
        if keep_key:
            await self._verification.identities.keep_legacy_key(key.encode(), by=connection)
        await self._verification.told(connection, session, written, "lock-migrated")
        warned = replace(written.view, warnings=_legacy_warnings(found))
        return Written(written.document, warned, tuple(embedded) if store else ())

    async def _legacy(self, connection: Connection, session: Session, given: Given) -> LegacyLock:
        check_path(given.path)
        key = self._verification.identities.legacy_key(session, given.legacy_key)
        iterations = given.iterations or legacy.DEFAULT_ITERATIONS
        work = partial(legacy.open_legacy, given.document, key, iterations=iterations)
        return await self._verification.work(connection, session, work)

    async def _store(
        self,
        connection: Connection,
        session: Session,
        values: Mapping[str, bytes],
        *,
        replace_stored: bool,
    ) -> None:
        """Store embedded values as keys, except those that are already stored with this value."""
        fresh = []
        for name, value in values.items():
            try:
                stored = (await self._keys.open(session, [name]))[name]
            except KeyUnknownError:
                stored = b""
            if not hmac.compare_digest(stored, value):
                fresh.append((name, value))
        if fresh:
            await self._keys.put(fresh, by=connection, replace=replace_stored)


def _legacy_warnings(found: LegacyLock) -> tuple[str, ...]:
    return ("default-key",) if found.default_key else ()
