"""The running daemon: brings the platform, unlocks unattended, serves, and stops in order.

It decides nothing. A new platform is added here; `composition` connects the parts above.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
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
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.system import service_manager
from backpackd.adapters.system.clock import SystemClock, boot_timer
from backpackd.adapters.system.listener import Listener, check_sockets, found_listeners
from backpackd.adapters.system.path_watch import watch_path
from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.unattended import unlock_unattended
from backpackd.application.vault.vault import Vault
from backpackd.composition import make_application, make_services
from backpackd.config import Configuration, read_configuration
from backpackd.config_reload import Configured
from backpackd.core.errors import HomeError
from backpackd.core.slots import slots
from backpackd.ports import PinnedProcess, Processes
from backpackd.rpc.calls import Guard, served_methods
from backpackd.rpc.services.vault import About
from backpackd.rpc.standard import standard_services
from backpackd.settings import Settings

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
        parts = make_application(
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
        services = make_services(parts, about)
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
