"""The watchers of something, and limits on their number."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId

_Watcher = TypeVar("_Watcher", bound=Hashable)


class Watchers(Generic[_Watcher]):
    """The watchers of one thing: a tree watches its own part, the operator everything.

    The watches of others never keep the operator out.

    Args:
        what: the watched thing, for the message.
        most: the most watches of all trees together, and also of the operator.
        of_tree: the most watches of one tree.
    """

    def __init__(self, what: str, *, most: int, of_tree: int) -> None:
        self._what = what
        self._most = most
        self._of_tree = of_tree
        self._trees: dict[_Watcher, ProcessId | None] = {}
        self._watchers: dict[ProcessId | None, set[_Watcher]] = {}

    def __bool__(self) -> bool:
        return bool(self._trees)

    def __iter__(self) -> Iterator[_Watcher]:
        return iter(list(self._trees))

    def of(self, tree: ProcessId | None) -> Iterable[_Watcher]:
        """Return the watchers of a tree; None: the watchers of everything."""
        return list(self._watchers.get(tree, ()))

    def add(self, tree: ProcessId | None, watcher: _Watcher) -> _Watcher:
        """Add a watcher, and return it.

        Args:
            tree: the root of the caller's process tree; None: the operator, who watches everything.
            watcher: a new one.

        Raises:
            LimitError: there are too many watchers.
        """
        own = len(self._watchers.get(tree, ()))
        of_trees = len(self._trees) - len(self._watchers.get(None, ()))
        most = self._most if tree is None else self._of_tree
        if own >= most or (tree is not None and of_trees >= self._most):
            raise LimitError(f"too many watches of the {self._what}: end some first")
        self._trees[watcher] = tree
        self._watchers.setdefault(tree, set()).add(watcher)
        return watcher

    def discard(self, watcher: _Watcher) -> None:
        """Remove a watcher. Removing it twice is harmless."""
        if watcher not in self._trees:
            return
        tree = self._trees.pop(watcher)
        self._watchers[tree].discard(watcher)
        if not self._watchers[tree]:
            del self._watchers[tree]
