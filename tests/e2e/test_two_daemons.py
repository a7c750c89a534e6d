"""Two daemons that want the same home or the same socket, and what a dead one leaves behind."""

from pathlib import Path

import pytest

from daemons import RunningDaemon


@pytest.mark.usefixtures("cheap_vault")
def test_a_second_daemon_on_the_same_home_is_refused_and_told_who_has_it(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    second = RunningDaemon(daemon.home, tmp_path / "other" / "s")
    second.log = tmp_path / "second.log"
    message = second.refused()
    assert f"pid {daemon.pid}" in message
    assert "Traceback" not in message
    assert not second.socket.exists()
    assert operator.list() == ["K"]


def test_a_second_daemon_on_the_same_socket_is_refused_and_the_first_serves_on(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    before = daemon.socket.stat().st_ino
    second = RunningDaemon(tmp_path / "another-home", daemon.socket)
    assert "Traceback" not in second.refused()
    assert daemon.socket.stat().st_ino == before
    assert daemon.client().status().daemon_pid == daemon.pid


def test_the_refused_one_leaves_no_lock_behind(daemon: RunningDaemon, tmp_path: Path) -> None:
    second = RunningDaemon(tmp_path / "another-home", daemon.socket)
    second.refused()
    third = RunningDaemon(second.home, tmp_path / "third" / "s")
    third.start()
    third.close()


def test_the_socket_of_a_killed_daemon_is_taken_over(daemon: RunningDaemon) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.client().status().daemon_pid == daemon.pid


def test_two_daemons_on_homes_and_sockets_of_their_own_do_not_meet(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    other = RunningDaemon(tmp_path / "other-home", tmp_path / "other" / "s")
    other.start()
    try:
        daemon.operator().put("K", b"v")
        operator = other.operator()
        assert operator.list() == []
    finally:
        other.close()


@pytest.mark.parametrize("left", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_taken_over(tmp_path: Path, left: str) -> None:
    path = tmp_path / "run" / "s"
    path.parent.mkdir(mode=0o700)
    match left:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            (tmp_path / "precious").write_text("precious")
            path.symlink_to(tmp_path / "precious")
    kind = path.lstat().st_mode
    message = RunningDaemon(tmp_path / "home", path).refused()
    assert "Traceback" not in message
    assert path.lstat().st_mode == kind
