"""Operator authority: which connections have proven the passphrase, and for how long.

It belongs to one connection. There is no token that could be copied or stolen. It ends with the
connection, after five minutes, or when the vault locks. Wrong passphrases are throttled for each
process tree, in every call that takes a passphrase.
"""

from collections.abc import Awaitable, Callable
from math import ceil
from typing import TypeVar

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.callers.lines import Lines
from backpackd.application.callers.peers import check_protected, check_user, may_have_authority
from backpackd.core.errors import (
    DamageError,
    LimitError,
    NotAuthorizedError,
    ThrottledError,
    WrongPassphraseError,
)
from backpackd.core.slots.throttle import Throttle
from backpackd.ports import Clock, Connection, Stretcher

DURATION = 300.0
"""In seconds."""
MOST_WAITING = 8
"""The most passphrases of one process tree that may wait for each other."""

_Result = TypeVar("_Result")


class PassphraseGate:
    """Tries the passphrases of a process tree one at a time, with delays after wrong ones."""

    def __init__(self, clock: Clock, audit_log: AuditLog, stretcher: Stretcher) -> None:
        self._clock = clock
        self._audit_log = audit_log
        self._stretcher = stretcher
        self._throttle = Throttle()
        self._lines = Lines(MOST_WAITING, _too_many)

    async def try_one(
        self, connection: Connection, attempt: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        """Run an attempt that raises WrongPassphraseError if the passphrase is wrong.

        Raises:
            NotProtectedError: others can read the caller, and the passphrase in it; nothing was
                tried.
            UserChangedError: the caller now runs as another user; nothing was tried.
            ThrottledError: this tree must wait first; nothing was tried.
            WrongPassphraseError: it was wrong; the error says when the next try is possible.
            LimitError: too many attempts of this tree are waiting.
        """
        check_user(connection.peer)
        check_protected(connection.peer)
        async with self._lines.turn(connection.tree):
            return await self._try(connection, attempt)

    async def _try(
        self, connection: Connection, attempt: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        tree = connection.tree
        delay = self._throttle.delay(tree, self._clock.boot())
        if delay > 0:
            raise ThrottledError(
                f"too many wrong passphrases: the next try is possible in {ceil(delay)} s",
                retry_after=delay,
            )
        try:
            result = await attempt()
            # No log, no lease: a vault whose log cannot be written does not stay unlocked.
            await self._audit_log.ready()
        except DamageError as error:
            self._audit_log.note(
                self._audit_log.event("damage-found", connection, reason=error.reason)
            )
            await self._audit_log.written()
            raise
        except WrongPassphraseError as error:
            self._audit_log.note(self._audit_log.event("wrong-passphrase", connection))
            # Counted first: whoever hangs up while the entry is written has tried all the same.
            self._throttle.failed(tree, self._clock.boot())
            await self._audit_log.written()
            # Otherwise, on a slow disk, the delay would be over before the caller learns of it.
            delay = self._throttle.restart(tree, self._clock.boot())
            if delay > 0:
                raise WrongPassphraseError(
                    f"{error.message}; the next try is possible in {ceil(delay)} s",
                    retry_after=delay,
                ) from None
            raise
        self._throttle.succeeded(tree)
        self._stretcher.favor(tree)
        return result


def _too_many() -> LimitError:
    return LimitError("too many passphrases of this process tree are waiting: try again")


class Operators:
    """The connections that have operator authority."""

    def __init__(self, clock: Clock, audit_log: AuditLog) -> None:
        self._clock = clock
        self._audit_log = audit_log
        self._until: dict[str, float] = {}

    def admit(self, connection: Connection) -> float:
        """Give operator authority to a connection whose passphrase was just verified.

        Returns:
            For how many seconds it has authority.

        Raises:
            NotProtectedError: other processes of its user could take the connection.
            UserChangedError: its process now runs as another user.
        """
        # Checked again: during the check of the passphrase, the process may have changed its user.
        check_user(connection.peer)
        check_protected(connection.peer)
        now = self._clock.boot()
        # If a connection closed while its passphrase was checked, no close will be reported.
        self._until = {name: until for name, until in self._until.items() if until > now}
        if connection.name not in self._until:
            connection.on_close.append(lambda: self._drop(connection.name))
        self._until[connection.name] = now + DURATION
        self._audit_log.note(self._audit_log.event("authorized", connection))
        return DURATION

    def remaining(self, connection: Connection) -> float:
        """Return for how many more seconds a connection has authority; 0 without authority."""
        return max(0.0, self._until.get(connection.name, 0.0) - self._clock.boot())

    def has(self, connection: Connection) -> bool:
        """Return whether a connection has operator authority now."""
        return self.remaining(connection) > 0 and may_have_authority(connection.peer)

    def require(self, connection: Connection) -> None:
        """Raise unless a connection has operator authority.

        Raises:
            NotAuthorizedError: it has no authority.
            NotProtectedError: it has, but other processes could read its process since then.
            UserChangedError: it has, but its process now runs as another user.
        """
        if self.remaining(connection) <= 0:
            raise NotAuthorizedError(
                "this needs operator authority on the connection: authorize with the passphrase "
                "first"
            )
        # An exec can make a protected process readable, and the connection may have been taken.
        check_user(connection.peer)
        check_protected(connection.peer)

    def drop_all(self) -> None:
        """End every authority."""
        self._until.clear()

    def _drop(self, name: str) -> None:
        self._until.pop(name, None)
