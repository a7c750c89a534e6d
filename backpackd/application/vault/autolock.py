"""Locks the vault by itself: after a maximum time, and when it is idle with no live lease."""

from collections.abc import Callable

from backpackd.application.vault.vault import Vault
from backpackd.core.vault.states import State


class AutoLock:
    """A source of deadlines for `Deadlines`.

    Args:
        vault: the vault to lock.
        leases: counts the live leases; while there is one, the vault is not idle.
        idle: seconds without use after which it locks.
        longest: seconds after unlocking at which it locks, used or not.
    """

    def __init__(
        self, vault: Vault, leases: Callable[[], int], *, idle: float, longest: float
    ) -> None:
        self._vault = vault
        self._leases = leases
        self._idle = idle
        self._longest = longest
        self._busy = False

    def expire(self, now: float) -> float | None:
        """Lock the vault if that is due.

        Returns:
            Boot-clock seconds at which to check again; None while it is locked.
        """
        if self._vault.state is not State.UNLOCKED:
            self._busy = False
            return None
        session = self._vault.session()
        deadline = session.unlocked_at + self._longest
        was_busy, self._busy = self._busy, self._leases() > 0
        if was_busy or self._busy:
            # Idle time begins with the end of the last lease, which also calls this again.
            self._vault.touch()
        if not self._busy:
            deadline = min(deadline, session.used_at + self._idle)
        if now < deadline:
            return deadline
        self._vault.lock(by=None)
        return None
