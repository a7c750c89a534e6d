"""What another program may have put in a file's place: one way for each kind."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY = 65534


def _kept(path: Path) -> Path:
    """Move what is there aside, or make something to stand for it, and return where it is."""
    kept = path.parent.parent / f"kept-{path.name}"
    if path.exists():
        shutil.move(path, kept)
    else:
        kept.touch(mode=0o600)
    return kept


def _link(path: Path) -> None:
    path.symlink_to(_kept(path))


def _dangling(path: Path) -> None:
    _kept(path)
    path.symlink_to(path.with_name("nowhere"))


def _hard_link(path: Path) -> None:
    os.link(_kept(path), path)


def _fifo(path: Path) -> None:
    _kept(path)
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    _kept(path)
    path.mkdir(mode=0o700)


def _socket(path: Path) -> None:
    _kept(path)
    # By a relative path: a long one does not fit into a socket address.
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            listening.bind(path.name)
        finally:
            os.chdir(before)


def _device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a device")
    _kept(path)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _of_another(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    path.touch(mode=0o600)
    os.chown(path, NOBODY, NOBODY)


def _loose(path: Path) -> None:
    path.touch(mode=0o600)
    path.chmod(0o666)


ODD: dict[str, Callable[[Path], None]] = {
    "a symbolic link": _link,
    "a dangling link": _dangling,
    "a hard link": _hard_link,
    "a FIFO": _fifo,
    "a directory": _directory,
    "a socket": _socket,
    "a device": _device,
    "somebody else's": _of_another,
    "open to others": _loose,
}
"""By kind: puts it in the place of a path, whatever is there."""
