"""Watches for the ends of processes. Each is held once, however many things end with it."""

from collections.abc import Callable, Collection, Iterable

from backpackd.core.errors import PeerUnknownError, ProcessGoneError
from backpackd.core.peer_facts import ProcessId
from backpackd.ports import PinnedProcess, Processes


class ProcessWatches:
    """The processes whose ends matter.

    Args:
        processes: pins them.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._held: dict[ProcessId, PinnedProcess] = {}
        self._needed: list[Callable[[Collection[ProcessId]], set[ProcessId]]] = []
        self._on_end: list[Callable[[ProcessId], None]] = []

    def add(
        self,
        needed: Callable[[Collection[ProcessId]], set[ProcessId]],
        on_end: Callable[[ProcessId], None],
    ) -> None:
        """Add a subscriber permanently.

        Args:
            needed: returns which of these processes it still needs watched.
            on_end: called when a watched process has ended.
        """
        self._needed.append(needed)
        self._on_end.append(on_end)

    def watch(self, process: ProcessId) -> None:
        """Watch a process until no subscriber needs it or it ends.

        Raises:
            PeerUnknownError: it has ended, or its pid now belongs to another process.
            LimitError: too many processes are watched.
        """
        held = self._held.get(process)
        if held is None:
            held = self._hold(process)
            self._held[process] = held
            held.on_exit(lambda: self._ended(process))
        if not held.alive():
            raise _gone()

    def let_go(self, processes: Iterable[ProcessId]) -> None:
        """Stop watching the given processes that no subscriber needs.

        Only these are checked, because there may be many thousands.
        """
        held = self._held.keys() & set(processes)
        for needed in self._needed:
            if not held:
                return
            held -= needed(held)
        for process in held:
            self._held.pop(process).close()

    def _hold(self, process: ProcessId) -> PinnedProcess:
        try:
            return self._processes.hold(process)
        except ProcessGoneError:
            raise _gone() from None

    def _ended(self, process: ProcessId) -> None:
        for on_end in self._on_end:
            on_end(process)
        held = self._held.pop(process, None)
        if held is not None:
            held.close()


def _gone() -> PeerUnknownError:
    return PeerUnknownError("the root of the process tree has ended: start it again")
