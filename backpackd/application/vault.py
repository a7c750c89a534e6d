"""The vault: its state, its master key, and the one way in which it changes.

While unlocked there is a `Session`: the master key in the secret arena, the authority record, and
the heads of all key rows, all verified against each other. Locking drops it. A piece of work takes
the session at its start; after an `await` the session itself says whether it is over. How what is
stored is opened and held against itself stands in `opening`.

Changes go through `change`, one after the other, each as a task of its own: a caller that goes
away in the middle cannot leave memory and store telling different stories.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace

from backpackd.application import opening
from backpackd.application.journal import Journal, Unaudited
from backpackd.application.session import Draft, Session
from backpackd.core import authority as authorities
from backpackd.core import passphrases, slots, states
from backpackd.core.authority import Authority
from backpackd.core.errors import BackpackError, LockedError, WrongPassphraseError
from backpackd.core.facts import ProcessId
from backpackd.core.records import RowSet
from backpackd.core.rows import Change, RowHead, SlotRow, StoredVault
from backpackd.core.sealing import SALT_SIZE
from backpackd.core.slots import Slot
from backpackd.core.states import Event, State
from backpackd.ports import Clock, SecretArena, Store, Stretcher

__all__ = ["Draft", "Session", "Vault"]


class Vault:
    """One vault and its three states.

    Attributes:
        journal: makes changes durable together with what the audit log says of them.
        on_unlock: called, in order, when the vault has been unlocked.
        on_lock: called, in order, when the master key has been dropped.

    Args:
        store: where it is kept.
        arena: where its master key lives while unlocked.
        stretcher: turns passphrases into slot secrets.
        clock: the time.
    """

    def __init__(
        self, store: Store, arena: SecretArena, stretcher: Stretcher, clock: Clock
    ) -> None:
        self._store = store
        self._arena = arena
        self._stretcher = stretcher
        self._clock = clock
        self._state = State.UNINITIALIZED
        self._session: Session | None = None
        self._locks = 0
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.journal: Journal = Unaudited(store)
        self.on_unlock: list[Callable[[], None]] = []
        self.on_lock: list[Callable[[], None]] = []

    @property
    def state(self) -> State:
        """Which of the three states it is in."""
        return self._state

    async def open(self) -> None:
        """Look at what is stored; the vault is locked or uninitialized after it.

        Raises:
            DamageError: what is stored is no vault.
        """
        if await self._store.load() is not None:
            self._state = State.LOCKED

    def session(self) -> Session:
        """Return the session of the unlocked vault.

        Raises:
            LockedError: it is locked.
            UninitializedError: there is none.
        """
        states.require_unlocked(self._state)
        assert self._session is not None
        return self._session

    def touch(self) -> None:
        """Note a use of the vault, which puts off locking when idle."""
        if self._session is not None:
            self._session.used_at = self._clock.boot()

    async def init(self, passphrase: bytes, tree: ProcessId) -> None:
        """Make a new vault with one passphrase slot and leave it unlocked.

        Raises:
            AlreadyInitializedError: there is one.
            InvalidRequestError: the passphrase is refused.
            LockedError: it was made, and locked before it could be left unlocked.
        """
        states.after(self._state, Event.INIT)
        locks = self._locks
        normal = passphrases.check_new(passphrase)
        parameters = slots.rfc_9106_low_memory(secrets.token_bytes(16))
        secret = await self._stretcher.stretch(normal, parameters, tree)
        await self._alone(lambda: self._init(parameters, secret, locks))

    async def _init(self, parameters: slots.Argon2idParameters, secret: bytes, locks: int) -> None:
        # Asked again: of two at once, one has won by now.
        states.after(self._state, Event.INIT)
        vault_id, slot_id = (
            secrets.token_bytes(opening.VAULT_ID_SIZE),
            secrets.token_bytes(slots.ID_SIZE),
        )
        master, signing_key = secrets.token_bytes(slots.MASTER_SIZE), secrets.token_bytes(32)
        slot = slots.make(
            master,
            vault_id=vault_id,
            slot_id=slot_id,
            generation=1,
            stretching=parameters,
            secret=secret,
            signing_key=signing_key,
        )
        salt = secrets.token_bytes(SALT_SIZE)
        authority = Authority(
            generation=1,
            master_generation=1,
            rows=RowSet(),
            slots={slot_id.hex(): slot.digest},
            signing_key=authorities.seal_signing_key(master, vault_id, signing_key, salt),
            latest_ms=self.now_ms(),
        )
        sealed = authority.seal(master, vault_id, secrets.token_bytes(SALT_SIZE))
        stored = StoredVault(vault_id, sealed, (SlotRow(slot_id, slot.encode()),))
        try:
            await self._store.create(stored)
        except BackpackError:
            # There may be one after all: put there meanwhile, or ours, made and not yet opened.
            with suppress(BackpackError):
                await self.open()
            raise
        self._state = states.after(states.after(self._state, Event.INIT), Event.LOCK)
        self._check_not_locked(locks)
        self._begin(master, stored, authority=authority, rows={}, slots={slot_id: slot})

    async def unlock(self, passphrase: bytes, tree: ProcessId) -> None:
        """Load the master key, after everything stored has been verified.

        On an unlocked vault it verifies the passphrase and changes nothing.

        Raises:
            WrongPassphraseError: no slot opens with it.
            DamageError: a slot, the authority record or the set of rows is not what was sealed.
            UninitializedError: there is no vault.
            LockedError: it was locked while this was under way; the later word counts.
        """
        states.after(self._state, Event.UNLOCK)
        locks = self._locks
        if self._state is State.UNLOCKED:
            await self.verify(passphrase, tree)
            return
        stored = await opening.load(self._store)
        slot, master = await opening.open_any(
            self._stretcher, opening.decode_slots(stored), stored.vault_id, passphrase, tree
        )
        await self._alone(lambda: self._unlock(slot, master, locks))

    async def _unlock(self, slot: Slot, master: bytes, locks: int) -> None:
        if self._state is State.UNLOCKED:
            # Another one was faster; what opened this slot must have led to the same key.
            with self.session().open_master() as current:
                if not slots.same_master(master, current):
                    raise opening.damaged_slots()
            return
        # Read again: the vault may have been unlocked, changed and locked since.
        stored = await opening.load(self._store)
        found = opening.decode_slots(stored)
        if slot not in found:
            raise WrongPassphraseError("the passphrase was changed meanwhile: try again")
        heads = await self._store.heads()
        authority = opening.verified(master, stored, found, heads)
        by_index = {head.index: head for head in heads}
        by_id = {slot.slot_id: slot for slot in found}
        self._check_not_locked(locks)
        self._begin(master, stored, authority=authority, rows=by_index, slots=by_id)

    def _check_not_locked(self, locks: int) -> None:
        # Whoever locks while an unlock is under way (a lid that closes) must not be overtaken.
        if self._locks != locks:
            raise LockedError("the vault was locked meanwhile: unlock it again")

    def _begin(
        self,
        master: bytes,
        stored: StoredVault,
        *,
        authority: Authority,
        rows: dict[bytes, RowHead],
        slots: dict[bytes, Slot],
    ) -> None:
        now = self._clock.boot()
        self._session = Session(
            stored.vault_id,
            self._arena.store(master),
            authority,
            stored.authority,
            rows,
            slots,
            now,
            now,
        )
        self._state = states.after(self._state, Event.UNLOCK)
        for callback in self.on_unlock:
            callback()

    async def verify(self, passphrase: bytes, tree: ProcessId) -> Slot:
        """Check a passphrase against the unlocked vault and return the slot that it opens.

        Raises:
            WrongPassphraseError: no slot opens with it.
            LockedError: the vault is locked, or was locked meanwhile.
        """
        session = self.session()
        found = list(session.slots.values())
        slot, master = await opening.open_any(
            self._stretcher, found, session.vault_id, passphrase, tree
        )
        with session.open_master() as current:
            if not slots.same_master(master, current):
                raise opening.damaged_slots()
        if session.slots.get(slot.slot_id) is not slot:
            raise WrongPassphraseError("the passphrase was changed meanwhile: try again")
        return slot

    async def change_passphrase(
        self,
        current: bytes,
        replacement: bytes,
        tree: ProcessId,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Put a new passphrase in place of the one slot that `current` opens.

        `then` is called in the moment from which only the new one opens that slot.

        Raises:
            WrongPassphraseError: no slot opens with `current`.
            InvalidRequestError: the replacement is refused.
        """
        normal = passphrases.check_new(replacement)
        old = await self.verify(current, tree)
        parameters = slots.rfc_9106_low_memory(secrets.token_bytes(16))
        secret = await self._stretcher.stretch(normal, parameters, tree)

        async def draft(session: Session) -> Draft:
            if session.slots.get(old.slot_id) is not old:
                raise WrongPassphraseError("the passphrase was changed meanwhile: try again")
            with session.open_master() as master:
                sealed_key = session.authority.signing_key
                slot = slots.make(
                    master,
                    vault_id=session.vault_id,
                    slot_id=secrets.token_bytes(slots.ID_SIZE),
                    generation=session.authority.master_generation,
                    stretching=parameters,
                    secret=secret,
                    signing_key=authorities.open_signing_key(master, session.vault_id, sealed_key),
                )
            digests = {**session.authority.slots, slot.slot_id.hex(): slot.digest}
            del digests[old.slot_id.hex()]
            record = session.authority.next(self.now_ms(), slots=digests)
            return Draft(record, put_slots=[slot], delete_slots=[old])

        await self.change(draft, then)

    def lock(self) -> None:
        """Drop the master key at once; everything that rests on it ends with it."""
        self._state = states.after(self._state, Event.LOCK)
        self._locks += 1
        session, self._session = self._session, None
        if session is not None:
            session.over = True
            session.master.wipe()
            # Every one of them, also where one of them fails.
            with ExitStack() as stack:
                for callback in reversed(self.on_lock):
                    stack.callback(callback)

    async def change(
        self,
        draft: Callable[[Session], Awaitable[Draft | None]],
        then: Callable[[], None] | None = None,
    ) -> None:
        """Make one change durable and then visible, alone and whole.

        Args:
            draft: builds the change from the session as it is when its turn comes; what it
                raises is raised here and nothing is changed; None changes nothing.
            then: called once the change is visible, in the same moment and whether or not the
                caller is still there: for what must not outlive the change.

        Raises:
            LockedError: the vault is locked, or was locked before the change had its turn.
            StoreError: nothing was stored.
        """
        session = self.session()

        async def apply() -> None:
            # What entitled the caller ended with the session, so a later one will not do.
            session.check()
            plan = await draft(session)
            if plan is None:
                return
            before = [
                session.rows[row.index] for row in plan.put if row.index in session.rows
            ] + list(plan.delete)
            with session.open_master() as master:
                rows = session.authority.rows.change(
                    master, session.vault_id, add=[row.row_head for row in plan.put], drop=before
                )
                record = self.journal.anchored(replace(plan.authority, rows=rows))
                salt = secrets.token_bytes(SALT_SIZE)
                sealed = record.seal(master, session.vault_id, salt)
            await self.journal.commit(
                Change(
                    session.sealed,
                    sealed,
                    plan.put,
                    [row.index for row in plan.delete],
                    [SlotRow(slot.slot_id, slot.encode()) for slot in plan.put_slots],
                    [slot.slot_id for slot in plan.delete_slots],
                ),
                plan.events,
            )
            session.authority, session.sealed = record, sealed
            for row in plan.delete:
                del session.rows[row.index]
            for put in plan.put:
                session.rows[put.index] = put.row_head
            for gone in plan.delete_slots:
                del session.slots[gone.slot_id]
            for slot in plan.put_slots:
                session.slots[slot.slot_id] = slot
            if then is not None:
                then()

        await self._alone(apply)

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """Hold off changes, so that what the store and the session say is of one moment."""
        async with self._changing:
            yield

    def now_ms(self) -> int:
        """The wall clock as Unix time in milliseconds."""
        return int(self._clock.wall() * 1000)

    async def settle(self) -> None:
        """Wait for changes that are under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _alone(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run a piece of work after those before it, to its end, whatever becomes of the caller."""

        async def in_turn() -> None:
            async with self._changing:
                await work()

        task = asyncio.create_task(in_turn())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        # Waiting does not cancel what is waited for.
        await asyncio.wait([task])
        try:
            task.result()
        finally:
            # An error holds this frame, the frame the task, and the task the error: values in the
            # error's other frames would stay in memory until the collector comes round.
            del task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Asked for, so that asyncio does not log its text when the caller has gone away.
            task.exception()
