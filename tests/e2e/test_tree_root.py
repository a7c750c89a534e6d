"""Which process is the root of a tree, on real processes: shells, scripts, sessions, terminals.

Every experiment starts from a base that has left pytest's tree (its parent is pid 1 or the user's
service manager), so that it makes no difference whether a person runs the tests in a terminal.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.processes.linux import LinuxProcesses, PidfdProcess, open_process
from backpackd.core.peer_facts import PeerFacts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

# Leaves the tree of its parent. Then runs a script without a terminal, or a program that leads the
# session of a terminal, or types a line into an interactive shell that does.
BASE = """
import os, pty, select, sys
kind, text = sys.argv[1:]
if os.fork():
    os._exit(0)
os.setsid()
middle = os.pidfd_open(os.getpid())
if os.fork():
    os._exit(0)
# Until the process in the middle has ended, this one is still where it came from.
select.select([middle], [], [])
with open("report", "w") as report:
    report.write(f"base {os.getpid()}\\n")
if kind == "script":
    if os.fork() == 0:
        os.execvp("sh", ["sh", "-c", text])
    os.wait()
else:
    shell, terminal = pty.fork()
    if shell == 0:
        if kind == "leader":
            os.execvp(sys.executable, [sys.executable, *text.split()])
        os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
    if kind == "terminal":
        os.write(terminal, text.encode() + b"\\n")
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass
"""

SCRIPTS = {
    # The process at the end of a chain: says which one it is and waits to be let go.
    "leaf": 'echo "leaf $$" > report; read line < hold',
    # An agent that does its work in children of its children.
    "agent": 'echo "agent $$" > report; sh helper "$@"; true',
    "helper": 'echo "helper $$" > report; "$@"; true',
    "fork_twice.py": """
import os, select
if os.fork() == 0:
    os.setsid()
    middle = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        select.select([middle], [], [])
        os.execvp("sh", ["sh", "leaf"])
    os._exit(0)
os.wait()
# Else whoever waits for this one would end before anybody has looked. It takes one line, since a
# buffered reader would take those of the others as well.
os.read(os.open("hold", os.O_RDONLY), 1)
""",
    "agent.py": """
import os, subprocess
with open("report", "w") as report:
    report.write(f"agent {os.getpid()}\\n")
first = 'echo "first $$" > report; read line < hold'
subprocess.Popen(["sh", "-c", first])
subprocess.run(["setsid", "--wait", "sh", "leaf"])
""",
    "on_terminal.py": "import pty, sys; pty.spawn(sys.argv[1:])",
}


class Experiment:
    """Processes that say who they are, by role, and can be attested."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pinned: dict[str, PidfdProcess] = {}
        self._unread = b""
        for name in ("report", "hold"):
            os.mkfifo(directory / name)
        for name, text in SCRIPTS.items():
            (directory / name).write_text(text + "\n")
        # Open both ways: opening waits for nobody, and nobody waits to open.
        self._report = os.open(directory / "report", os.O_RDWR)
        self._hold = os.open(directory / "hold", os.O_RDWR)

    def run(self, kind: str, text: str, roles: set[str]) -> None:
        """Start the base and wait until every role has reported."""
        subprocess.run(
            [sys.executable, "-c", BASE, kind, text],
            check=True,
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "HOME": str(self._directory), "HISTFILE": "/dev/null"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        while set(self._pinned) != roles | {"base"}:
            ready, _, _ = select.select([self._report], [], [], 60)
            assert ready, f"only {sorted(self._pinned)} reported"
            self._unread += os.read(self._report, 4096)
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                role, pid = line.decode().split()
                self._pinned[role] = open_process(int(pid))
        if not self.attest("base").chain[1].manager:
            pytest.skip("needs orphans to go to pid 1 or the user's service manager")

    def attest(self, role: str) -> PeerFacts:
        return LinuxProcesses().attest(self._pinned[role], os.geteuid(), os.getegid())

    def root(self, role: str) -> str:
        """Name the role of the root of a role's tree."""
        pid = self.attest(role).root.id.pid
        roles = {process.pid: name for name, process in self._pinned.items()}
        return roles.get(pid, f"process {pid}")

    def close(self) -> None:
        """Let everybody go, and wait until they have gone."""
        # A line for each, and the pipe stays open: some may not have begun to wait.
        os.write(self._hold, b"\n" * (len(self._pinned) + 1))
        base = self._pinned.get("base")
        if base is not None and base.alive():
            os.kill(base.pid, signal.SIGKILL)
        for process in self._pinned.values():
            poll = select.poll()
            poll.register(process._fd, select.POLLIN)
            if not poll.poll(20_000):
                os.kill(process.pid, signal.SIGKILL)
            process.close()
        os.close(self._hold)
        os.close(self._report)


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    for program in ("bash", "setsid", "python3"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    made = Experiment(tmp_path)
    yield made
    made.close()


SHELL = 'echo "shell $$" > report; '


def test_a_command_typed_into_a_shell_is_the_root(experiment: Experiment) -> None:
    experiment.run("terminal", SHELL + "sh leaf", {"shell", "leaf"})
    leaf = experiment.attest("leaf")
    assert leaf.process.terminal != 0
    assert leaf.chain[1].id.pid == leaf.process.session
    assert experiment.root("leaf") == "leaf"


def test_the_shell_itself_is_its_own_root(experiment: Experiment) -> None:
    experiment.run("terminal", SHELL + "sh leaf", {"shell", "leaf"})
    assert experiment.root("shell") == "shell"


def test_a_script_is_the_root_of_its_children_and_grandchildren(experiment: Experiment) -> None:
    experiment.run("terminal", SHELL + "sh agent sh leaf", {"shell", "agent", "helper", "leaf"})
    assert [experiment.root(role) for role in ("leaf", "helper", "agent")] == ["agent"] * 3


def test_a_background_job_is_the_root_of_its_tree(experiment: Experiment) -> None:
    experiment.run("terminal", SHELL + "sh agent sh leaf &", {"shell", "agent", "helper", "leaf"})
    assert experiment.root("leaf") == "agent"


def test_two_commands_of_one_shell_are_two_trees(experiment: Experiment) -> None:
    second = "sh -c 'echo \"second $$\" > report; read line < hold'"
    experiment.run("terminal", SHELL + f"sh leaf & {second}", {"shell", "leaf", "second"})
    assert (experiment.root("leaf"), experiment.root("second")) == ("leaf", "second")


def test_a_child_in_a_session_of_its_own_stays_in_the_tree(experiment: Experiment) -> None:
    typed = SHELL + "sh agent setsid --wait sh leaf"
    experiment.run("terminal", typed, {"shell", "agent", "helper", "leaf"})
    leaf = experiment.attest("leaf").process
    assert (leaf.session, leaf.terminal) == (leaf.id.pid, 0)
    assert experiment.root("leaf") == "agent"


def test_a_child_on_a_terminal_of_its_own_stays_in_the_tree(experiment: Experiment) -> None:
    typed = SHELL + "sh agent python3 on_terminal.py sh leaf"
    experiment.run("terminal", typed, {"shell", "agent", "helper", "leaf"})
    leaf, shell = experiment.attest("leaf").process, experiment.attest("shell").process
    assert leaf.session == leaf.id.pid
    assert leaf.terminal not in (0, shell.terminal)
    assert experiment.root("leaf") == "agent"


def test_a_shell_on_a_nested_terminal_and_its_commands_stay_in_the_tree(
    experiment: Experiment,
) -> None:
    inner = "bash --norc -c 'echo \"inner $$\" > report; setsid --wait sh leaf; true'"
    typed = SHELL + f"sh agent python3 on_terminal.py {inner}"
    experiment.run("terminal", typed, {"shell", "agent", "helper", "inner", "leaf"})
    assert [experiment.root(role) for role in ("leaf", "inner")] == ["agent", "agent"]


@pytest.mark.parametrize(
    "hook",
    ['eval "$(./direnv export bash)"', "./direnv export bash", 'eval "$(./direnv export; true)"'],
)
def test_a_hook_of_a_shell_is_told_apart_from_an_agent(experiment: Experiment, hook: str) -> None:
    typed = SHELL + "printf '#!/bin/sh\\nsh agent sh leaf\\n' > direnv; chmod 700 direnv; " + hook
    experiment.run("terminal", typed, {"shell", "agent", "helper", "leaf"})
    facts, shell = experiment.attest("leaf"), experiment.attest("shell").process
    assert facts.root.id != shell.id
    assert facts.hooked is not None
    assert facts.hooked.id == shell.id


@pytest.mark.parametrize("typed", ["sh agent sh leaf", "sh -c './direnv; true'"])
def test_what_a_person_starts_is_no_hook(experiment: Experiment, typed: str) -> None:
    script = "printf '#!/bin/sh\\nsh agent sh leaf\\n' > direnv; chmod 700 direnv; "
    experiment.run("terminal", SHELL + script + typed, {"shell", "agent", "helper", "leaf"})
    assert experiment.attest("leaf").hooked is None


def test_an_agent_that_leads_the_session_is_the_root_of_every_tool_that_it_starts(
    experiment: Experiment,
) -> None:
    # As in a pane of a terminal multiplexer that was opened with a command.
    experiment.run("leader", "agent.py", {"agent", "first", "leaf"})
    agent = experiment.attest("agent").process
    assert agent.session == agent.id.pid
    assert agent.terminal != 0
    assert [experiment.root(role) for role in ("agent", "first", "leaf")] == ["agent"] * 3


def test_a_double_fork_leaves_the_tree_and_is_its_own_root(experiment: Experiment) -> None:
    experiment.run(
        "terminal", SHELL + "sh agent python3 fork_twice.py", {"shell", "agent", "helper", "leaf"}
    )
    assert experiment.root("leaf") != "agent"
    assert experiment.root("leaf") == "leaf"


def test_without_a_terminal_the_root_stands_below_the_manager(experiment: Experiment) -> None:
    experiment.run("script", "sh agent sh leaf; true", {"agent", "helper", "leaf"})
    assert all(facts.terminal == 0 for facts in experiment.attest("leaf").chain)
    assert [experiment.root(role) for role in ("leaf", "agent", "base")] == ["base"] * 3


def test_without_a_terminal_a_session_of_its_own_stays_in_the_tree(experiment: Experiment) -> None:
    typed = "sh agent setsid --wait sh leaf; true"
    experiment.run("script", typed, {"agent", "helper", "leaf"})
    assert experiment.root("leaf") == "base"
