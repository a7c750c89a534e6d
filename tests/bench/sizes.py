"""What grows with the number of keys, and what the daemon costs when it does nothing."""

import time
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backpack_proto.v1 import keys_pb2
from bench.timing import in_turn, milliseconds, once, ratio
from daemons import PASSPHRASE, Client, RunningDaemon

_MANY = 10_000
_FEW = 10
_RUNS = 200
_IDLE_SECONDS = 5
_GRPC_THREADS = {"grpc_global_tim", "event_engine", "lifeguard"}
Line = tuple[str, str, str]


def measure(place: Path) -> list[Line]:
    """Measure get, put, list and unlock with ten thousand keys, and an idle daemon."""
    few = RunningDaemon(place / "few" / "home", place / "few" / "s.sock")
    many = RunningDaemon(place / "many" / "home", place / "many" / "s.sock")
    (place / "few").mkdir()
    (place / "many").mkdir()
    few.start()
    many.start()
    try:
        resident = _resident(few.pid)
        small, large = _fill(few, _FEW), _fill(many, _MANY)
        lines = [
            ("idle daemon, no vault, resident", f"{resident:.0f} MiB", "<= 60 MiB"),
            ("idle daemon after use, resident", f"{_resident(few.pid):.0f} MiB", "<= 60 MiB"),
            *_wakeups(few.pid),
        ]
        get = in_turn(lambda: large.get("K0", ttl=2), lambda: small.get("K0", ttl=2), _RUNS)
        put = in_turn(
            lambda: large.put("K0", b"v", replace=True),
            lambda: small.put("K0", b"v", replace=True),
            _RUNS,
        )
        listing = [once(large.list) for _ in range(5)]
        unlock, argon2id = in_turn(lambda: _unlock(large), _argon2id, 9)
        over = sorted(unlock)[4] - sorted(argon2id)[4]
        return [
            *lines,
            (f"get with {_MANY} keys / with {_FEW}", ratio(*get), "<= 1.2 x"),
            (f"put with {_MANY} keys / with {_FEW}", ratio(*put), "<= 1.2 x"),
            (f"list of {_MANY} keys", milliseconds(listing), "<= 500 ms"),
            (f"unlock with {_MANY} keys, beyond Argon2id", f"{over * 1000:.0f} ms", "<= 100 ms"),
        ]
    finally:
        few.close()
        many.close()


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


def _wakeups(pid: int) -> list[Line]:
    """Count how often the threads of an idle process ran in a few seconds.

    Threads that gRPC's core starts bear its names and keep timers of their own.
    """
    before = _switches(pid)
    time.sleep(_IDLE_SECONDS)
    after = _switches(pid)
    woken = {task: count - before.get(task, 0) for task, count in after.items()}
    theirs = sum(count for (_, name), count in woken.items() if name in _GRPC_THREADS)
    what = f"idle daemon, wake-ups in {_IDLE_SECONDS} s"
    return [
        (what, str(sum(woken.values()) - theirs), "0"),
        ("  of gRPC's own threads", str(theirs), ""),
    ]


def _switches(pid: int) -> dict[tuple[str, str], int]:
    """Return how often each thread has run, by its number and name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        count = sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
        found[task.name, (task / "comm").read_text().strip()] = count
    return found
