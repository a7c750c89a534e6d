from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from backpackd.core.peer_facts import (
    PeerFacts,
    ProcessFacts,
    ProcessId,
    _leads_terminal,
    root_index,
)

USER = 1000
ROOT = 0
PTS = 34816
OTHER_PTS = 34817


def process(
    pid: int,
    *,
    session: int = 0,
    terminal: int = 0,
    uid: int = USER,
    manager: bool = False,
    parent: int = 0,
) -> ProcessFacts:
    return ProcessFacts(
        ProcessId(pid, pid, pid),
        parent=parent,
        session=session,
        terminal=terminal,
        uid=uid,
        manager=manager,
    )


def chain_of(*processes: ProcessFacts) -> tuple[ProcessFacts, ...]:
    """Link processes, the caller first, by their parents' pids."""
    above = [facts.id.pid for facts in processes[1:]] + [0]
    return tuple(
        replace(facts, parent=parent) for facts, parent in zip(processes, above, strict=True)
    )


INIT = process(1, session=1, uid=ROOT, manager=True)
SYSTEMD = process(2, session=2, manager=True)
TERMINAL = process(10, session=2)
SHELL = process(20, session=20, terminal=PTS)
AGENT = process(30, session=20, terminal=PTS)


def root_of(*processes: ProcessFacts) -> int:
    chain = chain_of(*processes)
    return chain[root_index(chain, chain[0].uid)].id.pid


def test_an_agent_typed_into_a_shell_is_the_root_and_the_shell_is_not() -> None:
    assert root_of(AGENT, SHELL, TERMINAL, SYSTEMD, INIT) == 30


def test_a_shell_that_asks_for_itself_is_its_own_root() -> None:
    assert root_of(SHELL, TERMINAL, SYSTEMD, INIT) == 20


def test_sessions_and_terminals_below_the_agent_are_in_its_tree() -> None:
    inner = process(50, session=50, terminal=OTHER_PTS)
    detached = process(40, session=40)
    command = process(60, session=50, terminal=OTHER_PTS)
    assert root_of(command, inner, detached, AGENT, SHELL, TERMINAL, SYSTEMD, INIT) == 30


def test_what_leaves_the_session_right_below_the_shell_is_the_root() -> None:
    detached = process(40, session=40)
    assert root_of(process(50, session=40), detached, SHELL, TERMINAL, SYSTEMD, INIT) == 40


def test_without_a_terminal_the_root_stands_below_the_service_manager() -> None:
    service = process(10, session=10)
    assert root_of(process(11, session=10), service, SYSTEMD, INIT) == 10


def test_a_terminal_leader_right_below_another_is_not_the_root() -> None:
    inner = process(21, session=21, terminal=OTHER_PTS)
    agent = process(30, session=21, terminal=OTHER_PTS)
    assert root_of(agent, inner, SHELL, TERMINAL, SYSTEMD, INIT) == 30


def test_two_jobs_of_one_root_owned_daemon_are_two_trees() -> None:
    cron = process(5, session=5, uid=ROOT)
    assert root_of(process(31), process(30), cron, INIT) == 30
    assert root_of(process(41), process(40), cron, INIT) == 40


def test_the_shell_that_su_starts_in_a_session_of_root_is_not_the_root() -> None:
    roots_shell = process(20, session=20, terminal=PTS, uid=ROOT)
    su = process(21, session=20, terminal=PTS, uid=ROOT)
    shell = process(22, session=20, terminal=PTS)
    assert root_of(AGENT, shell, su, roots_shell, INIT) == 30


def test_the_shell_that_login_starts_below_a_terminal_program_is_not_the_root() -> None:
    login = process(20, session=20, terminal=PTS, uid=ROOT)
    shell = process(22, session=20, terminal=PTS)
    assert root_of(AGENT, shell, login, TERMINAL, INIT) == 30


def test_a_job_that_outlived_its_shell_is_its_own_root() -> None:
    assert root_of(process(31, session=20, terminal=PTS), AGENT, SYSTEMD, INIT) == 30


def test_a_container_whose_first_process_is_the_shell_has_the_agent_as_root() -> None:
    shell = process(1, session=1, terminal=PTS, manager=True)
    assert root_of(process(7, session=1, terminal=PTS), shell) == 7


def test_the_tree_of_a_peer_ends_with_its_root() -> None:
    facts = PeerFacts(USER, USER, chain_of(process(31), AGENT, SHELL, TERMINAL, INIT))
    assert [member.id.pid for member in facts.tree] == [31, 30]
    assert facts.root.id.pid == 30
    assert facts.process.id.pid == 31


@st.composite
def chains(draw: st.DrawFn) -> tuple[ProcessFacts, ...]:
    """Any chain that a kernel could show: sessions are made downwards and own one terminal."""
    session = 1
    terminal = draw(st.sampled_from([0, PTS]))
    downwards = [process(1, session=1, terminal=terminal, uid=ROOT, manager=True)]
    for pid in range(2, 2 + draw(st.integers(0, 9))):
        if draw(st.booleans()):
            session, terminal = pid, draw(st.sampled_from([0, PTS + pid]))
        has_terminal = terminal if draw(st.integers(0, 9)) else 0
        downwards.append(
            process(
                pid,
                session=session,
                terminal=has_terminal,
                uid=draw(st.sampled_from([USER, USER, USER, ROOT])),
                manager=pid == 2 and draw(st.booleans()),
            )
        )
    if len(downwards) > 1 and draw(st.booleans()):
        downwards = downwards[1:]
        downwards[0] = replace(downwards[0], parent=0)
    return chain_of(*reversed(downwards))


def leads_a_terminal(facts: ProcessFacts) -> bool:
    return facts.terminal != 0 and facts.session == facts.id.pid


@given(chains())
def test_the_root_is_always_in_the_chain(chain: tuple[ProcessFacts, ...]) -> None:
    assert 0 <= root_index(chain, chain[0].uid) < len(chain)


@given(chains())
def test_a_leader_of_a_terminal_is_the_root_of_nobody_else(chain: tuple[ProcessFacts, ...]) -> None:
    index = root_index(chain, chain[0].uid)
    assert index == 0 or not leads_a_terminal(chain[index])


@given(chains())
def test_neither_pid_1_nor_another_user_is_the_root_of_anybody_else(
    chain: tuple[ProcessFacts, ...],
) -> None:
    index = root_index(chain, chain[0].uid)
    above = chain[index + 1 :]
    below_strangers = any(facts.uid == chain[0].uid and not facts.manager for facts in above)
    root = chain[index]
    assert index == 0 or root.id.pid != 1
    assert root.uid == chain[0].uid or below_strangers


@given(chains(), st.integers(1, 10))
def test_what_is_not_seen_of_a_chain_never_makes_the_tree_larger(
    chain: tuple[ProcessFacts, ...], seen: int
) -> None:
    assert root_index(chain[:seen], chain[0].uid) <= root_index(chain, chain[0].uid)


@given(chains(), st.sampled_from(["same session", "own session", "own terminal"]))
def test_a_child_in_the_tree_has_the_same_root(chain: tuple[ProcessFacts, ...], kind: str) -> None:
    root, caller = chain[root_index(chain, chain[0].uid)], chain[0]
    assume(root != caller or not _leads_terminal(chain, 0, caller.uid))
    # Without any terminal above, a terminal inside the tree looks like the user's own.
    assume(kind != "own terminal" or root.terminal)
    assume(not caller.manager)
    child = process(
        99,
        uid=caller.uid,
        session=caller.session if kind == "same session" else 99,
        terminal={"same session": caller.terminal, "own session": 0, "own terminal": OTHER_PTS}[
            kind
        ],
        parent=caller.id.pid,
    )
    longer = (child, *chain)
    assert longer[root_index(longer, caller.uid)] == root


@given(chains())
def test_a_process_that_poses_as_a_manager_never_makes_its_tree_larger(
    chain: tuple[ProcessFacts, ...],
) -> None:
    for liar in range(len(chain)):
        posing = tuple(
            replace(facts, manager=facts.manager or i == liar) for i, facts in enumerate(chain)
        )
        assert root_index(posing, chain[0].uid) <= root_index(chain, chain[0].uid)


def test_what_an_agent_starts_on_a_terminal_of_its_own_stays_in_the_agents_tree() -> None:
    # An agent without a terminal, a tool's shell on one that the agent opened, and the tool.
    manager, script = process(1, uid=ROOT, manager=True), process(10, session=10)
    agent = process(20, session=10)
    shell = process(30, session=30, terminal=PTS)
    tool = process(40, session=30, terminal=PTS)
    alone = PeerFacts(USER, USER, chain_of(tool, shell, agent, script, manager))
    assert [facts.id.pid for facts in alone.tree] == [40]
    within = replace(alone, root_at=2)
    assert within.root.id.pid == 20
    # Up to where the agent itself was started: what was refused there is refused here, too.
    assert [facts.id.pid for facts in within.tree] == [40, 30, 20, 10]
    assert within.origin == PeerFacts(USER, USER, within.chain[2:]).origin


@given(chains(), st.integers(0, 9))
def test_an_agent_never_makes_the_tree_smaller(chain: tuple[ProcessFacts, ...], place: int) -> None:
    assume(place < len(chain))
    facts = PeerFacts(USER, USER, chain)
    rooted = replace(facts, root_at=place)
    assert len(rooted.tree) >= len(facts.tree)
    assert rooted.root in rooted.tree


SSHD = process(5, session=5, uid=ROOT)


def facts_of(*processes: ProcessFacts) -> PeerFacts:
    """Make the facts of a peer that connected as `USER`, whatever its uid is by now."""
    return PeerFacts(USER, USER, chain_of(*processes))


def test_a_caller_that_has_executed_su_does_not_make_roots_services_its_own() -> None:
    became_root = process(30, session=20, terminal=PTS, uid=ROOT)
    facts = facts_of(became_root, SHELL, SSHD, INIT)
    assert facts.user_changed
    assert facts.chain[facts.outermost] == facts.chain[1]
    assert facts.root.id.pid == 30
    assert SSHD.id not in [member.id for member in facts.tree]


def test_without_anything_of_the_users_above_it_such_a_caller_stands_alone() -> None:
    facts = facts_of(process(30, uid=ROOT), SSHD, INIT)
    assert (facts.root.id.pid, facts.outermost, len(facts.tree)) == (30, 0, 1)


def test_a_service_of_root_that_was_started_in_the_users_terminal_is_no_root() -> None:
    # `sudo sshd` at a prompt: whoever logs in there is below it.
    sudo = process(30, session=20, terminal=PTS, uid=ROOT)
    server = process(31, session=31, uid=ROOT)
    login = process(40, session=40, terminal=OTHER_PTS)
    facts = facts_of(process(41, session=40, terminal=OTHER_PTS), login, server, sudo, SHELL, INIT)
    assert facts.root.id.pid == 41


def test_an_agent_that_has_executed_su_stays_in_the_tree_of_what_it_started() -> None:
    became_root = replace(AGENT, uid=ROOT)
    tool = process(31, session=20, terminal=PTS)
    facts = facts_of(process(32, session=20, terminal=PTS), tool, became_root, SHELL, SSHD, INIT)
    assert [member.id.pid for member in facts.tree] == [32, 31, 30]
    assert facts.origin.id == AGENT.id
    assert facts.root.uid == USER


def test_what_the_users_service_manager_started_is_the_users_whatever_it_executed() -> None:
    became_root = process(30, session=30, uid=ROOT)
    facts = facts_of(process(31, session=30), became_root, SYSTEMD, INIT)
    assert facts.chain[facts.outermost].id.pid == 30
    assert (facts.origin.id.pid, facts.root.id.pid) == (30, 31)


@given(chains())
def test_no_process_of_another_user_is_proposed_as_the_root_of_anybody_else(
    chain: tuple[ProcessFacts, ...],
) -> None:
    index = root_index(chain, USER)
    assert index == 0 or chain[index].uid == USER


@given(chains())
def test_what_the_caller_has_become_since_it_connected_widens_no_tree(
    chain: tuple[ProcessFacts, ...],
) -> None:
    assume(chain[0].uid == USER)
    changed = (replace(chain[0], uid=ROOT), *chain[1:])
    assert root_index(changed, USER) <= root_index(chain, USER)


@given(chains())
def test_the_root_lies_in_the_tree(chain: tuple[ProcessFacts, ...]) -> None:
    facts = PeerFacts(USER, USER, chain)
    assert facts.root in facts.tree
