"""An agent's memory while it is in use: the read version, changes since then, and merging.

Pure: nothing here reads files or talks to the daemon. Values are compared as JSON writes them. So a
change deep inside a list is seen, and 1 is not True.
"""

import json
from collections.abc import Mapping
from typing import Any

from backpack_client.failures import Failure, printable, usage

MOST_ATTEMPTS = 64
"""How often a save is tried again after another program saved first."""

RETRIED = frozenset({"lock-changed", "memory-changed"})
"""The reasons of failures with that meaning."""


class HeldMemory:
    """A memory in use.

    Attributes:
        current: the memory as it is here; the agent may change it.
        hash: names the memory that it was made from.
    """

    def __init__(self) -> None:
        self.current: dict[str, Any] = {}
        self.hash = ""
        self._base: dict[str, str] = {}
        self._saving: dict[str, str] = {}

    @property
    def changed(self) -> bool:
        """Whether there is something to save.

        Raises:
            Failure: a usage failure: something in it cannot be written as JSON.
        """
        return _written(self.current) != self._base

    def take(self, memory: Mapping[str, Any], memory_hash: str) -> None:
        """Start with a memory that was just read."""
        self._base = _written(memory)
        self.hash = memory_hash
        self._show(self._base)

    def saving(self) -> dict[str, Any]:
        """Return a copy of the memory, to be stored."""
        self._saving = _written(self.current)
        return _read(self._saving)

    def saved(self, memory_hash: str) -> None:
        """Note that the last result of `saving` was stored; later changes still wait."""
        self._base = self._saving
        self.hash = memory_hash

    def rebase(self, memory: Mapping[str, Any], memory_hash: str) -> None:
        """Apply the changes made here to a memory that another program has stored since.

        Entries of the top level are merged by their names. An entry is never merged inside.

        Raises:
            Failure: both changed the same entry in different ways (`memory-conflict`); nothing is
                changed here.
        """
        mine, theirs = _written(self.current), _written(memory)
        joined = dict(theirs)
        for name in self._base.keys() | mine.keys():
            before, after, other = self._base.get(name), mine.get(name), theirs.get(name)
            if after == before:
                continue
            if other not in (before, after):
                raise Failure(
                    f"the memory's entry {printable(name, 64)} was changed by somebody else, too",
                    reason="memory-conflict",
                    hint="nothing was overwritten: read it again, or change it with update()",
                )
            if after is None:
                joined.pop(name, None)
            else:
                joined[name] = after
        self._base, self.hash = theirs, memory_hash
        self._show(joined)

    def _show(self, written: Mapping[str, str]) -> None:
        # The same dict as before: the agent may hold a reference to it.
        self.current.clear()
        self.current.update(_read(written))


def _read(written: Mapping[str, str]) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in written.items()}


def _written(memory: Mapping[str, Any]) -> dict[str, str]:
    if not all(type(name) is str for name in memory):
        raise usage("an entry of the memory has a name that is not text", hint="")
    try:
        return {
            name: json.dumps(value, allow_nan=False, sort_keys=True)
            for name, value in memory.items()
        }
    except (TypeError, ValueError, RecursionError):
        raise usage(
            "the memory holds something that JSON cannot write",
            hint="text, numbers, true, false, null, lists, and objects with text as names",
        ) from None
