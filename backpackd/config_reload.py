"""Applies the configuration file to the parts that it tightens, again at every SIGHUP.

`config` describes what the file may contain and how it is read.
"""

import asyncio
import logging
import signal
from collections.abc import Callable

from backpackd.application.access.policy import VaultPolicy
from backpackd.application.deadlines import Deadlines
from backpackd.application.vault.autolock import AutoLock
from backpackd.application.vault.vault import Vault
from backpackd.config import ConfigError, Configuration, read_configuration
from backpackd.settings import Settings

_LOG = logging.getLogger("backpackd")

BETWEEN_READS = 1.0
"""Seconds from one reading to the next, even if more signals arrive."""


class Configured:
    """The configuration that the daemon currently uses.

    Raises:
        ConfigError: the file cannot be used. The daemon never starts with less than it was told.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        vault_policy: VaultPolicy,
        vault: Vault,
        leases: Callable[[], int],
        deadlines: Deadlines,
    ) -> None:
        """Read the file and apply it.

        Args:
            settings: where the file is.
            vault_policy: takes the policy.
            vault: is locked after the configured times.
            leases: returns the number of live leases.
            deadlines: gets these times.
        """
        self._settings = settings
        self._vault_policy = vault_policy
        self._vault = vault
        self._leases = leases
        self._deadlines = deadlines
        self._wanted = False
        self._reading: asyncio.Task[None] | None = None
        self._lay(read_configuration(settings))
        deadlines.add(self._expire)

    def listen(self) -> None:
        """Read the file again with every SIGHUP."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read the file again. If it cannot be used, the configuration stays as it was.

        Any process that can signal the daemon decides when this happens. This gives it nothing,
        because the file can only tighten. The file is read outside the event loop, and signals
        that arrive during the reading count as one. Otherwise a long file and a loop around kill(1)
        would block everything, `panic` included.
        """
        self._wanted = True
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                self._lay(await asyncio.to_thread(read_configuration, self._settings))
            except ConfigError as error:
                _LOG.error("%s; the configuration stays as it was", error)
            await asyncio.sleep(BETWEEN_READS)
        self._reading = None

    def _expire(self, now: float) -> float | None:
        return self._autolock.expire(now)

    def _lay(self, found: Configuration | None) -> None:
        configuration = found or Configuration()
        self._vault_policy.tighten(configuration.policy)
        self._autolock = AutoLock(
            self._vault,
            self._leases,
            idle=configuration.idle,
            longest=configuration.longest,
        )
        self._deadlines.review()
        lines = configuration.describe()
        what = f"tightens {len(lines)} settings" if found else "does not exist: tightens nothing"
        _LOG.info("configuration file %s %s", self._settings.config, what)
