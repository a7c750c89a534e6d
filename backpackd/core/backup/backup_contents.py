"""What a backup holds once it is opened: records, one after the other, in one order only.

First what it is of, then the policy, the grants, the keys, and a last word. Each is canonical JSON
with its length before it. A file can open and still be nonsense, made by somebody who knows the
passphrase: so everything is held to the same rules as a request.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from backpackd.core.access.grants import MAX_GRANTS, Grant
from backpackd.core.access.policy import Policy
from backpackd.core.errors import BackupError, InvalidRequestError
from backpackd.core.names import check_name, check_value
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError
from backpackd.core.vault.records import KeyHead

MOST_KEYS = 100_000
MAX_RECORD = 2 * 1024 * 1024
"""Bytes: more than the longest policy has."""
_LATEST = 2**53


@dataclass(frozen=True, slots=True)
class Summary:
    """How much there is in a backup."""

    keys: int
    grants: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key in a backup."""

    head: KeyHead
    value: bytes = field(repr=False)


Record = Summary | Policy | Grant | StoredKey


def encode(record: Record) -> bytes:
    """Write one record."""
    if isinstance(record, Summary):
        data: dict[str, object] = {"grants": record.grants, "keys": record.keys, "kind": "summary"}
    elif isinstance(record, Policy):
        data = {"kind": "policy", "policy": record.encode()}
    elif isinstance(record, Grant):
        data = {"grant": record.encode(), "kind": "grant"}
    else:
        data = {
            "created": record.head.created_at_ms,
            "kind": "key",
            "name": record.head.name,
            "updated": record.head.updated_at_ms,
            "value": canonical.to_text(record.value),
        }
    return _frame(data)


def encode_end() -> bytes:
    """Write the last word."""
    return _frame({"kind": "end"})


class Reader:
    """Takes the contents apart as they come.

    Attributes:
        ended: True once the last word was read.
    """

    def __init__(self) -> None:
        self.ended = False
        self._data = bytearray()
        self._summary: Summary | None = None
        self._policy = False
        self._grants = 0
        self._names: set[str] = set()

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete with these bytes.

        Raises:
            BackupError: something is not of the form, out of order, too long or twice there.
        """
        self._data += data
        while len(self._data) >= 4:  # noqa: PLR2004 - the length's own bytes
            size = int.from_bytes(self._data[:4], "big")
            if size > MAX_RECORD:
                raise _damaged()
            if len(self._data) < 4 + size:
                return
            text = bytes(self._data[4 : 4 + size])
            del self._data[: 4 + size]
            record = self._record(text)
            if record is not None:
                yield record

    def finish(self) -> None:
        """Return if the contents are whole.

        Raises:
            BackupError: they are not.
        """
        if not self.ended or self._data:
            raise _damaged()

    def _record(self, text: bytes) -> Record | None:
        record = None
        try:
            record = self._decode(canonical.decode(text))
        except (ValueError, TypeError, InvalidRequestError):
            pass
        else:
            return record
        # Raised out here, since the error that was caught may hold what the record holds.
        raise _damaged()

    def _decode(self, data: object) -> Record | None:
        kind = data.get("kind") if isinstance(data, dict) else None
        if self.ended:
            raise CanonicalError("something after the end")
        if self._summary is None:
            self._summary = _summary(data)
            return self._summary
        if not self._policy:
            self._policy = True
            return Policy.decode(canonical.members(data, kind=str, policy=dict)["policy"])
        if kind == "grant" and not self._names:
            self._grants += 1
            return Grant.decode(canonical.members(data, grant=dict, kind=str)["grant"])
        if kind == "key":
            return self._key(data)
        if canonical.members(data, kind=str)["kind"] != "end":
            raise CanonicalError("an unknown record")
        if Summary(len(self._names), self._grants) != self._summary:
            raise CanonicalError("more or less than it says")
        self.ended = True
        return None

    def _key(self, data: object) -> StoredKey:
        found = canonical.members(data, created=int, kind=str, name=str, updated=int, value=str)
        name = check_name(found["name"])
        if name in self._names or len(self._names) >= MOST_KEYS:
            raise CanonicalError("a key twice, or too many")
        if not 0 <= found["created"] < _LATEST or not 0 <= found["updated"] < _LATEST:
            raise CanonicalError("a date out of bounds")
        self._names.add(name)
        head = KeyHead(name, found["created"], found["updated"])
        return StoredKey(head, check_value(canonical.from_text(found["value"])))


def _summary(data: object) -> Summary:
    found = canonical.members(data, grants=int, keys=int, kind=str)
    if found["kind"] != "summary" or not (
        0 <= found["keys"] <= MOST_KEYS and 0 <= found["grants"] <= MAX_GRANTS
    ):
        raise CanonicalError("not a summary")
    return Summary(found["keys"], found["grants"])


def _frame(record: object) -> bytes:
    text = canonical.encode(record)
    return len(text).to_bytes(4, "big") + text


def _damaged() -> BackupError:
    return BackupError(
        "what is in this backup is not of the form: whoever wrote it was not Backpack, or it was "
        "altered by somebody who can open it"
    )
