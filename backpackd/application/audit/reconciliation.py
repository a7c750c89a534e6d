"""Compares the authority record and the audit log before a vault is unlocked.

The record remembers a place that the log reached, and the newest checkpoint names the record. A
change stores the record, its entries and the checkpoint that names it in one transaction. So no
crash can separate them: the record is the named one, or somebody has changed the file.

* The record is behind the log: the vault is an older copy. It is not used at all, unless the
  operator says that the older copy was meant.
* The log is behind the record: the log was cut. The vault opens, and the log records this.
"""

import logging
from dataclasses import dataclass, replace

from backpackd.application.audit.writer import AuditWriter, keys_changed
from backpackd.core.audit import chain
from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.audit.chain import Head
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.audit.record_state import RecordState
from backpackd.core.audit.verify import genuine_checkpoint
from backpackd.core.errors import DamageError
from backpackd.core.rows import StoredVault
from backpackd.core.sealing.sealing import OpenError, Secret
from backpackd.core.vault.authority import Authority
from backpackd.ports import Store

_LOG = logging.getLogger("backpackd.audit")
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Found:
    """The result of comparing record and log.

    Attributes:
        broken_at: the head that the vault knew, if the log does not continue from it as it did;
            otherwise empty.
        older: the generation of a record that is behind the log, and that the operator accepted; 0:
            it is not behind.
    """

    broken_at: str = ""
    older: int = 0

    def why(self, otherwise: str) -> str:
        """Return the reason for the next checkpoint."""
        if self.broken_at:
            return chain.BREAK
        return chain.ACCEPTED if self.older else otherwise


class Reconciliation:
    """Compares one vault's record and log.

    Args:
        store: where both are.
        writer: knows the end of the log, and what this daemon wrote itself.
    """

    def __init__(self, store: Store, writer: AuditWriter) -> None:
        self._store = store
        self._writer = writer

    async def hold(
        self, master: Secret, stored: StoredVault, authority: Authority, *, accept_older: bool
    ) -> tuple[Authority, Found]:
        """See `Journal.hold`. Also returns what was found."""
        anchor = authority.audit
        state = RecordState.of(stored.vault_id, authority.generation, stored.authority)
        broken_at, newest = "", state
        if anchor is None:
            # The log, its keys and the first record that knows them were stored in one transaction.
            behind = stored.audit is not None or self._writer.head.number > 0
        else:
            named = await self._named(self.own_keys(master, stored.vault_id, anchor))
            # What this daemon wrote itself is known without the file.
            ahead = [
                known
                for known in (named, self._writer.record)
                if known is not None and state.is_behind(known)
            ]
            behind = bool(ahead)
            newest = max([state, *ahead], key=lambda known: known.generation)
            # The transaction that wrote this record wrote a checkpoint that names it.
            cut = anchor.named if named is None else named.generation < state.generation
            if cut or not await self._reaches(anchor.head):
                broken_at = anchor.head.text
                _LOG.error("the audit log was cut or altered: the vault knows entry %s", broken_at)
        if not behind:
            return authority, Found(broken_at)
        if not accept_older:
            raise _stepped_back()
        # Go beyond both: neither the newer record nor one between the two may fit the log later.
        reached = replace(authority, generation=newest.generation)
        return reached, Found(broken_at, older=authority.generation)

    def own_keys(self, master: Secret, vault_id: bytes, anchor: AuditAnchor) -> AuditKeys:
        """Open the private audit keys, and check that they belong to the public ones in the file.

        Raises:
            DamageError: they do not belong to them, or do not open.
        """
        try:
            private = AuditKeys.open(master, vault_id, anchor.keys)
        except OpenError as error:
            raise keys_changed() from error
        if private.public != self._writer.public:
            # Planted: the attacker can read what the locked daemon has written since then.
            raise keys_changed()
        return private

    async def _named(self, private: AuditKeys) -> RecordState | None:
        """Return the authority record that the newest checkpoint names.

        Only signatures count. Anybody who can write the file can append rows without a valid
        signature, and could otherwise lock the operator out.
        """
        verify, before = private.public.verify, None
        while (row := await self._store.audit_last(chain.CHECKPOINT, before)) is not None:
            found = genuine_checkpoint(row, verify, self._writer.vault_id)
            if found is not None and found.record is not None:
                return found.record
            before = row.number
        return None

    async def _reaches(self, known: Head) -> bool:
        """Return whether the log contains a place that the vault knows, and continues unbroken."""
        if known.number == 0:
            return True
        at, until = Head(), self._writer.head.number
        while at.number < until:
            page = await self._store.audit_rows(at.number or known.number - 1, _PAGE)
            if not page:
                return False
            for row in page:
                follows = (row.number, row.previous) == (at.number + 1, at.digest)
                found = chain.head_of(self._writer.vault_id, row)
                if not (follows if at.number else found == known):
                    return False
                at = found
        return at.number >= known.number


def _stepped_back() -> DamageError:
    return DamageError(
        "the vault is older than its audit log: somebody put back an older copy of it, or of "
        "parts of it, so deleted keys, removed grants and old passphrases may be valid again; "
        "put the newest copy back, or unlock it and say that the older one is meant",
        reason="vault-stepped-back",
    )
