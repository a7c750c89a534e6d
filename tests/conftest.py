"""What every test gets: a place of its own, a daemon if it asks, and no way to skip in CI."""

import os

# gRPC reads this when it is imported. Tests fork only to start programs; gRPC would start its
# threads again in the child, which closes their descriptors: they end it before the program begins.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import random
import secrets
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cheap_vaults import make_cheap
from daemons import RunningDaemon
from quick_starts import Starting
from thorough import CI

SEED = os.environ.get("BACKPACK_SEED") or secrets.token_hex(4)

# A shell has what it puts into the background ignore these keys, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# A busy machine is no fault of the code: no example is timed, and slow ones are no failure.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_xdist_auto_num_workers() -> int:
    """Run one worker more than there are processors, since many tests wait for processes."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything that tests need is installed, so a skipped test is a failed one."""
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's home, socket, keychain and services."""
    for name in ("BACKPACK_PROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("BACKPACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BACKPACK_SOCKET", str(tmp_path / "run" / "backpackd.sock"))


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """Hold that no test leaves a signal to end the process that later tests run in."""
    yield
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert signal.getsignal(number) == signal.SIG_IGN, f"{number.name} is not ignored any more"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return the randomness of one test, which BACKPACK_SEED repeats.

    The seed is printed before the test runs, so pytest shows it with every failure.
    """
    sys.stdout.write(f"to repeat what chance chose: BACKPACK_SEED={SEED}\n")
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture
def cheap_vault(tmp_path: Path) -> None:
    """Have the test's daemon find a vault as it starts, locked, that unlocks in no time.

    For tests in which neither making a vault nor the cost of a passphrase is the property. They use
    this by a mark, which comes before their other fixtures.
    """
    make_cheap(tmp_path / "home")


@pytest.fixture(scope="session")
def _starting() -> Iterator[Starting]:
    starting = Starting()
    yield starting
    starting.close()


@pytest.fixture
def quick_start(
    _starting: Starting, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have daemons forked from a process that has loaded their code, instead of executed.

    For tests that look neither at what comes before a daemon's code is loaded nor at its process.
    They use this by a mark, and one among them that does look is marked as `executed`.
    """
    if request.node.get_closest_marker("executed") is None:
        monkeypatch.setattr(RunningDaemon, "starting", _starting)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Return a real daemon on a vault that unlocks in no time, not started, for a whole module.

    It leaves the vault in some state once, and each test runs a copy.
    """
    place = tmp_path_factory.mktemp("made-once")
    make_cheap(place / "home")
    # The environment of a test is not made yet, and the user's is not for tests.
    environ = {"HOME": str(place), "PATH": os.defpath}
    running = RunningDaemon(place / "home", place / "run" / "backpackd.sock", environ=environ)
    yield running
    running.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    """Return a real daemon on a throwaway home and socket, running.

    It has no vault yet, unless the test uses `cheap_vault`.
    """
    running = RunningDaemon(tmp_path / "home", tmp_path / "run" / "backpackd.sock")
    running.start()
    try:
        yield running
    finally:
        running.close()
