"""What whoever takes the running daemon over can read of the log: nothing from before."""

import pytest

from audit_worlds import granted, verdict, written
from backpackd.core.audit import chain, ratchet
from backpackd.core.errors import DiskFullError
from backpackd.core.sealing.sealing import OpenError

FULL = "no room"


class TestRatchet:
    async def test_the_state_taken_at_a_time_opens_nothing_from_before(self) -> None:
        world = await granted()
        for _ in range(20):
            await world.lease("K")
        await written(world)
        taken_at = world.audit_log.writer.head.number
        state = world.audit_log.writer._state
        assert state is not None
        with state.open() as view:
            taken = bytes(view)
        for _ in range(5):
            await world.lease("K")
        await written(world)
        entries = [row for row in world.store.audit.values() if row.kind == chain.ENTRY]
        opened = set()
        for _ in range(60):
            for row in entries:
                try:
                    ratchet.open_entry(
                        taken,
                        row.body,
                        vault_id=world.audit_log.writer.vault_id,
                        number=row.number,
                        previous=row.previous,
                    )
                    opened.add(row.number)
                except OpenError:
                    continue
            taken = ratchet.advance(taken)
        # It is the real state: it opens what came after.
        assert min(opened) == taken_at + 1
        assert len(opened) == 5

    async def test_old_states_are_overwritten(self) -> None:
        world = await granted()
        await written(world)
        before = world.audit_log.writer._state
        await world.lease("K")
        await written(world)
        assert before is not None
        with pytest.raises(ValueError, match="wiped"), before.open():
            pass

    async def test_a_writing_that_failed_leaves_the_state_in_force(self) -> None:
        world = await granted()
        await written(world)
        slots, state = len(world.arena._slots), world.audit_log.writer._state
        world.store.faults.append(DiskFullError(FULL))
        with pytest.raises(DiskFullError):
            await world.lease("K")
        await written(world)
        assert len(world.arena._slots) == slots
        await world.lease("K")
        assert (await verdict(world)).problem is None
        assert world.audit_log.writer._state is not state
