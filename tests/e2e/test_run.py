"""`run` as a whole process against a real daemon: what the agent finds, and what ends it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backpack_client import Backpack
from backpack_client.calls import agents as agent_calls
from backpack_client.files import lockfiles
from backpack_client.launch.key_descriptor import handed_keys
from backpack_proto.v1 import grants_pb2, leases_pb2, vault_pb2
from daemons import PASSPHRASE, Client, RunningDaemon

RUN = [sys.executable, "-m", "backpack_client", "run"]
VALUE = b"sk-value-0123456789abcdef"
# Says that it is there, then echoes: alive for as long as it answers.
ECHO = ["sh", "-c", 'echo "$K"; while read line; do echo "$line"; done']
PATIENCE = 60

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.usefixtures("cheap_vault", "quick_start"),
]


@pytest.fixture
def operator(daemon: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return the operator of a vault with the keys K and L, granted to the user."""
    operator = daemon.operator()
    operator.put("K", VALUE)
    operator.put("L", b"other")
    operator.grant("K", "L", "E_KEY")
    monkeypatch.chdir(tmp_path)
    for name in ("K", "L"):
        monkeypatch.delenv(name, raising=False)
    return operator


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [*RUN, *arguments],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


class Agent:
    """An agent that runs, and answers while it does."""

    def __init__(self, *options: str, command: list[str] = ECHO) -> None:
        self.process = subprocess.Popen(
            [*RUN, "--key", "K", *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.first = self._line()

    def answers(self) -> bool:
        assert self.process.stdin is not None
        self.process.stdin.write(b"there?\n")
        self.process.stdin.flush()
        return self._line() == b"there?\n"

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture
def start() -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def begin(*options: str, **more: Any) -> Agent:
        agents.append(Agent(*options, **more))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.close()


def live(operator: Client) -> list[Any]:
    return list(operator.leases.ListLeases(leases_pb2.ListLeasesRequest(all=True)).leases)


def environ_of(pid: int | str) -> bytes:
    """Read the environment that a process began with; nothing where the kernel refuses it."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        return b""


def test_the_agent_finds_its_keys_in_its_environment_and_nothing_is_said(operator: Client) -> None:
    done = run("--key", "K", "--key", "L", "--", "sh", "-c", 'echo "$K $L"; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, VALUE + b" other\n", b"")


def test_the_agent_is_the_process_that_was_started_and_holds_the_lease(
    operator: Client, start: Callable[..., Agent]
) -> None:
    agent = start()
    (lease,) = live(operator)
    assert (lease.holder_pid, list(lease.names)) == (agent.process.pid, ["K"])
    assert agent.first == VALUE + b"\n"
    assert VALUE in environ_of(agent.process.pid)


# Stands in for the last step of `run`, and tells what it finds there.
BEFORE_EXEC = """
import json, os, sys
from pathlib import Path
from backpack_client.cli.main import main
def execve(path, arguments, environ):
    try:
        own = Path("/proc/self/environ").read_bytes()
    except PermissionError:
        own = b""
    dumpable = __import__("ctypes").CDLL(None).prctl(3, 0, 0, 0, 0)
    value = environ.get(b"K", b"")
    print(json.dumps([value.decode(), own.find(value) if value else -1, dumpable]), flush=True)
    os._exit(0)
os.execve = execve
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.executed
def test_run_itself_and_the_daemon_show_no_key_in_their_environment(
    operator: Client, daemon: RunningDaemon
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_EXEC, "run", "--key", "K", "--", "true"],
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert json.loads(done.stdout) == [VALUE.decode(), -1, 0]
    assert VALUE not in environ_of(daemon.pid)


def test_with_a_descriptor_not_even_the_agent_shows_a_key_in_its_environment(
    operator: Client,
) -> None:
    operator.put("odd.name", b"\xff\x00")
    operator.grant("odd.name")
    source = (
        "import os, sys\n"
        "from backpack_client.launch.key_descriptor import handed_keys\n"
        "from pathlib import Path\n"
        "assert handed_keys() == handed_keys() == {'K': os.fsencode(sys.argv[1]),\n"
        "    'odd.name': b'\\xff\\x00'}\n"
        "shown = Path('/proc/self/environ').read_bytes()\n"
        "assert b'BACKPACK_KEYS_FD' in shown and os.fsencode(sys.argv[1]) not in shown\n"
        "number = int(os.environ['BACKPACK_KEYS_FD'])\n"
        "assert number > 2\n"
        "for attempt in (lambda: os.write(number, b'x'), lambda: os.ftruncate(number, 0)):\n"
        "    try:\n"
        "        attempt()\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    raise AssertionError\n"
    )
    arguments = ["--inject", "fd", "--key", "K", "--key", "odd.name", "--", sys.executable]
    done = run(*arguments, "-c", source, VALUE.decode())
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_shell_can_read_the_descriptor_too(operator: Client) -> None:
    done = run("--inject", "fd", "--key", "K", "--", "sh", "-c", 'cat "/dev/fd/$BACKPACK_KEYS_FD"')
    assert json.loads(done.stdout) == {"keys": {"K": VALUE.decode()}}


def test_an_agent_that_fetches_by_itself_finds_nothing_and_needs_no_second_consent(
    operator: Client,
) -> None:
    fetch = f"{sys.executable} -m backpack_client get K"
    done = run("--inject", "none", "--key", "K", "--", "sh", "-c", f'echo "[$K]"; {fetch}')
    assert done.stdout == b"[]\n" + VALUE + b"\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LD_PRELOAD", b"must not set LD_PRELOAD"),
        ("PATH", b"must not set PATH"),
        ("ld_library_path", b"must not set ld_library_path"),
        ("BASH_ENV", b"must not set BASH_ENV"),
        ("a.b", b"cannot be the name of a variable"),
    ],
)
def test_a_name_that_no_key_may_set_is_refused_and_nobody_is_asked(
    operator: Client, name: str, said: bytes
) -> None:
    done = run("--key", name, "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (1, b"")
    assert said in done.stderr
    assert (operator.pending(), live(operator)) == ([], [])


def test_what_is_set_already_wins_and_is_named_and_not_leased(operator: Client) -> None:
    done = run("--key", "K", "--key", "L", "--", "sh", "-c", 'echo "$K $L"', K="mine-alone")
    assert done.stdout == b"mine-alone other\n"
    assert b"K is already set" in done.stderr
    assert b"mine-alone" not in done.stderr
    (handed,) = next(iter(operator.leases.ListHandouts(leases_pb2.ListHandoutsRequest()))).handouts
    assert list(handed.names) == ["L"]


@pytest.mark.parametrize(("command", "code"), [("no-such-program", 127), ("./here", 126)])
def test_a_program_that_cannot_be_executed_ends_it_before_anybody_is_asked(
    operator: Client, tmp_path: Path, command: str, code: int
) -> None:
    (tmp_path / "here").write_text("no program")
    done = run("--key", "UNGRANTED", "--", command)
    assert done.returncode == code
    assert operator.pending() == []


def test_a_value_that_no_variable_can_hold_is_refused_and_not_shown(operator: Client) -> None:
    operator.put("K", b"before\0after", replace=True)
    done = run("--key", "K", "--", "true")
    assert done.returncode == 1
    assert b"zero byte" in done.stderr
    assert b"before" not in done.stderr


def test_a_value_that_is_no_text_comes_through_byte_for_byte(operator: Client) -> None:
    operator.put("K", b"\xff\xfe\n$`'", replace=True)
    assert run("--key", "K", "--", "printenv", "K").stdout == b"\xff\xfe\n$`'\n"


# SigQ is left out: it counts the signals that wait for any process of the user.
LOOK = (
    "cat /proc/self/status | grep -E '^(Sig[^Q]|Shd|Umask)'; ls /proc/self/fd; pwd; ulimit -a;"
    " env | grep -v -E '^(K|_|SHLVL)='"
)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", ""])
def test_all_else_is_as_without_run(
    operator: Client, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"LANG": locale}
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_CTYPE", raising=False)
    # With a limit of core files that is not the one that `run` sets for itself.
    begin = ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "sh"]
    plain = subprocess.run(
        [*begin, "sh", "-c", LOOK],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    done = subprocess.run(
        [*begin, *RUN, "--key", "K", "--", "sh", "-c", LOOK],
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == plain.stdout


def revoke(operator: Client) -> None:
    operator.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(key="K"))


def panic(operator: Client) -> None:
    operator.vault.Panic(vault_pb2.PanicRequest())


def ungrant(operator: Client) -> None:
    for grant in operator.grants.ListGrants(grants_pb2.ListGrantsRequest(all=True)).grants:
        operator.grants.RemoveGrant(grants_pb2.RemoveGrantRequest(id=grant.id))


End = Callable[[Client], None]


@pytest.mark.parametrize("end", [revoke, panic, ungrant])
def test_what_somebody_decides_ends_the_agent(
    operator: Client, start: Callable[..., Agent], end: End
) -> None:
    agent = start()
    end(operator)
    assert agent.ended() == -signal.SIGTERM


def delete(operator: Client) -> None:
    operator.delete("K")


@pytest.mark.parametrize("end", [Client.lock, delete])
def test_a_locked_vault_and_a_deleted_key_leave_the_agent_alone(
    operator: Client, start: Callable[..., Agent], end: End
) -> None:
    agent = start()
    end(operator)
    assert agent.answers()


@pytest.mark.parametrize("end", [revoke, panic])
def test_an_agent_that_is_to_be_kept_goes_on(
    operator: Client, start: Callable[..., Agent], end: End
) -> None:
    agent = start("--on-revoke", "keep")
    end(operator)
    assert agent.answers()


@pytest.mark.parametrize("end", [RunningDaemon.terminate, RunningDaemon.kill])
def test_the_end_of_the_daemon_leaves_the_agent_alone(
    operator: Client,
    daemon: RunningDaemon,
    start: Callable[..., Agent],
    end: Callable[[RunningDaemon], int],
) -> None:
    agent = start()
    end(daemon)
    daemon.start()
    daemon.client().unlock()
    assert agent.answers()


def test_an_agent_that_executes_another_program_keeps_its_lease(
    operator: Client, start: Callable[..., Agent]
) -> None:
    again = ["sh", "-c", f"exec {sys.executable} -c 'print(1, flush=True); input()'"]
    agent = start(command=again)
    assert agent.first == b"1\n"
    (lease,) = live(operator)
    assert lease.holder_pid == agent.process.pid
    revoke(operator)
    assert agent.ended() == -signal.SIGTERM


def test_the_daemon_renews_the_lease_of_an_agent_that_lives(
    operator: Client, start: Callable[..., Agent]
) -> None:
    agent = start("--ttl", "4s")
    watch = operator.leases.WatchLeases(leases_pb2.WatchLeasesRequest(all=True), timeout=PATIENCE)
    kinds = [next(watch).kind for _ in range(5)]
    renewed = leases_pb2.WatchLeasesResponse.KIND_RENEWED
    assert kinds[1:] == [renewed] * 4
    assert agent.answers()


@pytest.fixture
def lock(operator: Client, daemon: RunningDaemon, tmp_path: Path) -> Path:
    """Return a lock above the current directory, with one stored and one embedded credential."""
    path = tmp_path / "agent.lock"
    personality = {"system_prompt": "be brief", "tone": "dry", "limits": [1], "temperature": 0.5}
    with Backpack(str(daemon.socket)) as backpack:
        backpack.authorize(PASSPHRASE)
        call = agent_calls.create_lock(personality, {"K": None, "E_KEY": b"embedded"})
        lockfiles.create(str(path), backpack.call(call).data)
    (tmp_path / "below").mkdir()
    os.chdir(tmp_path / "below")
    return path


NAMES = ("K", "L", "E_KEY", "AGENT_SYSTEM_PROMPT", "AGENT_TONE", "AGENT_TEMPERATURE")


def found(output: bytes, *names: str) -> dict[str, str]:
    lines = [line.partition("=") for line in output.decode().splitlines()]
    return {name: value for name, _, value in lines if name in (names or NAMES)}


def test_a_lock_gives_the_agent_its_keys_and_its_personality(lock: Path) -> None:
    done = run("--key", "L", "--", "env")
    assert found(done.stdout) == {
        "K": VALUE.decode(),
        "L": "other",
        "E_KEY": "embedded",
        "AGENT_SYSTEM_PROMPT": "be brief",
        "AGENT_TONE": "dry",
        "AGENT_TEMPERATURE": "0.5",
    }
    assert b"limits cannot be a variable" in done.stderr
    assert found(done.stdout, "BACKPACK_AGENT_LOCK") == {"BACKPACK_AGENT_LOCK": str(lock)}


def test_all_keys_of_a_lock_are_asked_for_with_one_question(lock: Path, operator: Client) -> None:
    ungrant(operator)
    with subprocess.Popen(
        [*RUN, "--", "env"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        while b"waiting for approval" not in (line := process.stderr.readline()):
            assert line
        (request,) = operator.pending()
        assert sorted(request.names) == ["E_KEY", "K"]
        assert [each.pid for each in request.chain if each.proposed_root] == [process.pid]
        operator.approve(request.code)
        out, _ = process.communicate(timeout=PATIENCE)
    assert found(out, "K", "E_KEY") == {"K": VALUE.decode(), "E_KEY": "embedded"}


def test_a_question_ends_with_the_process_that_asked_it_and_the_message_says_so(
    operator: Client,
) -> None:
    operator.put("M", b"m")
    done = run("--key", "M", "--wait", "0", "--", "true")
    assert (done.returncode, operator.pending()) == (6, [])
    assert b"while it waits" in done.stderr
    assert b"backpack-client approve" not in done.stderr.partition(b"nobody has")[2]


def test_a_lock_is_left_aside_where_that_is_wished(lock: Path) -> None:
    done = run("--no-lock", "--key", "K", "--", "env", BACKPACK_AGENT_LOCK="/of/an/outer/agent")
    assert found(done.stdout) == {"K": VALUE.decode()}
    assert found(done.stdout, "BACKPACK_AGENT_LOCK") == {}


def test_a_lock_that_was_tampered_with_runs_nothing(lock: Path) -> None:
    data = bytearray(lock.read_bytes())
    place = data.index(b'"generation"') + len(b'"generation": ')
    data[place] ^= 1
    lock.write_bytes(data)
    done = run("--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "Path"])
def test_a_lock_that_brings_a_value_of_such_a_name_runs_nothing(
    operator: Client, daemon: RunningDaemon, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "agent.lock"
    with Backpack(str(daemon.socket)) as backpack:
        backpack.authorize(PASSPHRASE)
        call = agent_calls.create_lock({}, {"K": None, name: b"/tmp/evil"})
        lockfiles.create(str(path), backpack.call(call).data)
    operator.grant(name)
    done = run("--lock", str(path), "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"must not set {name}".encode() in done.stderr
    assert operator.pending() == []


def test_without_lock_and_keys_there_is_nothing_to_run_with(operator: Client) -> None:
    done = run("--", "true")
    assert (done.returncode, b"no agent.lock" in done.stderr) == (1, True)


def test_keys_that_were_not_handed_over_are_missed_with_a_hint() -> None:
    with pytest.raises(Exception, match="no keys were handed"):
        handed_keys({})


def test_what_an_outer_agent_was_handed_is_not_the_inner_ones(
    operator: Client, tmp_path: Path
) -> None:
    outer = {"BACKPACK_KEYS_FD": "7", "BACKPACK_AGENT_LOCK": "/of/an/outer/agent"}
    done = run("--key", "K", "--", "env", **outer)
    assert found(done.stdout, *outer) == {}
