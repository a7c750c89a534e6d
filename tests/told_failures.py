"""What the code tells people when it fails, read from its source: for tests of the documents.

A message stands here as a person sees it, with `…` for each part that is filled in.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from backpack_client import failures
from backpackd.core.errors import BackpackError

ROOT = Path(__file__).resolve().parents[1]
CODES = range(failures.EXIT_LOCKED, failures.EXIT_UNVOUCHED + 1)
_EXITS = {name: code for name, code in vars(failures).items() if name.startswith("EXIT_")}


def shape(node: ast.expr) -> str:
    """Return a message as it is written in the source; empty where a name stands for it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
    return "".join(parts)


def constructed(root: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a name in the code below a directory, with that name."""
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                yield (function.id if isinstance(function, ast.Name) else name), node


def keyword(node: ast.Call, name: str) -> ast.expr | None:
    """Return what is given for an argument by its name."""
    return next((each.value for each in node.keywords if each.arg == name), None)


def classes() -> dict[str, type[BackpackError]]:
    """Return every class of errors that the daemon tells callers of, by its name."""
    importlib.import_module("backpackd.daemon")
    found: dict[str, type[BackpackError]] = {}
    waiting = [BackpackError]
    while waiting:
        one = waiting.pop()
        found[one.__name__] = one
        waiting += one.__subclasses__()
    return found


def of_the_daemon() -> Iterator[tuple[int, str, str]]:
    """Yield exit code, reason and message of every error that the daemon sends."""
    kinds = classes()
    for name, node in constructed(ROOT / "backpackd"):
        if name in kinds and node.args:
            given = keyword(node, "reason")
            reason = given.value if isinstance(given, ast.Constant) else kinds[name].reason
            status = kinds[name].status.value
            told = failures.from_status(status, str(reason), "", {})
            yield told.exit_code, told.reason, shape(node.args[0])


def of_the_client() -> Iterator[tuple[int, str, str]]:
    """Yield exit code, reason and message of every failure that the client makes by itself."""
    for name, node in constructed(ROOT / "client" / "backpack_client"):
        if name == "no_daemon":
            yield failures.EXIT_NO_DAEMON, "no-daemon", f"no daemon at …: {shape(node.args[1])}"
        elif name == "_not_trusted":
            yield failures.EXIT_NO_DAEMON, "socket-not-trusted", shape(node.args[0])
        elif name == "Failure":
            code, reason = keyword(node, "exit_code"), keyword(node, "reason")
            # One that passes another's exit code on is told by the other's entry.
            numbers = {
                _EXITS[each.id]
                for each in ast.walk(code or ast.Constant(0))
                if isinstance(each, ast.Name) and each.id in _EXITS
            }
            for number in numbers:
                word = reason.value if isinstance(reason, ast.Constant) else ""
                yield number, str(word), shape(node.args[0])


def of_statuses() -> Iterator[tuple[int, str, str]]:
    """Yield exit code and reason of what gRPC itself says, and of reasons in the client's table."""
    for code, word, _ in failures._BY_STATUS.values():
        yield code, word, ""
    for reason, (code, _) in failures._BY_REASON.items():
        yield code, reason, ""


def told() -> set[tuple[int, str, str]]:
    """Return exit code, reason and message of all that ends with one of the exit codes 3 to 9."""
    every = [*of_the_daemon(), *of_the_client(), *of_statuses()]
    return {each for each in every if each[0] in CODES}
