"""What counts as the agent, one row for each place in which people start agents."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.peer_facts import (
    Answer,
    Image,
    PeerFacts,
    ProcessFacts,
    ProcessId,
    origin_index,
    root_index,
)
from backpackd.core.process_roles import HOOKS, INITS, SHELLS, STARTERS, is_manager, is_program

USER = 1000
PTS, OTHER_PTS = 34816, 34817


@dataclass(frozen=True)
class P:
    """One process of a chain.

    Attributes:
        runs: the file name of its executable; empty where the kernel hides it.
        leads: the terminal whose session it leads; 0: a session without one; None: it is in the
            session of its parent.
        root: whether it runs as root.
        manager: whether it is a service manager.
        calls_itself: its name, where that is not the executable's.
        image: tells one exec of a program from another; 0: the kernel does not tell.
    """

    runs: str
    leads: int | None = None
    root: bool = False
    manager: bool = False
    calls_itself: str = ""
    image: int = 0


def chain_of(*downwards: P) -> tuple[ProcessFacts, ...]:
    """Link processes, the outermost first, and return them with the caller first."""
    chain: list[ProcessFacts] = []
    session, terminal, parent = 0, 0, 0
    for pid, each in enumerate(downwards, start=1 if downwards[0].manager else 50):
        if each.leads is not None:
            session, terminal = pid, each.leads
        chain.insert(
            0,
            ProcessFacts(
                ProcessId(pid, pid, pid),
                parent=parent,
                session=session,
                terminal=terminal,
                uid=0 if each.root else USER,
                executable=f"/usr/bin/{each.runs}" if each.runs else None,
                manager=each.manager,
                name=each.calls_itself or each.runs,
                image=Image(Answer.NAMED, 1, each.image) if each.image else Image(),
            ),
        )
        parent = pid
    return tuple(chain)


INIT = P("systemd", leads=0, root=True, manager=True)
MANAGER = P("systemd", leads=0, manager=True)
AGENT, TOOL = P("python3.11"), P("curl")
SHELL = P("bash", leads=PTS)
TMUX = P("tmux", leads=0, calls_itself="tmux: server")
CRON = P("cron", leads=0, root=True)

# The chain, the outermost process first, and where in it the root of the last one's tree is.
CASES: dict[str, tuple[tuple[P, ...], int]] = {
    "typed into a shell": ((INIT, P("kitty"), SHELL, AGENT, TOOL), 3),
    "typed into a login shell": (
        (INIT, P("login", root=True), P("bash", leads=PTS, calls_itself="-bash"), AGENT, TOOL),
        3,
    ),
    "typed into a shell that nobody knows by its program": (
        (INIT, P("python3.11", leads=PTS, calls_itself="xonsh"), AGENT, TOOL),
        2,
    ),
    "a script with a shell's name in its first line": (
        (INIT, P("kitty"), SHELL, P("dash", calls_itself="agent.sh"), TOOL),
        3,
    ),
    "exec in a shell": ((INIT, P("kitty"), P("python3.11", leads=PTS), TOOL), 2),
    "a shell's exec of another shell": ((INIT, P("kitty"), P("zsh", leads=PTS), AGENT, TOOL), 3),
    "a pane of tmux with a command": (
        (
            INIT,
            MANAGER,
            P("tmux", leads=0, calls_itself="tmux: server"),
            P("node", leads=PTS),
            TOOL,
        ),
        3,
    ),
    "a pane of tmux with a shell": (
        (INIT, MANAGER, TMUX, SHELL, AGENT, TOOL),
        4,
    ),
    "a window of screen with a command": (
        (INIT, P("screen", leads=0, calls_itself="SCREEN"), P("python3.11", leads=PTS), TOOL),
        2,
    ),
    "a job of tmux without a terminal": (
        (INIT, MANAGER, P("tmux", leads=0), P("sh", leads=0), AGENT, TOOL),
        3,
    ),
    "typed below script": (
        (INIT, P("kitty"), SHELL, P("script"), P("bash", leads=OTHER_PTS), AGENT, TOOL),
        5,
    ),
    "ssh host command": (
        (
            INIT,
            P("sshd", leads=0, root=True),
            P("", leads=0, root=True, calls_itself="sshd"),
            P("", leads=0, calls_itself="sshd"),
            P("python3.11", leads=0),
            TOOL,
        ),
        4,
    ),
    "ssh host command, through a shell": (
        (
            INIT,
            P("sshd", leads=0, root=True),
            P("sshd-session", leads=0, root=True),
            P("", calls_itself="sshd-session"),
            P("bash", leads=0),
            AGENT,
            TOOL,
        ),
        4,
    ),
    "ssh -t host command": (
        (
            INIT,
            P("sshd", leads=0, root=True),
            P("", leads=0, calls_itself="sshd"),
            P("python3.11", leads=PTS),
            TOOL,
        ),
        3,
    ),
    "docker run image agent": (
        (INIT, P("containerd-shim-runc-v2", leads=0, root=True), P("python3.11", leads=0), TOOL),
        2,
    ),
    "docker run -it image agent": (
        (INIT, P("containerd-shim-runc-v2", leads=0, root=True), P("node", leads=PTS), TOOL),
        2,
    ),
    "docker run -it image shell": (
        (INIT, P("containerd-shim-runc-v2", leads=0, root=True), SHELL, AGENT, TOOL),
        3,
    ),
    "docker run --init image agent": (
        (
            INIT,
            P("containerd-shim-runc-v2", leads=0, root=True),
            P("docker-init", leads=0),
            AGENT,
            TOOL,
        ),
        2,
    ),
    "podman run image agent, without root": (
        (INIT, MANAGER, P("conmon", leads=0), P("python3.11", leads=0), TOOL),
        3,
    ),
    "the agent of the daemon's own container": ((P("python3.11", leads=0), TOOL), 0),
    "a systemd unit": ((INIT, P("python3.11", leads=0), TOOL), 1),
    "a systemd user unit": ((INIT, MANAGER, P("python3.11", leads=0), TOOL), 2),
    "cron": (
        (
            INIT,
            P("cron", leads=0, root=True),
            P("cron", root=True),
            P("dash", leads=0),
            AGENT,
            TOOL,
        ),
        3,
    ),
    "the extension host of VS Code": (
        (INIT, MANAGER, P("gnome-shell", leads=0), P("code", leads=0), P("code"), AGENT, TOOL),
        3,
    ),
    "the extension host of VS Code, started from a shell": (
        (INIT, P("kitty"), SHELL, P("code"), P("code"), AGENT, TOOL),
        3,
    ),
    "a desktop launcher that the service manager starts": (
        (INIT, MANAGER, P("cursor", leads=0), P("cursor"), TOOL),
        2,
    ),
    "a desktop launcher that the desktop starts": (
        (INIT, MANAGER, P("sway", leads=0), P("cursor"), TOOL),
        3,
    ),
    "a menu of a desktop": (
        (INIT, MANAGER, P("sway", leads=0), P("rofi"), P("sh"), AGENT, TOOL),
        4,
    ),
    "a leader that hides its program": ((INIT, P("", leads=PTS, calls_itself="agent"), TOOL), 2),
}


DIRENV, ENVRC = P("direnv"), P("bash")
# The chain, and where in it the shell is that a grant is offered for; None: it is for the root.
HOOKED: dict[str, tuple[tuple[P, ...], int | None]] = {
    "direnv at a shell's prompt": ((INIT, P("kitty"), SHELL, DIRENV, ENVRC, TOOL), 2),
    "direnv in a login shell": (
        (
            INIT,
            P("login", root=True),
            P("zsh", leads=PTS, calls_itself="-zsh"),
            DIRENV,
            ENVRC,
            TOOL,
        ),
        2,
    ),
    "direnv in a pane of tmux": ((INIT, MANAGER, TMUX, SHELL, DIRENV, ENVRC, TOOL), 3),
    "direnv in a shell that is its own session's below another": (
        (INIT, P("kitty"), SHELL, P("script"), P("bash", leads=OTHER_PTS), DIRENV, ENVRC, TOOL),
        4,
    ),
    "direnv below a shell's fork": (
        (INIT, P("kitty"), P("bash", leads=PTS, image=7), P("bash", image=7), DIRENV, ENVRC, TOOL),
        2,
    ),
    "direnv that is a script": (
        (INIT, P("kitty"), SHELL, P("bash", calls_itself="direnv"), ENVRC, TOOL),
        2,
    ),
    "mise, with another shell": ((INIT, P("kitty"), P("fish", leads=PTS), P("mise"), TOOL), 2),
    "direnv over ssh": (
        (INIT, P("sshd", leads=0, root=True), P("", calls_itself="sshd"), SHELL, DIRENV, TOOL),
        3,
    ),
    "a script that calls direnv": (
        (
            INIT,
            P("kitty"),
            P("bash", leads=PTS, image=7),
            P("bash", image=8),
            DIRENV,
            ENVRC,
            TOOL,
        ),
        None,
    ),
    "an agent that calls direnv": ((INIT, P("kitty"), SHELL, AGENT, DIRENV, ENVRC, TOOL), None),
    "an editor that calls direnv": ((INIT, MANAGER, P("code", leads=0), DIRENV, TOOL), None),
    "direnv without a terminal": ((INIT, P("cron", leads=0, root=True), DIRENV, TOOL), None),
    "direnv in a shell of root's": (
        (INIT, P("kitty"), P("bash", leads=PTS, root=True), DIRENV, TOOL),
        None,
    ),
    "typed into a shell": ((INIT, P("kitty"), SHELL, TOOL), None),
    "an agent in a shell": ((INIT, P("kitty"), SHELL, AGENT, TOOL), None),
}


@pytest.mark.parametrize("case", HOOKED)
def test_a_hook_of_a_shell_has_its_grant_offered_for_the_shell(case: str) -> None:
    downwards, expected = HOOKED[case]
    facts = PeerFacts(USER, USER, chain_of(*downwards))
    assert facts.hooked == (None if expected is None else facts.chain[-1 - expected])


@pytest.mark.parametrize("case", HOOKED)
def test_a_hook_stays_the_root_that_an_approval_is_for(case: str) -> None:
    downwards, _ = HOOKED[case]
    plain = tuple(
        P("true", leads=each.leads, root=each.root) if each.runs in HOOKS else each
        for each in downwards
    )
    before, after = chain_of(*plain), chain_of(*downwards)
    assert root_index(after, USER) == root_index(before, USER)


@pytest.mark.parametrize("case", CASES)
def test_the_root_is_the_agent(case: str) -> None:
    downwards, expected = CASES[case]
    chain = chain_of(*downwards)
    root = chain[root_index(chain, USER)]
    assert root == chain[-1 - expected]


@pytest.mark.parametrize("case", CASES)
def test_a_prohibition_reaches_at_least_as_far_as_a_permission(case: str) -> None:
    chain = chain_of(*CASES[case][0])
    assert origin_index(chain, USER) >= root_index(chain, USER)
    facts = PeerFacts(USER, USER, chain)
    assert facts.root in facts.tree


@pytest.mark.parametrize("case", CASES)
def test_the_tools_of_one_agent_are_in_one_tree(case: str) -> None:
    downwards, expected = CASES[case]
    root = P(downwards[expected].runs)
    for tool in (TOOL, P("bash"), P("node", leads=0), P("sh", leads=OTHER_PTS)):
        if tool.leads and not any(each.leads for each in downwards):
            # Without any terminal above, one inside looks like the user's own.
            continue
        chain = chain_of(*downwards[: expected + 1], tool)
        assert chain[root_index(chain, USER)].executable in {
            f"/usr/bin/{root.runs}",
            f"/usr/bin/{tool.runs}" if not root.runs else "",
        }


NAMES = st.sampled_from(
    [*sorted(SHELLS), *sorted(STARTERS), *sorted(INITS), *sorted(HOOKS), "agent", "", "-bash"]
)


@given(st.sampled_from(sorted(CASES)), st.integers(0, 6), NAMES)
def test_no_name_that_a_process_gives_itself_makes_its_tree_larger(
    case: str, place: int, name: str
) -> None:
    downwards = list(CASES[case][0])
    place %= len(downwards)
    before = chain_of(*downwards)
    liar = downwards[place]
    downwards[place] = P(liar.runs, liar.leads, liar.root, liar.manager, name or liar.runs)
    after = chain_of(*downwards)
    if liar.calls_itself and liar.calls_itself.partition(":")[0].lstrip("-") in SHELLS | STARTERS:
        # It called itself a shell before, and nothing but its name told so.
        return
    assert root_index(after, USER) <= root_index(before, USER)


CHAINS = st.lists(
    st.builds(
        P,
        st.sampled_from(["node", "bash", "tmux", ""]),
        st.sampled_from([None, 0, PTS, OTHER_PTS]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(CHAINS, st.integers(0, 5), NAMES, st.booleans())
def test_in_no_chain_does_a_name_or_a_hidden_program_make_a_tree_larger(
    downwards: list[P], place: int, name: str, hides: bool
) -> None:
    before = chain_of(*downwards)
    place %= len(downwards)
    liar = replace(downwards[place], runs="node")
    honest = chain_of(*downwards[:place], liar, *downwards[place + 1 :])
    told = replace(liar, runs="" if hides else "node", calls_itself=name)
    after = chain_of(*downwards[:place], told, *downwards[place + 1 :])
    assert root_index(after, USER) <= root_index(honest, USER)
    assert origin_index(after, USER) <= origin_index(honest, USER)
    for chain in (before, honest, after):
        assert root_index(chain, USER) <= origin_index(chain, USER)


@pytest.mark.parametrize(
    ("pid", "executable", "name", "manager"),
    [
        (1, "/usr/lib/systemd/systemd", "systemd", True),
        (1, "/sbin/tini", "tini", True),
        (1, "/usr/bin/bash", "entrypoint.sh", True),
        (1, None, "agent", True),
        (1, "/usr/bin/python3.11", "python3", False),
        (1, "/usr/bin/python3.11", "init", True),
        (2, "/usr/lib/systemd/systemd", "systemd", False),
    ],
)
def test_the_first_process_is_a_manager_unless_it_is_known_to_be_a_program(
    pid: int, executable: str | None, name: str, *, manager: bool
) -> None:
    assert is_manager(pid, executable, name) is manager


@pytest.mark.parametrize(
    ("executable", "name"),
    [
        (None, "agent"),
        ("/bin/bash", "agent"),
        ("/opt/agent", "-zsh"),
        ("/opt/agent", "tmux: server"),
        ("/opt/agent", "containerd-shim"),
        ("/opt/containerd-shim-runc-v2", "x"),
    ],
)
def test_what_hides_or_is_called_like_a_shell_or_a_starter_is_not_known_to_be_a_program(
    executable: str | None, name: str
) -> None:
    assert not is_program(executable, name)
