"""What the configuration file says, laid on the parts that it tightens, again with every SIGHUP.

What the file may say and how it is read stands in `config`.
"""

import asyncio
import logging
import signal
from collections.abc import Callable

from backpackd.application.access.policy import VaultPolicy
from backpackd.application.deadlines import Deadlines
from backpackd.application.vault.autolock import AutoLock
from backpackd.application.vault.vault import Vault
from backpackd.config import ConfigError, Configuration, Settings, read_configuration

_LOG = logging.getLogger("backpackd")

BETWEEN_READS = 1.0
"""Seconds from one reading to the next, however many signals come."""


class Configured:
    """The configuration that is in force.

    Raises:
        ConfigError: the file cannot be used; the daemon does not start with less than it was told.
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
        """Read the file and lay it on.

        Args:
            settings: where it is.
            vault_policy: takes the policy.
            vault: is locked after the times that it says.
            leases: tells how many live.
            deadlines: is told of these times.
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
        """Read the file again; where it cannot be used, all stays as it was.

        Anybody who can signal the daemon decides when, which gives nothing that the file does not.
        It is read beside the event loop, and signals that come meanwhile count as one: a long file
        and a loop around kill(1) would else hold everything up, `panic` included.
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
        what = f"tightens {len(lines)} settings" if found else "is not there, and tightens nothing"
        _LOG.info("configuration file %s %s", self._settings.config, what)
