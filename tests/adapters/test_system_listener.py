"""The door's listening sockets: its own, and those that a service manager passes."""

import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.system import listener as module
from backpackd.adapters.system.listener import (
    Listener,
    launchd_listeners,
    open_listener,
    passed_listeners,
)
from backpackd.core.errors import HomeError
from descriptors import descriptors

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "backpackd.sock")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    opened = open_listener(path)
    yield opened
    opened.close()


def connected(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def leave_dead_socket(path: str) -> None:
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


# --- the own socket


def test_a_client_can_connect(listener: Listener, path: str) -> None:
    assert connected(path)
    listener.accept().close()


def test_the_directory_is_0700_and_the_socket_and_lock_are_0600(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened = open_listener(str(tmp_path / "a" / "b" / "s"))
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").rglob("*")}
    modes["a"] = stat.S_IMODE((tmp_path / "a").stat().st_mode)
    opened.close()
    assert modes == {"a": 0o700, "b": 0o700, "s": 0o600, "s.lock": 0o600}


def test_the_mode_is_right_at_the_bind_and_not_by_a_chmod_after_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(socket.socket):
        def bind(self, address: object, /) -> None:
            super().bind(address)  # type: ignore[arg-type]
            seen.append(stat.S_IMODE(Path(path).stat().st_mode))

    monkeypatch.setattr(socket, "socket", Watched)
    open_listener(path).close()
    assert seen == [0o600]


def test_the_umask_is_as_it_was(listener: Listener) -> None:
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177


def test_the_stale_socket_of_a_dead_daemon_is_taken_over(path: str) -> None:
    leave_dead_socket(path)
    opened = open_listener(path)
    assert connected(path)
    opened.close()


def test_a_live_socket_without_a_lock_is_refused_and_left_alone(path: str) -> None:
    Path(path).parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen()
        with pytest.raises(HomeError, match="something listens"):
            open_listener(path)
        assert connected(path)


def test_a_live_socket_with_a_full_queue_is_refused(path: str) -> None:
    Path(path).parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as waits:
        live.bind(path)
        live.listen(0)
        waits.connect(path)
        with pytest.raises(HomeError, match="something listens"):
            open_listener(path)


def test_a_second_daemon_on_the_same_socket_is_refused(listener: Listener, path: str) -> None:
    with pytest.raises(HomeError, match="another backpackd"):
        open_listener(path)
    assert connected(path)


def test_after_a_refusal_nothing_stays_held(path: str) -> None:
    leave_dead_socket(path)
    Path(path).unlink()
    Path(path).write_text("mine")
    before = descriptors()
    with pytest.raises(HomeError, match="is not a socket"):
        open_listener(path)
    assert Path(path).read_text() == "mine"
    assert descriptors() <= before
    Path(path).unlink()
    open_listener(path).close()


RACER = """
import sys
sys.path.insert(0, sys.argv[2])
from backpackd.adapters.system.listener import open_listener
from backpackd.core.errors import HomeError
print("ready", flush=True)
sys.stdin.readline()
try:
    listener = open_listener(sys.argv[1])
    print("won", flush=True)
except HomeError as error:
    print("lost" if "another backpackd" in str(error) else error, flush=True)
sys.stdin.readline()
"""


def test_of_daemons_that_start_at_once_exactly_one_wins(path: str) -> None:
    Path(path).parent.mkdir(mode=0o700)
    leave_dead_socket(path)
    root = str(Path(__file__).parents[2])
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, path, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outcomes = []
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        outcomes.append(racer.stdout.readline().strip())
    assert connected(path)
    for racer in racers:
        racer.communicate("\n")
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]


def test_missing_directories_made_by_two_daemons_at_once_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b" / "s"
    mkdir = Path.mkdir

    def both(self: Path, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        mkdir(self, mode)
        mkdir(self, mode, exist_ok=exist_ok)

    monkeypatch.setattr(Path, "mkdir", both)
    open_listener(str(path)).close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / ("s" * 50)
    opened = open_listener(str(path))
    directory = os.open(path.parent, os.O_RDONLY)
    assert connected(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)
    with pytest.raises(HomeError, match="another backpackd"):
        open_listener(str(path))
    opened.close()
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_the_stale_socket_on_a_long_path_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / "s"
    path.parent.mkdir(mode=0o700)
    directory = os.open(path.parent, os.O_RDONLY)
    leave_dead_socket(f"/proc/self/fd/{directory}/s")
    os.close(directory)
    open_listener(str(path)).close()


def test_a_path_that_is_too_long_is_refused_in_words_where_there_is_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(HomeError, match="longer than a socket address"):
        open_listener(str(tmp_path / ("d" * 120) / "s"))


def test_a_file_name_that_no_socket_address_can_hold_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="longer than a socket address"):
        open_listener(str(tmp_path / ("s" * 120)))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(HomeError, match="others can write"):
        open_listener(str(directory / "s"))
    assert list(directory.iterdir()) == []


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    with pytest.raises(HomeError, match="belongs to uid 65534"):
        open_listener(str(directory / "s"))


@needs_root
def test_a_link_of_another_user_is_refused_even_to_a_directory_of_ours(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "ours")
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(HomeError, match="link of another user"):
        open_listener(str(link / "s"))


def test_a_link_of_our_own_to_a_directory_of_ours_is_followed(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    open_listener(str(tmp_path / "link" / "s")).close()


def test_a_lock_file_that_is_a_link_is_not_followed(path: str, tmp_path: Path) -> None:
    Path(path).parent.mkdir(mode=0o700)
    Path(path + ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HomeError, match="cannot open"):
        open_listener(path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("path", ["", "/", "a\0b"])
def test_a_path_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(HomeError, match="names no file"):
        open_listener(path)


def test_a_file_where_the_directory_should_be_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="cannot"):
        open_listener(str(tmp_path / "file" / "s"))


def test_closing_removes_the_socket_and_lets_the_next_daemon_in(path: str) -> None:
    open_listener(path).close()
    assert not Path(path).exists()
    open_listener(path).close()


def test_closing_twice_is_harmless(path: str) -> None:
    opened = open_listener(path)
    opened.close()
    other = open_listener(path)
    opened.close()
    assert connected(path)
    other.close()


def test_closing_leaves_a_socket_file_that_took_the_place_of_ours(path: str) -> None:
    opened = open_listener(path)
    # Made before the unlink, so that it cannot get the inode number that this frees.
    leave_dead_socket(path + ".new")
    Path(path + ".new").rename(path)
    opened.close()
    assert Path(path).exists()


def test_a_directory_exchanged_between_check_and_bind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    clear = module._OwnFile.clear

    def exchanged(self: module._OwnFile) -> None:
        clear(self)
        directory.rename(tmp_path / "moved")
        directory.mkdir()

    monkeypatch.setattr(module._OwnFile, "clear", exchanged)
    with pytest.raises(HomeError, match="exchanged"):
        open_listener(str(directory / "s"))


# --- passed by systemd

PASSED = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from backpackd.adapters.system.listener import passed_listeners
from backpackd.core.errors import HomeError
environ = {"LISTEN_PID": os.environ.get("LISTEN_PID", str(os.getpid())),
           "LISTEN_FDS": os.environ["LISTEN_FDS"]}
try:
    for one in passed_listeners(environ, os.getpid()):
        fd = one.fileno()
        print(fd, one.path, os.get_inheritable(fd), os.get_blocking(fd))
        one.close()
except HomeError as error:
    print("refused:", error)
"""


def passed(fds: list[int], **environ: str) -> str:
    """Run `passed_listeners` in a process that has `fds` as 3, 4, ... as systemd would."""
    plumbing = "".join(f"os.dup2({fd}, {100 + i});" for i, fd in enumerate(fds))
    plumbing += "".join(f"os.dup2({100 + i}, {3 + i});" for i in range(len(fds)))
    result = subprocess.run(
        [sys.executable, "-c", f"import os;{plumbing}\n{PASSED}", str(Path(__file__).parents[2])],
        env={"LISTEN_FDS": str(len(fds)), **environ},
        pass_fds=fds,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_a_passed_socket_is_taken_over_close_on_exec_and_non_blocking(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert passed([sock.fileno()]) == f"3 {tmp_path / 's'} False False"
        assert connected(str(tmp_path / "s"))
        assert (tmp_path / "s").exists()


def test_two_passed_sockets_come_in_their_order(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for name, sock in (("1", one), ("2", two)):
            sock.bind(str(tmp_path / name))
            sock.listen()
        lines = passed([one.fileno(), two.fileno()]).splitlines()
    assert [line.split()[1] for line in lines] == [str(tmp_path / "1"), str(tmp_path / "2")]


def test_a_passed_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert passed([sock.fileno()]).startswith("refused: descriptor 3 is not a listening")


def test_a_passed_datagram_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "s"))
        assert passed([sock.fileno()]).startswith("refused: descriptor 3 is not a listening")


def test_a_passed_socket_of_packets_is_refused_though_it_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert passed([sock.fileno()]).startswith("refused: descriptor 3 is not a listening")


def test_a_passed_network_socket_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert passed([sock.fileno()]).startswith("refused: descriptor 3 is not a listening")


def test_a_passed_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        assert passed([file.fileno()]).startswith("refused: descriptor 3 was passed as a socket")


def test_a_count_of_more_than_was_passed_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert "refused" in passed([sock.fileno()], LISTEN_FDS="9")


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}, {"LISTEN_PID": "8", "LISTEN_FDS": "rubbish"}],
)
def test_nothing_is_taken_that_is_not_meant_for_this_process(environ: dict[str, str]) -> None:
    assert passed_listeners(environ, 7) == []


@pytest.mark.parametrize(
    "count", ["", "0", "-1", "+1", " 1", "1 ", "01", "1e1", "17", "\u0663", "9" * 99]
)
def test_rubbish_in_listen_fds_is_refused(count: str) -> None:
    with pytest.raises(HomeError, match="LISTEN_FDS"):
        passed_listeners({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7)


@pytest.mark.parametrize("pid", ["", "0", "-7", "+7", "7 ", "07", "seven", "\u0667", "9" * 99])
def test_rubbish_in_listen_pid_is_refused(pid: str) -> None:
    with pytest.raises(HomeError, match="LISTEN_PID"):
        passed_listeners({"LISTEN_PID": pid, "LISTEN_FDS": "1"}, 7)


# --- passed by launchd


class FakeLaunchd:
    """Has the two calls of macOS's library that are used."""

    def __init__(self, fds: list[int], failure: int = 0) -> None:
        self._array = (ctypes.c_int * max(len(fds), 1))(*fds)
        self._count = len(fds)
        self._failure = failure
        self.asked = b""
        self.freed: list[int] = []

    def launch_activate_socket(self, name: bytes, fds: object, count: object) -> int:
        self.asked = name
        if self._failure:
            return self._failure
        ctypes.cast(fds, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(self._array)  # type: ignore[arg-type]
        ctypes.cast(count, ctypes.POINTER(ctypes.c_size_t))[0] = self._count  # type: ignore[arg-type]
        return 0

    def free(self, array: object) -> None:
        self.freed.append(ctypes.cast(array, ctypes.c_void_p).value or 0)  # type: ignore[arg-type]


def test_launchds_sockets_are_taken_over_and_its_array_is_freed(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    launchd = FakeLaunchd([sock.detach()])
    (listener,) = launchd_listeners("Door", launchd)
    assert launchd.asked == b"Door"
    assert launchd.freed == [ctypes.addressof(launchd._array)]
    assert connected(str(tmp_path / "s"))
    listener.close()


@pytest.mark.parametrize("failure", [errno.ENOENT, errno.ESRCH])
def test_without_launchd_nothing_is_passed(failure: int) -> None:
    assert launchd_listeners("Door", FakeLaunchd([], failure)) == []


def test_a_failure_of_launchd_is_told() -> None:
    with pytest.raises(HomeError, match="launchd passes no socket"):
        launchd_listeners("Door", FakeLaunchd([], errno.EALREADY))


def test_what_launchd_passes_is_checked_like_everything_passed(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file, pytest.raises(HomeError, match="was passed"):
        launchd_listeners("Door", FakeLaunchd([file.fileno()]))
