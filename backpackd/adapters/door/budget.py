"""How many bytes of unfinished requests are held for those who have proven nothing.

A request that never becomes whole costs memory for nothing. A connection with operator authority
may do that: who has it knows the passphrase. The others have a bound for each connection, for each
process tree, and for all together. What is beyond a bound is refused; nobody else gives way.
"""

from collections import Counter
from collections.abc import Hashable

from backpackd.adapters.door.limits import (
    UNFINISHED,
    UNFINISHED_OF_CONNECTION,
    UNFINISHED_OF_TREE,
)


class Budget:
    """The bytes that are held.

    Attributes:
        held: of everybody.
    """

    def __init__(self) -> None:
        self.held = 0
        self._of_connections: Counter[Hashable] = Counter()
        self._of_trees: Counter[Hashable] = Counter()

    def charge(self, connection: Hashable, tree: Hashable, size: int) -> bool:
        """Count bytes in.

        Returns:
            False: there is no room for them, and nothing is counted.
        """
        if (
            self._of_connections[connection] + size > UNFINISHED_OF_CONNECTION
            or self._of_trees[tree] + size > UNFINISHED_OF_TREE
            or self.held + size > UNFINISHED
        ):
            return False
        self._of_connections[connection] += size
        self._of_trees[tree] += size
        self.held += size
        return True

    def give_back(self, connection: Hashable, tree: Hashable, size: int) -> None:
        """Count bytes out that were counted in."""
        self.held -= size
        for counts, one in ((self._of_connections, connection), (self._of_trees, tree)):
            counts[one] -= size
            if not counts[one]:
                del counts[one]
