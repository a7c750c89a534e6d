"""The reasons and messages in docs/troubleshooting.md are those of the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from backpack_client import failures
from backpack_client.cli.main import _HOMES
from told_failures import of_the_client, told

ROOT = Path(__file__).resolve().parents[1]
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CLIENT = ROOT / "client" / "backpack_client"
CODES = range(failures.EXIT_LOCKED, failures.EXIT_UNVOUCHED + 1)
SHORTEST_PIECE = 4


@cache
def trees() -> list[ast.Module]:
    paths = [*CLIENT.rglob("*.py"), *(ROOT / "backpackd").rglob("*.py")]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def exit_codes(given: ast.expr | None) -> set[int]:
    """The exit codes that an expression names; one that relays another failure's names none."""
    if given is None:
        return {failures.EXIT_FAILED}
    names = {node.id for node in ast.walk(given) if isinstance(node, ast.Name)}
    return {int(getattr(failures, name)) for name in names if hasattr(failures, name)}


def reasons_in_client() -> set[tuple[int, str]]:
    """Every exit code and reason given where the client makes a failure of its own."""
    found = set()
    for path in CLIENT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "Failure":
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            reason = given.get("reason")
            word = words.get(reason.id) if isinstance(reason, ast.Name) else None
            word = reason.value if isinstance(reason, ast.Constant) else word
            if word is not None:
                found |= {(code, str(word)) for code in exit_codes(given.get("exit_code"))}
    return found


def reasons() -> set[tuple[int, str]]:
    """Every exit code of the client with every reason that leads to it."""
    rows = re.findall(r"^\| `([a-z][a-z-]*)` \| ([A-Z_]+) \|", PROTOCOL, re.MULTILINE)
    of_daemon = {
        (failures.from_status(status, reason, "", {}).exit_code, reason) for reason, status in rows
    }
    of_table = {(code, reason) for reason, (code, _) in failures._BY_REASON.items()}
    of_status = {(code, reason) for code, reason, _ in failures._BY_STATUS.values()}
    return of_daemon | of_table | of_status | reasons_in_client()


def section(code: int) -> str:
    return TROUBLE.partition(f"\n## Exit code {code}: ")[2].partition("\n## ")[0]


@pytest.mark.parametrize("code", CODES)
def test_the_section_of_an_exit_code_has_exactly_the_reasons_that_lead_to_it(code: int) -> None:
    assert section(code)
    documented = re.findall(r"^### `([a-z-]+)`$", section(code), re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == {reason for exit_code, reason in reasons() if exit_code == code}


def test_no_reason_stands_outside_of_the_section_of_an_exit_code() -> None:
    everywhere = re.findall(r"^### ", TROUBLE, re.MULTILINE)
    assert len(everywhere) == sum(section(code).count("\n### ") for code in CODES)


def test_every_word_in_the_form_of_a_reason_is_one() -> None:
    words = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", TROUBLE))
    others = {"backpack-client", "backpack-reason", *_HOMES}
    assert words - others - {reason for _, reason in reasons()} == set()


@cache
def pieces() -> list[str]:
    """Every text in the code; of one with placeholders, the parts between them."""
    nodes = (node for tree in trees() for node in ast.walk(tree))
    return [
        part
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for part in re.split(r"\{\w+\}", node.value)
    ]


def is_written(text: str) -> bool:
    """Tell whether the code has a text, in one piece or put together from several."""
    return any(text in piece for piece in pieces()) or any(
        is_written(text.removeprefix(piece))
        for piece in pieces()
        if len(piece) >= SHORTEST_PIECE and text.startswith(piece)
    )


@pytest.mark.parametrize(
    "message",
    [
        line.removeprefix("backpack-client: ")
        for block in re.findall(r"^```text\n(.*?)^```", TROUBLE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ],
)
def test_a_message_is_one_that_the_code_has(message: str) -> None:
    # What is put after a colon is often a text of its own.
    fixed = [part.removeprefix(": ") for part in re.split(r"<[^>]*>", message) if part]
    assert [part for part in fixed if not is_written(part)] == []


def messages(code: int) -> list[str]:
    """Every message in the section of an exit code."""
    blocks = re.findall(r"^```text\n(.*?)^```", section(code), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("backpack-client: ") for line in lines]


@pytest.mark.parametrize(
    ("code", "message"), sorted({(code, message) for code, _, message in told() if message})
)
def test_every_message_of_the_code_stands_in_the_section_of_its_exit_code(
    code: int, message: str
) -> None:
    fixed = [re.escape(part) for part in message.split("…")]
    form = re.compile(".+".join(fixed) + (".+" if message.endswith(": ") else ""))
    assert any(form.fullmatch(line) for line in messages(code))


def test_the_search_through_the_code_finds_what_the_client_and_the_daemon_say() -> None:
    found = told()
    assert len(found) > 50
    assert (7, "no-daemon", "no daemon at …: the connection was lost") in found
    assert (3, "locked", "the vault is locked: unlock it first") in found
    assert (failures.EXIT_FAILED, "not-confirmed") in {each[:2] for each in of_the_client()}
