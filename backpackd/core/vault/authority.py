"""The authority record: what may be done in a vault, in one sealed piece.

Invariants:

1. It changes only in the same transaction as what it vouches for (key rows, slots).
2. Its generation counts up by one with every change, so two states never share one.
3. The set of key rows, and every slot byte for byte, are the ones that it names. Otherwise the
vault
   is damaged, and no part of it is used.

The private keys of the vault (the one that signs wraps, and the identity's) lie inside sealed a
second time, so that they are in no memory while this record is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from backpackd.core.access.grants import Grant
from backpackd.core.access.policy import Policy
from backpackd.core.access.revocations import Revocations
from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.errors import DamageError
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError, context
from backpackd.core.sealing.sealing import OpenError, Secret, open_sealed, pad, seal, unpad
from backpackd.core.slots.slots import Slot
from backpackd.core.vault.records import RowSet
from backpackd.core.vault.trust import KnownLock, TrustedAuthor, decode_locks

_KIND = "authority"
_SIGNING_KIND = "wrap-signing-key"
_LEGACY_KIND = "legacy-key"
# What records of before lack, and what a vault then has of it: nothing. No other member may miss.
_LATER: Mapping[str, Any] = {
    "audit": {},
    "authors": [],
    "identity": "",
    "legacy_key": "",
    "locks": {},
    "revoked": {},
    "slot_dates": {},
}


@dataclass(frozen=True, slots=True)
class SlotDates:
    """When things were done with a slot.

    Attributes:
        created_ms: Unix time in milliseconds.
        drilled_ms: when it was last proven to open the vault; 0: never.
    """

    created_ms: int
    drilled_ms: int = 0


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority record, opened.

    Attributes:
        generation: counts up with every change, from 1.
        master_generation: of the master key, as wrapped in the slots.
        rows: hash over the set of key rows.
        slots: digest of every slot, by slot id in hexadecimal.
        signing_key: the private wrap-signing key, sealed.
        latest_ms: the latest wall-clock time seen, Unix time in milliseconds: a clock that is set
            back does not bring an expired grant to life.
        grants: by id.
        policy: what holds for every request.
        slot_dates: when things were done with the slots, by slot id in hexadecimal.
        audit: the private audit keys and how far the audit log is known to reach; None in a vault
            of an older version that has not been unlocked since.
        identity: the vault's identity, sealed by `core.sealing.identity`; empty until it is needed.
        authors: of agent locks whom the operator has accepted.
        locks: the agent locks that were opened, by lock id in hexadecimal.
        legacy_key: the master key of an older tool, sealed; empty where none was kept.
        revoked: from which process trees keys were revoked.
    """

    generation: int
    master_generation: int
    rows: RowSet
    slots: Mapping[str, str]
    signing_key: bytes
    latest_ms: int
    grants: Mapping[str, Grant] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    slot_dates: Mapping[str, SlotDates] = field(default_factory=dict)
    audit: AuditAnchor | None = None
    identity: bytes = b""
    authors: tuple[TrustedAuthor, ...] = ()
    locks: Mapping[str, KnownLock] = field(default_factory=dict)
    legacy_key: bytes = b""
    revoked: Revocations = field(default_factory=Revocations)

    def next(self, now_ms: int, **changes: Any) -> "Authority":
        """Return the record's next generation with some attributes changed."""
        return replace(
            self,
            generation=self.generation + 1,
            latest_ms=max(now_ms, self.latest_ms),
            **changes,
        )

    def with_grants(self, grants: Iterable[Grant]) -> dict[str, Grant]:
        """Return the grants with these added, or put in place of those with their ids."""
        return {**self.grants, **{grant.id: grant for grant in grants}}

    def check_slots(self, slots: Iterable[Slot]) -> None:
        """Compare the stored slots with the record.

        Raises:
            DamageError: one was altered, swapped, put back, added or removed.
        """
        # As lists: in a crafted file two slots may have one id, and a dict would hide the first.
        stored = [(slot.slot_id.hex(), slot.digest) for slot in slots]
        if sorted(stored) != sorted(self.slots.items()):
            raise DamageError(
                "the slots in the vault file are not the ones that the vault knows: one was "
                "changed, swapped, added or removed; restore the file from a backup",
                reason="slots-changed",
            )

    def check_rows(self, found: RowSet) -> None:
        """Compare the set of stored key rows with the record.

        Raises:
            DamageError: a row was deleted, added, or put in place of another.
        """
        if found == self.rows:
            return
        if found.count < self.rows.count:
            what = f"{self.rows.count - found.count} of {self.rows.count} key rows are missing"
        elif found.count > self.rows.count:
            what = f"there are {found.count - self.rows.count} key rows too many"
        else:
            what = "a key row was replaced by another, such as an older one"
        raise DamageError(
            f"the key rows in the vault file are not the ones that the vault wrote: {what}; "
            "restore the file from a backup",
            reason="rows-changed",
        )

    def seal(self, master: Secret, vault_id: bytes, salt: bytes) -> bytes:
        """Seal the record with 32 fresh random bytes as salt."""
        data = {
            "audit": self.audit.encode() if self.audit is not None else {},
            "authors": [author.encode() for author in self.authors],
            "generation": self.generation,
            "grants": [self.grants[key].encode() for key in sorted(self.grants)],
            "identity": canonical.to_text(self.identity),
            "latest": self.latest_ms,
            "legacy_key": canonical.to_text(self.legacy_key),
            "locks": {lock_id: lock.encode() for lock_id, lock in self.locks.items()},
            "master_generation": self.master_generation,
            "policy": self.policy.encode(),
            "revoked": self.revoked.encode(),
            "row_count": self.rows.count,
            "rows": self.rows.encode(),
            "signing_key": canonical.to_text(self.signing_key),
            "slot_dates": {
                key: [dates.created_ms, dates.drilled_ms] for key, dates in self.slot_dates.items()
            },
            "slots": dict(self.slots),
        }
        return seal(
            master, pad(canonical.encode(data)), kind=_KIND, bound_to=context(vault_id), salt=salt
        )

    @classmethod
    def open(cls, master: Secret, vault_id: bytes, sealed: bytes) -> "Authority":
        """Open what `seal` made.

        Raises:
            DamageError: it is not the authority record of this vault.
        """
        try:
            data = unpad(open_sealed(master, sealed, kind=_KIND, bound_to=context(vault_id)))
            found = canonical.members(
                _with_later_members(canonical.decode(data)),
                audit=dict,
                authors=list,
                generation=int,
                grants=list,
                identity=str,
                latest=int,
                legacy_key=str,
                locks=dict,
                master_generation=int,
                policy=dict,
                revoked=dict,
                row_count=int,
                rows=str,
                signing_key=str,
                slot_dates=dict,
                slots=dict,
            )
            grants = [Grant.decode(grant) for grant in found["grants"]]
            return cls(
                found["generation"],
                found["master_generation"],
                RowSet(found["row_count"], int(found["rows"], 16)),
                found["slots"],
                canonical.from_text(found["signing_key"]),
                found["latest"],
                {grant.id: grant for grant in grants},
                Policy.decode(found["policy"]),
                {key: SlotDates(*dates) for key, dates in found["slot_dates"].items()},
                AuditAnchor.decode(found["audit"]) if found["audit"] else None,
                canonical.from_text(found["identity"]),
                tuple(TrustedAuthor.decode(author) for author in found["authors"]),
                decode_locks(found["locks"]),
                canonical.from_text(found["legacy_key"]),
                Revocations.decode(found["revoked"]),
            )
        except (OpenError, CanonicalError, ValueError, TypeError) as error:
            raise DamageError(
                "the authority record in the vault file does not open: it was altered, or belongs "
                "to another vault; restore the file from a backup",
                reason="authority-damaged",
            ) from error


def seal_signing_key(master: Secret, vault_id: bytes, key: bytes, salt: bytes) -> bytes:
    """Seal the private wrap-signing key, 32 bytes, for keeping in the record."""
    return seal(master, key, kind=_SIGNING_KIND, bound_to=context(vault_id), salt=salt)


def open_signing_key(master: Secret, vault_id: bytes, sealed: bytes) -> bytes:
    """Open the private wrap-signing key for one use.

    Raises:
        DamageError: it does not open.
    """
    return _open_inner(master, vault_id, sealed, _SIGNING_KIND, "wrap-signing key")


def seal_legacy_key(master: Secret, vault_id: bytes, key: bytes, salt: bytes) -> bytes:
    """Seal the master key of an older tool for keeping in the record, padded."""
    return seal(master, pad(key), kind=_LEGACY_KIND, bound_to=context(vault_id), salt=salt)


def open_legacy_key(master: Secret, vault_id: bytes, sealed: bytes) -> bytes:
    """Open the master key of an older tool for one use.

    Raises:
        DamageError: it does not open.
    """
    return unpad(_open_inner(master, vault_id, sealed, _LEGACY_KIND, "kept key"))


def _open_inner(master: Secret, vault_id: bytes, sealed: bytes, kind: str, what: str) -> bytes:
    try:
        return open_sealed(master, sealed, kind=kind, bound_to=context(vault_id))
    except OpenError as error:
        raise DamageError(f"the {what} does not open", reason="authority-damaged") from error


def _with_later_members(data: object) -> object:
    """Give a record that was written before some members were thought of what it means by that."""
    return {**_LATER, **data} if type(data) is dict else data
