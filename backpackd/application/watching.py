"""Watches for the ends of processes: each is held once, however many things end with it."""

import errno
from collections.abc import Callable

from backpackd.core.errors import LimitError, PeerUnknownError, ProcessGoneError
from backpackd.core.facts import ProcessId
from backpackd.ports import PinnedProcess, Processes


class Watching:
    """The processes whose ends matter.

    Args:
        processes: pins them.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._held: dict[ProcessId, PinnedProcess] = {}
        self._needed: list[Callable[[], set[ProcessId]]] = []
        self._on_end: list[Callable[[ProcessId], None]] = []

    def add(
        self, needed: Callable[[], set[ProcessId]], on_end: Callable[[ProcessId], None]
    ) -> None:
        """Add somebody who watches, for good.

        Args:
            needed: says which processes it still needs watched.
            on_end: called when a watched process has ended.
        """
        self._needed.append(needed)
        self._on_end.append(on_end)

    def watch(self, process: ProcessId) -> None:
        """Watch a process until nobody needs it any more or it ends.

        Raises:
            PeerUnknownError: it has ended, or its pid is another process's by now.
            LimitError: too many processes are watched.
        """
        held = self._held.get(process)
        if held is None:
            held = self._pin(process)
            self._held[process] = held
            held.on_exit(lambda: self._ended(process))
        if not held.alive():
            raise _gone()

    def let_go(self) -> None:
        """Watch no longer what nobody needs."""
        needed: set[ProcessId] = set()
        for wanted in self._needed:
            needed |= wanted()
        for process in self._held.keys() - needed:
            self._held.pop(process).close()

    def _pin(self, process: ProcessId) -> PinnedProcess:
        try:
            held, found = self._processes.pin(process.pid)
        except ProcessGoneError:
            raise _gone() from None
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            raise LimitError(
                "too many process trees hold leases: let some end, and try again"
            ) from None
        if found != process:
            # The pid is another process's by now: what was attested has ended.
            held.close()
            raise _gone()
        return held

    def _ended(self, process: ProcessId) -> None:
        for on_end in self._on_end:
            on_end(process)
        held = self._held.pop(process, None)
        if held is not None:
            held.close()
        self.let_go()


def _gone() -> PeerUnknownError:
    return PeerUnknownError("the root of the process tree has ended: start anew")
