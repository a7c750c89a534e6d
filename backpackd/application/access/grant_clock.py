"""The date for permissions: it is never set back while the vault is unlocked.

Grants expire by the wall clock. A person, a network time server or a virtual machine may set that
clock back. From its first reading in a session, this date advances with the boot clock. It follows
the wall clock forward, but never back.
"""

from backpackd.application.vault.vault import Vault
from backpackd.ports import Clock


class GrantClock:
    """Returns the date for what expires.

    Args:
        vault: its record holds the latest date of earlier sessions.
        clock: the time.
    """

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock
        self._session: float | None = None
        self._seen_ms = 0
        self._seen_at = 0.0

    def now_ms(self) -> int:
        """Return the date as Unix time in milliseconds.

        Raises:
            LockedError: the vault is locked.
        """
        session = self._vault.session()
        wall = max(int(self._clock.wall() * 1000), session.authority.latest_ms)
        boot = self._clock.boot()
        if self._session != session.unlocked_at:
            # After a lock, the wall clock counts again: a wrong one may have been corrected.
            self._session, self._seen_ms, self._seen_at = session.unlocked_at, wall, boot
        seen = self._seen_ms + int((boot - self._seen_at) * 1000)
        if wall >= seen:
            self._seen_ms, self._seen_at = wall, boot
        return max(wall, seen)
