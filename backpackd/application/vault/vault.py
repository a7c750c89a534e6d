"""The vault: its state, its master key, and the only way to change it.

While it is unlocked there is a `Session`: the master key in the secret arena, the authority record,
and the heads of all key rows, all verified against each other. Locking drops it. Each operation
takes the session at its start. After an `await`, the session itself says whether it is over.

Changes go through `change`, one after the other, each to its end whatever becomes of the caller.
"""

import secrets
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial

from backpackd.application.vault import stored_vault
from backpackd.application.vault.change_queue import ChangeQueue
from backpackd.application.vault.journal import Journal
from backpackd.application.vault.session import Draft, Renewal, Session
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import BackpackError, DamageError, LockedError, WrongPassphraseError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import Change, RowHead, SlotRow, StoredVault
from backpackd.core.sealing.sealing import SALT_SIZE
from backpackd.core.slots import passphrases, recovery_code, slots
from backpackd.core.slots.slots import AUTHORIZING, Slot, Stretching
from backpackd.core.vault import states
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.states import Event, State
from backpackd.ports import Clock, Connection, SecretArena, Store, Stretcher

__all__ = ["Draft", "Session", "Vault"]


class Vault:
    """One vault and its three states.

    Attributes:
        on_unlock: called, in order, when the vault has been unlocked.
        on_lock: called, in order, when the master key has been dropped, with whose doing that is.

    Args:
        store: where it is kept.
        arena: where its master key is while unlocked.
        stretcher: turns passphrases into slot secrets.
        clock: the time.
        journal: makes changes durable together with their audit entries.
    """

    def __init__(
        self,
        store: Store,
        arena: SecretArena,
        stretcher: Stretcher,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self._store = store
        self._arena = arena
        self._stretcher = stretcher
        self._clock = clock
        self._state = State.UNINITIALIZED
        self._session: Session | None = None
        self._kinds: frozenset[str] = frozenset()
        self._locks = 0
        self._changes = ChangeQueue()
        self._journal = journal
        self.on_unlock: list[Callable[[], None]] = []
        self.on_lock: list[Callable[[Connection | None], object]] = []

    @property
    def state(self) -> State:
        """Which of the three states it is in."""
        return self._state

    async def open(self) -> None:
        """Read what is stored. After this, the vault is locked or uninitialized.

        Raises:
            DamageError: what is stored is not a vault.
        """
        stored = await self._store.load()
        if stored is not None:
            self._state = State.LOCKED
            with suppress(DamageError):
                self._kinds = frozenset(slot.kind for slot in stored_vault.decode_slots(stored))

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
        """Record a use of the vault, which delays the lock for idle time."""
        if self._session is not None:
            self._session.used_at = self._clock.boot()

    @property
    def slot_kinds(self) -> frozenset[str]:
        """The kinds of its slots, as far as they are known while it is locked."""
        return self._kinds

    async def init(
        self, passphrase: bytes, tree: ProcessId, *, by: Connection | None, recovery: bool = False
    ) -> str:
        """Make a new vault with a passphrase slot and leave it unlocked.

        Args:
            passphrase: the first one.
            tree: whose turn the stretching takes.
            by: whose doing it is.
            recovery: make a recovery slot, too.

        Returns:
            The recovery code, which cannot be shown again; empty without one.

        Raises:
            AlreadyInitializedError: there is one.
            InvalidRequestError: the passphrase is refused.
            LockedError: it was created, but locked before it could be left unlocked.
        """
        states.after(self._state, Event.INIT)
        locks = self._locks
        normal = passphrases.check_new(passphrase)
        parameters = slots.rfc_9106_low_memory(secrets.token_bytes(16))
        secret = await self._stretcher.stretch(normal, parameters, tree)
        made: list[tuple[str, Stretching, bytes]] = [(slots.PASSPHRASE, parameters, secret)]
        code = b""
        if recovery:
            code = secrets.token_bytes(recovery_code.SIZE)
            random = slots.HkdfParameters(secrets.token_bytes(16))
            made.append((slots.RECOVERY, random, random.derive(code)))
        await self._changes.run(lambda: self._init(made, locks, by))
        return recovery_code.encode(code) if code else ""

    async def _init(
        self, made: Sequence[tuple[str, Stretching, bytes]], locks: int, by: Connection | None
    ) -> None:
        # Asked again: of two at once, one has won by now.
        states.after(self._state, Event.INIT)
        master, stored, authority, new = stored_vault.make(made, self.now_ms())
        try:
            await self._store.create(stored)
        except BackpackError:
            # There may be one now: stored by somebody else, or ours, created but not yet opened.
            with suppress(BackpackError):
                await self.open()
            raise
        self._state = states.after(states.after(self._state, Event.INIT), Event.LOCK)
        self._check_not_locked(locks)
        by_id = {slot.slot_id: slot for slot in new}
        self._begin(master, stored, by, authority=authority, rows={}, slots=by_id)

    async def unlock(
        self,
        passphrase: bytes,
        tree: ProcessId,
        *,
        by: Connection | None,
        kinds: Collection[str] = AUTHORIZING,
        accept_older: bool = False,
    ) -> None:
        """Load the master key, after everything stored has been verified.

        If the vault is already unlocked, this verifies the passphrase and changes nothing.

        Args:
            passphrase: or a recovery code, or a key for unattended use.
            tree: whose turn the stretching takes.
            by: whose doing it is; None: the daemon's own.
            kinds: of slots that it may open.
            accept_older: unlock also what is older than the log; only by slots that authorize.

        Raises:
            WrongPassphraseError: no slot opens with it.
            DamageError: a slot, the authority record or the set of rows is not what was sealed, or
                all of them are older than the audit log (`vault-stepped-back`).
            UninitializedError: there is no vault.
            LockedError: it was locked during this; the lock wins.
        """
        states.after(self._state, Event.UNLOCK)
        locks = self._locks
        if self._state is State.UNLOCKED:
            await self.verify(passphrase, tree, kinds=kinds)
            return
        stored = await stored_vault.load(self._store)
        found = stored_vault.decode_slots(stored)
        slot, master = await stored_vault.open_any(
            self._stretcher, found, stored.vault_id, passphrase, tree, kinds=kinds
        )
        accepted = accept_older and slot.kind in AUTHORIZING
        unlock = partial(self._unlock, slot, master, locks, by, accept_older=accepted)
        await self._changes.run(unlock)

    async def _unlock(
        self,
        slot: Slot,
        master: bytes,
        locks: int,
        by: Connection | None,
        *,
        accept_older: bool,
    ) -> None:
        if self._state is State.UNLOCKED:
            # Another call was faster. The opened slot must have led to the same key.
            with self.session().open_master() as current:
                if not slots.same_master(master, current):
                    raise stored_vault.damaged_slots()
            return
        # Read again: the vault may have been unlocked, changed and locked since then.
        stored = await stored_vault.load(self._store)
        found = stored_vault.decode_slots(stored)
        if slot not in found:
            raise WrongPassphraseError("the passphrase has just been changed: try again")
        heads = await self._store.heads()
        authority = stored_vault.verified(master, stored, found, heads)
        # Before any use: an older copy would hand out what was revoked since then.
        authority = await self._journal.hold(master, stored, authority, accept_older=accept_older)
        by_index = {head.index: head for head in heads}
        by_id = {slot.slot_id: slot for slot in found}
        self._check_not_locked(locks)
        self._begin(
            master, stored, by, authority=authority, rows=by_index, slots=by_id, opened_by=slot
        )

    def _check_not_locked(self, locks: int) -> None:
        # A lock during an unlock (for example a closed lid) must win.
        if self._locks != locks:
            raise LockedError("the vault was locked in the meantime: unlock it again")

    def _begin(
        self,
        master: bytes,
        stored: StoredVault,
        by: Connection | None,
        *,
        authority: Authority,
        rows: dict[bytes, RowHead],
        slots: dict[bytes, Slot],
        opened_by: Slot | None = None,
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
            opened_by,
        )
        self._kinds = self._session.kinds
        self._state = states.after(self._state, Event.UNLOCK)
        self._journal.unlocked(self, by)
        for callback in self.on_unlock:
            callback()

    async def verify(
        self, passphrase: bytes, tree: ProcessId, *, kinds: Collection[str] = AUTHORIZING
    ) -> Slot:
        """Check a passphrase or code against the unlocked vault, and return the slot that it opens.

        Args:
            passphrase: or a recovery code.
            tree: the process tree whose turn the stretching takes.
            kinds: the kinds of slots to try.

        Raises:
            WrongPassphraseError: no slot opens with it.
            LockedError: the vault is locked, or was locked during this.
        """
        session = self.session()
        while True:
            found = list(session.slots.values())
            slot, master = await stored_vault.open_any(
                self._stretcher, found, session.vault_id, passphrase, tree, kinds=kinds
            )
            session.check()
            now = session.slots.get(slot.slot_id)
            if now is slot:
                break
            if now is None or now.sealed != slot.sealed:
                raise WrongPassphraseError("the vault's slots have just been changed: try again")
            # A rotation has put another master key into it, but the same secret opens it.
        with session.open_master() as current:
            if not slots.same_master(master, current):
                raise stored_vault.damaged_slots()
        return slot

    def lock(self, *, by: Connection | None) -> None:
        """Drop the master key at once; everything that rests on it ends with it.

        Args:
            by: whose doing it is; None: it falls due, or the daemon stops.
        """
        self._state = states.after(self._state, Event.LOCK)
        self._locks += 1
        session, self._session = self._session, None
        if session is not None:
            session.over = True
            session.master.wipe()
            # All of them, even if one fails.
            with ExitStack() as stack:
                for callback in reversed(self.on_lock):
                    stack.callback(callback, by)
                # Called first.
                stack.callback(self._journal.locked, by)

    async def change(
        self,
        draft: Callable[[Session], Awaitable[Draft | None]],
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
        sets_aside: bool = False,
    ) -> None:
        """Make one change durable and then visible, alone and completely.

        Args:
            draft: builds the change from the session as it is when its turn comes; what it
                raises is raised here and nothing is changed; None changes nothing.
            then: called once the change is visible, in the same moment and whether or not the
                caller is still there: for what must not outlive the change.
            by: the connection of the caller whose doing its events are; None: nobody's.
            sets_aside: whether `draft` sets rows aside in the store.

        Raises:
            LockedError: the vault is locked, or was locked before the change had its turn.
            StoreError: nothing was stored.
        """
        session = self.session()

        async def apply() -> None:
            # The caller's rights ended with the session, so a later session does not count.
            session.check()
            plan = await draft(session)
            if plan is None:
                return
            fresh = plan.fresh
            before = [session.rows[head.index] for head in fresh if head.index in session.rows]
            with session.open_master() as master:
                rows = session.authority.rows.change(
                    master, session.vault_id, add=fresh, drop=[*before, *plan.delete]
                )
                record = self._journal.anchored(replace(plan.authority, rows=rows))
                salt = secrets.token_bytes(SALT_SIZE)
                sealed = record.seal(master, session.vault_id, salt)
            await self._journal.commit(
                Change(
                    session.sealed,
                    sealed,
                    plan.put,
                    [row.index for row in plan.delete],
                    [SlotRow(slot.slot_id, slot.encode()) for slot in plan.put_slots],
                    [slot.slot_id for slot in plan.delete_slots],
                    aside=len(plan.aside) if plan.aside else None,
                ),
                record,
                plan.events,
                by,
            )
            session.take(plan, record, sealed)
            if not session.over:
                self._kinds = session.kinds
            if then is not None:
                then()

        await self._changes.run((lambda: self._clearing(apply())) if sets_aside else apply)

    async def renew(
        self,
        prepare: Callable[[Session], Awaitable[Renewal]],
        then: Callable[[], None] | None = None,
        *,
        by: Connection | None,
    ) -> None:
        """Replace the master key of a vault by a new one, alone and completely.

        Args:
            prepare: sets all rows aside in the store, sealed again, and returns the other parts.
                What it raises is raised here, and the old master key stays fully valid.
            then: as for `change`.
            by: as for `change`.

        Raises:
            LockedError: the vault is locked, or was locked before the new key was valid.
            StoreError: nothing was stored.
        """
        session = self.session()

        async def apply() -> None:
            session.check()
            renewal = await prepare(session)
            session.check()
            record = self._journal.anchored(renewal.authority)
            salt = secrets.token_bytes(SALT_SIZE)
            sealed = record.seal(renewal.master, session.vault_id, salt)
            put_slots = [SlotRow(slot.slot_id, slot.encode()) for slot in renewal.slots]
            change = Change(
                session.sealed,
                sealed,
                put_slots=put_slots,
                aside=len(renewal.rows),
                nothing_else=True,
            )
            # Before the commit: a full arena after it would leave the old key in memory.
            fresh = self._arena.store(renewal.master)
            try:
                await self._journal.commit(change, record, renewal.events, by)
            except BaseException:
                fresh.wipe()
                raise
            if session.over:
                # The new key is valid in any case: the next unlock finds it in every slot.
                fresh.wipe()
                return
            session.renew(fresh, record, sealed, renewal)
            if then is not None:
                then()

        await self._changes.run(lambda: self._clearing(apply()))

    async def _clearing(self, work: Coroutine[object, object, None]) -> None:
        """Run a change, and then drop what was set aside, so that no other change finds it."""
        try:
            await work
        finally:
            # If it cannot be dropped, it is no part of the vault, and gone at the next start.
            with suppress(BackpackError):
                await self._store.drop_aside()

    async def amend_locked(
        self,
        slot: Slot,
        master: bytes,
        amend: Callable[[Authority], Authority],
        events: Sequence[AuditEvent],
        *,
        by: Connection | None,
    ) -> None:
        """Change the authority record of a locked vault with a master key from a slot.

        For what must be recorded without unlocking. Everything stored is verified first. A vault of
        an older version has no audit log before its first unlock, so `events` are dropped then.

        Raises:
            DamageError: what is stored is not what was sealed.
            LockedError: the vault was unlocked during this, and then changes in another way.
        """

        async def apply() -> None:
            if self._state is not State.LOCKED:
                raise LockedError("the vault was unlocked in the meantime: try again")
            stored = await stored_vault.load(self._store)
            found = stored_vault.decode_slots(stored)
            if slot not in found:
                raise WrongPassphraseError("the vault's slots have just been changed: try again")
            authority = stored_vault.verified(master, stored, found, await self._store.heads())
            held = await self._journal.hold(master, stored, authority, accept_older=False)
            record = self._journal.anchored(amend(held))
            sealed = record.seal(master, stored.vault_id, secrets.token_bytes(SALT_SIZE))
            change = Change(stored.authority, sealed)
            await self._journal.commit_locked(master, change, record, events, by)

        await self._changes.run(apply)

    def steady(self) -> AbstractAsyncContextManager[None]:
        """Hold off changes, so that what the store and the session say is of one moment."""
        return self._changes.held_off()

    async def settle(self) -> None:
        """Wait for changes that are under way."""
        await self._changes.settle()

    def now_ms(self) -> int:
        """The wall clock as Unix time in milliseconds."""
        return int(self._clock.wall() * 1000)
