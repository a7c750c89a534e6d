"""Key records: one sealed row for every stored key, and the hash over the set of all rows.

A row has two sealed parts, so that names can be listed without opening values: the head (name and
dates) and the value. Both are bound to vault, row index and version. The index is an HMAC of the
name, since names are as telling as values.

A single row that opens may still be an old one put back, or one that was deleted. Two things find
that: a keyed hash over the *set* of rows, kept in the authority record and checked at unlock, and
the heads of all rows, kept in memory while unlocked and compared at every use.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from backpackd.core.errors import DamageError, InvalidRequestError
from backpackd.core.names import MAX_VALUE, check_name
from backpackd.core.rows import KeyRow, RowHead
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError, context
from backpackd.core.sealing.sealing import (
    TAG_SIZE,
    OpenError,
    Secret,
    derive,
    open_sealed,
    pad,
    seal,
    unpad,
)

INDEX_SIZE = 32
MAX_VERSION = 2**63 - 1
"""The largest number that a store can keep."""
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class KeyHead:
    """What a row says of its key without its value.

    Attributes:
        name: the key's name.
        created_at_ms: when the key was first stored, Unix time in milliseconds.
        updated_at_ms: when this value was stored.
    """

    name: str
    created_at_ms: int
    updated_at_ms: int


def row_index(master: Secret, vault_id: bytes, name: str) -> bytes:
    """Return the 32-byte index under which the key of this name is stored."""
    key = derive(master, salt=vault_id, purpose="row-index")
    return hmac.digest(key, name.encode("ascii"), "sha256")


def seal_row(
    master: Secret,
    *,
    vault_id: bytes,
    head: KeyHead,
    value: bytes,
    version: int,
    salts: tuple[bytes, bytes],
) -> KeyRow:
    """Seal one key as a row.

    Args:
        master: the master key, 32 bytes.
        vault_id: the vault's 16 bytes.
        head: the key's name, checked, and dates.
        value: 1 to 65,536 bytes.
        version: one more than that of the row it replaces, at least 1.
        salts: two times 32 fresh random bytes.
    """
    index = row_index(master, vault_id, head.name)
    place = _place(vault_id, index, version)
    described = canonical.encode(
        {"created": head.created_at_ms, "name": head.name, "updated": head.updated_at_ms}
    )
    return KeyRow(
        index,
        version,
        seal(master, pad(described), kind="key-head", bound_to=place, salt=salts[0]),
        seal(master, pad(value), kind="key-value", bound_to=place, salt=salts[1]),
    )


def open_head(master: Secret, *, vault_id: bytes, row: RowHead, sealed: bytes) -> KeyHead:
    """Open a row's head.

    Raises:
        OpenError: altered, of another row or version, or not of the form.
    """
    place = _place(vault_id, row.index, row.version)
    described = unpad(open_sealed(master, sealed, kind="key-head", bound_to=place))
    try:
        found = canonical.members(canonical.decode(described), created=int, name=str, updated=int)
        return KeyHead(check_name(found["name"]), found["created"], found["updated"])
    except (CanonicalError, InvalidRequestError) as error:
        raise OpenError("not the head of a key") from error


def open_value(master: Secret, *, vault_id: bytes, row: KeyRow) -> bytes:
    """Open a row's value.

    Raises:
        OpenError: altered, of another row or version, or not of the form.
    """
    place = _place(vault_id, row.index, row.version)
    value = unpad(open_sealed(master, row.value, kind="key-value", bound_to=place))
    if not 1 <= len(value) <= MAX_VALUE:
        raise OpenError("not the value of a key")
    return value


@dataclass(frozen=True, slots=True)
class RowSet:
    """A keyed hash over a set of rows that grows and shrinks row by row.

    The sum, modulo 2**256, of an HMAC per row (the additive multiset hash of Clarke et al.,
    ASIACRYPT 2003). It lies inside the sealed authority record, so an attacker knows neither the
    key nor a sum to aim for.

    Attributes:
        count: how many rows.
        total: the sum.
    """

    count: int = 0
    total: int = 0

    def change(
        self, master: Secret, vault_id: bytes, *, add: Iterable[RowHead], drop: Iterable[RowHead]
    ) -> "RowSet":
        """Return the hash of the set with some rows added and others dropped.

        Raises:
            DamageError: what is added or dropped cannot be a row that the vault wrote.
        """
        key = derive(master, salt=vault_id, purpose="row-set")
        count, total = self.count, self.total
        for row in add:
            count, total = count + 1, total + _term(key, row)
        for row in drop:
            count, total = count - 1, total - _term(key, row)
        return RowSet(count, total % _MODULUS)

    def encode(self) -> str:
        """Return the sum as 64 hexadecimal digits."""
        return f"{self.total:064x}"


def _place(vault_id: bytes, index: bytes, version: int) -> bytes:
    if not 1 <= version <= MAX_VERSION:
        raise OpenError("not the version of a row")
    return context(vault_id, index, version.to_bytes(8, "big"))


def _term(key: bytes, row: RowHead) -> int:
    # Sizes first. The parts are joined without their lengths, so a row with a longer index and
    # shorter tags could stand for another one: the key would be gone and the hash the same.
    if (
        len(row.index) != INDEX_SIZE
        or not 1 <= row.version <= MAX_VERSION
        or len(row.tags) != 2 * TAG_SIZE
    ):
        raise DamageError(
            "a key row in the vault file is none that the vault wrote; restore the file from a "
            "backup",
            reason="rows-changed",
        )
    item = row.index + row.version.to_bytes(8, "big") + row.tags
    return int.from_bytes(hmac.digest(key, item, "sha256"), "big")
