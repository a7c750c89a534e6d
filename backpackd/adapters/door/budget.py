"""How many bytes of unfinished requests the server may hold for those who have proven nothing.

Policy only: plain values in, verdicts out. It holds no socket and reads no clock.

The server keeps what came of a request until it is whole and answered, so requests that are never
finished cost memory for nothing: 8 MiB each, 32 on a connection, 512 connections. A connection with
operator authority may do that; who has it knows the passphrase. Of the others, each connection has
a bound, and all together have one. Where that is reached, the process tree with the most gives up
its largest connection to one with less, so that no tree can take up the room for all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from backpackd.core.facts import ProcessId


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bytes.

    Attributes:
        per_connection: of one connection; enough for a file of 1 MiB and what goes with it.
        total: of all connections.
    """

    per_connection: int = 2 * 1024 * 1024
    total: int = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Tree:
    """What the connections of one process tree hold."""

    held: int = 0
    accounts: set["Account"] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Account:
    """What one connection holds.

    Attributes:
        tree: the process tree that it counts for.
        give_up: closes the connection; its account is empty by then.
        held: bytes.
    """

    tree: ProcessId
    give_up: Callable[[], None]
    held: int = 0


class Budget:
    """The bytes that are held."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._trees: dict[ProcessId, _Tree] = {}
        self.held = 0

    def charge(self, account: Account, size: int) -> bool:
        """Count bytes in, and have another tree's connection give up for them where that is fair.

        Returns:
            False: there is no room for them, and nothing is counted.
        """
        if account.held + size > self._limits.per_connection:
            return False
        while self.held + size > self._limits.total:
            if not self._make_room(account, size):
                return False
        tree = self._trees.setdefault(account.tree, _Tree())
        tree.accounts.add(account)
        tree.held += size
        account.held += size
        self.held += size
        return True

    def give_back(self, account: Account, size: int) -> None:
        """Count bytes out; more than the account holds is no more than that."""
        size = min(size, account.held)
        tree = self._trees.get(account.tree)
        if tree is None or not size:
            return
        tree.held -= size
        account.held -= size
        self.held -= size
        if not account.held:
            tree.accounts.discard(account)
            if not tree.accounts:
                del self._trees[account.tree]

    def _make_room(self, account: Account, size: int) -> bool:
        own = self._trees.get(account.tree)
        most = max(self._trees.values(), key=lambda tree: tree.held)
        if most is own or most.held <= (own.held if own else 0) + size:
            return False
        largest = max(most.accounts, key=lambda one: one.held)
        self.give_back(largest, largest.held)
        largest.give_up()
        return True
