"""What grows with the number of keys, and what the daemon costs to start and when it is idle."""

import statistics
import time
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backpack_proto.v1 import keys_pb2
from bench.timing import in_turn, milliseconds, once, ratio
from daemons import PASSPHRASE, Client, RunningDaemon

_FEW = 10
_MANY = {10_000: "<= 1.1 x", 100_000: "<= 1.2 x"}
_RUNS = 200
_STARTS = 9
_IDLE_SECONDS = 60
Line = tuple[str, str, str]


def measure(place: Path) -> list[Line]:
    """Measure get, put, list and unlock with many keys, starts, and an idle daemon."""
    few = _daemon(place, "few")
    try:
        small = _fill(few, _FEW)
        lines = [
            *_ready(place),
            ("idle daemon after use, resident", f"{_resident(few.pid):.0f} MiB", "<= 40 MiB"),
            (f"idle daemon, wake-ups in {_IDLE_SECONDS} s", str(_wakeups(few.pid)), "0"),
        ]
        for count, target in _MANY.items():
            many = _daemon(place, str(count))
            try:
                lines += _grown(small, many, count, target)
            finally:
                many.close()
        return lines
    finally:
        few.close()


def _daemon(place: Path, name: str) -> RunningDaemon:
    (place / name).mkdir()
    daemon = RunningDaemon(place / name / "home", place / name / "s.sock")
    daemon.start()
    return daemon


def _grown(small: Client, many: RunningDaemon, count: int, target: str) -> list[Line]:
    large = _fill(many, count)
    get = in_turn(lambda: large.get("K0", ttl=2), lambda: small.get("K0", ttl=2), _RUNS)
    put = in_turn(
        lambda: large.put("K0", b"v", replace=True),
        lambda: small.put("K0", b"v", replace=True),
        _RUNS,
    )
    lines = [
        (f"get with {count:,} keys / with {_FEW}", ratio(*get), target),
        (f"put with {count:,} keys / with {_FEW}", ratio(*put), target),
    ]
    if count > min(_MANY):
        return lines
    listing = [once(large.list) for _ in range(5)]
    unlock, argon2id = in_turn(lambda: _unlock(large), _argon2id, 9)
    over = statistics.median(unlock) - statistics.median(argon2id)
    return [
        *lines,
        (f"list of {count:,} keys", milliseconds(listing), "<= 300 ms"),
        (f"unlock with {count:,} keys, beyond Argon2id", f"{over * 1000:.0f} ms", "<= 50 ms"),
    ]


def _ready(place: Path) -> list[Line]:
    """Start daemons, each until it says that it is ready; no vault is there yet."""
    times = []
    for number in range(_STARTS):
        start = time.perf_counter()
        daemon = _daemon(place, f"start-{number}")
        times.append(time.perf_counter() - start)
        daemon.close()
    return [("daemon, from exec to ready", milliseconds(times), "<= 400 ms")]


def _fill(daemon: RunningDaemon, count: int) -> Client:
    operator = daemon.operator()
    for start in range(0, count, 500):
        names = [f"K{number}" for number in range(start, min(start + 500, count))]
        keys = [keys_pb2.KeyValue(name=name, value=b"v" * 50) for name in names]
        operator.keys.PutKeys(keys_pb2.PutKeysRequest(keys=keys))
    operator.grant("K*")
    return operator


def _unlock(client: Client) -> None:
    client.lock()
    client.unlock()


def _argon2id() -> None:
    Argon2id(salt=bytes(16), length=32, iterations=3, lanes=4, memory_cost=65536).derive(PASSPHRASE)


def _resident(pid: int) -> float:
    """Return how much memory a process has resident, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _wakeups(pid: int) -> int:
    """Count how often the threads of an idle process ran."""
    before = _switches(pid)
    time.sleep(_IDLE_SECONDS)
    return sum(count - before.get(task, 0) for task, count in _switches(pid).items())


def _switches(pid: int) -> dict[str, int]:
    """Return how often each thread has run."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found[task.name] = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return found
