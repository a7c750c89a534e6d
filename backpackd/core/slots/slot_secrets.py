"""What opens a slot of each kind, in the form in which it is typed, kept in a file or handed over.

A recovery code and the keys that Backpack draws for unattended use are random: no stretching makes
them better. Whatever a person made up is stretched, wherever it is kept, and has to pass for a
passphrase.
"""

import base64
import re

from backpackd.core.slots import passphrases, recovery_code
from backpackd.core.slots.slots import RECOVERY, Argon2idParameters, HkdfParameters, Stretching

UNATTENDED_SIZE = 32
"""Random bytes in a key for unattended use."""
_PREFIX = b"bpk1_"
_DRAWN = re.compile(rb"bpk1_([A-Za-z0-9_-]{43})")


def write_drawn(random: bytes) -> bytes:
    """Write 32 random bytes as a key for unattended use: one line of text.

    Raises:
        ValueError: they are not 32 bytes.
    """
    if len(random) != UNATTENDED_SIZE:
        raise ValueError("a key for unattended use holds 32 bytes")
    return _PREFIX + base64.urlsafe_b64encode(random).rstrip(b"=")


def read_drawn(typed: bytes) -> bytes | None:
    """Return the 32 bytes of such a key; None for anything else."""
    found = _DRAWN.fullmatch(typed)
    if found is None:
        return None
    random = base64.urlsafe_b64decode(found[1] + b"=")
    return random if write_drawn(random) == typed else None


def without_marks(kept: bytes) -> bytes:
    """Return what a file or a variable holds without what editors add.

    That is one line end, and the byte-order mark of UTF-8. The client leaves out the same, so that
    a file opens the slot that was made from it.
    """
    line = kept.removesuffix(b"\r\n" if kept.endswith(b"\r\n") else b"\n")
    text = line.removeprefix("\ufeff".encode())
    try:
        text.decode()
    except UnicodeDecodeError:
        return line
    return text


def check_new(typed: bytes) -> bytes:
    """Return a secret for a new slot that somebody chose, in the form that is stretched or derived.

    Raises:
        InvalidRequestError: it is guessable, see `passphrases.check_new`.
    """
    drawn = read_drawn(typed)
    return passphrases.check_new(typed) if drawn is None else drawn


def parameters_for(kind: str, typed: bytes, salt: bytes) -> Stretching | None:
    """Choose how a new slot's secret comes about: None for the usual stretching.

    Args:
        kind: one of `slots.KINDS`.
        typed: the secret in its text form.
        salt: 16 fresh random bytes.
    """
    random = kind == RECOVERY or read_drawn(typed) is not None
    return HkdfParameters(salt) if random else None


def material(kind: str, stretching: Stretching, typed: bytes) -> bytes | None:
    """Return what goes into the stretching or derivation of a slot; None: it cannot open this slot.

    Args:
        kind: the slot's.
        stretching: the slot's.
        typed: what somebody presents, normalised as a passphrase.
    """
    if kind == RECOVERY:
        return recovery_code.parse(typed)
    if isinstance(stretching, Argon2idParameters):
        return typed
    return read_drawn(typed)
