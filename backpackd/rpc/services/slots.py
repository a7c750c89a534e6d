"""The service `backpack.v1.Slots`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from backpack_proto.v1 import slots_pb2 as pb
from backpackd.application.access.leases import LiveLeases
from backpackd.application.callers.operators import Operators, PassphraseGate
from backpackd.application.vault.recovery import Recovery
from backpackd.application.vault.rotation import Rotated, Rotation
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.ports import Call

_Result = TypeVar("_Result")


class SlotsService:
    """Translates messages into calls on slots."""

    descriptor = pb.DESCRIPTOR.services_by_name["Slots"]

    def __init__(
        self,
        vault: Vault,
        slots: Slots,
        recovery: Recovery,
        rotation: Rotation,
        *,
        operators: Operators,
        gate: PassphraseGate,
        live_leases: LiveLeases,
    ) -> None:
        self._vault = vault
        self._slots = slots
        self._recovery = recovery
        self._rotation = rotation
        self._operators = operators
        self._gate = gate
        self._live_leases = live_leases

    async def list_slots(self, _: Call, __: pb.ListSlotsRequest) -> pb.ListSlotsResponse:
        """Answer `ListSlots`."""
        return pb.ListSlotsResponse(
            slots=[
                pb.SlotInfo(
                    id=info.id,
                    kind=info.kind,
                    authorizes=info.authorizes,
                    stretched=info.stretched,
                    created_at_ms=info.dates.created_ms,
                    drilled_at_ms=info.dates.drilled_ms,
                )
                for info in self._slots.list()
            ]
        )

    async def add_slot(self, call: Call, request: pb.AddSlotRequest) -> pb.AddSlotResponse:
        """Answer `AddSlot`."""
        with call.waiting():
            added = await self._slots.add(
                request.kind, request.secret, call.connection.tree, by=call.connection
            )
        return pb.AddSlotResponse(id=added.id, drawn=added.secret)

    async def remove_slot(self, call: Call, request: pb.RemoveSlotRequest) -> pb.RemoveSlotResponse:
        """Answer `RemoveSlot`."""
        # Whoever got authority with it has to prove another one.
        await self._slots.remove(request.id, self._operators.drop_all, by=call.connection)
        return pb.RemoveSlotResponse()

    async def rotate_master_key(
        self, call: Call, request: pb.RotateMasterKeyRequest
    ) -> AsyncIterator[pb.RotateMasterKeyResponse]:
        """Answer `RotateMasterKey`."""
        ended = 0

        def then() -> None:
            nonlocal ended
            if request.end_leases:
                ended = len(self._live_leases.end_all("rotated", by=call.connection))

        progress = _Progress()
        work = asyncio.ensure_future(self._rotation.rotate(progress.tell, then, by=call.connection))
        work.add_done_callback(progress.end)
        async for done, total in progress:
            yield pb.RotateMasterKeyResponse(keys_done=done, keys_total=total)
        rotated: Rotated = await work
        yield pb.RotateMasterKeyResponse(
            keys_done=rotated.keys,
            keys_total=rotated.keys,
            done=True,
            slots=rotated.slots,
            leases_ended=ended,
            purged=rotated.purged,
            lock_files=rotated.lock_files,
        )

    async def recover(self, call: Call, request: pb.RecoverRequest) -> pb.RecoverResponse:
        """Answer `Recover`."""
        tree = call.connection.tree
        await self._try(
            call,
            lambda: self._recovery.recover(
                request.code,
                request.replacement,
                tree,
                self._operators.drop_all,
                by=call.connection,
            ),
        )
        return pb.RecoverResponse()

    async def drill_recovery(
        self, call: Call, request: pb.DrillRecoveryRequest
    ) -> pb.DrillRecoveryResponse:
        """Answer `DrillRecovery`."""
        tree = call.connection.tree
        at_ms = await self._try(
            call, lambda: self._recovery.drill(request.code, tree, by=call.connection)
        )
        return pb.DrillRecoveryResponse(drilled_at_ms=at_ms)

    async def _try(self, call: Call, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Try a code once, after waiting for its turn."""
        with call.waiting():
            return await self._gate.try_one(call.connection, attempt)


class _Progress:
    """The latest progress of some work, for a reader that reads at its own pace."""

    def __init__(self) -> None:
        self._latest: tuple[int, int] | None = None
        self._news = asyncio.Event()
        self._ended = False

    def tell(self, done: int, total: int) -> None:
        self._latest = (done, total)
        self._news.set()

    def end(self, work: "asyncio.Future[Rotated]") -> None:
        self._ended = True
        self._news.set()
        if not work.cancelled():
            # Retrieved so that asyncio does not log its text if the caller has disconnected.
            work.exception()

    async def __aiter__(self) -> AsyncIterator[tuple[int, int]]:
        while not self._ended:
            await self._news.wait()
            self._news.clear()
            latest, self._latest = self._latest, None
            if latest is not None:
                yield latest
