"""What `import` takes from a `.env` file is what npm's dotenv and python-dotenv read there."""

import json
import logging
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values

from backpack_client.files.dotenv import DotenvError, parse

_NODE = Path(__file__).parent / "grpc_js"

TAKEN = [
    "A=b",
    "A = b c # d",
    "export A=b\r\nB=c\r\n",
    "A=1\rB=2\r",
    "\ufeffA=b",
    "A=b;c",
    'A={"k": "v"}',
    "A=$2b$10$",
    "A=100$",
    "A=b\\nc",
    "A=b=c==",
    "A='b'#c",
    "A=' b # c ' # d",
    "A='$B `c` \\n'",
    "A='x\r\ny'",
    'A="x\ny"',
    r'A="a\nb\rc"',
    "A='-----BEGIN K-----\nabc=\n-----END K-----\n'\nB=1",
    "A.b-c=1",
]
DIFFERENT = [
    "A=a#b",
    "A=#x",
    "A=b\N{NO-BREAK SPACE}",
    r'A="a\tb"',
    r'A="a\"b"',
    r'A="a\\b"',
    r'A="a\\n"',
    r"A='a\\b'",
    r"A='a\'",
    "A='${B}'",
    "A=${B}",
    'A="${B}"',
    "A=`b`",
    "A='b'c",
    "A=1\nA: 2",
    "A=1\n'A'=2",
    "A=1\nA #",
    "A=1\nA\n=2",
    "A=\n'b'",
    'A="x\nB=1\nC="2"',
]
PIECES = [
    "A=", "B=", "A", "B", "=", "export ", "'", '"', "\\", "\n", "\n", "\n", "\r\n", "\r", " #", "#",
    " ", "x", "y", "$B", "${B}", "`", ":", "\\n", "\\t", "\\\\", '\\"', "\t", "\x0b", "\xa0", ";",
    "'x'\n", '"y"\n', "A='x'", 'B="y"', "=1\n", "A: 2",
]  # fmt: skip


def _node(texts: list[str]) -> list[list[dict[str, str]]]:
    if shutil.which("node") is None:
        pytest.skip("needs node (Debian: nodejs, npm)")
    if not (_NODE / "node_modules" / "dotenv").is_dir():
        pytest.skip("needs npm to install dotenv")
    done = subprocess.run(
        ["node", str(_NODE / "read_dotenv.js")],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: list[list[dict[str, str]]] = json.loads(done.stdout)
    return answer


def _python(text: str, path: Path) -> dict[str, str | None]:
    path.write_bytes(text.encode())
    return dict(dotenv_values(path))


def _ours(text: str) -> dict[str, str]:
    try:
        return {entry.name: entry.value.decode() for entry in parse(text.encode()).entries}
    except DotenvError:
        return {}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep python-dotenv from warning of each line that it cannot read."""
    logger = logging.getLogger("dotenv.main")
    logger.disabled = True
    monkeypatch.delenv("B", raising=False)
    yield
    logger.disabled = False


def _check(texts: list[str], file: Path) -> None:
    for text, node in zip(texts, _node(texts), strict=True):
        taken = _ours(text)
        reads: list[Mapping[str, str | None]] = [*node, _python(text, file)]
        for read in reads:
            assert {name: read.get(name) for name in taken} == taken, text


def test_what_is_taken_is_what_both_readers_read(tmp_path: Path) -> None:
    assert [text for text in TAKEN if not _ours(text)] == []
    _check(TAKEN, tmp_path / "env")


def test_of_what_they_read_differently_nothing_is_taken(tmp_path: Path) -> None:
    # Some of it they read alike today, and other versions or other readers do not.
    assert [text for text in DIFFERENT if _ours(text)] == []
    nodes = _node(DIFFERENT)
    differ = [
        text
        for text, node in zip(DIFFERENT, nodes, strict=True)
        if _python(text, tmp_path / "env") not in node
    ]
    assert len(differ) > len(DIFFERENT) // 2


def test_of_any_text_no_other_value_is_taken_than_both_readers_read(tmp_path: Path) -> None:
    chance = random.Random(20)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(1, 14))) for _ in range(1500)]
    _check(texts, tmp_path / "env")
