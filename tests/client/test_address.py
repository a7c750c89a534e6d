"""Where the socket is, and who may stand behind it."""

import _socket
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backpack_client import address
from backpack_client.failures import EXIT_NO_DAEMON, EXIT_USAGE, Failure
from descriptors import descriptors

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as two users")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

SOMEBODY = 65534


@contextlib.contextmanager
def listening(path: Path) -> Iterator[None]:
    listener = socket.socket(socket.AF_UNIX)
    with listener, contextlib.chdir(path.parent):
        listener.bind(path.name)
        listener.listen()
        yield


def private(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True)
    return directory


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"BACKPACK_SOCKET": "/s"}, "/s"),
        ({"BACKPACK_SOCKET": "/s", "XDG_RUNTIME_DIR": "/run/user/1"}, "/s"),
        ({"XDG_RUNTIME_DIR": "/run/user/1"}, "/run/user/1/backpack/backpackd.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/1/"}, "/run/user/1/backpack/backpackd.sock"),
        (
            {"XDG_RUNTIME_DIR": "/run/user/1", "BACKPACK_PROFILE": "dev"},
            "/run/user/1/backpack-dev/backpackd.sock",
        ),
        ({"BACKPACK_SOCKET": "", "XDG_RUNTIME_DIR": "/r"}, "/r/backpack/backpackd.sock"),
        ({"XDG_RUNTIME_DIR": "relative", "HOME": "/h"}, "/h/.backpack/run/backpackd.sock"),
        ({"HOME": "/h"}, "/h/.backpack/run/backpackd.sock"),
        ({"HOME": "/h/", "BACKPACK_PROFILE": "a_1"}, "/h/.backpack-a_1/run/backpackd.sock"),
    ],
)
def test_the_environment_says_where_the_socket_is(
    environ: Mapping[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert address.socket_path(environ) == path


def test_a_path_from_the_command_line_goes_first() -> None:
    assert address.socket_path({"BACKPACK_SOCKET": "/s"}, "/explicit") == "/explicit"


def test_on_macos_the_socket_is_in_the_users_temp_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "confstr", lambda number: "/var/folders/x/T/"[: 99 * (number == 65537)])
    assert address.socket_path({}) == "/var/folders/x/T/backpack/backpackd.sock"


@pytest.mark.parametrize(
    ("platform", "environ", "path"),
    [
        ("linux", {"BACKPACK_HOME": "/b", "XDG_DATA_HOME": "/d"}, "/b"),
        ("linux", {"XDG_DATA_HOME": "/d"}, "/d/backpack"),
        ("linux", {"XDG_DATA_HOME": "d", "HOME": "/h"}, "/h/.local/share/backpack"),
        ("linux", {"HOME": "/h", "BACKPACK_PROFILE": "x"}, "/h/.local/share/backpack-x"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/backpack"),
    ],
)
def test_the_environment_says_where_the_home_is(
    platform: str, environ: Mapping[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert address.home_path(environ) == path


def test_without_home_the_user_database_is_asked() -> None:
    assert address.home_path({}).startswith("/")


@pytest.mark.parametrize("profile", ["..", "a/b", "a.b", "a" * 33, "ä", "a b", "-\n", "²"])
def test_a_profile_cannot_leave_its_directory(profile: str) -> None:
    with pytest.raises(Failure) as caught:
        address.socket_path({"BACKPACK_PROFILE": profile, "HOME": "/h"})
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("variable", ["BACKPACK_SOCKET", "BACKPACK_HOME"])
def test_a_relative_path_from_the_environment_is_refused(variable: str) -> None:
    with pytest.raises(Failure, match=variable) as caught:
        (address.socket_path if "SOCKET" in variable else address.home_path)({variable: "x/y"})
    assert caught.value.exit_code == EXIT_USAGE


def test_ones_own_listener_in_ones_own_directory_is_connected_to(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        connection = address.connect(str(tmp_path / "s"))
        assert connection.getblocking()
        connection.close()


@needs_linux
def test_a_path_longer_than_a_socket_address_is_connected_to(tmp_path: Path) -> None:
    deep = private(tmp_path / ("d" * 90) / ("e" * 90))
    with listening(deep / "s"):
        address.connect(str(deep / "s")).close()


@needs_linux
def test_connecting_by_a_long_path_leaves_no_descriptor_open(tmp_path: Path) -> None:
    deep = private(tmp_path / ("d" * 90) / ("e" * 90))
    before = descriptors()
    with listening(deep / "s"):
        address.connect(str(deep / "s")).close()
    with pytest.raises(Failure):
        address.connect(str(deep / "none"))
    assert descriptors() <= before


@pytest.mark.parametrize(
    ("place", "what"), [("none", "no such socket"), ("no/directory/none", "no such directory")]
)
def test_without_a_socket_there_is_no_daemon(place: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=what) as caught:
        address.connect(str(tmp_path / place))
    assert caught.value.exit_code == EXIT_NO_DAEMON
    assert caught.value.hint == "run: backpack-client start"


@needs_root
@pytest.mark.parametrize("function", ["connect", "check_place"])
def test_a_directory_without_access_is_named_and_no_start_is_advised(
    function: str, tmp_path: Path
) -> None:
    directory = private(tmp_path / "closed" / "below")
    program = (
        "import os, sys\n"
        "from backpack_client import address\n"
        "from backpack_client.failures import Failure\n"
        f"os.setresuid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})\n"
        "try:\n"
        f"    address.{function}(sys.argv[1])\n"
        "except Failure as failure:\n"
        "    print(failure.reason, failure.message, failure.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(directory / "s")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("socket-not-accessible ")
    assert str(directory) in done.stdout
    assert "BACKPACK_SOCKET" in done.stdout
    assert "backpack-client start" not in done.stdout


def test_a_place_that_is_still_to_be_made_may_be_below_a_sticky_directory(tmp_path: Path) -> None:
    private(tmp_path / "sticky").chmod(0o1777)
    address.check_place(str(tmp_path / "sticky" / "new" / "s"))
    with pytest.raises(Failure, match="written by others"):
        address.check_place(str(tmp_path / "sticky" / "s"))


def test_the_stale_socket_of_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        pass
    with pytest.raises(Failure, match=r"nobody listens") as caught:
        address.connect(str(tmp_path / "s"))
    assert caught.value.reason == "no-daemon"


def test_a_listener_that_accepts_nobody_does_not_hold_the_client_for_ever(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    waiting: list[_socket.socket] = []
    with listener, contextlib.chdir(tmp_path):
        listener.bind("s")
        listener.listen(0)
        with pytest.raises(Failure, match="busy") as caught:
            waiting.extend(address.connect(str(tmp_path / "s"), patience=0.0) for _ in range(9))
    for connection in waiting:
        connection.close()
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_directory_that_others_can_write_is_refused(mode: int, tmp_path: Path) -> None:
    directory = private(tmp_path / "open")
    with listening(directory / "s"):
        directory.chmod(mode)
        with pytest.raises(Failure, match="can be written by others") as caught:
            address.connect(str(directory / "s"))
    assert caught.value.reason == "socket-not-trusted"
    assert caught.value.exit_code == EXIT_NO_DAEMON


def test_a_directory_above_that_others_can_write_is_refused(tmp_path: Path) -> None:
    directory = private(tmp_path / "open" / "private")
    directory.parent.chmod(0o777)
    with listening(directory / "s"), pytest.raises(Failure, match="can be written by others"):
        address.connect(str(directory / "s"))


def test_a_sticky_directory_above_is_good_enough(tmp_path: Path) -> None:
    directory = private(tmp_path / "sticky" / "private")
    directory.parent.chmod(0o1777)
    with listening(directory / "s"):
        address.connect(str(directory / "s")).close()


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    private(tmp_path / "open")
    (tmp_path / "link").symlink_to("open")
    (tmp_path / "open").chmod(0o777)
    with listening(tmp_path / "open" / "s"), pytest.raises(Failure, match="written by others"):
        address.connect(str(tmp_path / "link" / "s"))


def test_a_link_to_a_private_directory_is_followed(tmp_path: Path) -> None:
    directory = private(tmp_path / "private")
    (tmp_path / "link").symlink_to("private")
    with listening(directory / "s"):
        address.connect(str(tmp_path / "link" / "s")).close()


@needs_root
@pytest.mark.parametrize("place", [".", ".."])
def test_somebody_elses_directory_is_refused(place: str, tmp_path: Path) -> None:
    directory = private(tmp_path / "above" / "below")
    with listening(directory / "s"):
        os.chown(directory / place, SOMEBODY, SOMEBODY)
        with pytest.raises(Failure, match=f"belongs to .* .uid {SOMEBODY}., not to you") as caught:
            address.connect(str(directory / "s"))
    assert caught.value.reason == "socket-not-trusted"


@needs_root
def test_somebody_elses_listener_is_refused(tmp_path: Path) -> None:
    # The kernel remembers who called listen(), so the other user need not reach the directory.
    program = (
        "import os, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        f"os.setresgid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})\n"
        f"os.setresuid({SOMEBODY}, {SOMEBODY}, {SOMEBODY})\n"
        "listener.listen()\n"
        "print('listening', flush=True)\n"
        "sys.stdin.read()\n"
    )
    path = tmp_path / "s"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        with pytest.raises(Failure, match=f"uid {SOMEBODY} listens") as caught:
            address.connect(str(path))
        process.communicate()
    assert caught.value.reason == "socket-not-trusted"
    assert caught.value.exit_code == EXIT_NO_DAEMON


@needs_root
def test_roots_listener_in_roots_directory_is_good_for_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with listening(tmp_path / "s"):
        address.connect(str(tmp_path / "s")).close()


@needs_root
def test_roots_listener_in_a_users_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = private(tmp_path / "users")
    os.chown(directory, SOMEBODY, SOMEBODY)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with listening(directory / "s"), pytest.raises(Failure, match="uid 0 listens"):
        address.connect(str(directory / "s"))


class Darwin:
    """Answers getsockopt as macOS does."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (0, 1, 76)
        return self.answer


def test_on_macos_the_uid_is_read_from_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    answer = (0).to_bytes(4, sys.byteorder) + (501).to_bytes(4, sys.byteorder) + bytes(68)
    assert address._listener_uid(Darwin(answer)) == 501  # type: ignore[arg-type]


def test_credentials_cut_short_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Failure) as caught:
        address._listener_uid(Darwin(b""))  # type: ignore[arg-type]
    assert caught.value.reason == "socket-not-trusted"
