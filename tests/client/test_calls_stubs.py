"""Calls where grpc and protobuf are missing, too old, or not what they seem."""

import subprocess
import sys
from pathlib import Path

import pytest

from backpack_client.calls import stubs
from backpack_client.failures import Failure

MODULES = ("grpc", "google.protobuf", "backpack_proto", "click")


def python(program: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(directory), "BACKPACK_SOCKET": str(directory / "none")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_python_api_loads_neither_grpc_nor_protobuf(tmp_path: Path) -> None:
    program = (
        "import sys, backpack_client as b; [getattr(b, name) for name in b.__all__]; "
        f"print([name for name in {MODULES} if name in sys.modules])"
    )
    done = python(program, tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param({"grpc.py": "raise RuntimeError('too old')"}, id="an old grpc"),
        pytest.param({"grpc.py": "", "google.py": ""}, id="neither has anything"),
        pytest.param({"google.py": "raise TypeError('descriptors')"}, id="an old protobuf"),
        pytest.param({"backpack_proto.py": "raise SyntaxError"}, id="broken stubs"),
    ],
)
@pytest.mark.parametrize("kind", ["Backpack().status()", "asyncio.run(AsyncBackpack().status())"])
def test_a_call_of_the_operator_says_what_it_needs(
    tmp_path: Path, planted: dict[str, str], kind: str
) -> None:
    for name, text in planted.items():
        (tmp_path / name).write_text(text)
    program = (
        "import asyncio\nfrom backpack_client import AsyncBackpack, Backpack, Failure\n"
        f"try:\n    {kind}\nexcept Failure as failure:\n    print(failure.reason)\n"
    )
    done = python(program, tmp_path)
    assert (done.stdout, done.stderr) == ("full-package-needed\n", "")


def test_a_name_that_the_stubs_do_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = stubs.Stubs("keys_pb2").NothingOfThisName


def test_a_module_that_is_not_there_is_a_failure() -> None:
    with pytest.raises(Failure) as caught:
        stubs.load("backpack_client.nothing_of_this_name")
    assert caught.value.reason == "full-package-needed"
    assert "backpackd" in caught.value.hint
