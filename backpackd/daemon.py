"""The composition root: the one place where the daemon's parts are made and joined.

It decides nothing. A new store, service or platform is put into place here.
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
from backpackd.adapters import hardening, service_manager
from backpackd.adapters.clock import SystemClock, boot_timer
from backpackd.adapters.door.door import Door
from backpackd.adapters.door.listener import Listener, found_listeners
from backpackd.adapters.home import open_home
from backpackd.adapters.key_file import credential_path, read_key
from backpackd.adapters.notifications import notifier
from backpackd.adapters.processes.linux import LinuxProcesses
from backpackd.adapters.processes.pinned import PidfdProcess
from backpackd.adapters.processes.portable import PortableProcesses
from backpackd.adapters.scrubbing import take_key
from backpackd.adapters.secret_memory import Arena
from backpackd.adapters.spool import FileSpool
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.stretching import Argon2idStretcher
from backpackd.application.access import Access
from backpackd.application.agents import Agents
from backpackd.application.asking import Asking
from backpackd.application.audit_reading import AuditReading
from backpackd.application.auditing import Auditing
from backpackd.application.backup import Backup
from backpackd.application.calendar import Calendar
from backpackd.application.deadlines import Deadlines
from backpackd.application.granting import Granting
from backpackd.application.identities import Identities, known_files
from backpackd.application.judging import Judging
from backpackd.application.keys import Keys
from backpackd.application.leasing import Leasing
from backpackd.application.migrating import Migrating
from backpackd.application.operators import Operators, PassphraseGate
from backpackd.application.recovery import Recovery
from backpackd.application.reviewing import Reviewing
from backpackd.application.revoking import Revoking
from backpackd.application.rotation import Rotation
from backpackd.application.ruling import Ruling
from backpackd.application.running import Running
from backpackd.application.slots import Slots
from backpackd.application.unattended import unlock_unattended
from backpackd.application.vault import Vault
from backpackd.application.watching import Watching
from backpackd.application.workbench import Workbench
from backpackd.config import Configuration, Settings, read_configuration
from backpackd.configured import Configured
from backpackd.core import slots
from backpackd.ports import Clock, PinnedProcess, Processes, Store, Stretcher
from backpackd.rpc.agents import AgentsService
from backpackd.rpc.audit import AuditService
from backpackd.rpc.backup import BackupService
from backpackd.rpc.calls import Guard, Service, served_methods
from backpackd.rpc.grants import GrantsService
from backpackd.rpc.keys import KeysService
from backpackd.rpc.leases import LeasesService
from backpackd.rpc.policy import PolicyService
from backpackd.rpc.requests import RequestsService
from backpackd.rpc.slots import SlotsService
from backpackd.rpc.standard import standard_services
from backpackd.rpc.vault import About, VaultService

_LOG = logging.getLogger("backpackd")

_LAST_RESORT = 8.0
"""Seconds after the grace for everything else. The client's `stop` waits longer than both."""


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
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve(settings))


@dataclass(frozen=True, slots=True)
class _Application:
    """The parts that know what Backpack does, joined."""

    vault: Vault
    keys: Keys
    access: Access
    leasing: Leasing
    asking: Asking
    revoking: Revoking
    ruling: Ruling
    auditing: Auditing
    reading: AuditReading
    operators: Operators
    granting: Granting
    gate: PassphraseGate
    slots: Slots
    recovery: Recovery
    rotation: Rotation
    backups: Backup
    identities: Identities
    agents: Agents
    migrating: Migrating
    bench: Workbench
    deadlines: Deadlines
    clock: Clock


def _application(
    store: Store,
    vault: Vault,
    processes: Processes,
    clock: Clock,
    *,
    auditing: Auditing,
    arena: Arena,
    stretcher: Stretcher,
    home: Path,
) -> _Application:
    deadlines = Deadlines(clock)
    keys = Keys(vault, store)
    watching = Watching(processes)
    leasing = Leasing(watching, clock, deadlines, auditing)
    running = Running(processes, leasing, clock, deadlines)
    calendar = Calendar(vault, clock)
    asking = Asking(
        processes, watching, deadlines, clock, notifier(), auditing=auditing, calendar=calendar
    )
    ruling = Ruling(vault, auditing)
    operators = Operators(clock, auditing)
    identities, bench = Identities(vault), Workbench()
    judging = Judging(vault, identities, operators, bench, auditing)
    migrating = Migrating(judging, keys)
    agents = Agents(judging, migrating)
    access = Access(
        vault,
        keys,
        processes,
        clock,
        leasing=leasing,
        asking=asking,
        auditing=auditing,
        tightening=ruling.tightening,
        running=running,
        embedded=agents,
        calendar=calendar,
    )
    granting = Granting(vault, leasing, processes, os.geteuid(), calendar)
    reviewing = Reviewing(vault, access, leasing, asking)
    granting.on_add.append(reviewing.granted)
    ruling.on_change.append(reviewing.ruled)
    backups = Backup(vault, store, stretcher, lambda: FileSpool(home), identities.decryption)
    backups.on_policy.append(ruling.replaced)
    slots = Slots(vault, stretcher)
    for source in (running.expire, leasing.expire, asking.expire, auditing.expire):
        deadlines.add(source)

    def drop_leases() -> None:
        leasing.drop_all("locked")

    auditing.review = deadlines.review
    vault.on_lock += [drop_leases, asking.drop_all, operators.drop_all, _log_locked]
    return _Application(
        vault=vault,
        keys=keys,
        access=access,
        leasing=leasing,
        asking=asking,
        revoking=Revoking(
            vault, leasing, asking, processes, watching, running=running, auditing=auditing
        ),
        ruling=ruling,
        auditing=auditing,
        reading=AuditReading(store, auditing),
        operators=operators,
        granting=granting,
        gate=PassphraseGate(clock, auditing, stretcher),
        slots=slots,
        recovery=Recovery(vault, slots, store, stretcher),
        rotation=Rotation(vault, store, arena, known_files),
        backups=backups,
        identities=identities,
        agents=agents,
        migrating=migrating,
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
            leasing=parts.leasing,
            revoking=parts.revoking,
            slots=parts.slots,
            recovery=parts.recovery,
            auditing=parts.auditing,
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
            leasing=parts.leasing,
        ),
        BackupService(vault, parts.backups, operators),
        KeysService(vault, parts.keys, access, parts.granting),
        LeasesService(
            vault,
            access,
            operators,
            parts.clock,
            leasing=parts.leasing,
            revoking=parts.revoking,
            reading=parts.reading,
        ),
        GrantsService(parts.granting, access, parts.keys),
        RequestsService(vault, parts.asking, access, operators, parts.clock),
        PolicyService(parts.ruling),
        AuditService(vault, parts.reading, operators),
        AgentsService(vault, parts.agents, parts.migrating, parts.identities),
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
        vault = Vault(store, arena, stretcher, clock)
        auditing = await _opened(vault, Auditing(store, arena, processes, clock), stack)
        stack.push_async_callback(vault.settle)
        parts = _application(
            store,
            vault,
            processes,
            clock,
            auditing=auditing,
            arena=arena,
            stretcher=stretcher,
            home=home.path,
        )
        stack.callback(parts.bench.close)
        Configured(
            settings,
            ruling=parts.ruling,
            vault=parts.vault,
            leases=parts.leasing.__len__,
            deadlines=parts.deadlines,
        ).listen()
        await _unlock_unattended(settings, vault, auditing, processes)
        timer = boot_timer(asyncio.get_running_loop(), parts.deadlines.review)
        stack.callback(timer.close)
        parts.deadlines.attach(timer)

        about = About(
            version=__version__,
            pid=os.getpid(),
            supervised=service_manager.supervised(os.environ),
            started_at_ms=int(clock.wall() * 1000),
            protections=lambda: hardening.protections(arena, processes.degraded()),
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
            on_foreign=auditing.foreign,
        )
        vault.on_lock.append(door.drop_unread)
        door.start()
        stopped = _stopping(settings.grace)
        _announce(settings, listeners, about)

        await stopped.wait()
        _LOG.info("stopping: finishing the calls under way")
        if about.supervised:
            # Of a detached daemon, whoever waited for its start has long closed its socket.
            service_manager.notify(os.environ, service_manager.STOPPING)
        parts.asking.close()
        await door.drain(settings.grace)
        await door.close()
    _LOG.info("stopped")


async def _opened(vault: Vault, auditing: Auditing, stack: AsyncExitStack) -> Auditing:
    """Look at what is stored, and begin the daemon's part of the audit log."""
    auditing.attach(vault)
    await vault.open()
    await auditing.begin(version=__version__, pid=str(os.getpid()))
    stack.push_async_callback(auditing.close)
    stack.callback(vault.lock)
    stack.callback(auditing.stopping)
    return auditing


async def _unlock_unattended(
    settings: Settings, vault: Vault, auditing: Auditing, processes: Processes
) -> None:
    """Unlock the vault with what lies ready in the environment or in a file, if it has a slot."""
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
        outcome = await unlock_unattended(vault, auditing, kind, read, tree)
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
    """Say where the daemon listens and what protects it, then tell the service manager."""
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
    """Return an event that SIGTERM or SIGINT sets. The process ends within a bound after it.

    A thread that the file system holds up (a dead mount, say) cannot be told to stop, and Python
    waits for it. So the kernel ends the process if it has not ended by itself. What is stored
    survives that as it survives any kill.

    Args:
        grace: seconds that requests under way get.
    """
    stopped = asyncio.Event()
    # Whoever started the daemon may have had it ignored.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def stop() -> None:
        if not stopped.is_set():
            signal.setitimer(signal.ITIMER_REAL, grace + _LAST_RESORT)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopped


def _log_locked() -> None:
    _LOG.info("the vault is locked")


def _log_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what failed in the event loop by its type: asyncio's own handler logs its text."""
    error = context.get("exception")
    _LOG.error("internal error in the event loop: %s", type(error).__name__)
