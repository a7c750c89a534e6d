"""The invariant of tests/fuzz: any bytes parse or raise LockFileError, nothing else."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.agentlock import locks
from backpackd.core.agentlock.document import read
from backpackd.core.agentlock.errors import LockFileError
from fuzz.agent_lock import hold
from lockfiles import ANN, rendered, shared

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
NAMES = ("v1/basic", "v1/unicode", "v2/memory-written-since", "v2/two-lock-keys")
LOCKS = [VECTORS / f"agent-lock-{name}.agent.lock" for name in NAMES]
SEEDS = [shared().encode(), *(path.read_bytes() for path in LOCKS)]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1.0", "2.0", "", "AAAA", "0" * 32, "0" * 64, "=" * 24]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(data, dict):
        pairs: Any = data.items()
    elif isinstance(data, list):
        pairs = enumerate(data)
    else:
        pairs = ()
    for name, member in pairs:
        found += places(member, (*path, name))
    return found


@st.composite
def replaced(draw: st.DrawFn) -> bytes:
    """Return a lock file in which something else stands in one place."""
    data = json.loads(draw(st.sampled_from(SEEDS)))
    path = draw(st.sampled_from(places(data)))
    value = draw(VALUES)
    if not path:
        return rendered(value)
    inside = data
    for step in path[:-1]:
        inside = inside[step]
    if draw(st.booleans()):
        inside[path[-1]] = value
    else:
        del inside[path[-1]]
    return rendered(data)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """Return a lock file of which some bytes were cut out and others put in."""
    seed = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, min(len(seed), start + 40)))
    return seed[:start] + draw(st.binary(max_size=40)) + seed[end:]


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_raise_a_lock_file_error(document: bytes) -> None:
    hold(document)


@given(VALUES.map(rendered))
def test_any_json_parses_or_raises_a_lock_file_error(document: bytes) -> None:
    hold(document)


@given(replaced())
@settings(max_examples=300)
def test_a_lock_with_something_else_in_one_place_parses_or_raises(document: bytes) -> None:
    hold(document)


@given(spliced())
@settings(max_examples=300)
def test_a_lock_with_other_bytes_spliced_in_parses_or_raises(document: bytes) -> None:
    hold(document)


@given(spliced() | replaced())
@settings(max_examples=200)
def test_what_still_opens_is_one_of_the_locks_it_was_made_from(document: bytes) -> None:
    try:
        locks.open_lock(read(document), ANN)
    except LockFileError:
        return
    assert document in SEEDS


def test_the_seeds_themselves_are_known() -> None:
    assert hold(SEEDS[0])
