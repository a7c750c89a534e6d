"""Ending leases for a person, so that it sticks, and everything at once.

Open to every process of the user, since it only makes things safer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backpackd.application.asking import Asking
from backpackd.application.auditing import Auditing
from backpackd.application.leasing import Leasing
from backpackd.application.running import Running
from backpackd.application.vault import Vault
from backpackd.core.facts import ProcessId
from backpackd.core.grants import Grant
from backpackd.core.leases import Lease


@dataclass(frozen=True, slots=True)
class Panicked:
    """What a panic ended.

    Attributes:
        leases: how many.
        requests: how many.
    """

    leases: int
    requests: int


class Revoking:
    """Ends leases for a person, so that it sticks."""

    def __init__(
        self,
        vault: Vault,
        leasing: Leasing,
        asking: Asking,
        *,
        running: Running,
        auditing: Auditing,
    ) -> None:
        self._auditing = auditing
        self._vault = vault
        self._leasing = leasing
        self._asking = asking
        self._running = running

    def give_back(self, holder: ProcessId, lease_id: str) -> list[Lease]:
        """End a lease of the caller's own tree; what it rests on stays."""
        lease = self._leasing.find(lease_id)
        if lease is None or lease.holder != holder:
            return []
        return self._leasing.end_id(lease_id, "given-back")

    def lease(self, lease_id: str) -> list[Lease]:
        """Revoke one lease."""
        ended = self._leasing.end_id(lease_id, "revoked")
        if ended:
            self._note("lease", lease=lease_id)
        return self._stick(ended)

    def key(self, name: str) -> list[Lease]:
        """Revoke every lease that holds a key, and the consents to it.

        Raises:
            InvalidRequestError: not the name of a key.
        """
        ended = self._leasing.end_key(name, "revoked")
        self._note("key", names=(name,))
        return self._stick(ended, lambda consent: consent.covers(name))

    def tree(self, pid: int) -> list[Lease]:
        """Revoke every lease of the process trees whose root has this pid, and their consents.

        Agents that were started in such a tree lie in it, too.
        """
        pids = {pid} | self._running.started_in(pid)
        ended = [lease for each in pids for lease in self._leasing.end_tree(each, "revoked")]
        self._running.tell(lambda process: process.pid in pids)
        self._note("tree", details={"tree-pid": str(pid)})
        roots = {str(each) for each in pids}
        return self._stick(ended, lambda consent: consent.selector.value in roots)

    def all(self) -> list[Lease]:
        """Revoke every lease and every consent."""
        ended = self._leasing.end_all("revoked")
        self._running.tell()
        self._note("all")
        return self._stick(ended, lambda _: True)

    def panic(self) -> Panicked:
        """End every lease and request, and drop the master key, before anything else happens.

        Nothing here waits, so no other call is served in between; after it the vault is locked
        and refuses whatever comes.
        """
        leases = self._leasing.drop_all("panic")
        # Before the lock, which tells no agent: and those that an earlier lock has cut off as well.
        self._running.tell()
        requests = len(self._asking.pending())
        self._auditing.note(self._auditing.event("panic"))
        self._vault.lock()
        return Panicked(leases, requests)

    def _note(self, what: str, **further: Any) -> None:
        self._auditing.refused(self._auditing.event("revoked", reason=what, **further))

    def _stick(
        self, ended: list[Lease], meant: Callable[[Grant], bool] = lambda _: False
    ) -> list[Lease]:
        """Withdraw what the leases rested on: their holders are asked about again.

        Consents that are meant end with or without a lease on them. Otherwise an agent that gives
        every lease back at once could not be revoked from.
        """
        further: list[Lease] = []
        for consent in self._asking.withdraw(self._running.with_origins(ended), meant):
            further += self._leasing.end_grant(consent.id, "revoked")
        return ended + further
