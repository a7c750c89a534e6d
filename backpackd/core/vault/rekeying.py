"""Moves a vault to a new master key, member by member of the authority record.

If you add a member to the authority record, add it here as well: to `CARRIED` with the way to seal
it again, or to `AS_IT_IS` if nothing in it is sealed. With a member in neither, no rotation starts,
because the member would be lost with the old key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.errors import DamageError
from backpackd.core.rows import KeyRow
from backpackd.core.sealing import identity as identities
from backpackd.core.sealing.sealing import SALT_SIZE, OpenError, Secret
from backpackd.core.vault import authority as authorities
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import open_head, open_value, seal_row

Draw = Callable[[int], bytes]
"""Returns this number of fresh random bytes."""


@dataclass(frozen=True, slots=True)
class Move:
    """From which master key to which, in which vault.

    Attributes:
        old: the master key in force, 32 bytes or a view of them.
        new: the master key that is to be.
        vault_id: the vault's 16 bytes.
        draw: random bytes for salts.
    """

    old: Secret
    new: Secret
    vault_id: bytes
    draw: Draw


def _signing_key(move: Move, sealed: bytes) -> bytes:
    key = authorities.open_signing_key(move.old, move.vault_id, sealed)
    return authorities.seal_signing_key(move.new, move.vault_id, key, move.draw(SALT_SIZE))


def _audit(move: Move, anchor: AuditAnchor | None) -> AuditAnchor | None:
    if anchor is None:
        return None
    keys = AuditKeys.open(move.old, move.vault_id, anchor.keys)
    return replace(anchor, keys=keys.seal(move.new, move.vault_id, move.draw(SALT_SIZE)))


def _identity(move: Move, sealed: bytes) -> bytes:
    if not sealed:
        return sealed
    own = identities.open_identity(move.old, move.vault_id, sealed)
    return identities.seal_identity(move.new, move.vault_id, own, move.draw(SALT_SIZE))


def _legacy_key(move: Move, sealed: bytes) -> bytes:
    if not sealed:
        return sealed
    key = authorities.open_legacy_key(move.old, move.vault_id, sealed)
    return authorities.seal_legacy_key(move.new, move.vault_id, key, move.draw(SALT_SIZE))


CARRIED: Final[Mapping[str, Callable[[Move, Any], Any]]] = {
    "signing_key": _signing_key,
    "audit": _audit,
    "identity": _identity,
    "legacy_key": _legacy_key,
}
"""Members that hold something sealed under the master key, and the way to seal it again."""

AS_IT_IS: Final = frozenset(
    {"latest_ms", "grants", "policy", "slot_dates", "authors", "locks", "revoked"}
)
"""Members in which nothing is sealed on its own."""

MADE_ANEW: Final = frozenset({"generation", "master_generation", "rows", "slots"})
"""Members that follow from the rows and slots under the new key, see `carry`."""


def check_complete() -> None:
    """Raise unless every member is listed here.

    Raises:
        DamageError: a member was forgotten here.
    """
    said = [*CARRIED, *AS_IT_IS, *MADE_ANEW]
    if sorted(said) != sorted(member.name for member in fields(Authority)):
        raise DamageError("this version cannot rotate: it would lose a part of the vault")


def carry(record: Authority, move: Move, **anew: Any) -> Authority:
    """Return a record with what is sealed in it under the new master key.

    Args:
        record: under the old one.
        move: from which to which.
        anew: the members of `MADE_ANEW`, and what else changes.

    Raises:
        DamageError: something in it does not open.
    """
    check_complete()
    try:
        carried = {name: make(move, getattr(record, name)) for name, make in CARRIED.items()}
    except OpenError as error:
        raise DamageError(
            "a part of the authority record does not open", reason="authority-damaged"
        ) from error
    return replace(record, **carried, **anew)


def carry_row(row: KeyRow, move: Move) -> KeyRow:
    """Return a key's row under the new master key, found under a new index.

    Raises:
        OpenError: it is not what was sealed.
    """
    head = open_head(move.old, vault_id=move.vault_id, row=row.row_head, sealed=row.head)
    return seal_row(
        move.new,
        vault_id=move.vault_id,
        head=head,
        value=open_value(move.old, vault_id=move.vault_id, row=row),
        version=row.version,
        salts=(move.draw(SALT_SIZE), move.draw(SALT_SIZE)),
    )
