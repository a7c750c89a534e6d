"""The service `backpack.v1.Agents`."""

from collections.abc import Iterable

from backpack_proto.v1 import agents_pb2 as pb
from backpackd.application.agents.agents import Agents
from backpackd.application.agents.identities import Identities
from backpackd.application.agents.lock_verification import Given
from backpackd.application.agents.lock_views import LockView, Party
from backpackd.application.agents.migration import Migration
from backpackd.application.vault.vault import Vault
from backpackd.core.agentlock.content import MAX_CREDENTIALS, Credential
from backpackd.core.errors import InvalidRequestError
from backpackd.core.names import check_names
from backpackd.core.render import render
from backpackd.core.vault.trust import MAX_PATH
from backpackd.ports import Call


class AgentsService:
    """Translates messages into calls on agent locks and identities."""

    descriptor = pb.DESCRIPTOR.services_by_name["Agents"]

    def __init__(
        self,
        vault: Vault,
        agents: Agents,
        migration: Migration,
        identities: Identities,
    ) -> None:
        self._vault = vault
        self._agents = agents
        self._migration = migration
        self._identities = identities

    async def identity(self, _: Call, _request: pb.IdentityRequest) -> pb.IdentityResponse:
        """Answer `Identity`."""
        public = (await self._identities.own(self._vault.session())).public
        return pb.IdentityResponse(
            identity=pb.PublicIdentity(text=public.text, fingerprint=public.spoken)
        )

    async def create_lock(self, call: Call, request: pb.CreateLockRequest) -> pb.CreateLockResponse:
        """Answer `CreateLock`."""
        written = await self._agents.create(
            call.connection,
            credentials=_credentials(request.credentials),
            personality=request.personality,
            memory=request.memory,
        )
        return pb.CreateLockResponse(agent_lock=written.document, info=_info(written.view))

    async def open_lock(self, call: Call, request: pb.OpenLockRequest) -> pb.OpenLockResponse:
        """Answer `OpenLock`."""
        given = _given(request.agent_lock, request.legacy, request.claimed_path)
        opening = await self._agents.open(call.connection, given)
        return pb.OpenLockResponse(
            info=_info(opening.view), personality=opening.personality, memory=opening.memory
        )

    async def edit_lock(self, call: Call, request: pb.EditLockRequest) -> pb.EditLockResponse:
        """Answer `EditLock`."""
        written = await self._agents.edit(
            call.connection,
            Given(request.agent_lock),
            personality=request.personality if request.HasField("personality") else None,
            put=_credentials(request.put_credentials),
            remove=list(request.remove_credentials),
        )
        return pb.EditLockResponse(agent_lock=written.document, info=_info(written.view))

    async def update_memory(
        self, call: Call, request: pb.UpdateMemoryRequest
    ) -> pb.UpdateMemoryResponse:
        """Answer `UpdateMemory`."""
        fresh = await self._agents.update_memory(
            call.connection,
            Given(request.agent_lock, request.claimed_path),
            request.memory,
            request.expected_memory_hash,
        )
        return pb.UpdateMemoryResponse(
            agent_lock=fresh.encode(),
            memory_counter=fresh.memory_counter,
            memory_hash=fresh.mark.memory_digest,
        )

    async def migrate_lock(
        self, call: Call, request: pb.MigrateLockRequest
    ) -> pb.MigrateLockResponse:
        """Answer `MigrateLock`."""
        written = await self._migration.migrate(
            call.connection,
            _given(request.agent_lock, request.legacy),
            store=request.store_embedded,
            replace_stored=request.replace,
            keep_key=request.keep_legacy_key,
        )
        return pb.MigrateLockResponse(
            agent_lock=written.document, info=_info(written.view), stored=written.stored
        )

    async def rewrap_lock(self, call: Call, request: pb.RewrapLockRequest) -> pb.RewrapLockResponse:
        """Answer `RewrapLock`."""
        written = await self._agents.rewrap(call.connection, Given(request.agent_lock))
        return pb.RewrapLockResponse(agent_lock=written.document, info=_info(written.view))

    async def add_recipient(
        self, call: Call, request: pb.AddRecipientRequest
    ) -> pb.AddRecipientResponse:
        """Answer `AddRecipient`."""
        written = await self._agents.add_recipient(
            call.connection,
            Given(request.agent_lock),
            request.identity,
            trust=request.trust,
            label=request.label,
        )
        return pb.AddRecipientResponse(agent_lock=written.document, info=_info(written.view))

    async def remove_recipient(
        self, call: Call, request: pb.RemoveRecipientRequest
    ) -> pb.RemoveRecipientResponse:
        """Answer `RemoveRecipient`."""
        given = Given(request.agent_lock)
        written = await self._agents.remove_recipient(call.connection, given, request.fingerprint)
        return pb.RemoveRecipientResponse(agent_lock=written.document, info=_info(written.view))

    async def trust_lock(self, call: Call, request: pb.TrustLockRequest) -> pb.TrustLockResponse:
        """Answer `TrustLock`."""
        given = Given(request.agent_lock, request.claimed_path)
        names = list(request.names)
        if names:
            check_names(names, most=MAX_CREDENTIALS)
        shown = await self._agents.trust(
            call.connection, given, request.author, request.label, names
        )
        return pb.TrustLockResponse(info=_info(shown))

    async def list_trusted(self, _: Call, __: pb.ListTrustedRequest) -> pb.ListTrustedResponse:
        """Answer `ListTrusted`."""
        authority = self._vault.session().authority
        return pb.ListTrustedResponse(
            authors=[
                pb.TrustedAuthor(
                    fingerprint=author.spoken,
                    label=author.label,
                    trusted_at_ms=author.trusted_at_ms,
                )
                for author in authority.authors
            ],
            locks=[
                pb.KnownLock(
                    lock_id=lock_id,
                    generation=known.mark.generation,
                    memory_counter=known.mark.memory_counter,
                    claimed_path=render(known.path, limit=MAX_PATH),
                    accepted_names=known.names,
                )
                for lock_id, known in sorted(authority.locks.items())
            ],
        )

    async def forget(self, call: Call, request: pb.ForgetRequest) -> pb.ForgetResponse:
        """Answer `Forget`.

        Raises:
            InvalidRequestError: the request names neither an author nor a lock.
        """
        match request.WhichOneof("what"):
            case "author":
                await self._identities.forget_author(request.author, by=call.connection)
            case "lock_id":
                await self._identities.forget_lock(request.lock_id, by=call.connection)
            case _:
                raise InvalidRequestError("name what to forget: an author or a lock")
        return pb.ForgetResponse()


def _given(document: bytes, legacy: pb.LegacyKey, path: str = "") -> Given:
    return Given(document, path, legacy.key, legacy.iterations)


def _credentials(entries: Iterable[pb.CredentialEntry]) -> dict[str, Credential]:
    listed = list(entries)
    if listed:
        check_names([entry.name for entry in listed], most=MAX_CREDENTIALS)
    return {entry.name: Credential(entry.value or None) for entry in listed}


def _info(view: LockView) -> pb.LockInfo:
    layers = dict(view.layers)
    return pb.LockInfo(
        version=view.version,
        lock_id=view.lock_id,
        author=None if view.author is None else _author(view.author),
        generation=view.generation,
        credentials_generation=layers.get("credentials", 0),
        personality_generation=layers.get("personality", 0),
        memory_counter=layers.get("memory", 0),
        memory_hash=view.memory_digest,
        recipients=[
            pb.LockRecipient(fingerprint=each.spoken, label=each.label, own=each.own)
            for each in view.recipients
        ],
        credentials=[
            pb.LockCredential(name=name, embedded=embedded) for name, embedded in view.credentials
        ],
        warnings=view.warnings,
        unaccepted_names=view.unaccepted,
    )


def _author(party: Party) -> pb.LockAuthor:
    return pb.LockAuthor(
        fingerprint=party.spoken, label=party.label, trusted=party.trusted, own=party.own
    )
