"""Every open of the daemon's: no links, no waiting, and only what is a private file of the user."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backpackd.adapters.home.files import (
    CREATE,
    READ,
    UNWRITABLE,
    UPDATE,
    UnsafeFileError,
    check_file,
    create_file,
    open_file,
    remove_file,
    sync_directory,
)
from descriptors import descriptors
from odd_files import NOBODY, ODD
from sandboxes import unshared


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home" / "vault.db.purge"


@pytest.mark.parametrize("use", [READ, UPDATE])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_private_file_of_the_user_is_refused_by_name(
    path: Path, kind: str, use: int
) -> None:
    ODD[kind](path)
    before = path.lstat()
    with pytest.raises(UnsafeFileError) as caught:
        os.close(open_file(path, use))
    assert str(caught.value).startswith("vault.db.purge ")
    assert ": " in caught.value.problem, "it says what to do"
    assert path.lstat() == before, "and stays as it was"


@pytest.mark.parametrize("kind", ODD)
def test_nothing_that_is_there_is_taken_for_a_new_file(path: Path, kind: str) -> None:
    ODD[kind](path)
    with pytest.raises(FileExistsError):
        create_file(path)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("use", [UPDATE, CREATE])
def test_a_new_file_is_private_from_creation_whatever_the_umask(
    path: Path, use: int, umask: int
) -> None:
    before = os.umask(umask)
    try:
        os.close(open_file(path, use))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600


def test_what_is_opened_blocks_as_usual_and_is_closed_on_exec(path: Path) -> None:
    descriptor = open_file(path, UPDATE)
    try:
        assert os.get_blocking(descriptor)
        assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        os.close(descriptor)


def test_what_is_checked_is_the_descriptor_and_not_the_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is exchanged between opening and checking does not pass for the other one."""
    path.touch(mode=0o666)
    path.chmod(0o666)
    other = path.with_name("other")
    other.touch(mode=0o600)
    opened = os.open

    def exchanged(*arguments: object, **named: object) -> int:
        descriptor: int = opened(*arguments, **named)  # type: ignore[arg-type]
        other.rename(path)
        return descriptor

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(UnsafeFileError, match="others"):
        open_file(path)


def test_a_refused_file_leaves_no_descriptor_open(path: Path) -> None:
    ODD["open to others"](path)
    before = descriptors()
    with pytest.raises(UnsafeFileError):
        open_file(path)
    assert descriptors() <= before


def test_a_file_that_others_may_only_read_will_do_where_that_is_said(path: Path) -> None:
    path.touch(mode=0o600)
    path.chmod(0o644)
    os.close(open_file(path, refused=UNWRITABLE))
    with pytest.raises(UnsafeFileError):
        open_file(path)
    path.chmod(0o620)
    with pytest.raises(UnsafeFileError, match="go-w"):
        open_file(path, refused=UNWRITABLE)


def test_a_file_of_an_owner_who_was_named_is_opened(path: Path) -> None:
    ODD["somebody else's"](path)
    os.close(open_file(path, owners=(os.geteuid(), NOBODY)))


def test_by_a_name_in_a_directory_the_same_holds(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.close(open_file(path.name, UPDATE, directory=directory))
        assert path.is_file()
        ODD["a FIFO"](path)
        with pytest.raises(UnsafeFileError, match="is a pipe"):
            open_file(path.name, UPDATE, directory=directory)
    finally:
        os.close(directory)


def test_a_file_that_is_not_there_is_told_apart(path: Path) -> None:
    assert not check_file(path)
    create_file(path)
    assert check_file(path)


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "a directory"])
def test_whatever_is_removed_is_not_opened_and_what_a_link_leads_to_stays(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ODD[kind](path)
    kept = [each for each in path.parent.parent.iterdir() if each.is_file()]
    monkeypatch.setattr(os, "open", None)
    remove_file(path)
    remove_file(path)
    assert not os.path.lexists(path)
    assert all(each.is_file() for each in kept)


def test_a_directory_is_not_removed_and_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UnsafeFileError, match=r"vault\.db\.purge is a directory"):
        remove_file(path)


@pytest.mark.parametrize("kind", ["a symbolic link", "a FIFO"])
def test_what_is_no_directory_is_not_written_to_the_disk_as_one(path: Path, kind: str) -> None:
    ODD[kind](path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        sync_directory(path)


_ON_A_READ_ONLY_MOUNT = """
import subprocess, sys
from backpackd.adapters.home.files import UnsafeFileError, open_file

path = sys.argv[1]
subprocess.run(["mount", "--bind", path, path], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
try:
    open_file(path)
except UnsafeFileError as error:
    print(error.problem)
"""


def test_nobody_is_told_to_change_what_is_mounted_read_only(path: Path) -> None:
    path.write_bytes(b"a secret of a container")
    path.chmod(0o444)
    with pytest.raises(UnsafeFileError, match="run chmod 600"):
        open_file(path)
    command = [*unshared("--mount"), sys.executable, "-c", _ON_A_READ_ONLY_MOUNT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "read-only" in done.stdout
    assert "chmod" not in done.stdout
    assert "copy it into a file of your own" in done.stdout


def test_nothing_that_is_not_there_needs_to_be_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refused)
    remove_file(path)
    path.write_bytes(b"x")
    with pytest.raises(PermissionError):
        remove_file(path)
