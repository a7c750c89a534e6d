"""`backpack-client get` as a whole process, beside the commands that people use instead."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import peers
from bench.timing import in_turn, milliseconds, ratio
from daemons import RunningDaemon

_RUNS = 60
_PROGRAMS = Path(sys.executable).parent
_KEYRING = str(_PROGRAMS / "keyring")
Line = tuple[str, str, str]


def measure(place: Path) -> list[Line]:
    """Measure the command against `secret-tool`, `pass` and `keyring`, where they are."""
    lines: list[Line] = []
    with ExitStack() as stack:
        ours = stack.enter_context(_backpack(place))
        service = stack.enter_context(peers.secret_service(place))
        store = stack.enter_context(peers.password_store(place))
        for name, command, environ, target in (
            ("secret-tool lookup", ["secret-tool", "lookup", "bench", "k"], service, "<= 1.25 x"),
            ("pass show", ["pass", "show", "k"], store, "<= 0.7 x"),
            (
                "keyring get",
                [_KEYRING, "get", "bench", "k"],
                service,
                "<= 0.15 x",
            ),
        ):
            if environ is None:
                lines.append((f"backpack-client get / {name}", "not here", target))
                continue
            times = in_turn(ours, _command(command, environ), _RUNS)
            lines += [
                (f"backpack-client get / {name}", ratio(*times), target),
                ("  as a whole process, each", milliseconds(times[0]), milliseconds(times[1])),
            ]
    return lines


@contextmanager
def _backpack(place: Path) -> Iterator[Callable[[], object]]:
    daemon = RunningDaemon(place / "home", place / "run" / "backpackd.sock")
    daemon.start()
    try:
        operator = daemon.operator()
        operator.put("K", b"v")
        operator.grant("K")
        environ = {**os.environ, "BACKPACK_SOCKET": str(daemon.socket)}
        yield _command([str(_PROGRAMS / "backpack-client"), "get", "K"], environ)
    finally:
        daemon.close()


def _command(arguments: list[str], environ: dict[str, str]) -> Callable[[], object]:
    def run() -> None:
        done = subprocess.run(arguments, env=environ, capture_output=True, check=True)
        assert done.stdout.strip() == b"v"

    return run
