"""What is kept of revocations when the daemon ends: from which process trees of this boot.

Standing grants stay in force when keys are revoked from one tree, and that tree must not get them
back by ending the daemon, which every process of the user can. Which keys were revoked is not kept:
after a restart the tree is asked about every key, which is never less than was revoked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backpackd.core.access.orphans import Place
from backpackd.core.peer_facts import ProcessId
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

MOST_TREES = 512
"""How many trees are kept by themselves; beyond that the revocation holds for everybody."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """The trees that keys were revoked from.

    Attributes:
        boot_id: of the system that ran then; in another one none of these processes is left.
        trees: their roots.
        everybody: whether there were too many to name.
        places: where those roots ran, of those of which it is known. What an older version wrote
            has none.
    """

    boot_id: str = ""
    trees: frozenset[ProcessId] = frozenset()
    everybody: bool = False
    places: Mapping[ProcessId, Place] = field(default_factory=dict)

    def encode(self) -> dict[str, Any]:
        """Return it as members for canonical JSON; none where nothing was revoked."""
        if not (self.trees or self.everybody):
            return {}
        return {
            "boot": self.boot_id,
            "everybody": self.everybody,
            "trees": sorted(
                (_encode(tree, self.places.get(tree)) for tree in self.trees),
                key=lambda encoded: encoded[:3],
            ),
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
        if len(found["trees"]) > MOST_TREES:
            raise CanonicalError("too many process trees")
        trees = dict(map(_decode, found["trees"]))
        places = {tree: place for tree, place in trees.items() if place is not None}
        return cls(found["boot"], frozenset(trees), found["everybody"], places)


def _encode(tree: ProcessId, place: Place | None) -> list[Any]:
    root = _numbers(tree)
    if place is None:
        return root
    where = [*root, place.session, place.unit, *_numbers(place.top)]
    return where if place.parent is None else [*where, *_numbers(place.parent)]


def _numbers(process: ProcessId) -> list[int]:
    return [process.pid, process.start, process.unique]


def _decode(value: object) -> tuple[ProcessId, Place | None]:
    if type(value) is not list:
        raise CanonicalError("not the root of a process tree")
    kinds = [type(part) for part in value]
    root, where = kinds[:3], kinds[3:]
    known = where[:1] == [int] and where[1:2] in ([str], [type(None)])
    known = known and where[2:] in ([int] * 3, [int] * 6)
    if root != [int] * 3 or (where and not known):
        raise CanonicalError("not the root of a process tree")
    if not where:
        return ProcessId(*value), None
    parent = ProcessId(*value[8:]) if value[8:] else None
    return ProcessId(*value[:3]), Place(value[3], value[4], ProcessId(*value[5:8]), parent)
