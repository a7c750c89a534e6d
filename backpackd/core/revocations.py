"""What is kept of revocations when the daemon ends: from which process trees of this boot.

Standing grants stay in force when keys are revoked from one tree, and that tree must not get them
back by ending the daemon, which every process of the user can. Which keys were revoked is not kept:
after a restart the tree is asked about every key, which is never less than was revoked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backpackd.core import canonical
from backpackd.core.canonical import CanonicalError
from backpackd.core.facts import ProcessId

MOST_TREES = 512
"""How many trees are kept by themselves; beyond that the revocation holds for everybody."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """The trees that keys were revoked from.

    Attributes:
        boot_id: of the system that ran then; in another one none of these processes is left.
        trees: their roots.
        everybody: whether there were too many to name.
    """

    boot_id: str = ""
    trees: frozenset[ProcessId] = frozenset()
    everybody: bool = False

    def encode(self) -> dict[str, Any]:
        """Return it as members for canonical JSON; none where nothing was revoked."""
        if not (self.trees or self.everybody):
            return {}
        return {
            "boot": self.boot_id,
            "everybody": self.everybody,
            "trees": sorted([tree.pid, tree.start, tree.unique] for tree in self.trees),
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> "Revocations":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape.
        """
        if not data:
            return cls()
        found = canonical.members(data, boot=str, everybody=bool, trees=list)
        if len(found["trees"]) > MOST_TREES or not all(map(_is_process, found["trees"])):
            raise CanonicalError("not the roots of process trees")
        trees = frozenset(ProcessId(*tree) for tree in found["trees"])
        return cls(found["boot"], trees, found["everybody"])


def _is_process(value: object) -> bool:
    return type(value) is list and [type(part) for part in value] == [int, int, int]
