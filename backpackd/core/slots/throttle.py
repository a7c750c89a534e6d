"""Growing delays after wrong passphrases, separate for each process tree.

They are separate, because a shared delay would let any process keep the operator out. A process
that leaves its tree starts without a delay, but every guess still costs one Argon2id, and those run
one at a time.
"""

from dataclasses import dataclass

from backpackd.core.peer_facts import ProcessId

FREE_TRIES = 2
"""Wrong passphrases that cost no delay: people mistype."""
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
"""Seconds."""
_MOST_TREES = 1024


@dataclass(slots=True)
class _Record:
    failures: int
    delay: float
    until: float


class Throttle:
    """Remembers wrong passphrases by process tree.

    Times are seconds on the boot clock. At most 1024 trees are remembered; the one whose delay
    ends first is forgotten first, and to push one out costs a stretched guess for every other.
    """

    def __init__(self) -> None:
        self._records: dict[ProcessId, _Record] = {}

    def delay(self, tree: ProcessId, now: float) -> float:
        """Return for how many more seconds this tree may not try; 0 when it may."""
        record = self._records.get(tree)
        return max(0.0, record.until - now) if record else 0.0

    def failed(self, tree: ProcessId, now: float) -> float:
        """Note a wrong passphrase and return the delay, in seconds, that follows."""
        record = self._records.setdefault(tree, _Record(0, 0.0, now))
        record.failures += 1
        doublings = record.failures - FREE_TRIES - 1
        if doublings >= 0:
            record.delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(doublings, 10))
        record.until = now + record.delay
        if len(self._records) > _MOST_TREES:
            others = (other for other in self._records if other != tree)
            del self._records[min(others, key=lambda other: self._records[other].until)]
        return record.delay

    def restart(self, tree: ProcessId, now: float) -> float:
        """Restart a tree's delay and return it, in seconds; 0 if it has none."""
        record = self._records.get(tree)
        if record is None:
            return 0.0
        record.until = now + record.delay
        return record.delay

    def succeeded(self, tree: ProcessId) -> None:
        """Forget a tree's wrong passphrases."""
        self._records.pop(tree, None)
