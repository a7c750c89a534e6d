"""Keys in a sealed file in memory: what is written, who can change it, what is read."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import Failure
from backpack_client.launch import key_descriptor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

VALUES = {"K": b"text \xc3\xa4", "odd.name-1": b"\xff\x00", "EMPTY": b""}


@pytest.fixture
def number() -> Iterator[int]:
    made = key_descriptor.write_keys(VALUES)
    yield made
    os.close(made)


def environ(number: int) -> dict[str, str]:
    return {"BACKPACK_KEYS_FD": str(number)}


def handed(number: int) -> dict[str, str]:
    return {name: text.decode() for name, text in key_descriptor.variables(number).items()}


def sealed(content: bytes, name: str = "backpack-keys") -> int:
    made = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.write(made, content)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    return made


def test_what_is_written_is_read_again_and_again(number: int) -> None:
    assert key_descriptor.handed_keys(environ(number)) == VALUES
    os.lseek(number, 5, os.SEEK_SET)
    assert key_descriptor.handed_keys(environ(number)) == VALUES
    assert os.lseek(number, 0, os.SEEK_CUR) == 5


def test_the_form_is_the_one_that_is_documented(number: int) -> None:
    assert json.loads(os.pread(number, 4096, 0)) == {
        "keys": {"K": "text ä", "EMPTY": ""},
        "base64": {"odd.name-1": "/wA="},
    }


def test_it_survives_exec_and_stands_at_its_beginning(number: int) -> None:
    assert os.get_inheritable(number)
    assert os.lseek(number, 0, os.SEEK_CUR) == 0


def test_it_takes_the_place_of_no_standard_stream_that_is_closed() -> None:
    source = (
        "import os; os.close(0); os.close(1)\n"
        "from backpack_client.launch.key_descriptor import write_keys\n"
        "assert write_keys({}) == 3\n"
    )
    done = subprocess.run([sys.executable, "-c", source], timeout=60, check=False)
    assert done.returncode == 0


def test_nobody_can_change_it(number: int) -> None:
    for attempt in (
        lambda: os.write(number, b"x"),
        lambda: os.ftruncate(number, 0),
        lambda: os.ftruncate(number, 2**20),
        lambda: fcntl.fcntl(number, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(PermissionError):
            attempt()


@pytest.mark.parametrize("named", ["", "x", "-1", "1e1", "99999999999", "²", "999999"])
def test_a_variable_that_names_nothing_is_a_failure(named: str) -> None:
    with pytest.raises(Failure):
        key_descriptor.handed_keys({"BACKPACK_KEYS_FD": named})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"keys": []}', b'{"keys": {"K": 1}}', b"\xff", b"{}",
                b'{"keys": {}, "base64": {"K": "no base64!"}}'],
)  # fmt: skip
def test_another_file_in_its_place_is_a_failure_that_shows_nothing(content: bytes) -> None:
    made = sealed(content)
    try:
        with pytest.raises(Failure) as caught:
            key_descriptor.handed_keys(environ(made))
    finally:
        os.close(made)
    assert caught.value.reason == "no-handed-keys"
    assert caught.value.__cause__ is None


def test_the_path_names_the_same_file_and_outlives_a_closed_descriptor() -> None:
    made = key_descriptor.write_keys(VALUES)
    environ = handed(made)
    kept = os.dup(made)
    try:
        os.close(made)
        # As Node leaves it for its children: the number is now that of another file.
        os.dup2(os.open(os.devnull, os.O_RDONLY), made)
        with pytest.raises(Failure):
            key_descriptor.handed_keys({"BACKPACK_KEYS_FD": environ["BACKPACK_KEYS_FD"]})
        path = f"/proc/{os.getpid()}/fd/{kept}"
        assert key_descriptor.handed_keys({**environ, "BACKPACK_KEYS_PATH": path}) == VALUES
        assert key_descriptor.handed_keys({"BACKPACK_KEYS_PATH": path}) == VALUES
    finally:
        os.close(made)
        os.close(kept)


def test_the_descriptor_goes_before_the_path(number: int) -> None:
    other = sealed(b'{"keys": {"K": "of the path"}}')
    try:
        path = f"/proc/{os.getpid()}/fd/{other}"
        assert key_descriptor.handed_keys({**environ(number), "BACKPACK_KEYS_PATH": path}) == VALUES
    finally:
        os.close(other)


@pytest.mark.parametrize("how", ["unsealed", "partly sealed", "another name", "a file", "a pipe"])
def test_what_is_not_the_sealed_file_is_read_by_neither_way(how: str, tmp_path: Path) -> None:
    content = b'{"keys": {"K": "forged"}}'
    if how == "another name":
        made = sealed(content, "other")
    elif how == "a file":
        (tmp_path / "keys").write_bytes(content)
        made = os.open(tmp_path / "keys", os.O_RDONLY)
    elif how == "a pipe":
        made, _writer = os.pipe()
        os.close(_writer)
    else:
        made = os.memfd_create("backpack-keys", os.MFD_ALLOW_SEALING)
        os.write(made, content)
        if how == "partly sealed":
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK)
    try:
        for named in (environ(made), handed(made)):
            with pytest.raises(Failure):
                key_descriptor.handed_keys(named)
    finally:
        os.close(made)


def test_without_proc_the_seals_alone_tell_the_file(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", missing)
    assert key_descriptor.handed_keys(environ(number)) == VALUES
    unsealed = os.memfd_create("backpack-keys", os.MFD_ALLOW_SEALING)
    try:
        os.write(unsealed, b'{"keys": {}}')
        with pytest.raises(Failure):
            key_descriptor.handed_keys(environ(unsealed))
    finally:
        os.close(unsealed)


@pytest.mark.parametrize("path", ["keys", "/tmp/keys", "/proc/self/fd/3", "/proc/1/fd/../../x"])
def test_a_path_of_another_form_is_not_opened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(Failure, match="not of the form"):
        key_descriptor.handed_keys({"BACKPACK_KEYS_PATH": path})


def test_a_sandbox_without_such_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(Failure, match="operation not permitted") as caught:
        key_descriptor.write_keys(VALUES)
    assert "--inject env" in caught.value.hint


def test_where_there_are_no_such_files_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Failure, match="Linux only"):
        key_descriptor.check_possible()
