"""The composition root: the one place where the daemon's parts are made and connected.

It decides nothing. A new store, service or platform is added here.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backpackd import __version__
from backpackd.adapters.door.door import Door
from backpackd.adapters.home.home import open_home
from backpackd.adapters.processes.linux import LinuxProcesses
from backpackd.adapters.processes.pinned import PidfdProcess
from backpackd.adapters.processes.portable import PortableProcesses
from backpackd.adapters.secrets import hardening
from backpackd.adapters.secrets.key_file import credential_path, read_key
from backpackd.adapters.secrets.scrubbing import take_key
from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.secrets.stretching import Argon2idStretcher
from backpackd.adapters.stores.spool import FileSpool
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.system import service_manager
from backpackd.adapters.system.clock import SystemClock, boot_timer
from backpackd.adapters.system.listener import Listener, check_sockets, found_listeners
from backpackd.adapters.system.notifications import notifier
from backpackd.adapters.system.path_watch import watch_path
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
from backpackd.application.unattended import unlock_unattended
from backpackd.application.vault.keys import Keys
from backpackd.application.vault.recovery import Recovery
from backpackd.application.vault.rotation import Rotation
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.config import Configuration, Settings, read_configuration
from backpackd.configured import Configured
from backpackd.core.errors import HomeError
from backpackd.core.slots import slots
from backpackd.ports import Clock, PinnedProcess, Processes, Store, Stretcher
from backpackd.rpc.calls import Guard, Service, served_methods
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
from backpackd.rpc.standard import standard_services

_LOG = logging.getLogger("backpackd")

_LEAST_DESCRIPTORS = 64
"""With fewer a daemon starts, and has none left for whoever connects."""
_LAST_RESORT = 8.0
"""Seconds after the grace period for everything else. The client's `stop` waits longer."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        HomeError: the home or the socket cannot be used.
        ConfigError: the configuration file cannot be used.
        DamageError: the stored vault cannot be used.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # A connection takes two descriptors, and the usual soft limit is 1024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < _LEAST_DESCRIPTORS:
        raise HomeError(
            f"only {most} files may be open, and at least {_LEAST_DESCRIPTORS} are needed: raise "
            "the limit (ulimit -n, or LimitNOFILE= in the unit)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    check_sockets()
    asyncio.run(_serve(settings))


@dataclass(frozen=True, slots=True)
class _Application:
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


def _application(
    store: Store,
    vault: Vault,
    processes: Processes,
    clock: Clock,
    *,
    audit_log: AuditLog,
    arena: Arena,
    stretcher: Stretcher,
    home: Path,
) -> _Application:
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
    return _Application(
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


def _services(parts: _Application, about: About) -> list[Service]:
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


async def _serve(settings: Settings) -> None:
    asyncio.get_running_loop().set_exception_handler(_log_failure)
    async with AsyncExitStack() as stack:
        home = open_home(settings.home)
        stack.callback(home.close)
        listeners = found_listeners(settings.socket)
        for listener in listeners:
            stack.callback(listener.close)
        arena, clock = Arena(), SystemClock()
        stack.callback(arena.close)
        processes, pin = _processes()
        store = SqliteStore(home.path)
        stack.push_async_callback(store.close)
        stretcher = Argon2idStretcher()
        stack.callback(stretcher.close)
        audit_log = AuditLog(store, arena, processes, clock)
        vault = Vault(store, arena, stretcher, clock, audit_log)
        await _open(vault, audit_log, stack)
        stack.push_async_callback(vault.settle)
        parts = _application(
            store,
            vault,
            processes,
            clock,
            audit_log=audit_log,
            arena=arena,
            stretcher=stretcher,
            home=home.path,
        )
        stack.callback(parts.bench.close)
        Configured(
            settings,
            vault_policy=parts.vault_policy,
            vault=parts.vault,
            leases=parts.live_leases.__len__,
            deadlines=parts.deadlines,
        ).listen()
        await _unlock_unattended(settings, vault, audit_log, processes)
        timer = boot_timer(asyncio.get_running_loop(), parts.deadlines.review)
        stack.callback(timer.close)
        parts.deadlines.attach(timer)

        about = About(
            version=__version__,
            pid=os.getpid(),
            supervised=service_manager.supervised(os.environ),
            started_at_ms=int(clock.wall() * 1000),
            protections=lambda: hardening.protections(arena, processes.degraded()),
            home=os.fsencode(home.path),
        )
        services = _services(parts, about)
        guard = Guard(vault, parts.operators, parts.deadlines)
        door = Door(
            listeners,
            uid=os.geteuid(),
            pin=pin,
            tree_of=lambda peer: processes.attest(peer.process, peer.uid, peer.gid).root.id,
            find=served_methods(guard, [*services, *standard_services(services)]).get,
            clock=clock,
            authorized=parts.operators.has,
            on_foreign=audit_log.foreign,
        )
        vault.on_lock.append(lambda _: door.drop_unread())
        door.start()
        stopped = _stopping(settings.grace)
        home.note(listeners[0].path)
        for listener in listeners:
            _end_with_socket(listener.path, vault, stopped, stack)
        _announce(settings, listeners, about)

        await stopped.wait()
        _LOG.info("stopping: finishing the calls under way")
        if about.supervised:
            # Only under a supervisor: the starter of a detached daemon has long closed its socket.
            service_manager.notify(os.environ, service_manager.STOPPING)
        parts.approvals.close()
        await door.drain(settings.grace)
        await door.close()
    _LOG.info("stopped")


def _end_with_socket(
    path: str, vault: Vault, stopped: asyncio.Event, stack: AsyncExitStack
) -> None:
    """Lock the vault and stop when a socket is gone: nobody could reach the daemon to lock it."""

    def gone() -> None:
        if not stopped.is_set():
            _LOG.error("the socket %s is gone: the vault is locked, and the daemon ends", path)
            vault.lock(by=None)
            stopped.set()

    watch = watch_path(asyncio.get_running_loop(), path, gone)
    if watch is not None:
        stack.callback(watch.close)


async def _open(vault: Vault, audit_log: AuditLog, stack: AsyncExitStack) -> None:
    """Read what is stored, and begin this daemon's part of the audit log."""
    await vault.open()
    await audit_log.begin(version=__version__, pid=str(os.getpid()))
    stack.push_async_callback(audit_log.close)
    stack.callback(vault.lock, by=None)
    stack.callback(audit_log.stopping)


async def _unlock_unattended(
    settings: Settings, vault: Vault, audit_log: AuditLog, processes: Processes
) -> None:
    """Unlock the vault with a key from the environment or a file, if there is a slot for it."""
    process, tree = processes.pin(os.getpid())
    process.close()
    key = take_key()
    found = read_configuration(settings) or Configuration()

    def from_file() -> bytes | None:
        if found.unlock_credential:
            directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
            path = credential_path(directory, found.unlock_credential)
            return read_key(path, credential=True)
        return read_key(Path(found.unlock_file), credential=False) if found.unlock_file else None

    for kind, read in ((slots.ENVIRONMENT, lambda: key), (slots.FILE, from_file)):
        outcome = await unlock_unattended(vault, audit_log, kind, read, tree)
        if outcome:
            _LOG.warning("%s", outcome)


def _processes(
    platform: str = sys.platform,
) -> tuple[Processes, Callable[[int, int], PinnedProcess]]:
    """Choose what reads processes on this platform, and what holds a peer by pid and pidfd."""
    if platform == "linux":
        return LinuxProcesses(), PidfdProcess
    portable = PortableProcesses()
    return portable, lambda pid, _: portable.pin(pid)[0]


def _announce(settings: Settings, listeners: list[Listener], about: About) -> None:
    """Log where the daemon listens and what protects it, then tell the service manager."""
    _LOG.info("backpackd %s, pid %d, home %s", about.version, about.pid, settings.home)
    for listener in listeners:
        _LOG.info("listening on %s", listener.path)
    for protection in about.protections():
        level = logging.INFO if protection.on else logging.WARNING
        state = "on" if protection.on else "OFF"
        _LOG.log(level, "%s: %s (%s)", protection.name, state, protection.detail)
    service_manager.notify(os.environ, service_manager.READY)
    service_manager.keep_alive(os.environ, os.getpid())


def _stopping(grace: float) -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets. The process ends within a bounded time after it.

    A thread that the file system blocks (a dead mount, for example) cannot be stopped, and Python
    waits for it. So the kernel ends the process if it has not ended by itself. Stored data survives
    this as it survives any kill.

    Args:
        grace: seconds that calls in progress get.
    """
    stopped = asyncio.Event()
    # The program that started the daemon may have set the signal to be ignored.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def stop() -> None:
        if not stopped.is_set():
            signal.setitimer(signal.ITIMER_REAL, grace + _LAST_RESORT)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopped


def _log_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log only the type of an error in the event loop: asyncio's own handler logs its text."""
    error = context.get("exception")
    _LOG.error("internal error in the event loop: %s", type(error).__name__)
