"""Which descriptors this process has open, to see that none was left behind."""

from contextlib import suppress
from pathlib import Path


def descriptors() -> set[tuple[int, str]]:
    """Return the number of each, and what it is of.

    Compare with `<=`: gRPC's threads close theirs a moment after a server or channel has ended.
    """
    found = set()
    for link in Path("/dev/fd").iterdir():
        # The one that lists them is gone by now.
        with suppress(FileNotFoundError):
            found.add((int(link.name), str(link.readlink())))
    return found
