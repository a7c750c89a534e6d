"""The values of a lease in a program, and the time to renew the lease.

Pure: the clock is an argument, and nothing here talks to the daemon, waits or starts anything. The
blocking API and the asyncio API both keep their leases in these classes.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from backpack_client.calls.leases import Handout
from backpack_client.failures import EXIT_DENIED, EXIT_LOCKED, EXIT_USAGE, Failure
from backpack_client.model import LeaseInfo

# The daemon's leases use a clock that counts time in suspend; the timer of a sleeping program does
# not. So a program sleeps no longer than this before it looks at the clock again.
LONGEST_WAIT = 60.0
# After these failures the lease is over, so there is nothing to give back.
NOTHING_TO_GIVE_BACK = frozenset(
    {"locked", "uninitialized", "no-such-lease", "no-daemon", "shutting-down", "closed", "forked"}
)

_SHORTEST_WAIT = 0.2
_FINAL_EXIT_CODES = (EXIT_LOCKED, EXIT_DENIED, EXIT_USAGE)
_FINAL_REASONS = ("no-such-lease", "shutting-down", "closed", "forked")


def boot_clock() -> float:
    """Read the clock of leases, in seconds; it includes time in suspend if the system counts it."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Values(Mapping[str, str]):
    """Names and values, read only. Its repr shows only names, and it refuses to be pickled.

    A lookup returns text; `bytes` returns a value as it is stored.
    """

    def __init__(self, handout: Handout) -> None:
        self._values = dict(handout.values)
        self._info = handout.lease

    @property
    def lease(self) -> LeaseInfo:
        """The lease that the values came with."""
        return self._info

    def bytes(self, name: str) -> bytes:
        """Return a value as it is stored.

        Raises:
            KeyError: the name was not requested.
        """
        return self._values[name]

    def __getitem__(self, name: str) -> str:
        value = self.bytes(name)
        try:
            return value.decode()
        except UnicodeDecodeError:
            # Not chained: that exception holds the value.
            raise Failure(
                f"the value of {name} is not text",
                reason="not-text",
                hint=f"ask for its bytes: keys.bytes({name!r})",
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self._values) or 'nothing'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        # Pickling would send values to other processes and into files.
        raise TypeError(f"a {type(self).__name__} holds values and is not to be pickled")


class LeaseValues(Values):
    """Values that can be read only while their lease lives.

    The holder's renewals tell it how they went (`extend`, `note`); every access checks the clock,
    so a lease whose renewals stopped coming ends here when it ends at the daemon.

    A child that was forked has a copy that nobody renews: the thread or task that does stays in the
    parent, and so does the connection. The copy is dropped at the first access, with what to do,
    and not when its time is over, in the middle of the child's work.
    """

    def __init__(self, names: tuple[str, ...], clock: Callable[[], float] = boot_clock) -> None:
        self._names = names
        self._clock = clock
        self._values: dict[str, bytes] = {}
        self._ends = 0.0
        self._renew_at = 0.0
        self._pid = 0
        self._trouble: Failure | None = None
        self._over: Failure | None = Failure(
            "the lease is not open yet", reason="lease-not-open", hint="open it: with ... as keys"
        )

    @property
    def lease(self) -> LeaseInfo:
        """The lease as the daemon last reported it.

        Raises:
            Failure: it was never open.
        """
        info: LeaseInfo | None = getattr(self, "_info", None)
        if info is None:
            self._check()
            raise AssertionError("an open lease is known")
        return info

    @property
    def failure(self) -> Failure | None:
        """Why the values can no longer be read; None while they can."""
        try:
            self._check()
        except Failure as failure:
            return failure
        return None

    def bytes(self, name: str) -> bytes:
        """Return a value as it is stored.

        Raises:
            KeyError: the name was not requested.
            Failure: the lease is over, with the reason.
        """
        self._check()
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self._names)}>"

    def begin(self, handout: Handout, asked_at: float) -> None:
        """Take in a handout from the daemon.

        Args:
            handout: its answer.
            asked_at: the clock before the request, so that the lease ends here no later than at the
                daemon.
        """
        self._values = dict(handout.values)
        self._over = None
        self._pid = os.getpid()
        self.extend(handout.lease, asked_at)

    def extend(self, info: LeaseInfo, asked_at: float) -> None:
        """Take in a renewal's answer; `asked_at` as for `begin`."""
        self._info = info
        self._trouble = None
        self._ends = asked_at + info.remaining_seconds
        self._plan(asked_at)

    def note(self, failure: Failure) -> None:
        """Take in a failed renewal: end the lease, or plan the next attempt.

        The lease ends at once if asking again cannot help. Otherwise (the daemon is busy, the
        connection broke) it lives on until it expires.
        """
        if failure.exit_code in _FINAL_EXIT_CODES or failure.reason in _FINAL_REASONS:
            self.end(failure)
            return
        self._trouble = failure
        self._plan(self._clock())

    def end(self, failure: Failure | None = None) -> None:
        """Drop the values. A later access raises `failure`, or `lease-over`."""
        self._values = {}
        if self._over is None:
            self._over = failure or Failure(
                "the lease was given back", reason="lease-over", hint="take a new one"
            )

    def wait(self) -> float | None:
        """Return how long to wait before calling `wait` again or renewing.

        Returns:
            Seconds, at most LONGEST_WAIT; 0: renew now; None: there is nothing left to renew.
        """
        if self.failure is not None:
            return None
        if self._info.expires_at >= self._info.max_expires_at:
            return None
        return min(LONGEST_WAIT, max(0.0, self._renew_at - self._clock()))

    def _plan(self, now: float) -> None:
        # Halfway to the end: after a failed renewal there is time for several more.
        self._renew_at = now + max(_SHORTEST_WAIT, (self._ends - now) / 2)

    def _check(self) -> None:
        if self._over is None and self._pid != os.getpid():
            self.end(_forked())
        if self._over is None and self._clock() >= self._ends:
            self.end(self._expired())
        if self._over is not None:
            # A new exception every time: an exception that is raised twice collects tracebacks.
            over = self._over
            raise Failure(
                over.message, exit_code=over.exit_code, reason=over.reason, hint=over.hint
            )

    def _expired(self) -> Failure:
        if self._trouble is not None:
            return Failure(
                f"the lease expired, because renewing it failed: {self._trouble.message}",
                exit_code=self._trouble.exit_code,
                reason="lease-expired",
                hint=self._trouble.hint,
            )
        return Failure(
            "the lease expired",
            reason="lease-expired",
            hint="take a new one; a lease is renewed up to the maximum that its grant sets",
        )


def _forked() -> Failure:
    return Failure(
        "this lease was opened before a fork, and is renewed in the parent only",
        reason="forked",
        hint="open it in the child: make a Backpack and take the lease there, for example in "
        "gunicorn's post_fork, Celery's worker_process_init or the initializer of a pool",
    )
