"""What every way of reading processes has in common: to hold the very process that was meant."""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from backpackd.core.errors import LimitError, ProcessGoneError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import PinnedProcess


class Holding(ABC):
    """The part of `ports.Processes` that holds processes."""

    @abstractmethod
    def pin(self, pid: int) -> tuple[PinnedProcess, ProcessId]:
        """See `ports.Processes`."""

    def hold(self, process: ProcessId) -> PinnedProcess:
        """See `ports.Processes`."""
        held, found = self.pin(process.pid)
        if found != process:
            # The pid is another process's by now: the one that was meant has ended.
            held.close()
            raise ProcessGoneError(f"process {process.pid} has ended")
        return held


@contextmanager
def within_limits() -> Iterator[None]:
    """Say what it means when the daemon may open no more files.

    Raises:
        LimitError: it may not.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
        raise LimitError(
            "too many processes are held: let some leases or agents end, and try again"
        ) from None
