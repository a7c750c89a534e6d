"""The storeys of the code and its form, held by walking the syntax trees.

Every import counts, inside functions and under `if TYPE_CHECKING` included. What this does not
see is code that is run from strings, which is why the core may not call that either.
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "backpackd": ROOT / "backpackd",
    "backpack_client": ROOT / "client" / "backpack_client",
}
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")

# Values in, values out: what of the standard library does not reach outside the process.
PURE = (
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "typing",
    "unicodedata",
)
IMPURE_BUILTINS = {
    "__import__",
    "breakpoint",
    "compile",
    "eval",
    "exec",
    "globals",
    "input",
    "open",
    "print",
}
GRPC = ("grpc", "grpc_health", "grpc_reflection", "google.protobuf", "backpack_proto")


def modules(package: str) -> dict[str, Path]:
    """Return the files of a package by their dotted names."""
    top = PACKAGES[package]
    found = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def part_of(storey: str) -> dict[str, Path]:
    """Return the modules of one storey of the daemon."""
    return {name: path for name, path in modules("backpackd").items() if within(name, storey)}


def within(name: str, *packages: str) -> bool:
    """Tell whether a dotted name is one of these packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield every name that is imported anywhere, with the module that it comes from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # A relative import is named by its dots, and so lies in no package that is allowed.
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own(name: str) -> bool:
    """Tell whether an imported name is of this project or relative."""
    return within(name, "backpackd", "backpack_client", "backpack_proto") or name.startswith(".")


def strangers(storey: str, *allowed: str) -> list[str]:
    """Return what a storey imports of this project beside what it may."""
    return [
        f"{module} imports {name}"
        for module, path in part_of(storey).items()
        for name in imports(parsed(path))
        if own(name) and not within(name, *allowed)
    ]


def test_imports_inside_functions_and_classes_are_seen() -> None:
    source = (
        "def work():\n    import time\n    class Inner:\n        from os import path\n"
        "try:\n    from . import near\nexcept ImportError:\n    import a.b as c\n"
    )
    assert sorted(imports(ast.parse(source))) == ["..near", "a.b", "os.path", "time"]


@pytest.mark.parametrize(
    "storey",
    [
        "core",
        "ports",
        "adapters",
        "application",
        "rpc",
        "daemon",
        "check",
        "config",
        "config_reload",
        "settings",
        "composition",
        "__main__",
    ],
)
def test_every_storey_that_is_watched_is_there(storey: str) -> None:
    assert part_of(f"backpackd.{storey}")


def test_every_module_of_the_daemon_is_in_a_storey_that_is_watched() -> None:
    watched = [f"backpackd.{name}" for name in ("core", "ports", "adapters", "application", "rpc")]
    above = {
        f"backpackd.{name}"
        for name in (
            "__main__",
            "check",
            "composition",
            "config",
            "config_reload",
            "daemon",
            "settings",
        )
    }
    above.add("backpackd")
    assert [n for n in modules("backpackd") if not within(n, *watched) and n not in above] == []


def test_the_core_imports_only_itself_cryptography_and_what_is_pure() -> None:
    allowed = ("backpackd.core", "cryptography.hazmat", "cryptography.exceptions", *PURE)
    found = [
        f"{module} imports {name}"
        for module, path in part_of("backpackd.core").items()
        for name in imports(parsed(path))
        if not within(name, *allowed)
    ]
    assert found == []


def test_the_core_names_no_builtin_that_reaches_outside() -> None:
    found = [
        f"{module}:{node.lineno} names {node.id}"
        for module, path in part_of("backpackd.core").items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS
    ]
    assert found == []


def test_the_ports_import_only_the_core() -> None:
    assert strangers("backpackd.ports", "backpackd.core") == []


def test_adapters_import_only_core_ports_and_adapters() -> None:
    allowed = ("backpackd.core", "backpackd.ports", "backpackd.adapters")
    assert strangers("backpackd.adapters", *allowed) == []


def test_the_application_imports_only_core_ports_and_itself() -> None:
    allowed = ("backpackd.core", "backpackd.ports", "backpackd.application")
    assert strangers("backpackd.application", *allowed) == []


def test_rpc_imports_everything_but_adapters() -> None:
    allowed = ("core", "ports", "application", "rpc")
    names = [f"backpackd.{name}" for name in allowed]
    assert strangers("backpackd.rpc", *names, "backpack_proto") == []


def test_settings_are_read_with_the_core_and_the_one_way_to_open_files_alone() -> None:
    # And the one way to open a file, which the configuration file is opened by as well.
    allowed = ("backpackd.core", "backpackd.adapters.home.files", "backpackd.__version__")
    assert strangers("backpackd.settings", *allowed) == []
    assert strangers("backpackd.config", *allowed, "backpackd.settings") == []


def test_only_the_composition_root_joins_adapters_to_the_rest() -> None:
    joining = {
        module
        for module, path in modules("backpackd").items()
        if not within(module, "backpackd.adapters")
        and any(within(name, "backpackd.adapters") for name in imports(parsed(path)))
    }
    joins = {"backpackd.__main__", "backpackd.check", "backpackd.daemon"}
    joins |= {"backpackd.composition"}
    assert joining == joins | {"backpackd.config", "backpackd.settings"}


# Directories, /proc, the running interpreter, and a file without a name: nothing of these is a file
# that the daemon keeps.
OPENING_OTHERWISE = {
    "backpackd.adapters.processes.credentials",
    "backpackd.adapters.system.listener",
    "backpackd.adapters.processes.claims",
    "backpackd.adapters.processes.linux",
    "backpackd.adapters.processes.procfs",
    "backpackd.adapters.stores.spool",
    "backpackd.adapters.secrets.closed_interpreter",
}
OPENERS = ("open", "os.open", "io.open", "NamedTemporaryFile", "TemporaryFile", "mkstemp")


def opens_a_file(call: ast.Call) -> bool:
    """Tell whether a call opens a file by its path, as far as its name says so."""
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if name in OPENERS or last in OPENERS[3:]:
        return True
    # Methods of pathlib.Path; other things that are opened here take no such path.
    return last == "open" and ast.unparse(call.func).startswith(("Path(", "path.", "self._path."))


def test_only_one_module_of_the_daemon_opens_files() -> None:
    opening = {
        module
        for module, path in modules("backpackd").items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and opens_a_file(node)
    }
    assert opening == OPENING_OTHERWISE | {"backpackd.adapters.home.files"}


def test_the_daemon_imports_no_grpc() -> None:
    knowing = [
        f"{module} imports {name}"
        for module, path in modules("backpackd").items()
        for name in imports(parsed(path))
        if name.partition(".")[0].startswith("grpc")
    ]
    assert knowing == []


def test_messages_are_known_to_rpc_only() -> None:
    knowing = [
        f"{module} imports {name}"
        for module, path in modules("backpackd").items()
        if not within(module, "backpackd.rpc")
        for name in imports(parsed(path))
        if within(name, *GRPC)
    ]
    assert knowing == []


def test_the_client_imports_nothing_of_the_daemon_nor_what_only_the_daemon_may_touch() -> None:
    barred = ("backpackd", "cryptography", "keyring")
    found = [
        f"{module} imports {name}"
        for module, path in modules("backpack_client").items()
        for name in imports(parsed(path))
        if within(name, *barred)
    ]
    assert found == []


def test_the_daemon_imports_nothing_of_the_client() -> None:
    found = [
        f"{module} imports {name}"
        for module, path in modules("backpackd").items()
        for name in imports(parsed(path))
        if within(name, "backpack_client")
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_a_drawer_for_odds_and_ends(package: str) -> None:
    drawers = {"common", "helpers", "misc", "util", "utils"}
    assert [name for name in modules(package) if drawers & set(name.split("."))] == []


def documented(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield every public class, function and method with its dotted name in the module."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            overload = any(ast.unparse(mark).endswith("overload") for mark in node.decorator_list)
            if node.name.startswith("_") or overload:
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    yield from walk(tree.body, "")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_function_and_method_says_in_a_sentence_what_it_does(
    package: str,
) -> None:
    silent = []
    for module, path in modules(package).items():
        for name, node in documented(parsed(path)):
            assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if not first.endswith("."):
                silent.append(f"{module}.{name}")
    assert silent == []


def raised(node: ast.AST) -> Iterator[str]:
    """Yield the class of what a function raises by its name and does not catch itself."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Try) and node.handlers and child in node.body:
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            made = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            name = ast.unparse(made).rpartition(".")[2]
            if name[:1].isupper():
                yield name
        yield from raised(child)


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a docstring is the help of a command, which people read."""
    marks = [ast.unparse(mark).partition("(")[0] for mark in node.decorator_list]
    return any(mark.endswith((".command", ".group")) for mark in marks)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_public_function_that_raises_by_name_says_so_under_raises(package: str) -> None:
    silent = []
    for module, path in modules(package).items():
        for name, node in documented(parsed(path)):
            if isinstance(node, ast.ClassDef):
                continue
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            said = ast.get_docstring(node) or ""
            # What a port or another method says of it stands there.
            if said.startswith("See `") or is_command(node):
                continue
            if any(raised(node)) and "Raises:" not in said:
                silent.append(f"{module}.{name}")
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_opens_with_what_it_is_for(package: str) -> None:
    silent = [
        name for name, path in modules(package).items() if not ast.get_docstring(parsed(path))
    ]
    assert silent == []


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_of_the_core_holds_two_ideas() -> None:
    assert [name for name, path in part_of("backpackd.core").items() if lines(path) > 350] == []


def test_no_file_of_code_or_tests_is_longer_than_500_lines() -> None:
    files = [path for package in PACKAGES for path in modules(package).values()]
    files += (ROOT / "tests").rglob("*.py")
    own_files = [path for path in files if "node_modules" not in path.parts]
    assert [str(path.relative_to(ROOT)) for path in own_files if lines(path) > 500] == []


def generated(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.name.endswith(GENERATED)
    }


def test_the_stubs_are_what_the_proto_files_generate(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    proto = ROOT / "proto"
    sources = [str(path.relative_to(proto)) for path in sorted(proto.rglob("*.proto"))]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", str(proto), *outputs, *sources],
        check=True,
        cwd=proto,
        timeout=60,
    )
    committed, fresh = generated(proto), generated(tmp_path)
    assert sorted(committed) == sorted(fresh)
    assert [name for name in fresh if committed[name] != fresh[name]] == []
