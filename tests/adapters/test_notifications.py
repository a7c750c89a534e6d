"""Desktop notifications: on a real session bus with a stand-in service, and where there is none."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from jeepney import HeaderFields, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from backpackd.adapters.system import notifications
from backpackd.adapters.system.notifications import DesktopNotifier, NoNotifier, notifier
from daemons import RunningDaemon, failure

NAME = "org.freedesktop.Notifications"
HANG_SECONDS = 30.0
ASKED = ("DEADLINE_EXCEEDED", "waiting-for-approval")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """Run a session bus of its own and return its address."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("needs dbus-daemon (Debian: dbus)")
    path = tmp_path / "bus"
    command = ["dbus-daemon", "--session", "--nofork", "--print-address=1"]
    with subprocess.Popen(
        [*command, f"--address=unix:path={path}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class Desktop:
    """Stands in for the desktop's notification service."""

    def __init__(self, address: str) -> None:
        self._connection: Any = open_dbus_connection(bus=address)
        self._connection.send_and_get_reply(message_bus.RequestName(NAME))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def next(self) -> tuple[object, ...]:
        """Wait for a call of Notify, answer it, and return its arguments."""
        while True:
            message = self._connection.receive(timeout=HANG_SECONDS)
            fields = message.header.fields
            if (
                message.header.message_type is MessageType.method_call
                and fields.get(HeaderFields.member) == "Notify"
            ):
                self._connection.send(new_method_return(message, "u", (1,)))
                body: tuple[object, ...] = message.body
                return body


@pytest.fixture
def hanging_bus(tmp_path: Path) -> Iterator[str]:
    """Return the address of a bus that takes connections and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "hanging"))
        listener.listen(64)
        yield f"unix:path={tmp_path / 'hanging'}"


@pytest.mark.usefixtures("cheap_vault")
def test_a_notification_holds_the_code_and_no_name_of_a_key(tmp_path: Path, bus: str) -> None:
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": bus}
    running = RunningDaemon(tmp_path / "home", tmp_path / "run" / "s", environ=environ)
    with Desktop(bus) as desktop:
        running.start()
        try:
            operator = running.operator()
            operator.put("VERY_PRIVATE_NAME", b"v")
            asking = running.client()
            assert failure(lambda: asking.get("VERY_PRIVATE_NAME")) == ASKED
            told = repr(desktop.next())
        finally:
            running.close()
    assert "backpack-client approve " in told
    assert "PRIVATE" not in told


def test_every_request_is_notified_by_its_code(bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus)
    with Desktop(bus) as desktop:
        told = DesktopNotifier()
        for code in ("K7QM", "ABCD"):
            told.notify(code)
            assert f"approve {code}" in str(desktop.next()[4])


def test_a_bus_without_a_notification_service_does_not_end_notifying(
    bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus)
    tried = threading.Event()
    show = notifications._show

    def shown(code: str) -> None:
        try:
            show(code)
        finally:
            tried.set()

    monkeypatch.setattr(notifications, "_show", shown)
    told = DesktopNotifier()
    told.notify("K7QM")
    assert tried.wait(HANG_SECONDS)
    with Desktop(bus) as desktop:
        told.notify("ABCD")
        assert "ABCD" in str(desktop.next()[4])


@pytest.mark.usefixtures("cheap_vault")
def test_a_hanging_bus_delays_no_request_and_no_end_of_the_daemon(
    tmp_path: Path, hanging_bus: str
) -> None:
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": hanging_bus}
    running = RunningDaemon(tmp_path / "home", tmp_path / "run" / "s", environ=environ)
    running.start()
    try:
        running.operator().put("K", b"v")
        asking = running.client()
        started = time.monotonic()
        for name in ("K", "L", "M"):
            assert failure(partial(asking.get, name)) == ASKED
        assert running.terminate() == 0
        assert time.monotonic() - started < HANG_SECONDS
    finally:
        running.close()


def test_whoever_notifies_does_not_wait_for_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    released, done = threading.Event(), threading.Event()
    in_time = []

    def show(_: str) -> None:
        in_time.append(released.wait(HANG_SECONDS))
        done.set()

    monkeypatch.setattr(notifications, "_show", show)
    DesktopNotifier().notify("K7QM")
    released.set()
    assert done.wait(HANG_SECONDS)
    assert in_time == [True]


def test_a_flood_of_requests_piles_nothing_up_behind_a_hanging_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    monkeypatch.setattr(notifications, "_show", lambda _: released.wait(HANG_SECONDS))
    told = DesktopNotifier()
    for _ in range(1000):
        told.notify("K7QM")
    assert told._codes.qsize() <= notifications._WAITING
    # Its thread outlives the test, and must not show what another test waits for.
    released.set()
    while told._codes.qsize():
        time.sleep(0.01)


@pytest.mark.usefixtures("cheap_vault")
@pytest.mark.parametrize("address", ["", "unix:path=/nonexistent/bus", "unixexec:path=/bin/sh"])
def test_without_a_bus_nothing_is_shown_and_nothing_fails(address: str, tmp_path: Path) -> None:
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address}
    running = RunningDaemon(tmp_path / "home", tmp_path / "run" / "s", environ=environ)
    running.start()
    try:
        running.operator().put("K", b"v")
        assert failure(lambda: running.client().get("K")) == ASKED
        assert "ERROR" not in running.log_text()
    finally:
        running.close()


def test_other_platforms_notify_nobody() -> None:
    assert isinstance(notifier("darwin"), NoNotifier)
    assert isinstance(notifier("linux"), DesktopNotifier)
    notifier("darwin").notify("K7QM")
