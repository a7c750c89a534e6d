"""How quickly `panic` is answered while two hundred processes of the user flood the socket."""

import time
from pathlib import Path

from backpack_proto.v1 import vault_pb2
from bench.timing import once
from daemons import Client, RunningDaemon
from floods import flood

_PROCESSES = 200
_RUNS = 10
_HANGS_SECONDS = 60
Line = tuple[str, str, str]


def measure(place: Path) -> list[Line]:
    """Measure a panic on an open and on a new connection of another process tree.

    What the daemon itself worked and waited for a processor meanwhile stands below: two hundred
    processes that never rest leave it little of a small machine.
    """
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock")
    daemon.start()
    try:
        client = daemon.operator()
        opened: list[float] = []
        fresh: list[float] = []
        with flood(daemon, processes=_PROCESSES, connections=1):
            before = _scheduled(daemon.pid)
            for _ in range(_RUNS):
                opened.append(once(lambda: _panic(client)))
                newcomer = Client(daemon.socket)
                fresh.append(once(lambda: _panic(newcomer)))  # noqa: B023 - called at once
                newcomer.close()
                time.sleep(0.1)
            ran, waited = (
                after - began for began, after in zip(before, _scheduled(daemon.pid), strict=True)
            )
        what = f"panic while {_PROCESSES} processes flood, slowest of {_RUNS}"
        return [
            (f"{what}, open connection", f"{max(opened) * 1000:.0f} ms", "<= 100 ms"),
            (f"{what}, new connection", f"{max(fresh) * 1000:.0f} ms", "<= 100 ms"),
            ("  the daemon ran, and waited for a processor", f"{ran:.1f} s", f"{waited:.1f} s"),
            ("  the log after it", f"{len(daemon.log_text())} bytes", ""),
        ]
    finally:
        daemon.close()


def _panic(client: Client) -> None:
    client.vault.Panic(vault_pb2.PanicRequest(), timeout=_HANGS_SECONDS)


def _scheduled(pid: int) -> tuple[float, float]:
    """Return for how many seconds a process's first thread has run, and waited to run."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9
