"""What is recorded, and when: the audit log of one vault, while it is locked and unlocked.

The rules:

1. No log, no lease: `record` returns when the entry is on the disk, and fails with the store.
2. A change of the vault and its entries are one transaction (`commit`).
3. Things that have already happened, such as a lease that expired, are noted: they stay in memory
   until they are on the disk. The answer to a passphrase waits for that (`written`).
4. Signing needs the master key. A checkpoint is signed with every change of the vault, when the
   vault is unlocked, after every hundred entries, and when it is locked. It names the current
   authority record, and is written in the transaction that stores this record.
5. Record and log know each other. With every change, the record remembers how far the log reached,
   and the newest checkpoint knows the record. An unlock compares both (`hold`) before it uses
   either.

Entries are also written while the vault is locked, to its public audit key. Before a vault has one
(a new vault, or one of an older version), notes wait in memory for the first unlock.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from backpackd.application.audit.reconciliation import Found, Reconciliation
from backpackd.application.audit.writer import AuditWriter, Item, Signing, no_log
from backpackd.application.vault.session import Draft, Session
from backpackd.application.vault.vault import Vault
from backpackd.core.access.leases import Lease
from backpackd.core.audit import chain, keys
from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.audit.chain import Head
from backpackd.core.audit.events import Actor, AuditEvent
from backpackd.core.audit.floods import Floods
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.audit.record_state import RecordState
from backpackd.core.errors import BackpackError, LockedError, ProcessGoneError
from backpackd.core.peer_facts import Image, PeerFacts, ProcessId
from backpackd.core.rows import AuditPublic, Change, StoredVault
from backpackd.core.sealing.sealing import SALT_SIZE, Secret
from backpackd.core.vault.authority import Authority
from backpackd.ports import Clock, Connection, Processes, SecretArena, SecretSlot, Store

_LOG = logging.getLogger("backpackd.audit")

MOST_ENDED = 64
"""The most leases that end together and get an entry each. More get one entry with their number."""
_MOST_CLAIMS = 256


class AuditLog:
    """The audit log of one vault; implements `Journal`.

    Attributes:
        writer: writes it.
        verified: whether its public keys were compared with the vault since the daemon began.
        broken_ms: when the log was found cut or altered since the daemon began, in Unix
            milliseconds; 0: never.
        review: called when something was counted that must be reported later.

    Args:
        store: where it is kept.
        arena: holds the ratchet's state, and the signing key while the vault is unlocked.
        processes: reads the facts of a caller.
        clock: the time.
    """

    def __init__(
        self, store: Store, arena: SecretArena, processes: Processes, clock: Clock
    ) -> None:
        self._store = store
        self._arena = arena
        self._processes = processes
        self._clock = clock
        self.writer = AuditWriter(store, arena, self._now_ms)
        self.writer.on_written = self._sign_when_due
        self._holding = Reconciliation(store, self.writer)
        self.verified = False
        self.broken_ms = 0
        self.review: Callable[[], None] = _nothing
        self._vault: Vault | None = None
        self._fresh: AuditPublic | None = None
        self._signer: SecretSlot | None = None
        self._due: _Due | None = None
        self._found = Found()
        self._floods = Floods()
        self._claims: dict[tuple[ProcessId, str | None, Image], str] = {}
        self._opening: asyncio.Task[None] | None = None
        self._signing: asyncio.Task[None] | None = None

    async def begin(self, **details: str) -> None:
        """Find the end of the log, and note that the daemon has started.

        Args:
            **details: details of the start for the entry.

        Raises:
            StoreError: the log cannot be read.
        """
        await self.writer.load()
        self.note(self.own_event("started", details=details))

    def event(
        self,
        kind: str,
        by: Connection | None,
        facts: PeerFacts | None = None,
        commands: Mapping[int, str] | None = None,
        **what: Any,
    ) -> AuditEvent:
        """Make an event of this moment.

        Args:
            kind: one of `core.audit.events.KINDS`.
            by: the connection of the caller that did it; None: nobody did.
            facts: of the caller, where they were attested already.
            commands: what the processes claim to be, where that was read already.
            **what: further attributes of the event.
        """
        return AuditEvent(kind, self._now_ms(), self._who(by, facts, commands), **what)

    def own_event(self, kind: str, **what: Any) -> AuditEvent:
        """Create an event of this moment that is nobody's doing."""
        return AuditEvent(kind, self._now_ms(), None, **what)

    async def record(self, event: AuditEvent) -> None:
        """Write an entry, durably before returning.

        Raises:
            StoreError: it could not be written, and will not be written later.
            DamageError: the audit keys in the file are not the vault's.
        """
        await self.ready()
        if self.writer.public is None:
            raise no_log()
        await self.writer.write(Item((event,)))

    def note(self, event: AuditEvent) -> None:
        """Write an entry as soon as possible, and keep it until then."""
        self.writer.note(event)

    async def written(self) -> None:
        """Wait until all notes are on the disk, or could not be written for now.

        If we answered before this, the caller could kill the daemon and erase the record.
        """
        with suppress(BackpackError):
            await self.writer.write(Item())

    def refused(self, event: AuditEvent) -> None:
        """Note a refusal: the first of its kind at once; equal ones are counted and noted later."""
        if self._floods.note(event, self._clock.boot()):
            self.note(event)
        self.review()

    def foreign(self, uid: int) -> None:
        """Note that the door refused a connection of another user. Equal ones are counted."""
        self.refused(self.own_event("foreign-user", details={"uid": str(uid)}))

    def ended(self, leases: Sequence[Lease], reason: str, *, by: Connection | None) -> None:
        """Note that leases have ended.

        Args:
            leases: the leases; a great number gets one entry.
            reason: why, a stable word.
            by: the connection of the caller that ended them; None: they ended by themselves.
        """
        if len(leases) > MOST_ENDED:
            self.note(self.event("lease-ended", by, reason=reason, count=len(leases)))
            return
        for lease in leases:
            self.note(
                self.event(
                    "lease-ended",
                    by,
                    names=lease.names,
                    lease=lease.id,
                    grants=lease.grant_ids,
                    reason=reason,
                    details={"holder-pid": str(lease.holder.pid)},
                )
            )

    def renewed(self, lease: Lease) -> None:
        """Note that a lease was extended."""
        details = {"holder-pid": str(lease.holder.pid)}
        self.note(self.own_event("renewed", names=lease.names, lease=lease.id, details=details))

    def expire(self, now: float) -> float | None:
        """Write entries for what was counted long enough. A source for `Deadlines`."""
        told, coming = self._floods.expire(now)
        for event in told:
            self.note(event)
        return coming

    async def ready(self) -> None:
        """Wait until the log of a vault that was just unlocked has been compared with it.

        Raises:
            DamageError: the audit keys in the file are not the vault's.
            StoreError: the log could not be read or written.
        """
        opening = self._opening
        if opening is None:
            return
        if not opening.done():
            await asyncio.wait([opening])
        if not opening.cancelled() and (error := opening.exception()) is not None:
            if self._opening is opening:
                # Reported once, to the unlock that caused it: the vault is locked again.
                self._opening = None
            raise error

    async def hold(
        self, master: Secret, stored: StoredVault, authority: Authority, *, accept_older: bool
    ) -> Authority:
        """See `Journal`."""
        self._found = Found()
        if not self.writer.own:
            # When the daemon began, there may have been no vault, or no log.
            await self.writer.load()
        held, self._found = await self._holding.hold(
            master, stored, authority, accept_older=accept_older
        )
        self.verified = self.verified or authority.audit is not None
        if self._found.broken_at:
            self.broken_ms = self._now_ms()
        return held

    def anchored(self, authority: Authority) -> Authority:
        """See `Journal`."""
        if authority.audit is None:
            return authority
        anchor = replace(authority.audit, head=self.writer.head, named=True)
        return replace(authority, audit=anchor)

    async def commit(
        self,
        change: Change,
        authority: Authority,
        events: Sequence[AuditEvent],
        by: Connection | None,
    ) -> None:
        """See `Journal`."""
        if self._fresh is not None:
            change = replace(change, audit_public=self._fresh)
        elif self.writer.public is None:
            raise no_log()
        if self._signer is None:
            raise no_log()
        due, self._due = self._due, None
        signing = due.signing if due is not None else Signing(chain.CHANGE, self._signer)
        told = [*due.events, *events] if due is not None else events
        await self.writer.write(self._item(change, authority, told, signing, by))

    async def commit_locked(
        self,
        master: Secret,
        change: Change,
        authority: Authority,
        events: Sequence[AuditEvent],
        by: Connection | None,
    ) -> None:
        """See `Journal`."""
        if authority.audit is None:
            # A vault of an older version has no log before its first unlock.
            await self._store.commit(change)
            return
        private = self._holding.own_keys(master, self.writer.vault_id, authority.audit)
        found, key = self._found, self._arena.store(private.signing)
        try:
            signing = Signing(found.why(chain.CHANGE), key, found.broken_at)
            await self.writer.write(self._item(change, authority, events, signing, by))
        finally:
            key.wipe()

    def _item(
        self,
        change: Change,
        authority: Authority,
        events: Sequence[AuditEvent],
        signing: Signing,
        by: Connection | None,
    ) -> Item:
        """Make a change one piece with its entries and the checkpoint that names its record."""
        who = self._who(by) if any(event.who is None for event in events) else None
        told = [
            replace(event, who=event.who or who, generation=authority.generation)
            for event in events
        ]
        record = RecordState.of(self.writer.vault_id, authority.generation, change.authority)
        return Item(told, change, record, self._fresh, signing)

    def stopping(self) -> None:
        """Note that the daemon stops. Called before the lock, whose checkpoint covers the entry."""
        self.expire(float("inf"))
        self.note(self.own_event("stopped"))

    async def close(self) -> None:
        """Write what can still be written. Called after the last lock of the vault."""
        for task in (self._opening, self._signing):
            if task is not None and not task.done():
                await asyncio.wait([task])
        await self.writer.close()

    def _who(
        self,
        by: Connection | None,
        facts: PeerFacts | None = None,
        commands: Mapping[int, str] | None = None,
    ) -> Actor | None:
        if by is None:
            return None
        if facts is None:
            peer = by.peer
            try:
                facts = self._processes.attest(peer.process, peer.uid, peer.gid)
            except (ProcessGoneError, OSError):
                # It ended in the middle of its call, or no file is left to open, which must not
                # stop a panic: what was known when it connected.
                root = by.tree
                return Actor(peer.uid, peer.process.pid, root_pid=root.pid, root_start=root.start)
        return Actor.of(facts, by.name, self._claimed(facts, commands))

    def _claimed(self, facts: PeerFacts, commands: Mapping[int, str] | None) -> str:
        """Return what a caller claims to be, read once for each program that a process runs."""
        process = facts.process
        key = (process.id, process.executable, process.image)
        claimed = self._claims.get(key)
        if claimed is None:
            if commands is None:
                commands = self._processes.claimed_commands(replace(facts, chain=(process,)))
            claimed = commands.get(process.id.pid, "")
            while len(self._claims) >= _MOST_CLAIMS:
                del self._claims[next(iter(self._claims))]
            self._claims[key] = claimed
        return claimed

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    def unlocked(self, vault: Vault, by: Connection | None) -> None:
        """See `Journal`."""
        self._vault = vault
        found, self._found = self._found, Found()
        self._opening = asyncio.create_task(self._open(vault, vault.session(), found, by))
        self._opening.add_done_callback(_heard)

    async def _open(
        self, vault: Vault, session: Session, found: Found, by: Connection | None
    ) -> None:
        """Make the log ready for an unlocked vault, or lock it again: no log, no lease."""
        try:
            if session.authority.audit is None:
                if not self.writer.own:
                    await self.writer.load()
                await self._make(vault, found, by)
            else:
                with session.open_master() as master:
                    private = self._holding.own_keys(
                        master, session.vault_id, session.authority.audit
                    )
                key = self._take_signer(private)
                signing = Signing(found.why(chain.UNLOCK), key, found.broken_at)
                # Its turn comes before that of any other change: this task began with the session.
                self._due = _Due(signing, self._accepting(found, by))
                await self._checkpoint(vault, chain.UNLOCK, (self._unlocking(session, by),))
        except BackpackError as error:
            if not session.over:
                _LOG.error("the vault is locked again: %s", error.message)
                vault.lock(by=by)
            raise

    def _accepting(self, found: Found, by: Connection | None) -> tuple[AuditEvent, ...]:
        """Make the event of an operator's word that an older vault is meant, if there was one."""
        if not found.older:
            return ()
        return (self.event("older-accepted", by, details={"older": str(found.older)}),)

    async def _make(self, vault: Vault, found: Found, by: Connection | None) -> None:
        """Draw the audit keys of a vault that has none."""
        private = keys.generate()
        # A vault of an older version has changed before, so its generation is higher.
        new = vault.session().authority.generation == 1
        made = self.event("initialized", by) if new else self._unlocking(vault.session(), by)

        async def draft(session: Session) -> Draft:
            self.writer.vault_id = session.vault_id
            with session.open_master() as master:
                sealed = private.seal(master, session.vault_id, secrets.token_bytes(SALT_SIZE))
            self._fresh = private.public
            signing = Signing(found.why(chain.UNLOCK), self._take_signer(private))
            self._due = _Due(signing, self._accepting(found, by))
            anchor = AuditAnchor(sealed, Head())
            record = session.authority.next(vault.now_ms(), audit=anchor)
            return Draft(record, events=(made,))

        try:
            await vault.change(draft, by=by)
        finally:
            self._fresh = None
        self.verified = True

    def _unlocking(self, session: Session, by: Connection | None) -> AuditEvent:
        """Make the event of an unlock, with the slot that did it."""
        slot = session.opened_by
        details = {"slot": slot.slot_id.hex(), "kind": slot.kind} if slot is not None else {}
        return self.event("unlocked", by, details=details)

    def _sign_when_due(self) -> None:
        due = self.writer.entries >= chain.EVERY and self._signer is not None
        if due and self._signing is None and self._vault is not None:
            self._signing = asyncio.create_task(self._sign(self._vault))

    async def _sign(self, vault: Vault) -> None:
        """Write a regular checkpoint."""
        try:
            await self._checkpoint(vault, chain.REGULAR, ())
        except BackpackError as error:
            _LOG.warning("no checkpoint was written: %s", error.message)
        finally:
            if self._signing is asyncio.current_task():
                self._signing = None

    async def _checkpoint(self, vault: Vault, why: str, events: Sequence[AuditEvent]) -> None:
        async def draft(session: Session) -> Draft:
            if self._signer is None:
                raise LockedError("the vault was locked in the meantime: unlock it, then try again")
            self._due = self._due or _Due(Signing(why, self._signer))
            return Draft(session.authority.next(vault.now_ms()), events=events)

        # Its events say by themselves whose doing they are.
        await vault.change(draft, by=None)

    def _take_signer(self, private: AuditKeys) -> SecretSlot:
        if self._signer is not None:
            self._signer.wipe()
        self._signer = self._arena.store(private.signing)
        return self._signer

    def locked(self, by: Connection | None) -> None:
        """See `Journal`."""
        signer, self._signer = self._signer, None
        self._due = None
        self.note(self.event("locked", by))
        if signer is not None:
            # Only this key outlives the lock, until the lock's own checkpoint is on the disk.
            task = asyncio.create_task(self._sign_last(signer))
            task.add_done_callback(_heard)
            self._signing = task

    async def _sign_last(self, signer: SecretSlot) -> None:
        try:
            await self.writer.write(Item(signing=Signing(chain.LOCK, signer)))
        finally:
            signer.wipe()
            if self._signing is asyncio.current_task():
                self._signing = None


@dataclass(frozen=True, slots=True)
class _Due:
    """What the next change must carry: a checkpoint, after these entries and its own."""

    signing: Signing
    events: tuple[AuditEvent, ...] = ()


def _heard(task: "asyncio.Task[None]") -> None:
    """Retrieve a task's error, so that asyncio does not log it if nobody waits for it."""
    if not task.cancelled():
        task.exception()


def _nothing() -> None:
    """Do nothing."""
