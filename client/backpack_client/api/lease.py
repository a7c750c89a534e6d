"""Keys for the length of a `with` block: `Lease`."""

import contextlib
import threading
from types import TracebackType
from typing import Protocol, Self

from backpack_client.calls.call import Answer, Call, OnWait
from backpack_client.calls.leases import Handout, give_back, renew_lease, with_lock
from backpack_client.failures import Failure
from backpack_client.files import lockfiles
from backpack_client.handles.lease_values import NOTHING_TO_GIVE_BACK, LeaseValues, boot_clock

# How long to wait at the end for a renewal that is under way.
_JOIN_SECONDS = 1.0


class Invoke(Protocol):
    """Carries out a call; `Connection` implements it."""

    def __call__(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Return the answer of the call; `on_wait` gets the code if a person must approve it."""


class Lease(LeaseValues):
    """Keys for the length of a `with` block: renewed while it is open, given back at its end.

    It is a read-only mapping of names to values. If renewing fails for good (the lease was revoked,
    the vault was locked), the next access raises that failure. After the block, every access
    raises.
    """

    def __init__(
        self,
        call: Call[Handout],
        on_wait: OnWait | None,
        lock: str | None,
        invoke: Invoke,
        opened: "set[Lease]",
    ) -> None:
        super().__init__(call.names)
        self._call = call
        self._on_wait = on_wait
        self._lock = lock
        self._invoke = invoke
        self._opened = opened
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise Failure(
                "a lease can be opened only once",
                reason="lease-over",
                hint="make a new one: lease(...)",
            )
        call = with_lock(self._call, lockfiles.to_send(self._lock))
        asked_at = boot_clock()
        self.begin(self._invoke(call, self._on_wait), asked_at)
        self._opened.add(self)
        self._thread = threading.Thread(target=self._renew, name="backpack-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A failure to give the lease back must not hide an error in the block.
        with contextlib.suppress(Failure) if error is not None else contextlib.nullcontext():
            self.close()

    def close(self) -> None:
        """Give the lease back and drop the values. Closing twice is harmless.

        Raises:
            Failure: the daemon did not take it back; it lives on there until it expires.
        """
        if self._thread is None or self._closing.is_set():
            return
        lease_id = self.lease.id
        self._closing.set()
        self.end()
        self._opened.discard(self)
        try:
            self._invoke(give_back(lease_id))
        except Failure as failure:
            if failure.reason not in NOTHING_TO_GIVE_BACK:
                raise
        self._thread.join(_JOIN_SECONDS)

    def _renew(self) -> None:
        while (pause := self.wait()) is not None:
            if self._closing.wait(pause):
                return
            if pause == 0.0:
                self._renew_once()

    def _renew_once(self) -> None:
        asked_at = boot_clock()
        try:
            self.extend(self._invoke(renew_lease(self.lease.id)), asked_at)
        except Failure as failure:
            self.note(failure)
