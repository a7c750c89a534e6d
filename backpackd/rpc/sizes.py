"""How long a request may be and how many fields it may hold, counted on its raw bytes.

Protobuf makes an object of every field, and a field takes two bytes on the wire. So a short message
can cost hundreds of times as much memory and time as sending it: 1.9 MiB of one-byte names blocked
all other callers for seconds. Both limits are checked before any parsing, and counting ends at the
first field too many.

A limit here is what a sensible request needs, with room to spare. The services check the contents
of fields.
"""

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from backpackd.application.access.access import MOST_NAMES
from backpackd.application.vault.keys import MOST_AT_ONCE
from backpackd.core.access.grants import MAX_PATTERNS
from backpackd.core.access.policy import MAX_RULES
from backpackd.core.agentlock.content import MAX_CREDENTIALS, MAX_DOCUMENT
from backpackd.core.errors import InvalidRequestError, LimitError

MAX_MESSAGE: Final = 8 * 1024 * 1024
"""The longest request or response, in bytes: 64 values of 64 KiB and room to spare."""
MAX_USUAL: Final = 64 * 1024
"""Bytes of a request that carries no lock, no backup and no values."""
_SPARE: Final = 64
"""Fields beside the repeated ones, including fields of newer versions."""
_SHORTEST_FIELD: Final = 2
_VARINT_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Size:
    """What a request may cost.

    Attributes:
        bytes: its length as received. The daemon accepts no compressed message.
        fields: the number of all fields, including those of messages in the message.
    """

    bytes: int = MAX_USUAL
    fields: int = _SPARE


_USUAL = Size()
_WITH_LOCK = Size(MAX_DOCUMENT + MAX_USUAL)
SIZES: Final = {
    # Includes a lock that names the wanted keys.
    "backpack.v1.GetKeysRequest": Size(MAX_DOCUMENT + MAX_USUAL, 2 * MOST_NAMES + _SPARE),
    # As many values as one message holds. A key is one field with two fields in it.
    "backpack.v1.PutKeysRequest": Size(MAX_MESSAGE, 3 * MOST_AT_ONCE + _SPARE),
    # A thousand names of 128 characters.
    "backpack.v1.DeleteKeysRequest": Size(4 * MAX_USUAL, 2 * MOST_AT_ONCE),
    "backpack.v1.AddGrantRequest": Size(fields=2 * MAX_PATTERNS + _SPARE),
    # A hundred rules of 64 patterns of 128 characters, each with a selector.
    "backpack.v1.SetPolicyRequest": Size(2 * MAX_DOCUMENT, MAX_RULES * (MAX_PATTERNS + 2) + _SPARE),
    "backpack.v1.ShowAuditRequest": Size(fields=4 * _SPARE),
    # A piece of a backup. Any number of pieces may follow.
    "backpack.v1.ImportKeysRequest": Size(MAX_DOCUMENT + MAX_USUAL),
    # The input for a lock of 1 MiB may be longer than the lock: indented, or with escapes.
    "backpack.v1.CreateLockRequest": Size(2 * MAX_DOCUMENT, 3 * MAX_CREDENTIALS + _SPARE),
    # A lock, and the changes to it.
    "backpack.v1.EditLockRequest": Size(3 * MAX_DOCUMENT, 4 * MAX_CREDENTIALS + _SPARE),
    "backpack.v1.UpdateMemoryRequest": Size(2 * MAX_DOCUMENT + MAX_USUAL),
    "backpack.v1.OpenLockRequest": _WITH_LOCK,
    "backpack.v1.MigrateLockRequest": _WITH_LOCK,
    "backpack.v1.RewrapLockRequest": _WITH_LOCK,
    "backpack.v1.AddRecipientRequest": _WITH_LOCK,
    "backpack.v1.RemoveRecipientRequest": _WITH_LOCK,
    "backpack.v1.TrustLockRequest": _WITH_LOCK,
}
"""The requests that may be larger than usual, by the names of their messages. Each method has its
own message, so this is a table of methods. A method that is not in it gets the usual size."""


def size_of(kind: Any) -> Size:
    """Return what a request of this kind may cost."""
    return SIZES.get(kind.full_name, _USUAL)


def check_size(kind: Any, raw: bytes) -> None:
    """Check the size of a request before it is parsed.

    Args:
        kind: the descriptor of the expected message.
        raw: the bytes as received.

    Raises:
        LimitError: it is too long, or holds too many fields (`request-too-large`).
        InvalidRequestError: the bytes are not a message (`malformed-request`).
    """
    size = size_of(kind)
    if len(raw) > size.bytes:
        raise LimitError(
            f"the request is too long: this call accepts at most {size.bytes // 1024} KiB",
            reason="request-too-large",
        )
    # Nearly every request is too short to hold too many fields.
    if len(raw) > size.fields * _SHORTEST_FIELD:
        _Fields(raw, size.fields).count(kind, 0, len(raw))


class _Fields:
    """Counts the fields of one message and of the messages in it."""

    def __init__(self, raw: bytes, most: int) -> None:
        self._raw = raw
        self._most = most
        self._left = most

    def count(self, kind: Descriptor, at: int, end: int) -> None:
        """Count the fields between two offsets.

        Bytes that protobuf would read differently must not get through. So anything unusual is
        refused, also a group, which no message of the API has.
        """
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise LimitError(
                    f"the request holds too much: this call accepts at most {self._most} fields",
                    reason="request-too-large",
                )
            tag, at = self._varint(at, end)
            # The wire types of protobuf.dev/programming-guides/encoding.
            match tag & 7:
                case 0:
                    _, at = self._varint(at, end)
                case 1:
                    at += 8
                case 5:
                    at += 4
                case 2:
                    length, at = self._varint(at, end)
                    field = kind.fields_by_number.get(tag >> 3)
                    inner = field.message_type if field is not None else None
                    if inner is not None and at + length <= end:
                        self.count(inner, at, at + length)
                    at += length
                case _:
                    raise _malformed()
        if at != end:
            raise _malformed()

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return a number and the offset after it."""
        found = 0
        for shift in range(_VARINT_BYTES):
            if at >= end:
                break
            byte = self._raw[at]
            at += 1
            found |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
                return found, at
        raise _malformed()


def _malformed() -> InvalidRequestError:
    return InvalidRequestError(
        "the request is not the message that this call expects", reason="malformed-request"
    )
