"""Standing permissions, as blocking calls."""

from collections.abc import Sequence

from backpack_client.api.connection import Connection
from backpack_client.calls import grants as calls
from backpack_client.model import Grant


class GrantMethods(Connection):
    """Standing permissions."""

    def grant(
        self,
        *names: str,
        to: str,
        ttl: str | int | None = None,
        valid_for: str | int | None = None,
        uses: int | None = None,
        reason: str = "",
    ) -> Grant:
        """Add a grant, so that its subject may lease keys. Needs operator authority.

        Args:
            names: key names, or patterns in which `*` stands for any run of characters.
            to: `tree:PID` (the strong one), `uid:N`, `exe:PATH`, `sha256:HEX` or `unit:NAME`.
            ttl: the longest lease it allows, such as "1h"; None: 24 hours.
            valid_for: how long the grant is valid; None: until it is taken back.
            uses: how many leases it allows; None: any number.
            reason: what it is for.
        """
        return self.call(
            calls.add_grant(names, to, ttl=ttl, valid_for=valid_for, uses=uses, reason=reason)
        )

    def grants(self, *, all: bool = False) -> Sequence[Grant]:  # noqa: A002 - the API's own word
        """List the grants that cover this process tree; all of them needs operator authority."""
        return self.call(calls.list_grants(every=all))

    def ungrant(self, grant_id: str) -> int:
        """Take a grant back; returns how many leases ended with it. Needs operator authority."""
        return self.call(calls.remove_grant(grant_id))
