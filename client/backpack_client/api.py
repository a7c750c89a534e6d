"""The blocking Python API: `Backpack`, a connection to the daemon, and `Lease`, keys while needed.

What is asked and answered stands in `calls`, when a lease is renewed in `held`, how the connection
is opened in `channel`. Nothing here prompts or prints.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

from backpack_client import address, calls, consent_calls
from backpack_client.agents import AgentMethods
from backpack_client.calls import Answer, Call
from backpack_client.channel import RpcError, Target, check, open_channel
from backpack_client.failures import Failure
from backpack_client.held import NOTHING_TO_GIVE_BACK, HeldKeys, Values, boot_clock
from backpack_client.model import (
    Deleted,
    Grant,
    KeyEntry,
    LeaseEvent,
    LeaseInfo,
    Panicked,
    Policies,
    Policy,
    Request,
    Revealed,
    Stored,
    VaultStatus,
)

if TYPE_CHECKING:
    import grpc

# How long to wait at the end for a renewal that is under way.
_JOIN_SECONDS = 1.0


OnWait = Callable[[str], None]
"""Is told the code of the request that a call waits for."""


class _Invoke(Protocol):
    def __call__(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer: ...


class Backpack(AgentMethods):
    """A connection to the daemon.

    Operator authority (`authorize`) belongs to this connection: another object, in this process or
    elsewhere, has no part in it. Threads may share one object. It connects with the first call, or
    when it is entered.

    Every method raises Failure: what failed, an exit code and a stable `reason` for programs, and a
    hint at what to do next.
    """

    def __init__(self, socket: str | None = None, timeout: float = calls.DEFAULT_TIMEOUT) -> None:
        """Say where the daemon is.

        Args:
            socket: the daemon's socket; None: BACKPACK_SOCKET or the place it is by default.
            timeout: how long to wait for each answer, in seconds, besides waiting for a person.
        """
        self._path = address.socket_path(os.environ, socket)
        self._timeout = timeout
        self._opening = threading.Lock()
        self._target: Target | None = None
        self._channel: grpc.Channel | None = None
        self._pid = 0
        self._closed = False
        self._leases: set[Lease] = set()

    def __repr__(self) -> str:
        return f"<Backpack at {self._path}>"

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give open leases back and close the connection. Closing twice is harmless."""
        for lease in tuple(self._leases):
            lease.close()
        with self._opening:
            self._closed = True
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            if self._target is not None:
                self._target.close()
                self._target = None

    def status(self) -> VaultStatus:
        """Ask for the state of daemon and vault. Never counts as use of the vault."""
        return self._invoke(calls.status())

    def init(self, passphrase: str | bytes) -> None:
        """Make a new vault with one passphrase, and leave it unlocked."""
        self._invoke(calls.init(passphrase))

    def unlock(self, passphrase: str | bytes) -> None:
        """Unlock the vault. It gives no operator authority."""
        self._invoke(calls.unlock(passphrase))

    def lock(self) -> int:
        """Lock the vault; returns how many leases ended with it."""
        return self._invoke(calls.lock())

    def authorize(self, passphrase: str | bytes) -> datetime:
        """Give this connection operator authority; returns until when."""
        return self._invoke(calls.authorize(passphrase))

    def change_passphrase(self, current: str | bytes, replacement: str | bytes) -> None:
        """Replace the passphrase of the vault."""
        self._invoke(calls.change_passphrase(current, replacement))

    def put(
        self,
        keys: Mapping[str, str | bytes],
        *,
        replace: bool = False,
        dry_run: bool = False,
        skip_existing: bool = False,
    ) -> Stored:
        """Store keys, all of them or none. Needs operator authority.

        Args:
            keys: values by name; text is stored as UTF-8.
            replace: allow keys that are stored already to get a new value.
            dry_run: check everything, store nothing.
            skip_existing: leave keys that are stored already as they are.
        """
        return self._invoke(
            calls.put_keys(keys, replace=replace, dry_run=dry_run, skip_existing=skip_existing)
        )

    def delete(self, *names: str) -> Deleted:
        """Delete keys, all of them or none, and end their leases. Needs operator authority."""
        return self._invoke(calls.delete_keys(names))

    def list(self, *, all: bool = False) -> Sequence[KeyEntry]:  # noqa: A002 - the API's own word
        """List the keys that this process tree may lease; all of them needs operator authority."""
        return self._invoke(calls.list_keys(every=all))

    def grant(
        self,
        *names: str,
        to: str,
        ttl: str | int | None = None,
        valid_for: str | int | None = None,
        uses: int | None = None,
        reason: str = "",
    ) -> Grant:
        """Let somebody lease keys. Needs operator authority.

        Args:
            names: key names, or patterns in which `*` stands for any run of characters.
            to: `tree:PID` (the strong one), `uid:N`, `exe:PATH`, `sha256:HEX` or `unit:NAME`.
            ttl: the longest lease it allows, such as "1h"; None: 24 hours.
            valid_for: how long the grant stands; None: until it is taken back.
            uses: how many leases it allows; None: any number.
            reason: what it is for.
        """
        return self._invoke(
            consent_calls.add_grant(
                names, to, ttl=ttl, valid_for=valid_for, uses=uses, reason=reason
            )
        )

    def grants(self, *, all: bool = False) -> Sequence[Grant]:  # noqa: A002 - the API's own word
        """List the grants that cover this process tree; all of them needs operator authority."""
        return self._invoke(consent_calls.list_grants(every=all))

    def ungrant(self, grant_id: str) -> int:
        """Take a grant back; returns how many leases ended with it. Needs operator authority."""
        return self._invoke(consent_calls.remove_grant(grant_id))

    def requests(self, *, all: bool = False) -> Sequence[Request]:  # noqa: A002 - the API's own word
        """List what waits for a person in this process tree; all needs operator authority."""
        return self._invoke(consent_calls.list_requests(every=all))

    def watch_requests(self, *, all: bool = False) -> "Watch[Sequence[Request]]":  # noqa: A002 - the API's own word
        """Follow the pending requests: all that wait now, and again whenever they change.

        All of them needs operator authority, and the watch ends with it.
        """
        return Watch(consent_calls.watch_requests(every=all), self._open(), self._failure_of)

    def approve(self, code: str, *, once: bool = False, root: int | None = None) -> int:
        """Allow a request. Needs operator authority.

        Args:
            code: the request's.
            once: allow the calls that wait and nothing after them; else the process tree may lease
                these keys until its root ends or the vault is locked.
            root: the pid of another process of the request's chain to be the root.

        Returns:
            The root of the tree that may lease the keys now.
        """
        return self._invoke(consent_calls.approve(code, once=once, root=root))

    def deny(self, code: str) -> None:
        """Refuse a request, now and for as long as its tree lives. Needs operator authority."""
        self._invoke(consent_calls.deny(code))

    def policy(self) -> Policies:
        """Ask for the policy, as sealed and as in force. Needs operator authority."""
        return self._invoke(consent_calls.get_policy())

    def set_policy(self, policy: Policy) -> None:
        """Replace the sealed policy. Needs operator authority."""
        self._invoke(consent_calls.set_policy(policy))

    def panic(self) -> Panicked:
        """End every lease and request, and lock the vault."""
        return self._invoke(consent_calls.panic())

    def revealed(self) -> Sequence[Revealed]:
        """List what was revealed, to whom and when, oldest first. Needs operator authority."""
        return self._invoke(consent_calls.list_handouts())

    def leases(self, *, all: bool = False) -> Sequence[LeaseInfo]:  # noqa: A002 - the API's own word
        """List the live leases of this process tree; all of them needs operator authority."""
        return self._invoke(calls.list_leases(every=all))

    def watch_leases(self, *, all: bool = False) -> "Watch[LeaseEvent]":  # noqa: A002 - the API's own word
        """Follow the leases of this process tree, beginning with those that are live.

        All of them needs operator authority, and the watch ends with it.
        """
        return Watch(consent_calls.watch_leases(every=all), self._open(), self._failure_of)

    def revoke(
        self,
        lease_id: str | None = None,
        *,
        key: str | None = None,
        tree: int | None = None,
        all: bool = False,  # noqa: A002 - the API's own word
    ) -> int:
        """End leases: one by its id, those of a key, those of a process tree, or all.

        Returns:
            How many ended, counted for those who may know: leases of the own tree, or every one
            with operator authority.
        """
        return self._invoke(calls.revoke_leases(lease_id=lease_id, key=key, tree=tree, every=all))

    def get(
        self,
        *names: str,
        ttl: str | int | None = None,
        reason: str = "",
        wait: str | int = calls.DEFAULT_WAIT,
        on_wait: OnWait | None = None,
    ) -> Values:
        """Get values once. The lease that they come with is left to run out.

        Args:
            names: key names.
            ttl: how long the lease is to live, such as "5m"; None: 15 minutes.
            reason: what it is for; shown as a claim, never used to decide.
            wait: how long to wait for a person where no grant covers the keys, at most an hour;
                "0" or 0: not at all.
            on_wait: called with the request's code, as `approve` takes it, when waiting begins.
        """
        return Values(
            self._invoke(calls.get_keys(names, ttl=ttl, reason=reason, wait=wait), on_wait)
        )

    def lease(
        self,
        *names: str,
        ttl: str | int = calls.DEFAULT_TTL,
        reason: str = "",
        wait: str | int = calls.DEFAULT_WAIT,
        on_wait: OnWait | None = None,
    ) -> "Lease":
        """Make a lease to be opened with `with`; see Lease.

        Args:
            names: key names.
            ttl: how long it is to live between renewals, such as "15m" or seconds.
            reason: what it is for; shown as a claim, never used to decide.
            wait: how long to wait for a person where no grant covers the keys, at most an hour;
                "0" or 0: not at all.
            on_wait: called with the request's code, as `approve` takes it, when waiting begins.
        """
        call = calls.get_keys(names, ttl=ttl, reason=reason, wait=wait)
        return Lease(call, on_wait, self._invoke, self._leases)

    def _open(self) -> "grpc.Channel":
        with self._opening:
            if self._closed:
                raise calls.closed()
            if self._channel is None:
                self._target = check(self._path)
                self._channel = open_channel(self._target)
                self._pid = os.getpid()
            if self._pid != os.getpid():
                # The daemon would take the child for the parent, and grpc does not survive a fork.
                raise Failure(
                    "this Backpack was opened before a fork",
                    reason="forked",
                    hint="open one in this process",
                )
            return self._channel

    def _invoke(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        channel = self._open()
        serialize = type(call.request).SerializeToString
        timeout = self._timeout + call.wait
        try:
            if call.streams:
                stream = channel.unary_stream(call.method, serialize, call.parse)
                return call.read(list(stream(call.request, timeout=timeout)))
            if on_wait is not None:
                # As a stream of one: only then does grpc give what comes ahead of the answer at
                # once. On the wire both are the same.
                stream = channel.unary_stream(call.method, serialize, call.parse)
                return call.read(_waiting(stream(call.request, timeout=timeout), on_wait))
            unary = channel.unary_unary(call.method, serialize, call.parse)
            return call.read(unary(call.request, timeout=timeout))
        except RpcError as error:
            raise self._failure_of(error, call) from None
        except ValueError:
            # What grpc raises when another thread closes the channel at the wrong moment.
            if self._closed:
                raise calls.closed() from None
            raise

    def _failure_of(self, error: calls.RpcError, call: Call[Any]) -> Failure:
        return calls.failure_of(error, call, socket_path=self._path, timeout=self._timeout)


def _waiting(stream: Any, on_wait: OnWait) -> Any:
    """Wait for the one answer, and tell the code of the request when it has to wait for one."""
    try:
        if code := calls.request_code(stream.initial_metadata()):
            on_wait(code)
        (response,) = stream
    except BaseException:
        # Left alone, it would go on to a lease that nobody takes.
        stream.cancel()
        raise
    return response


class Watch(Generic[Answer]):
    """What the daemon tells as it happens: to be iterated over by one thread.

    It ends when it is closed, which any thread may do, and with a Failure when the daemon ends it:
    the vault was locked, or operator authority has run out.
    """

    def __init__(
        self,
        call: Call[Answer],
        channel: "grpc.Channel",
        failure_of: Callable[[calls.RpcError, Call[Any]], Failure],
    ) -> None:
        self._call = call
        self._failure_of = failure_of
        serialize = type(call.request).SerializeToString
        self._closed = False
        self._stream = channel.unary_stream(call.method, serialize, call.parse)(call.request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        try:
            return self._call.read(next(self._stream))
        except RpcError as error:
            if self._closed:
                raise StopIteration from None
            raise self._failure_of(error, self._call) from None

    def close(self) -> None:
        """End the watch. Closing twice is harmless."""
        self._closed = True
        self._stream.cancel()


class Lease(HeldKeys):
    """Keys for the length of a `with` block: renewed while it is open, given back at its end.

    A read-only mapping of names to values. When renewing fails for good (the lease was revoked, the
    vault was locked), the next access raises that failure; after the block every access raises.
    """

    def __init__(
        self,
        call: Call[calls.Handout],
        on_wait: OnWait | None,
        invoke: _Invoke,
        opened: "set[Lease]",
    ) -> None:
        super().__init__(call.names)
        self._call = call
        self._on_wait = on_wait
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
                "a lease is opened once", reason="lease-over", hint="make a new one: lease(...)"
            )
        asked_at = boot_clock()
        self.begin(self._invoke(self._call, self._on_wait), asked_at)
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
        # A failure to give back must not hide what went wrong in the block.
        with contextlib.suppress(Failure) if error is not None else contextlib.nullcontext():
            self.close()

    def close(self) -> None:
        """Give the lease back and drop the values. Closing twice is harmless.

        Raises:
            Failure: the daemon did not take it back; it lives on there until its time is over.
        """
        if self._thread is None or self._closing.is_set():
            return
        lease_id = self.lease.id
        self._closing.set()
        self.end()
        self._opened.discard(self)
        try:
            self._invoke(calls.give_back(lease_id))
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
            self.extend(self._invoke(calls.renew_lease(self.lease.id)), asked_at)
        except Failure as failure:
            self.note(failure)
