"""Keys handed out: get, lease, and the life of leases, to be awaited."""

import asyncio
from collections.abc import Sequence

from backpack_client.aio.connection import Connection
from backpack_client.aio.lease import AsyncLease
from backpack_client.aio.watch import AsyncWatch
from backpack_client.calls import leases as calls
from backpack_client.calls.call import OnWait
from backpack_client.files import lockfiles
from backpack_client.handles.lease_values import Values
from backpack_client.model import LeaseEvent, LeaseInfo, Revealed


class LeaseMethods(Connection):
    """Keys handed out: get, lease, and the life of leases."""

    async def get(
        self,
        *names: str,
        ttl: str | int | None = None,
        reason: str = "",
        wait: str | int = calls.DEFAULT_WAIT,
        on_wait: OnWait | None = None,
        lock: str | None = None,
    ) -> Values:
        """Get values once. Their lease simply expires.

        Args:
            names: key names, given one by one: "A", "B".
            ttl: how long the lease lives, such as "5m"; None: 15 minutes.
            reason: what it is for; shown as a claim, never used to decide.
            wait: how long to wait for a person if no grant covers the keys, at most an hour;
                "0" or 0: not at all.
            on_wait: called with the request's code, as `approve` takes it, when waiting begins.
            lock: an agent's lock, whose embedded values are used; None: the lock that `run`
                has started this agent with, if any.
        """
        call = calls.get_keys(names, ttl=ttl, reason=reason, wait=wait)
        data = await asyncio.to_thread(lockfiles.to_send, lock)
        return Values(await self.call(calls.with_lock(call, data), on_wait))

    def lease(
        self,
        *names: str,
        ttl: str | int = calls.DEFAULT_TTL,
        reason: str = "",
        wait: str | int = calls.DEFAULT_WAIT,
        on_wait: OnWait | None = None,
        lock: str | None = None,
    ) -> AsyncLease:
        """Make a lease to be opened with `async with`; see AsyncLease.

        Args:
            names: key names, given one by one: "A", "B".
            ttl: how long it lives between renewals, such as "15m" or seconds.
            reason: what it is for; shown as a claim, never used to decide.
            wait: how long to wait for a person if no grant covers the keys, at most an hour;
                "0" or 0: not at all.
            on_wait: called with the request's code, as `approve` takes it, when waiting begins.
            lock: an agent's lock, whose embedded values are used; None: the lock that `run`
                has started this agent with, if any.
        """
        call = calls.get_keys(names, ttl=ttl, reason=reason, wait=wait)
        return AsyncLease(call, on_wait, lock, self.call, self._leases)

    async def leases(self, *, all: bool = False) -> Sequence[LeaseInfo]:  # noqa: A002 - the API's own word
        """List the live leases of this process tree; all of them needs operator authority."""
        return await self.call(calls.list_leases(every=all))

    def watch_leases(self, *, all: bool = False) -> AsyncWatch[LeaseEvent]:  # noqa: A002 - the API's own word
        """Follow the leases of this process tree, beginning with the live ones.

        All of them needs operator authority, and the watch ends with it.
        """
        return self.follow(calls.watch_leases(every=all))

    async def revoke(
        self,
        lease_id: str | None = None,
        *,
        key: str | None = None,
        tree: int | None = None,
        all: bool = False,  # noqa: A002 - the API's own word
    ) -> int:
        """End leases: one by its id, those of a key, those of a process tree, or all.

        Returns:
            How many leases of this process tree ended; with operator authority, how many in all.
        """
        return await self.call(
            calls.revoke_leases(lease_id=lease_id, key=key, tree=tree, every=all)
        )

    async def revealed(self) -> Sequence[Revealed]:
        """List handouts: keys, holder and time, oldest first. Needs operator authority."""
        return await self.call(calls.list_handouts())
