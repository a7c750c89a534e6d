"""The service `backpack.v1.Vault`."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from backpack_proto.v1 import vault_pb2 as pb
from backpackd.application.access.access import Access
from backpackd.application.access.leases import LiveLeases
from backpackd.application.access.revocation import Revocation
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.operators import Operators, PassphraseGate
from backpackd.application.vault.recovery import Recovery
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.core.errors import PeerUnknownError, RevocationNotKeptError, UserChangedError
from backpackd.core.protections import Protection
from backpackd.core.vault.states import State
from backpackd.ports import Call, Clock

_Result = TypeVar("_Result")

_STATES = {
    State.UNINITIALIZED: pb.VAULT_STATE_UNINITIALIZED,
    State.LOCKED: pb.VAULT_STATE_LOCKED,
    State.UNLOCKED: pb.VAULT_STATE_UNLOCKED,
}


@dataclass(frozen=True, slots=True)
class About:
    """Facts about the daemon.

    Attributes:
        version: the daemon's version.
        pid: its process id.
        supervised: whether a service manager runs it.
        started_at_ms: Unix time in milliseconds.
        protections: finds out which protections are on.
        home: the directory of its vault.
    """

    version: str
    pid: int
    supervised: bool
    started_at_ms: int
    protections: Callable[[], list[Protection]]
    home: bytes


class VaultService:
    """Translates messages into calls on the vault."""

    descriptor = pb.DESCRIPTOR.services_by_name["Vault"]

    def __init__(
        self,
        vault: Vault,
        access: Access,
        operators: Operators,
        gate: PassphraseGate,
        *,
        live_leases: LiveLeases,
        revocation: Revocation,
        slots: Slots,
        recovery: Recovery,
        audit_log: AuditLog,
        clock: Clock,
        about: About,
    ) -> None:
        self._vault = vault
        self._access = access
        self._operators = operators
        self._gate = gate
        self._live_leases = live_leases
        self._revocation = revocation
        self._slots = slots
        self._recovery = recovery
        self._audit_log = audit_log
        self._clock = clock
        self._about = about

    async def status(self, call: Call, _: pb.StatusRequest) -> pb.StatusResponse:
        """Answer `Status`."""
        root = self._access.attest(call.connection).root.id
        return pb.StatusResponse(
            state=_STATES[self._vault.state],
            daemon_version=self._about.version,
            daemon_pid=self._about.pid,
            supervised=self._about.supervised,
            started_at_ms=self._about.started_at_ms,
            protections=[
                pb.Protection(name=found.name, on=found.on, detail=found.detail)
                for found in self._about.protections()
            ],
            leases_of_tree=len(self._live_leases.of(root)),
            tree_pid=root.pid,
            authorized_until_ms=self._until(self._operators.remaining(call.connection)),
            slot_kinds=sorted(self._vault.slot_kinds),
            recovery_drilled_at_ms=self._recovery.drilled_ms,
            audit_broken_at_ms=self._audit_log.broken_ms,
            home=self._about.home,
        )

    async def init(self, call: Call, request: pb.InitRequest) -> pb.InitResponse:
        """Answer `Init`."""
        tree = call.connection.tree
        code = await self._try(
            call,
            lambda: self._vault.init(
                request.passphrase, tree, by=call.connection, recovery=request.recovery
            ),
        )
        return pb.InitResponse(recovery_code=code)

    async def unlock(self, call: Call, request: pb.UnlockRequest) -> pb.UnlockResponse:
        """Answer `Unlock`."""
        tree = call.connection.tree
        await self._try(
            call,
            lambda: self._vault.unlock(
                request.passphrase, tree, by=call.connection, accept_older=request.accept_older
            ),
        )
        # A panic or a lock leaves no time to store the revocations. Nobody asked for that in this
        # call, and this daemon remembers them in any case.
        with suppress(RevocationNotKeptError):
            await self._revocation.keep()
        return pb.UnlockResponse()

    async def lock(self, call: Call, _: pb.LockRequest) -> pb.LockResponse:
        """Answer `Lock`."""
        ended = 0
        if self._operators.has(call.connection):
            ended = len(self._live_leases)
        else:
            # The lock counts even if the caller has ended before the answer.
            with suppress(PeerUnknownError, UserChangedError):
                ended = len(self._live_leases.of(self._access.attest(call.connection).root.id))
        self._vault.lock(by=call.connection)
        return pb.LockResponse(leases_ended=ended)

    async def panic(self, call: Call, __: pb.PanicRequest) -> pb.PanicResponse:
        """Answer `Panic`."""
        ended = self._revocation.panic(by=call.connection)
        return pb.PanicResponse(leases_ended=ended.leases, requests_ended=ended.requests)

    async def authorize(self, call: Call, request: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        """Answer `Authorize`."""
        tree = call.connection.tree
        await self._try(call, lambda: self._vault.verify(request.passphrase, tree))
        until_ms = self._until(self._operators.admit(call.connection))
        await self._audit_log.written()
        return pb.AuthorizeResponse(authorized_until_ms=until_ms)

    async def change_passphrase(
        self, call: Call, request: pb.ChangePassphraseRequest
    ) -> pb.ChangePassphraseResponse:
        """Answer `ChangePassphrase`."""
        tree = call.connection.tree
        await self._try(
            call,
            # A connection that got authority with the old passphrase must prove the new one.
            lambda: self._slots.change_passphrase(
                request.current,
                request.replacement,
                tree,
                self._operators.drop_all,
                by=call.connection,
            ),
        )
        return pb.ChangePassphraseResponse()

    async def _try(self, call: Call, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Try a passphrase once, after waiting for its turn."""
        with call.waiting():
            return await self._gate.try_one(call.connection, attempt)

    def _until(self, remaining: float) -> int:
        return int((self._clock.wall() + remaining) * 1000) if remaining > 0 else 0
