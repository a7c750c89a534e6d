"""The home: private, local, and held by one daemon at a time; checked and never repaired."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.home import home as homes
from backpackd.adapters.home.home import LOCK_NAME, kind_of_mount, open_home
from backpackd.core.errors import HomeError

MOUNTS = b"""\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /net/data rw shared:7 - nfs4 server:/data rw,vers=4.2
31 22 0:27 /sub /srv rw shared:8 - btrfs /dev/vdb rw,subvol=/sub
32 22 0:28 / /mnt/with\\040space rw - cifs //server/share rw
33 22 0:29 / /mnt/caf\xc3\xa9 rw - fuse.sshfs me@server: rw
34 22 0:30 / /mnt/back\\134slash rw - nfs server:/x rw
35 22 0:31 / /over rw - ext4 /dev/vdc rw
36 35 0:32 / /over rw - nfs server:/over rw
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path) -> str:
    with pytest.raises(HomeError) as caught:
        open_home(path)
    return str(caught.value)


def test_a_home_is_made_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = open_home(tmp_path / "new" / "home")
    finally:
        os.umask(old)
    assert mode(home.path) == 0o700
    assert mode(home.path.parent) == 0o700
    assert mode(home.path / LOCK_NAME) == 0o600
    home.close()


def test_a_private_home_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    home = open_home(tmp_path / "home")
    assert home.path == tmp_path / "home"
    home.close()


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_home_in_a_directory_that_others_write_is_refused(tmp_path: Path, bits: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    above = tmp_path / "above"
    (above / "deeper" / "home").mkdir(parents=True, mode=0o700)
    os.chown(above, -1, os.getegid() + 1)
    above.chmod(bits)
    text = refusal(above / "deeper" / "home")
    assert "others can replace" in text
    assert str(above) in text


def test_a_home_in_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    above = tmp_path / "above"
    (above / "home").mkdir(parents=True, mode=0o700)
    os.chown(above, 65534, -1)
    assert "others can replace" in refusal(above / "home")


def test_a_home_behind_a_link_is_checked_where_it_really_is(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "home").mkdir(parents=True, mode=0o700)
    above.chmod(0o777)
    (tmp_path / "link").symlink_to(above / "home")
    assert "others can replace" in refusal(tmp_path / "link")


def test_a_link_that_is_changed_later_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    home = open_home(tmp_path / "link")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path)
    assert home.path == tmp_path / "home"
    assert (home.path / LOCK_NAME).exists()
    home.close()


@pytest.mark.parametrize("below", ["", "new"])
def test_a_link_to_nowhere_is_followed_before_the_home_is_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    home = open_home(tmp_path / "link" / below)
    assert home.path == tmp_path / "real" / below
    assert mode(home.path) == 0o700
    home.close()


def test_links_that_go_round_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert "--home" in refusal(tmp_path / "one")


@pytest.mark.parametrize("bits", [0o1777, 0o1770, 0o755])
def test_a_home_in_a_directory_where_nobody_replaces_it_is_taken(tmp_path: Path, bits: int) -> None:
    above = tmp_path / "above"
    (above / "home").mkdir(parents=True, mode=0o700)
    above.chmod(bits)
    open_home(above / "home").close()


def test_a_directory_that_a_private_group_of_the_user_writes_is_no_danger(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    above = tmp_path / "above"
    (above / "home").mkdir(parents=True, mode=0o700)
    os.chown(above, -1, os.geteuid())
    above.chmod(0o775)
    open_home(above / "home").close()


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o710, 0o701, 0o777, 0o702])
def test_a_home_that_others_get_into_is_refused_and_left_as_it_is(
    tmp_path: Path, bits: int
) -> None:
    path = tmp_path / "home"
    path.mkdir()
    path.chmod(bits)
    assert "chmod 700" in refusal(path)
    assert mode(path) == bits
    assert list(path.iterdir()) == []


def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    assert "belongs to uid 65534" in refusal(path)
    assert list(path.iterdir()) == []


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.touch(0o600)
    assert "not a directory" in refusal(path)


def test_a_home_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--home" in refusal(tmp_path / "file" / "home")


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (tmp_path / "precious").write_text("precious")
    (path / LOCK_NAME).symlink_to(tmp_path / "precious")
    refusal(path)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_second_daemon_is_refused_and_told_who_holds_the_home(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from backpackd.adapters.home.home import open_home;"
        "home = open_home(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "home"
    command = [sys.executable, "-c", script, os.fspath(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        message = refusal(path)
        assert f"pid {holder.pid}" in message
        assert "backpack-client stop" in message
        holder.kill()
        holder.wait()
        # The lock ended with its process, though the file is still there.
        open_home(path).close()


def test_a_home_that_was_given_back_can_be_taken_again(tmp_path: Path) -> None:
    open_home(tmp_path / "home").close()
    open_home(tmp_path / "home").close()


def test_a_home_is_not_opened_for_a_lock_that_holds_no_pid(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    (home.path / LOCK_NAME).write_bytes(b"\xff\x00 not a pid")
    assert "another backpackd uses" in refusal(home.path)
    home.close()


def test_a_full_disk_does_not_keep_the_daemon_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int, __: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "write", full)
    open_home(tmp_path / "home").close()


def test_a_path_longer_than_a_socket_address_may_be_is_a_home(tmp_path: Path) -> None:
    path = tmp_path
    while len(os.fspath(path)) < 1000:
        path /= "d" * 100
    home = open_home(path)
    assert home.path == path
    home.close()


def test_a_component_longer_than_a_name_may_be_is_refused(tmp_path: Path) -> None:
    assert "--home" in refusal(tmp_path / ("d" * 256))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Mount something that nobody can write to."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a read-only file system")
    path = tmp_path / "read-only"
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k,mode=700", "none", os.fspath(path)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("below", ["", "home"])
def test_a_home_that_cannot_be_written_to_is_refused(read_only: Path, below: str) -> None:
    message = refusal(read_only / below)
    assert "read-only file system" in message
    assert "BACKPACK_HOME" in message


@pytest.mark.parametrize(
    ("path", "device", "kind"),
    [
        (b"/home/me", os.makedev(254, 1), "ext4"),
        (b"/net/data/home", os.makedev(0, 26), "nfs4"),
        # btrfs gives subvolumes device numbers that the table does not have.
        (b"/srv/home", os.makedev(0, 99), "btrfs"),
        (b"/mnt/with space/home", os.makedev(0, 99), "cifs"),
        (b"/mnt/caf\xc3\xa9/home", os.makedev(0, 99), "fuse.sshfs"),
        (b"/mnt/back\\slash/home", os.makedev(0, 99), "nfs"),
        (b"/srvother", os.makedev(0, 99), "ext4"),
        (b"/over/home", os.makedev(0, 99), "nfs"),
        (b"/net/data", os.makedev(0, 99), "nfs4"),
    ],
)
def test_a_file_system_is_told_by_device_else_by_mount_point(
    path: bytes, device: int, kind: str
) -> None:
    assert kind_of_mount(MOUNTS, path, device) == kind


@pytest.mark.parametrize("mounts", [b"", b"\n\n", b"garbage", b"1 2 3 4", b"a b c d e f - "])
def test_a_table_of_no_known_form_tells_nothing(mounts: bytes) -> None:
    assert kind_of_mount(mounts, b"/home/me", os.makedev(254, 1)) == ""


def test_the_file_system_of_a_real_directory_is_told(tmp_path: Path) -> None:
    if sys.platform == "linux":
        assert homes.file_system(Path("/proc"), Path("/proc").stat().st_dev) == "proc"


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph", "virtiofs", "vboxsf"]
)
def test_a_home_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(homes, "file_system", lambda _path, _device: kind)
    message = refusal(tmp_path / "home")
    assert kind in message
    assert "BACKPACK_HOME" in message
    assert list((tmp_path / "home").iterdir()) == []
