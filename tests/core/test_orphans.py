"""Which orphans a tree may have left behind: of its session or unit, and no others."""

from dataclasses import replace
from typing import Any

import pytest

from backpackd.core.access.orphans import Place, Traces, place_of
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId

USER = 1000


def process(pid: int, session: int, unit: str | None = "a.scope", **facts: Any) -> ProcessFacts:
    given: dict[str, Any] = {"parent": 1, "terminal": 0, "uid": USER, **facts}
    return ProcessFacts(ProcessId(pid, pid * 10), session=session, unit=unit, **given)


INIT = ProcessFacts(ProcessId(1, 1), 0, 1, 0, 0, unit="init.scope", manager=True)
SSHD = process(2, 2, "ssh.service", uid=0)
TERMINAL = process(10, 10)
SHELL = process(20, 20, terminal=7)
AGENT = process(30, 20, terminal=7)
IN_TERMINAL = PeerFacts(USER, USER, (AGENT, SHELL, TERMINAL, INIT))
PLACE = place_of(IN_TERMINAL, AGENT)


def left(*chain: ProcessFacts, place: Place = PLACE) -> bool:
    return Traces.of(PeerFacts(USER, USER, chain)).may_be_left_by(AGENT.id, place)


def test_a_place_is_the_session_the_unit_the_outermost_process_and_the_parent() -> None:
    assert Place(20, "a.scope", TERMINAL.id, SHELL.id) == PLACE


def test_a_service_manager_is_no_parent() -> None:
    orphan = process(40, 40)
    assert place_of(PeerFacts(USER, USER, (orphan, INIT)), orphan).parent is None


@pytest.mark.parametrize(
    "chain",
    [
        (process(40, 20, "b.scope"), INIT),
        (process(40, 40), INIT),
        (process(41, 41, "b.scope", terminal=8), process(40, 40), INIT),
        (process(40, 40),),
        (process(41, 20, "b.scope"), process(15, 15, "c.scope"), SSHD, INIT),
        (process(41, 20, "b.scope"), TERMINAL, INIT),
    ],
    ids=[
        "same session",
        "setsid in the same unit",
        "a terminal of its own",
        "nothing above it can be read",
        "taken by a subreaper in another session",
        "taken by the terminal program",
    ],
)
def test_an_orphan_of_the_same_session_or_unit_may_be_left_by_a_tree(
    chain: tuple[ProcessFacts, ...],
) -> None:
    assert left(*chain)


@pytest.mark.parametrize(
    "chain",
    [
        (process(29, 20, terminal=7), SHELL, TERMINAL, INIT),
        (process(35, 20), process(29, 20, terminal=7), SHELL, TERMINAL, INIT),
        (process(51, 50, terminal=8), process(50, 50, terminal=8), TERMINAL, INIT),
        (process(60, 60, "backup.service"), INIT),
        (process(61, 60), process(60, 60), SSHD, INIT),
        (process(60, 0, None), INIT),
        (process(60, 60, parent=0),),
    ],
    ids=[
        "a command that the same shell started before",
        "what such a command has started since",
        "another shell of the same terminal program",
        "a service",
        "a login over ssh",
        "outside of every unit",
        "entered from outside of the pid namespace",
    ],
)
def test_nobody_else_is(chain: tuple[ProcessFacts, ...]) -> None:
    assert not left(*chain)


@pytest.mark.parametrize(
    "chain",
    [
        (process(31, 20, terminal=7), SHELL, TERMINAL, INIT),
        (process(31, 31), SHELL, TERMINAL, INIT),
        (process(31, 31, "b.scope", terminal=8), SHELL, TERMINAL, INIT),
        (process(33, 33, terminal=8), process(31, 31), SHELL, TERMINAL, INIT),
    ],
    ids=["in its session", "with setsid", "elsewhere altogether", "below one of them"],
)
def test_a_younger_child_of_its_parent_may_be_left_by_a_tree(
    chain: tuple[ProcessFacts, ...],
) -> None:
    assert left(*chain)
    assert not left(*chain, place=Place(20, "a.scope", TERMINAL.id))


def test_outside_of_every_unit_all_orphans_count_together() -> None:
    place = Place(20, None, ProcessId(30, 300))
    assert left(process(40, 40, None), INIT, place=place)
    assert not left(process(40, 40, "backup.service"), INIT, place=place)


def test_a_session_that_is_not_known_is_nobodys() -> None:
    assert not left(process(40, 0, "b.scope"), INIT, place=Place(0, "a.scope", AGENT.id))


# The first process of a container: its service, which starts terminals for people.
SERVICE = replace(INIT, uid=USER, manager=False, executable="/usr/bin/node", name="node")
AGENT_IN_CONTAINER = PeerFacts(USER, USER, (AGENT, process(20, 20, terminal=7), SERVICE))


@pytest.mark.parametrize(
    "chain",
    [
        (process(40, 20), SERVICE),
        (process(40, 40), SERVICE),
        (process(42, 42, terminal=8), process(40, 40), SERVICE),
    ],
    ids=["same session", "setsid", "setsid and a terminal of its own"],
)
@pytest.mark.parametrize("entered", [False, True])
def test_the_first_process_takes_orphans_whatever_program_it_is(
    chain: tuple[ProcessFacts, ...], entered: bool
) -> None:
    facts = AGENT_IN_CONTAINER
    if entered:
        # As `docker exec` does, from outside of the pid namespace.
        facts = PeerFacts(USER, USER, (AGENT, process(20, 20, terminal=7, parent=0)))
    assert left(*chain, place=place_of(facts, AGENT))


def test_what_the_same_shell_of_a_container_runs_is_no_orphan() -> None:
    place = place_of(AGENT_IN_CONTAINER, AGENT)
    assert not left(process(29, 20, terminal=7), *AGENT_IN_CONTAINER.chain[1:], place=place)


def test_the_place_of_the_first_process_is_its_own() -> None:
    assert place_of(AGENT_IN_CONTAINER, SERVICE).top == SERVICE.id
