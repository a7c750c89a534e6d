"""Says why the system refused something, and what to do about it.

A system call that a sandbox forbids fails like one that lacks a permission, and what is blamed then
is a file that nothing is wrong with. So the sentence is made in one place, from the error alone.
"""

import errno
import os

_FILTER = (
    "a sandbox or a service manager's filter forbids it, so allow it there (a container's seccomp "
    "profile, SystemCallFilter= and RestrictAddressFamilies= of the unit)"
)
_DESCRIPTORS = "raise the limit on open files (ulimit -n, or LimitNOFILE= in the unit)"
_ROOM = "make room on the disk"
_REMEDIES = {
    errno.EAFNOSUPPORT: _FILTER,
    errno.ENOSYS: _FILTER,
    errno.EPERM: _FILTER,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.EDQUOT: _ROOM,
    errno.ENOSPC: _ROOM,
    errno.EROFS: "mount it so that it can be written to, or use another place",
}


def is_forbidden(error: OSError) -> bool:
    """Tell whether an error is the one that sandboxes answer with."""
    return _REMEDIES.get(error.errno or 0) is _FILTER


def why(error: OSError, otherwise: str = "") -> str:
    """Say why a call failed and what helps: `operation not permitted: a sandbox ... forbids it`.

    Args:
        error: of the system.
        otherwise: what helps where the error does not tell, and how to choose another place; may
            be empty.
    """
    said = os.strerror(error.errno or errno.EIO).lower()
    remedy = _REMEDIES.get(error.errno or 0, otherwise)
    if error.errno == errno.EROFS and otherwise:
        remedy = otherwise
    return f"{said}: {remedy}" if remedy else said
