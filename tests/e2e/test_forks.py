"""A lease that was opened before a fork, as preloading servers and pools of workers do it."""

import os
import subprocess
import sys

import pytest

from daemons import RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault")

# The parent opens, forks, and goes on. The child says how its first access ends, and then
# closes what it has a copy of.
_PRELOADED = """
import multiprocessing, os, sys
from backpack_client import Backpack, Failure

def told(keys):
    try:
        return keys["K"]
    except Failure as failure:
        return f"{failure.reason}: {failure.hint.split(':')[0]}"

how = sys.argv[1]
context = multiprocessing.get_context("fork")
with Backpack() as backpack, backpack.lease("K") as keys:
    if how == "fork":
        if (child := os.fork()) == 0:
            print(told(keys), told(keys), sep="\\n", flush=True)
            backpack.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    else:
        results = context.SimpleQueue()
        worker = context.Process(target=lambda: [results.put(told(keys)), keys.close()])
        worker.start()
        print(results.get())
        worker.join()
    print(keys["K"], keys.failure, len(backpack.leases()))
"""


@pytest.mark.parametrize(
    ("how", "child"),
    [
        ("fork", ["forked: open it in the child"] * 2),
        ("pool", ["forked: open it in the child"]),
    ],
)
def test_a_child_is_told_at_its_first_access_and_takes_nothing_from_its_parent(
    daemon: RunningDaemon, how: str, child: list[str]
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    done = subprocess.run(
        [sys.executable, "-c", _PRELOADED, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
    )
    assert done.stdout.splitlines() == [*child, "v None 1"], done.stderr


# Each child makes a connection of its own, after the parent has used one.
_OWN = """
import os
from backpack_client import Backpack

with Backpack() as backpack, backpack.lease("K") as keys:
    for _ in range(2):
        if (child := os.fork()) == 0:
            with Backpack() as own, own.lease("K") as leased:
                print(leased["K"], leased.failure, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    print(keys["K"], len(backpack.leases()))
"""


def test_a_child_opens_a_lease_of_its_own_and_the_parents_goes_on(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("K")
    done = subprocess.run(
        [sys.executable, "-c", _OWN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "BACKPACK_SOCKET": str(daemon.socket)},
    )
    assert done.stdout.splitlines() == ["v None"] * 2 + ["v 1"], done.stderr
