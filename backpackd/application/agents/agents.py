"""Agent locks: created, opened and changed, from bytes to bytes.

Nothing here opens a path. Embedded values leave only through `embedded`, which `access` calls after
its decision. `lock_verification` decides what may be done with a lock, before any part of it is
opened.
"""

import hmac
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from backpackd.application.agents.identities import labels
from backpackd.application.agents.lock_verification import (
    FOR_MEMORY,
    Admitted,
    Given,
    LockVerification,
    Opening,
    Written,
    check_names,
    json_object,
    refused,
)
from backpackd.application.agents.lock_views import LockView, view
from backpackd.application.agents.migration import Migration
from backpackd.application.vault.vault import Session
from backpackd.core.agentlock import locks
from backpackd.core.agentlock.content import Contents, Credential, encode_object
from backpackd.core.agentlock.document import LockFile
from backpackd.core.agentlock.errors import LockContentError, RecipientsError
from backpackd.core.errors import CredentialUnknownError, MemoryChangedError
from backpackd.core.sealing.identity import PublicIdentity
from backpackd.core.vault.trust import KnownLock, check_label
from backpackd.ports import Connection

_NO_CREDENTIALS: Mapping[str, Credential] = {}


class Agents:
    """The agent locks that callers send."""

    def __init__(self, verification: LockVerification, migration: Migration) -> None:
        self._verification = verification
        self._migration = migration

    async def create(
        self,
        connection: Connection,
        *,
        credentials: Mapping[str, Credential],
        personality: bytes,
        memory: bytes,
    ) -> Written:
        """Create a lock whose author and only recipient is this vault.

        Raises:
            LockContentError: a layer is not valid, or too large.
        """
        session = self._verification.vault.session()
        contents = await self._verification.work(
            connection,
            session,
            lambda: Contents(credentials, json_object(personality), json_object(memory)),
        )
        identity = await self._verification.identities.own(session)
        make = partial(locks.create, contents, author=identity, draw=secrets.token_bytes)
        written = await self._verification.make(connection, session, identity, make)
        return await self._verification.told(connection, session, written, "lock-created")

    async def open(self, connection: Connection, given: Given) -> Opening:
        """Open a lock.

        Raises:
            LockFileError: it is damaged, or not for this vault.
            LockRefusedError: the operator must check it first.
        """
        if await self._verification.is_legacy(connection, given):
            return await self._migration.open(connection, given)
        admitted = await self._verification.admit(connection, given)
        contents = await self._verification.open(connection, admitted)
        shown = view(
            admitted.session, admitted.identity, admitted.lock, contents, admitted.warnings
        )
        await self._verification.remember(connection, admitted, given.path)
        return Opening(shown, encode_object(contents.personality), encode_object(contents.memory))

    async def edit(
        self,
        connection: Connection,
        given: Given,
        *,
        personality: bytes | None = None,
        put: Mapping[str, Credential] = _NO_CREDENTIALS,
        remove: Collection[str] = (),
    ) -> Written:
        """Change personality and credentials. This vault signs the new generation.

        Raises:
            CredentialUnknownError: a credential to remove is not in the lock.
        """
        admitted = await self._verification.admit_to_sign(connection, given)
        contents = await self._verification.open(connection, admitted)
        if not set(remove) <= contents.credentials.keys():
            raise CredentialUnknownError(
                "a credential to remove is not in the lock: nothing was changed"
            )
        changed = None
        if personality is not None:
            read = partial(json_object, personality)
            changed = await self._verification.work(connection, admitted.session, read)
        kept = {name: each for name, each in contents.credentials.items() if name not in remove}
        make = partial(
            locks.edit,
            admitted.lock,
            admitted.identity,
            draw=secrets.token_bytes,
            credentials={**kept, **put},
            personality=changed,
        )
        return await self._sign(connection, admitted, make, "lock-edited")

    async def update_memory(
        self, connection: Connection, given: Given, memory: bytes, expected: str
    ) -> LockFile:
        """Replace the memory, if it is still the one that the caller has read.

        Args:
            connection: the caller's.
            given: the file.
            memory: the new memory, a JSON object.
            expected: the digest of the memory that the caller has read.

        Raises:
            MemoryChangedError: the file has another memory.
            LockRefusedError: see `open`.
        """
        admitted = await self._verification.admit(connection, given, never=FOR_MEMORY)
        if not hmac.compare_digest(admitted.lock.mark.memory_digest.encode(), expected.encode()):
            raise MemoryChangedError("the memory has changed since it was read: read it again")
        fresh = await self._verification.work(
            connection,
            admitted.session,
            lambda: locks.update_memory(
                admitted.lock, admitted.identity, json_object(memory), draw=secrets.token_bytes
            ),
        )
        # Only now: the version of a lock that this vault cannot open must not count.
        await self._verification.remember(connection, admitted, given.path)
        return fresh

    async def rewrap(self, connection: Connection, given: Given) -> Written:
        """Give a lock a new lock key, wrapped to its current recipients."""
        admitted = await self._verification.admit_to_sign(connection, given)
        make = partial(locks.rewrap, admitted.lock, admitted.identity, draw=secrets.token_bytes)
        return await self._sign(connection, admitted, make, "lock-rewrapped")

    async def add_recipient(
        self,
        connection: Connection,
        given: Given,
        text: str,
        *,
        trust: bool = False,
        label: str = "",
    ) -> Written:
        """Let another vault open a lock.

        Args:
            connection: the caller's.
            given: the file.
            text: the other vault's public identity.
            trust: whether to trust it as an author, too.
            label: the operator's name for that author.

        Raises:
            IdentityError: that is not an identity.
            RecipientsError: it is a recipient already, or there are too many.
        """
        admitted = await self._verification.admit_to_sign(connection, given)
        other = PublicIdentity.parse(text.strip())
        check_label(label)
        make = partial(locks.add_recipients, admitted.lock, admitted.identity, [other])
        session = admitted.session
        written = await self._verification.make(connection, session, admitted.identity, make)
        if trust:
            await self._verification.identities.trust(other, label, by=connection)
        return await self._verification.told(
            connection, session, written, "recipient-added", recipient=other.spoken
        )

    async def remove_recipient(self, connection: Connection, given: Given, spoken: str) -> Written:
        """Remove a recipient, and give the lock a new lock key.

        Raises:
            RecipientsError: no recipient has that fingerprint, or it is this vault's.
        """
        admitted = await self._verification.admit_to_sign(connection, given)
        gone = [each.fingerprint for each in admitted.lock.recipients if each.spoken == spoken]
        if not gone:
            raise RecipientsError("no recipient of this lock has that fingerprint")
        make = partial(
            locks.remove_recipients,
            admitted.lock,
            admitted.identity,
            gone,
            draw=secrets.token_bytes,
        )
        return await self._sign(connection, admitted, make, "recipient-removed", recipient=spoken)

    async def trust(
        self,
        connection: Connection,
        given: Given,
        author: str,
        label: str,
        names: Collection[str] = (),
    ) -> LockView:
        """Accept a lock as it is: trust its author, and let this version count as the newest.

        An accepted name stays accepted for this lock, whatever value later versions give it.

        Args:
            connection: the caller's.
            given: the file.
            author: the author's fingerprint, as the operator compared it; empty if the author is
                already trusted.
            label: the operator's name for the author.
            names: names of embedded values that may be handed out from now on, as the operator saw
                them.

        Raises:
            LockRefusedError: the lock has another author.
            LockContentError: the lock embeds no value under one of the names.
        """
        check_label(label)
        admitted = await self._verification.admit(connection, given)
        session, signer = admitted.session, admitted.lock.author
        if author != signer.spoken and (author or "unknown-author" in admitted.warnings):
            raise refused("unknown-author", signer)
        contents = await self._verification.open(connection, admitted)
        embedded = {name for name, each in contents.credentials.items() if each.embedded}
        if not embedded.issuperset(names):
            raise LockContentError("the lock embeds no value under a name that is to be accepted")
        known = signer == admitted.identity.public
        if not known and (label or signer.fingerprint not in labels(session)):
            await self._verification.identities.trust(signer, label, by=connection)
        lock, fresh = admitted.lock, KnownLock(admitted.lock.mark, given.path, tuple(names))
        about = {"found": " ".join(admitted.warnings), "author": signer.spoken}
        if names:
            about["names"] = " ".join(sorted(names))
        await self._verification.identities.accept(
            lock.lock_id, fresh, embedded, about, by=connection
        )
        return view(session, admitted.identity, lock, contents, ())

    async def check(self, connection: Connection, session: Session, document: bytes) -> None:
        """Raise unless a lock may be used. Called before a person is asked for the keys it names.

        Raises:
            LockFileError: it is damaged.
            LockRefusedError: the operator must check it first.
            LockedError: the vault was locked during this.
        """
        await self._verification.admit(connection, Given(document), session=session)

    async def embedded(
        self, connection: Connection, session: Session, document: bytes, names: Sequence[str]
    ) -> dict[str, bytes]:
        """Return the values that a lock embeds for these names.

        Args:
            connection: the caller's.
            session: the session in which the caller was allowed to have them.
            document: the lock file.
            names: key names; those without an embedded value are missing in the result.

        Raises:
            LockFileError: it is damaged, or not for this vault.
            LockRefusedError: the operator must check the lock or these names first. This is checked
                here and not in the client, because here no client can omit it.
            LockedError: the vault was locked during this.
        """
        admitted = await self._verification.admit(connection, Given(document), session=session)
        contents = await self._verification.open(connection, admitted)
        await self._verification.remember(connection, admitted, "")
        session.check()
        check_names(session, admitted.lock.lock_id, contents, names)
        found = {name: contents.credentials.get(name, Credential()).value for name in names}
        return {name: value for name, value in found.items() if value is not None}

    async def _sign(
        self,
        connection: Connection,
        admitted: Admitted,
        make: Callable[[], LockFile],
        act: str,
        **about: str,
    ) -> Written:
        session = admitted.session
        written = await self._verification.make(connection, session, admitted.identity, make)
        if written.document == admitted.lock.encode():
            # Nothing was changed and nothing signed, so there is no act to record.
            return written
        return await self._verification.told(connection, session, written, act, **about)
