"""Backups: one sealed file that says of itself what it is. docs/backup.md has its format.

A random file key seals the contents in chunks, so that they can be written and read as a stream;
each chunk is bound to its place and the last one is marked, so none can be moved, left out or cut
off. The file key lies in the header once for every way in. Nothing here reads or writes files.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backpackd.core.errors import BackupError, InvalidRequestError
from backpackd.core.sealing import canonical, hybrid
from backpackd.core.sealing.canonical import CanonicalError, context
from backpackd.core.sealing.sealing import TAG_SIZE, derive
from backpackd.core.slots.slots import Argon2idParameters, SlotError

MAGIC = b"backpack-backup\n"
VERSION = 1
FILE_KEY_SIZE = 32
CHUNK = 64 * 1024
MAX_HEADER = 64 * 1024
MAX_RECIPIENTS = 16
_NONCE = bytes(12)
_MAC_SIZE = 32
_VAULT_ID_SIZE = 16
_MOST_CHUNKS = 2**40


@dataclass(frozen=True, slots=True)
class PassphraseWay:
    """A way in by a passphrase.

    Attributes:
        stretching: how it becomes a secret.
        wrap: the file key under that secret.
    """

    stretching: Argon2idParameters
    wrap: bytes

    def encode(self) -> dict[str, object]:
        """Return it as plain data for canonical JSON."""
        return {
            "kind": "passphrase",
            "stretching": self.stretching.encode(),
            "wrap": canonical.to_text(self.wrap),
        }


@dataclass(frozen=True, slots=True)
class RecipientWay:
    """A way in by the private key to a public one, which the file does not name.

    Attributes:
        wrap: the file key, wrapped.
    """

    wrap: bytes

    def encode(self) -> dict[str, object]:
        """Return it as plain data for canonical JSON."""
        return {"kind": "recipient", "wrap": canonical.to_text(self.wrap)}


Way = PassphraseWay | RecipientWay


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup says of itself in plain.

    Attributes:
        vault_id: of the vault that it was made of, 16 bytes.
        created_ms: when, Unix time in milliseconds.
        ways: at least one.
    """

    vault_id: bytes
    created_ms: int
    ways: tuple[Way, ...]


def passphrase_way(file_key: bytes, secret: bytes, stretching: Argon2idParameters) -> PassphraseWay:
    """Make a way in by a passphrase that was stretched to a 32-byte secret, used for this only."""
    wrap = AESGCM(secret).encrypt(_NONCE, file_key, _way_context(stretching))
    return PassphraseWay(stretching, wrap)


def recipient_way(file_key: bytes, public: bytes) -> RecipientWay:
    """Make a way in for the holder of the private key to a public one.

    Raises:
        InvalidRequestError: it is no public key.
    """
    try:
        return RecipientWay(hybrid.wrap(file_key, public, info=_RECIPIENT))
    except hybrid.UnwrapError:
        raise InvalidRequestError("a recipient is not a public key") from None


def open_by_secret(way: PassphraseWay, secret: bytes) -> bytes | None:
    """Return the file key; None when the passphrase was another one."""
    try:
        return AESGCM(secret).decrypt(_NONCE, way.wrap, _way_context(way.stretching))
    except InvalidTag:
        return None


def open_by_private(way: RecipientWay, private: bytes) -> bytes | None:
    """Return the file key; None when it was wrapped to another key."""
    try:
        return hybrid.unwrap(way.wrap, private, info=_RECIPIENT)
    except hybrid.UnwrapError:
        return None


class Sealer:
    """Writes a backup: `head`, then any number of `add`, then `finish`, one after the other.

    Args:
        file_key: 32 fresh random bytes, for this file only.
        header: with the ways in to that key.
    """

    def __init__(self, file_key: bytes, header: Header) -> None:
        data = {
            "created": header.created_ms,
            "vault": header.vault_id.hex(),
            "version": VERSION,
            "ways": [way.encode() for way in header.ways],
        }
        text = canonical.encode(data)
        start = MAGIC + len(text).to_bytes(4, "big") + text
        self.head = start + _mac(file_key, start)
        self._chunks = _Chunks(file_key, self.head)
        self._waiting = bytearray()

    def add(self, data: bytes) -> bytes:
        """Take more of the contents, and return what of the file is complete with it."""
        self._waiting += data
        done = b""
        # The last chunk is not empty unless there is nothing at all, so one is always kept.
        while len(self._waiting) > CHUNK:
            done += self._chunks.seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]
        return done

    def finish(self) -> bytes:
        """Return the end of the file."""
        return self._chunks.seal(bytes(self._waiting), last=True)


class Opener:
    """Reads a backup piece by piece: `feed` until `header` is there, `unlock`, `feed`, `finish`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = b""
        self._chunks: _Chunks | None = None
        self.header: Header | None = None

    def feed(self, data: bytes) -> bytes:
        """Take more of the file, and return what of the contents is verified with it.

        Raises:
            BackupError: this is no backup, one of a newer version, or it was altered.
        """
        self._data += data
        if self.header is None:
            self._read_header()
        if self._chunks is None:
            return b""
        found = b""
        while len(self._data) > CHUNK + TAG_SIZE:
            found += self._chunks.open(bytes(self._data[: CHUNK + TAG_SIZE]), last=False)
            del self._data[: CHUNK + TAG_SIZE]
        return found

    def unlock(self, file_key: bytes) -> None:
        """Go on with the file key, after the header was verified with it.

        Raises:
            BackupError: the header was altered, or there is less than a whole one.
        """
        if len(self._data) < _MAC_SIZE:
            raise _truncated()
        found = bytes(self._data[:_MAC_SIZE])
        if not hmac.compare_digest(found, _mac(file_key, self._start)):
            raise _damaged("its header was altered")
        del self._data[:_MAC_SIZE]
        self._chunks = _Chunks(file_key, self._start + found)

    def finish(self) -> bytes:
        """Return the rest of the contents; the file has no more bytes.

        Raises:
            BackupError: it is cut short, or was altered.
        """
        if self._chunks is None:
            raise _truncated()
        found = self.feed(b"")
        rest = bytes(self._data)
        if len(rest) < TAG_SIZE:
            raise _truncated()
        return found + self._chunks.open(rest, last=True)

    def _read_header(self) -> None:
        data, prefix = self._data, len(MAGIC) + 4
        if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
            raise _no_backup()
        if len(data) < prefix:
            return
        size = int.from_bytes(data[len(MAGIC) : prefix], "big")
        if size > MAX_HEADER:
            raise _damaged("its header is too long")
        # With what proves it, so that `unlock` has it at hand.
        if len(data) < prefix + size + _MAC_SIZE:
            return
        self._start = bytes(data[: prefix + size])
        self.header = _decode_header(self._start[prefix:])
        del data[: prefix + size]


class _Chunks:
    """Seals or opens the chunks of one file, in order."""

    def __init__(self, file_key: bytes, head: bytes) -> None:
        salt = hashlib.sha256(head).digest()
        self._cipher = AESGCM(derive(file_key, salt=salt, purpose="backup-contents"))
        self._number = 0

    def seal(self, plain: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last=last), plain, None)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        place = self._number
        try:
            return self._cipher.decrypt(self._nonce(last=last), sealed, None)
        except InvalidTag:
            pass
        # A last chunk that opens as one in the middle has lost what came after it.
        if last and self._opens(sealed, place):
            raise _truncated()
        raise _damaged("a part of it was altered, moved or cut off")

    def _opens(self, sealed: bytes, place: int) -> bool:
        try:
            self._cipher.decrypt(place.to_bytes(11, "big") + b"\0", sealed, None)
        except InvalidTag:
            return False
        return True

    def _nonce(self, *, last: bool) -> bytes:
        number, self._number = self._number, self._number + 1
        if number >= _MOST_CHUNKS:
            raise _damaged("it has no end")
        return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


_RECIPIENT = context(b"backpack/v1/backup-recipient")


def _way_context(stretching: Argon2idParameters) -> bytes:
    return context(b"backpack/v1/backup-passphrase", canonical.encode(stretching.encode()))


def _mac(file_key: bytes, start: bytes) -> bytes:
    return hmac.digest(derive(file_key, salt=b"", purpose="backup-header"), start, "sha256")


def _decode_header(text: bytes) -> Header:
    try:
        data = canonical.decode(text)
        version = data.get("version") if type(data) is dict else None
        if type(version) is int and version > VERSION:
            raise BackupError(
                f"this backup has version {version} of its format and this version of backpackd "
                f"reads up to {VERSION}: install the newer version that wrote it",
                reason="backup-from-the-future",
            )
        found = canonical.members(data, created=int, vault=str, version=int, ways=list)
        vault_id = bytes.fromhex(found["vault"])
        if found["version"] != VERSION or len(vault_id) != _VAULT_ID_SIZE or found["created"] < 0:
            raise _damaged("its header is not of the form")
        return Header(vault_id, found["created"], _decode_ways(found["ways"]))
    except (ValueError, SlotError):
        raise _damaged("its header is not of the form") from None


def _decode_ways(data: Sequence[object]) -> tuple[Way, ...]:
    ways: list[Way] = []
    for each in data:
        kind = each.get("kind") if isinstance(each, dict) else None
        if kind == "recipient":
            found = canonical.members(each, kind=str, wrap=str)
            size = FILE_KEY_SIZE + hybrid.OVERHEAD
            ways.append(RecipientWay(canonical.from_text(found["wrap"], size=size)))
        else:
            found = canonical.members(each, kind=str, stretching=dict, wrap=str)
            if found["kind"] != "passphrase":
                raise CanonicalError("an unknown way in")
            wrap = canonical.from_text(found["wrap"], size=FILE_KEY_SIZE + TAG_SIZE)
            ways.append(PassphraseWay(Argon2idParameters.decode(found["stretching"]), wrap))
    # One passphrase: each is stretched for, and a crafted file could ask for hours of it.
    passphrases = sum(isinstance(way, PassphraseWay) for way in ways)
    if not 1 <= len(ways) <= MAX_RECIPIENTS + 1 or passphrases > 1:
        raise CanonicalError("no way in, or too many")
    return tuple(ways)


def _no_backup() -> BackupError:
    return BackupError("this is not a backup: name a file that export wrote", reason="not-a-backup")


def _truncated() -> BackupError:
    return BackupError(
        "this backup is cut short, so nothing is taken from it: look for a whole copy",
        reason="backup-truncated",
    )


def _damaged(how: str) -> BackupError:
    return BackupError(f"this backup is damaged, {how}: look for another copy")
