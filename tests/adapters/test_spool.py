"""Where bytes on their way are kept, and what a full disk makes of it."""

import asyncio
import errno
import os
import tempfile
from pathlib import Path

import pytest

from backpackd.adapters.stores.spool import FileSpool
from backpackd.core.errors import DiskFullError


async def test_what_is_appended_comes_back_and_leaves_nothing(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    await spool.append(b"one ")
    await spool.append(b"two")
    assert b"".join([piece async for piece in spool.pieces()]) == b"one two"
    spool.close()
    spool.close()
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


def test_a_disk_without_room_for_another_file_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(DiskFullError):
        FileSpool(tmp_path)
