"""Requests that wait for a person, to be awaited."""

from collections.abc import Sequence

from backpack_client.aio.connection import Connection
from backpack_client.aio.watch import AsyncWatch
from backpack_client.calls import requests as calls
from backpack_client.model import Request


class RequestMethods(Connection):
    """Requests that wait for a person."""

    async def requests(self, *, all: bool = False) -> Sequence[Request]:  # noqa: A002 - the API's own word
        """List what waits for a person in this process tree; all needs operator authority."""
        return await self.call(calls.list_requests(every=all))

    def watch_requests(self, *, all: bool = False) -> AsyncWatch[Sequence[Request]]:  # noqa: A002 - the API's own word
        """Follow the pending requests: all that wait now, and again whenever they change.

        All of them needs operator authority, and the watch ends with it.
        """
        return self.follow(calls.watch_requests(every=all))

    async def approve(
        self, code: str, *, once: bool = False, root: int | None = None, revision: int = 0
    ) -> int:
        """Allow a request. Needs operator authority.

        Args:
            code: the request's.
            once: allow only the calls that wait now. Otherwise the process tree may lease these
                keys until its root ends or the vault is locked.
            root: the pid of another process of the request's chain, to be the root instead.
            revision: of the request that was shown. If its processes have run something else
                since then, nothing is approved. 0: the request as it was last listed to anybody.

        Returns:
            The root of the tree that may now lease the keys.
        """
        return await self.call(calls.approve(code, once=once, root=root, revision=revision))

    async def deny(self, code: str) -> None:
        """Refuse a request, now and as long as its tree lives. Needs operator authority."""
        await self.call(calls.deny(code))
