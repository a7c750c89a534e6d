"""Makes the parts that know what Backpack does, and connects them.

It decides nothing. A new store or service is added here; `daemon` brings the platform.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.stores.spool import FileSpool
from backpackd.adapters.system.notifications import notifier
from backpackd.application.access.access import Access
from backpackd.application.access.approvals import Approvals
from backpackd.application.access.grant_clock import GrantClock
from backpackd.application.access.grants import StandingGrants
from backpackd.application.access.leases import LiveLeases
from backpackd.application.access.policy import VaultPolicy
from backpackd.application.access.review import Review
from backpackd.application.access.revocation import Revocation
from backpackd.application.access.started_agents import StartedAgents
from backpackd.application.agents.agents import Agents
from backpackd.application.agents.identities import Identities, known_files
from backpackd.application.agents.lock_verification import LockVerification
from backpackd.application.agents.migration import Migration
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.audit.reader import AuditReader
from backpackd.application.backup.backup import Backup
from backpackd.application.callers.operators import Operators, PassphraseGate
from backpackd.application.callers.process_watches import ProcessWatches
from backpackd.application.callers.worker import Worker
from backpackd.application.deadlines import Deadlines
from backpackd.application.vault.keys import Keys
from backpackd.application.vault.recovery import Recovery
from backpackd.application.vault.rotation import Rotation
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.ports import Clock, Processes, Store, Stretcher
from backpackd.rpc.calls import Service
from backpackd.rpc.services.agents import AgentsService
from backpackd.rpc.services.audit import AuditService
from backpackd.rpc.services.backup import BackupService
from backpackd.rpc.services.grants import GrantsService
from backpackd.rpc.services.keys import KeysService
from backpackd.rpc.services.leases import LeasesService
from backpackd.rpc.services.policy import PolicyService
from backpackd.rpc.services.requests import RequestsService
from backpackd.rpc.services.slots import SlotsService
from backpackd.rpc.services.vault import About, VaultService

_LOG = logging.getLogger("backpackd")


@dataclass(frozen=True, slots=True)
class Application:
    """The connected parts that know what Backpack does."""

    vault: Vault
    keys: Keys
    access: Access
    live_leases: LiveLeases
    approvals: Approvals
    revocation: Revocation
    vault_policy: VaultPolicy
    audit_log: AuditLog
    reading: AuditReader
    operators: Operators
    standing_grants: StandingGrants
    gate: PassphraseGate
    slots: Slots
    recovery: Recovery
    rotation: Rotation
    backups: Backup
    identities: Identities
    agents: Agents
    migration: Migration
    bench: Worker
    deadlines: Deadlines
    clock: Clock


def make_application(
    store: Store,
    vault: Vault,
    processes: Processes,
    clock: Clock,
    *,
    audit_log: AuditLog,
    arena: Arena,
    stretcher: Stretcher,
    home: Path,
) -> Application:
    """Make every part above the store, and connect them.

    Args:
        store: where the vault and the log are.
        vault: not yet opened or already open.
        processes: attests peers.
        clock: wall and boot time.
        audit_log: the vault's.
        arena: holds the master key.
        stretcher: stretches passphrases.
        home: where an upload waits while it arrives.
    """
    deadlines = Deadlines(clock)
    keys = Keys(vault, store)
    process_watches = ProcessWatches(processes)
    live_leases = LiveLeases(process_watches, clock, deadlines, audit_log)
    started = StartedAgents(processes, live_leases, clock, deadlines)
    grant_clock = GrantClock(vault, clock)
    approvals = Approvals(
        processes,
        process_watches,
        deadlines,
        clock,
        notifier(),
        audit_log=audit_log,
        grant_clock=grant_clock,
    )
    vault_policy = VaultPolicy(vault, audit_log)
    operators = Operators(clock, audit_log)
    identities, bench = Identities(vault), Worker()
    verification = LockVerification(vault, identities, operators, bench, audit_log)
    migration = Migration(verification, keys)
    agents = Agents(verification, migration)
    access = Access(
        vault,
        keys,
        processes,
        clock,
        live_leases=live_leases,
        approvals=approvals,
        audit_log=audit_log,
        tightening=vault_policy.tightening,
        started=started,
        embedded=agents,
        grant_clock=grant_clock,
    )
    standing_grants = StandingGrants(vault, live_leases, processes, os.geteuid(), grant_clock)
    review = Review(vault, access, live_leases, approvals)
    standing_grants.on_add.append(review.granted)
    vault_policy.on_change.append(review.ruled)
    backups = Backup(vault, store, stretcher, lambda: FileSpool(home), identities.decryption)
    backups.on_policy.append(vault_policy.replaced)
    slots = Slots(vault, stretcher)
    for source in (started.expire, live_leases.expire, approvals.expire, audit_log.expire):
        deadlines.add(source)

    audit_log.review = deadlines.review
    vault.on_lock += [
        lambda by: live_leases.drop_all("locked", by=by),
        lambda _: approvals.drop_all(),
        lambda _: operators.drop_all(),
        lambda _: _LOG.info("the vault is locked"),
    ]
    return Application(
        vault=vault,
        keys=keys,
        access=access,
        live_leases=live_leases,
        approvals=approvals,
        revocation=Revocation(
            vault,
            live_leases,
            approvals,
            processes,
            process_watches,
            started=started,
            audit_log=audit_log,
        ),
        vault_policy=vault_policy,
        audit_log=audit_log,
        reading=AuditReader(store, audit_log),
        operators=operators,
        standing_grants=standing_grants,
        gate=PassphraseGate(clock, audit_log, stretcher),
        slots=slots,
        recovery=Recovery(vault, slots, store, stretcher),
        rotation=Rotation(vault, store, arena, known_files),
        backups=backups,
        identities=identities,
        agents=agents,
        migration=migration,
        bench=bench,
        deadlines=deadlines,
        clock=clock,
    )


def make_services(parts: Application, about: About) -> list[Service]:
    """Make the gRPC services; `rpc.methods` says who may call their methods."""
    vault, access, operators = parts.vault, parts.access, parts.operators
    return [
        VaultService(
            vault,
            access,
            operators,
            parts.gate,
            live_leases=parts.live_leases,
            revocation=parts.revocation,
            slots=parts.slots,
            recovery=parts.recovery,
            audit_log=parts.audit_log,
            clock=parts.clock,
            about=about,
        ),
        SlotsService(
            vault,
            parts.slots,
            parts.recovery,
            parts.rotation,
            operators=operators,
            gate=parts.gate,
            live_leases=parts.live_leases,
        ),
        BackupService(vault, parts.backups),
        KeysService(vault, parts.keys, access, parts.standing_grants),
        LeasesService(
            vault,
            access,
            operators,
            parts.clock,
            live_leases=parts.live_leases,
            revocation=parts.revocation,
            reading=parts.reading,
        ),
        GrantsService(parts.standing_grants, access, parts.keys),
        RequestsService(vault, parts.approvals, access, operators, parts.clock),
        PolicyService(parts.vault_policy),
        AuditService(vault, parts.reading),
        AgentsService(vault, parts.agents, parts.migration, parts.identities),
    ]
