"""Limits the bytes of unfinished requests from connections without operator authority.

A request that never becomes complete costs memory for nothing. A connection with operator authority
may do that, because its process knows the passphrase. The others have a limit for each connection,
each process tree, and all together. A request beyond a limit is refused; no other request gives
way.
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
        held: the sum over all connections.
    """

    def __init__(self) -> None:
        self.held = 0
        self._of_connections: Counter[Hashable] = Counter()
        self._of_trees: Counter[Hashable] = Counter()

    def charge(self, connection: Hashable, tree: Hashable, size: int) -> bool:
        """Add bytes to the count.

        Returns:
            False: there is no room, and nothing is counted.
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
        """Remove counted bytes from the count."""
        self.held -= size
        for counts, one in ((self._of_connections, connection), (self._of_trees, tree)):
            counts[one] -= size
            if not counts[one]:
                del counts[one]
