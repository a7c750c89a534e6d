"""The table of attacks names tests that exist, and says so where there is none."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "docs" / "security-testing.md").read_text(encoding="utf-8")
HEADER = ["attack", "promise", "result", "test", "version"]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for section in TABLE.split("\n## ")[1:]
    for line in section.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| attack |"))
]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([^`]+::[^`]+)`", row[3])})


@cache
def functions(path: str) -> frozenset[str]:
    """Return the names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_row_has_every_column_and_there_are_rows_for_each_kind() -> None:
    assert len(ROWS) > 80
    assert [row for row in ROWS if len(row) != len(HEADER) or not all(row)] == []
    headings = re.findall(r"^## (\d+)\. ", TABLE, re.MULTILINE)
    assert headings == [str(number) for number in range(1, 11)]


def test_a_row_names_a_test_or_says_that_there_is_none() -> None:
    bare = [row for row in ROWS if "::" not in row[3] and not row[3].startswith("none")]
    assert bare == []


def test_a_row_without_a_test_was_tried_by_hand_or_is_documented() -> None:
    bare = [row[2] for row in ROWS if row[3].startswith("none")]
    known = re.compile(r"by hand|documented|reads on")
    assert [result for result in bare if not known.search(result)] == []


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert name in functions(path)
