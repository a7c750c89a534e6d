"""The audit log, as blocking calls."""

from collections.abc import Sequence
from datetime import datetime

from backpack_client.api.connection import Connection
from backpack_client.api.watch import Watch
from backpack_client.calls import audit as calls


class AuditMethods(Connection):
    """The audit log: what happened, whether the log is whole, and where it ends."""

    def audit(
        self,
        *,
        key: str = "",
        pid: int | None = None,
        events: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        newest: int = 0,
    ) -> Watch[Sequence[calls.AuditEntry]]:
        """Read entries, oldest first, some in each response. Needs operator authority.

        Args:
            key: only entries that name this key.
            pid: only entries of this process, or of the tree that it is the root of.
            events: only these events, by the words of docs/audit.md.
            since: not before.
            until: not after.
            newest: only this number of entries, the newest ones; 0: all.
        """
        return self.follow(
            calls.show(key=key, pid=pid, events=events, since=since, until=until, newest=newest)
        )

    def verify_audit(self, expected_head: str = "") -> Watch[calls.Verifying]:
        """Verify the whole log; the last response has the verdict. This works while locked.

        Args:
            expected_head: a head that was kept elsewhere and must be in the log; empty: none.
        """
        return self.follow(calls.verify(expected_head))

    def audit_head(self) -> str:
        """Return the end of the log, to be kept elsewhere; empty while there is no log."""
        return self.call(calls.head())
