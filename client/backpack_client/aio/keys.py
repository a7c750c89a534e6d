"""What is stored: put, delete, list, to be awaited."""

from collections.abc import Mapping, Sequence

from backpack_client.aio.connection import Connection
from backpack_client.calls import keys as calls
from backpack_client.model import Deleted, KeyEntry, Stored


class KeyMethods(Connection):
    """What is stored: put, delete, list."""

    async def put(
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
            replace: give new values to keys that are already stored.
            dry_run: check everything, store nothing.
            skip_existing: leave keys that are already stored as they are.
        """
        return await self.call(
            calls.put_keys(keys, replace=replace, dry_run=dry_run, skip_existing=skip_existing)
        )

    async def delete(self, *names: str) -> Deleted:
        """Delete keys, all of them or none, and end their leases. Needs operator authority."""
        return await self.call(calls.delete_keys(names))

    async def list(self, *, all: bool = False) -> Sequence[KeyEntry]:  # noqa: A002 - the API's own word
        """List the keys that this process tree may lease; all of them needs operator authority."""
        return await self.call(calls.list_keys(every=all))
