"""Fuzzer over lock files. Its invariant: any bytes parse or raise LockFileError, nothing else.

And what parses as version 2 is written back as the very bytes that it came from.

The suite holds the invariant with hypothesis (tests/core/test_agentlock_fuzz.py). To search on with
coverage as the guide, where atheris can be installed (it has no wheels for every platform, so it
is not among the dependencies):

    pip install atheris && python tests/fuzz/agent_lock.py CORPUS_DIRECTORY tests/vectors/*/
"""

import contextlib
import sys

from backpackd.core.agentlock import legacy, locks
from backpackd.core.agentlock.document import read
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.versions import version_of
from backpackd.core.sealing import identity

SOMEBODY = identity.generate()


def hold(document: bytes) -> bool:
    """Hold the invariant over one document; tell whether it was a lock of either version."""
    known = True
    try:
        version_of(document)
    except LockFileError:
        known = False
    with contextlib.suppress(LockFileError):
        legacy.open_legacy(document, "key string", iterations=legacy.MIN_ITERATIONS)
    try:
        lock = read(document)
    except LockFileError:
        return known
    assert known
    assert lock.encode() == document
    with contextlib.suppress(LockFileError):
        locks.open_lock(lock, SOMEBODY)
    return known


def main() -> None:
    """Search until something else than the invariant is found, or the person ends it."""
    import atheris  # type: ignore[import-untyped] # noqa: PLC0415 - optional, see above

    atheris.instrument_all()
    atheris.Setup(sys.argv, hold)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
