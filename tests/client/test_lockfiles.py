"""Lock files on disk: found, read, replaced whole, and never what somebody else wrote meanwhile."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backpack_client.failures import Failure
from backpack_client.files import lockfiles
from backpack_client.files.lockfiles import LockFile
from sandboxes import unshared


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(Failure) as caught:
        call()
    return caught.value.reason


@pytest.fixture
def lock(tmp_path: Path) -> LockFile:
    return lockfiles.create(str(tmp_path / "agent.lock"), b"first")


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_lock_is_found_here_and_above(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    above = tmp_path / "agent.lock"
    above.write_bytes(b"x")
    assert lockfiles.find(str(tmp_path)) == str(above)
    assert lockfiles.find(str(deep)) == str(above)
    (deep / "agent.lock").write_bytes(b"y")
    assert lockfiles.find(str(deep)) == str(deep / "agent.lock")


@pytest.mark.parametrize("marker", ["directory", "file"])
def test_the_search_ends_at_the_repositorys_root(tmp_path: Path, marker: str) -> None:
    deep = tmp_path / "repository" / "src"
    deep.mkdir(parents=True)
    git = deep.parent / ".git"
    # A file is what a worktree or a submodule has.
    git.mkdir() if marker == "directory" else git.write_text("gitdir: elsewhere\n")
    (tmp_path / "agent.lock").write_bytes(b"outside")
    assert reason(lambda: lockfiles.find(str(deep))) == "no-lock"
    (deep.parent / "agent.lock").write_bytes(b"at the root")
    assert lockfiles.find(str(deep)) == str(deep.parent / "agent.lock")


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to make another user's directory")
def test_the_search_does_not_go_up_into_what_belongs_to_somebody_else(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    mine = theirs / "mine"
    mine.mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    (theirs / "agent.lock").write_bytes(b"planted")
    assert reason(lambda: lockfiles.find(str(mine))) == "no-lock"
    assert lockfiles.find(str(theirs)) == str(theirs / "agent.lock")


def test_a_new_lock_is_readable_by_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = lockfiles.create(str(tmp_path / "agent.lock"), b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(made.path).stat().st_mode) == 0o600
    assert names(tmp_path) == ["agent.lock"]


def test_a_new_lock_takes_nobodys_place(tmp_path: Path, lock: LockFile) -> None:
    assert reason(lambda: lockfiles.create(lock.path, b"other")) == "lock-exists"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert reason(lambda: lockfiles.create(str(tmp_path / "link"), b"other")) == "lock-exists"
    assert lockfiles.read(lock.path).data == b"first"
    assert names(tmp_path) == ["agent.lock", "link"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_a_lock_that_is_replaced_keeps_its_mode(lock: LockFile, mode: int) -> None:
    Path(lock.path).chmod(mode)
    lockfiles.replace(lockfiles.read(lock.path), b"second")
    assert stat.S_IMODE(Path(lock.path).stat().st_mode) == mode
    assert Path(lock.path).read_bytes() == b"second"


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to give a file away")
def test_a_lock_that_root_replaces_keeps_its_owner(lock: LockFile) -> None:
    os.chown(lock.path, 65534, 65534)
    Path(lock.path).chmod(0o640)
    lockfiles.replace(lockfiles.read(lock.path), b"second")
    found = Path(lock.path).stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o640)


def test_what_somebody_else_wrote_meanwhile_is_not_overwritten(
    tmp_path: Path, lock: LockFile
) -> None:
    Path(lock.path).write_bytes(b"theirs")
    assert reason(lambda: lockfiles.replace(lock, b"mine")) == "lock-changed"
    assert Path(lock.path).read_bytes() == b"theirs"
    assert names(tmp_path) == ["agent.lock"]


def test_a_lock_that_was_deleted_meanwhile_is_not_made_anew(tmp_path: Path, lock: LockFile) -> None:
    Path(lock.path).unlink()
    assert reason(lambda: lockfiles.replace(lock, b"mine")) == "no-lock"
    assert names(tmp_path) == []


def test_writing_the_same_bytes_writes_nothing(lock: LockFile) -> None:
    before = Path(lock.path).stat()
    lockfiles.replace(lock, b"first")
    assert Path(lock.path).stat().st_ino == before.st_ino


def test_of_writers_at_once_one_after_the_other_gets_through(lock: LockFile) -> None:
    """Each adds a letter to what it has read; no letter may be lost."""
    writers, times = 4, 10
    tries: list[str] = []

    def write(letter: bytes) -> None:
        for _ in range(times):
            while True:
                seen = lockfiles.read(lock.path)
                try:
                    lockfiles.replace(seen, seen.data + letter)
                except Failure as failure:
                    tries.append(failure.reason)
                else:
                    break

    threads = [
        threading.Thread(target=write, args=(bytes([letter]),)) for letter in b"abcd"[:writers]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = Path(lock.path).read_bytes()
    assert sorted(data.removeprefix(b"first")) == sorted(b"abcd" * times)
    assert set(tries) <= {"lock-changed"}


def test_a_file_that_was_replaced_is_not_the_one_whose_lock_counts(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that waited for the lock of a file gets it when that file is out of sight."""
    old = os.open(lock.path, os.O_RDWR)
    fcntl.flock(old, fcntl.LOCK_EX)
    real = fcntl.flock

    def meanwhile(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        fresh = Path(lock.path + ".other")
        fresh.write_bytes(b"theirs")
        fresh.rename(lock.path)
        os.close(old)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    assert reason(lambda: lockfiles.replace(lock, b"mine")) == "lock-changed"
    assert Path(lock.path).read_bytes() == b"theirs"


def test_the_lock_that_is_held_is_that_of_the_file_in_place(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that was replaced by the same bytes, the lock of the old one keeps nobody out."""
    real = fcntl.flock
    locked: list[tuple[int, int]] = []

    def meanwhile(descriptor: int, operation: int) -> None:
        if not locked:
            fresh = Path(lock.path + ".other")
            fresh.write_bytes(lock.data)
            fresh.rename(lock.path)
        locked.append((os.fstat(descriptor).st_ino, Path(lock.path).stat().st_ino))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    lockfiles.replace(lock, b"mine")
    held, in_place = locked[-1]
    assert (held == in_place, len(locked)) == (True, 2)


def test_a_lock_that_another_program_holds_for_long_is_left_alone(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockfiles, "_PATIENCE", 0.0)
    with Path(lock.path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert reason(lambda: lockfiles.replace(lock, b"mine")) == "lock-busy"
    assert Path(lock.path).read_bytes() == b"first"


def test_a_symbolic_link_is_neither_read_nor_written_through(
    tmp_path: Path, lock: LockFile
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"first")
    Path(lock.path).unlink()
    Path(lock.path).symlink_to(target)
    assert reason(lambda: lockfiles.read(lock.path)) == "lock-not-regular"
    assert reason(lambda: lockfiles.replace(lock, b"mine")) == "lock-not-regular"
    assert target.read_bytes() == b"first"
    assert Path(lock.path).is_symlink()


def test_a_directory_a_pipe_and_a_device_are_no_locks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for path in (str(tmp_path / "pipe"), str(tmp_path / "directory"), "/dev/zero"):
        with pytest.raises(Failure, match="is no regular file"):
            lockfiles.read(path)


def test_what_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    path.write_bytes(b"x" * lockfiles.SIZE_LIMIT)
    lockfiles.read(str(path))
    path.write_bytes(b"x" * (lockfiles.SIZE_LIMIT + 1))
    assert reason(lambda: lockfiles.read(str(path))) == "lock-too-long"


def test_a_disk_without_room_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert reason(lambda: lockfiles.replace(lock, b"mine")) == "lock-io"
    assert Path(lock.path).read_bytes() == b"first"
    assert names(tmp_path) == ["agent.lock"]
    assert reason(lambda: lockfiles.create(str(tmp_path / "new"), b"x")) == "lock-io"
    assert names(tmp_path) == ["agent.lock"]


_MOUNTED = """
import os, subprocess, sys
from backpack_client.failures import Failure
from backpack_client.files import lockfiles

what, path = sys.argv[1:]
mount = lambda *words: subprocess.run(["mount", *words], check=True)
if what == "file":
    mount("--bind", path, path)
elif what == "read-only":
    mount("--bind", os.path.dirname(path), os.path.dirname(path))
    mount("-o", "remount,bind,ro", os.path.dirname(path))
else:
    mount("--bind", os.path.dirname(path), os.path.dirname(path))
seen = lockfiles.read(path)
for attempt in (lambda: lockfiles.check_writable(path), lambda: lockfiles.replace(seen, b"new")):
    try:
        attempt()
        print("done")
    except Failure as failure:
        print(failure.reason, failure.message.removeprefix(path), failure.hint, sep="; ")
"""


def mounted(lock: LockFile, what: str) -> list[str]:
    """Return how a check and a new version end where a file, or its directory, is mounted."""
    command = [*unshared("--mount"), sys.executable, "-c", _MOUNTED, what, lock.path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_a_lock_that_is_mounted_by_itself_says_so_before_anything_is_done(
    tmp_path: Path, lock: LockFile
) -> None:
    before, meanwhile = mounted(lock, "file")
    assert before == meanwhile
    assert before.startswith("lock-mounted;  is mounted by itself")
    assert "mount the directory that it lies in" in before
    assert (names(tmp_path), Path(lock.path).read_bytes()) == (["agent.lock"], b"first")


def test_a_lock_in_a_directory_that_is_mounted_is_replaced(lock: LockFile) -> None:
    assert mounted(lock, "directory") == ["done", "done"]
    assert Path(lock.path).read_bytes() == b"new"


def test_a_lock_on_a_read_only_mount_says_what_to_mount(lock: LockFile) -> None:
    for line in mounted(lock, "read-only"):
        assert "read-only file system" in line
        assert "have its directory mounted so that you can write there" in line


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errno.EBUSY, "mount its directory instead"),
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "must be writable for you"),
    ],
)
def test_what_keeps_a_new_version_from_its_place_is_told_with_a_remedy(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch, error: int, remedy: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(Failure, match=os.strerror(error).lower()) as caught:
        lockfiles.replace(lock, b"mine")
    assert remedy in caught.value.hint
    assert Path(lock.path).read_bytes() == b"first"


def left_over(lock: LockFile) -> Path:
    """Return what a writer that died has left: it is named by the file that it was to replace."""
    return Path(lock.path).with_name(f".agent.lock.{Path(lock.path).stat().st_ino}.new")


def test_what_a_writer_that_died_has_left_does_not_stand_in_the_way(
    tmp_path: Path, lock: LockFile
) -> None:
    left_over(lock).write_bytes(b"half of it")
    lockfiles.replace(lock, b"second")
    assert Path(lock.path).read_bytes() == b"second"
    assert names(tmp_path) == ["agent.lock"]


def test_a_link_planted_where_the_new_version_is_written_leads_nowhere(
    tmp_path: Path, lock: LockFile
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    left_over(lock).symlink_to(victim)
    lockfiles.replace(lock, b"second")
    assert victim.read_bytes() == b"precious"
    assert not Path(lock.path).is_symlink()


def test_a_copy_is_kept_beside_with_the_same_mode(lock: LockFile) -> None:
    Path(lock.path).chmod(0o640)
    seen = lockfiles.read(lock.path)
    kept = lockfiles.keep_beside(seen, ".v1")
    assert (Path(kept).read_bytes(), stat.S_IMODE(Path(kept).stat().st_mode)) == (b"first", 0o640)
    assert lockfiles.keep_beside(seen, ".v1") == kept, "the same copy will do"
    Path(kept).write_bytes(b"something else")
    assert reason(lambda: lockfiles.keep_beside(seen, ".v1")) == "lock-exists"
    assert Path(kept).read_bytes() == b"something else"


def test_a_lock_shows_nothing_of_what_is_in_it(lock: LockFile) -> None:
    assert "first" not in repr(lock)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    assert reason(lambda: lockfiles.absolute(path)) == "usage"


def test_a_lock_that_somebody_left_where_all_may_write_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "agent.lock"
    lock.write_bytes(b"planted")
    tmp_path.chmod(0o1777)
    assert lockfiles.find(str(tmp_path)) == str(lock)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    with pytest.raises(Failure, match=r"no agent\.lock"):
        lockfiles.find(str(tmp_path))


def test_a_lock_of_somebody_elses_where_all_may_write_is_not_read(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been put there after its name was found to lead to one's own."""
    Path(lock.path).parent.chmod(0o1777)
    lockfiles.read(lock.path)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert reason(lambda: lockfiles.read(lock.path)) == "lock-foreign"
    Path(lock.path).parent.chmod(0o755)
    lockfiles.read(lock.path)


def test_what_lies_behind_a_planted_symbolic_link_is_not_found(
    tmp_path: Path, lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link of the user's own is found, to be refused by its name; another's is passed by."""
    elsewhere = tmp_path / "open-to-all"
    elsewhere.mkdir()
    elsewhere.chmod(0o1777)
    link = elsewhere / "agent.lock"
    link.symlink_to(lock.path)
    assert reason(lambda: lockfiles.read(lockfiles.find(str(elsewhere)))) == "lock-not-regular"
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert lockfiles.find(str(elsewhere)) == lock.path


def test_of_two_writers_neither_puts_half_of_the_others_in_place(
    lock: LockFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git takes the file of the first one away, and so each holds the lock of another file."""
    real_rename, real_write = os.rename, os.write
    first, second = b"A" * 100, b"B" * 100
    in_place: list[bytes] = []

    def about_to_rename(source: str, target: str, **where: int) -> None:
        monkeypatch.setattr(os, "rename", real_rename)
        other = Path(lock.path + ".other")
        other.write_bytes(b"git's")
        other.rename(lock.path)

        def half(descriptor: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", real_write)
            written = real_write(descriptor, data[:1])
            real_rename(source, target, **where)
            in_place.append(Path(lock.path).read_bytes())
            return written

        monkeypatch.setattr(os, "write", half)
        seen = lockfiles.read(lock.path)
        assert reason(lambda: lockfiles.replace(seen, second)) == "lock-changed"

    monkeypatch.setattr(os, "rename", about_to_rename)
    lockfiles.replace(lock, first)
    assert in_place == [first]
    assert Path(lock.path).read_bytes() == first
    assert names(Path(lock.path).parent) == ["agent.lock"]
