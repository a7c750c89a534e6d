"""Connections that come about late or not at all, for both kinds of channel."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backpack_client import AsyncBackpack, Backpack
from backpack_client.failures import Failure
from fake_daemon import fake_daemon

Status = Callable[[str, float], Any]


def blocking(path: str, timeout: float) -> Any:
    with Backpack(path, timeout) as backpack:
        return backpack.status()


def in_a_loop(path: str, timeout: float) -> Any:
    async def ask() -> Any:
        async with AsyncBackpack(path, timeout) as backpack:
            return await backpack.status()

    return asyncio.run(ask())


ways = pytest.mark.parametrize("status", [blocking, in_a_loop])


@contextmanager
def hanging_up(
    path: Path, on_one: Callable[[], None] = lambda: None, which: int = 1
) -> Iterator[None]:
    """Listen, and hang up on everybody; call a function when one of them has come."""

    def serve() -> None:
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            number += 1
            if number == which:
                on_one()
            connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            # Closing alone would leave the thread in its accept.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@ways
def test_a_first_attempt_that_fails_is_not_the_last(status: Status, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with fake_daemon(tmp_path) as fake:

        def put_the_daemon_there() -> None:
            (tmp_path / "new").symlink_to(fake.path)
            (tmp_path / "new").rename(path)

        # The first to come is the client's own check, the second gRPC's first attempt.
        with hanging_up(path, put_the_daemon_there, which=2):
            assert status(str(path), 30).daemon_pid == 77


@ways
def test_who_hangs_up_on_everybody_is_busy_or_no_daemon(status: Status, tmp_path: Path) -> None:
    with hanging_up(tmp_path / "s"), pytest.raises(Failure) as caught:
        status(str(tmp_path / "s"), 0.5)
    assert caught.value.reason == "busy"
    assert "BACKPACK_SOCKET" in caught.value.hint


@ways
def test_a_daemon_that_ends_meanwhile_is_not_busy(status: Status, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with hanging_up(path, path.unlink), pytest.raises(Failure) as caught:
        status(str(path), 3)
    assert caught.value.reason == "no-daemon"
