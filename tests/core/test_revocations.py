"""What is kept of revocations in the authority record."""

from typing import Any

import pytest

from backpackd.core.access.orphans import Place
from backpackd.core.access.revocations import MOST_TREES, Revocations
from backpackd.core.peer_facts import ProcessId
from backpackd.core.sealing.canonical import CanonicalError

KEPT = Revocations("boot", frozenset({ProcessId(20, 200, 7), ProcessId(3, 30)}))
PLACES = {
    ProcessId(20, 200, 7): Place(20, "a.scope", ProcessId(5, 50, 1)),
    ProcessId(3, 30): Place(0, None, ProcessId(3, 30), ProcessId(2, 20, 5)),
}
PLACED = Revocations("boot", KEPT.trees | {ProcessId(4, 40)}, places=PLACES)
GOOD: dict[str, Any] = {"boot": "b", "everybody": False, "trees": [[1, 2, 3]]}


@pytest.mark.parametrize("kept", [Revocations(), KEPT, PLACED, Revocations("boot", everybody=True)])
def test_what_was_written_is_read_again(kept: Revocations) -> None:
    assert Revocations.decode(kept.encode()) == kept


def test_nothing_is_written_where_nothing_was_revoked() -> None:
    assert Revocations().encode() == {}


def test_trees_are_written_in_one_order() -> None:
    assert KEPT.encode()["trees"] == [[3, 30, 0], [20, 200, 7]]


def test_where_a_root_ran_follows_its_number() -> None:
    assert PLACED.encode()["trees"] == [
        [3, 30, 0, 0, None, 3, 30, 0, 2, 20, 5],
        [4, 40, 0],
        [20, 200, 7, 20, "a.scope", 5, 50, 1],
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"boot": 1},
        {"everybody": 1},
        {"more": 1},
        {"trees": [[1, 2]]},
        {"trees": [[1, 2, True]]},
        {"trees": ["1"]},
        {"trees": [[1, 2, "3"]]},
        {"trees": [[1, 2, 3, 4]]},
        {"trees": [[1, 2, 3, 4, "u", 5, 6]]},
        {"trees": [[1, 2, 3, 4, 5, 5, 6, 7]]},
        {"trees": [[1, 2, 3, "s", "u", 5, 6, 7]]},
        {"trees": [[1, 2, 3, 4, "u", 5, 6, 7, 8]]},
        {"trees": [[1, 2, 3, 4, "u", 5, 6, 7, 8, 9, "1"]]},
        {"trees": [[1, 2, 3, 4, "u", 5, 6, 7, 8, 9, 1, 2]]},
        {"trees": [[number, 1, 1] for number in range(MOST_TREES + 1)]},
    ],
)
def test_another_shape_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(CanonicalError):
        Revocations.decode({**GOOD, **changed})
