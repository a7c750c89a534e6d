"""Desktop notifications: only a request's code, because other programs see notifications, too.

It uses the freedesktop.org notification service on the session bus, if there is one. A missing,
slow or full bus never delays or fails a request.
"""

import logging
import queue
import sys
import threading

from backpackd.ports import Notifier

_LOG = logging.getLogger(__name__)
_WAITING = 16
_TIMEOUT = 5.0
"""Seconds for the bus to answer."""


class NoNotifier:
    """Notifies nobody: for platforms without the service."""

    def notify(self, code: str) -> None:
        """See `ports.Notifier`."""


class DesktopNotifier:
    """Implements `ports.Notifier` with a thread of its own, started with the first request."""

    def __init__(self) -> None:
        self._codes: queue.Queue[str] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def notify(self, code: str) -> None:
        """See `ports.Notifier`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="notifications", daemon=True)
            self._thread.start()
        try:
            self._codes.put_nowait(code)
        except queue.Full:
            # The desktop already has more notifications than anybody reads.
            return

    def _work(self) -> None:
        while True:
            code = self._codes.get()
            try:
                _show(code)
            except Exception as error:  # noqa: BLE001 - whatever the bus does, requests go on
                _LOG.debug("no desktop notification: %s", type(error).__name__)


def notifier(platform: str = sys.platform) -> Notifier:
    """Choose the notifier for a platform."""
    return DesktopNotifier() if platform == "linux" else NoNotifier()


def _show(code: str) -> None:
    """Call Notify of the Desktop Notifications Specification 1.2."""
    # Loaded here: most daemons never notify anybody.
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415
    from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415

    service = DBusAddress(
        "/org/freedesktop/Notifications",
        bus_name="org.freedesktop.Notifications",
        interface="org.freedesktop.Notifications",
    )
    body = f"A program asks for keys. To see who and answer: backpack-client approve {code}"
    call = new_method_call(
        service, "Notify", "susssasa{sv}i", ("Backpack", 0, "", "Backpack", body, [], {}, -1)
    )
    with open_dbus_connection(bus="SESSION") as connection:
        connection.send_and_get_reply(call, timeout=_TIMEOUT)
