"""Requests that wait: one question a task, and no tree hides another's."""

from dataclasses import replace

import pytest

from backpackd.core.access.requests import FEW, LIFE, MOST, MOST_OF_TREE, Request, RequestTable
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import Answer, Image, PeerFacts, ProcessFacts, ProcessId


def tree(pid: int) -> ProcessId:
    return ProcessId(pid, pid * 10)


def facts_of(pid: int) -> PeerFacts:
    return PeerFacts(1000, 1000, (ProcessFacts(tree(pid), 1, 0, 0, 1000),))


def request(
    code: str, pid: int = 20, names: tuple[str, ...] = ("K",), *, asked_at: float = 0.0
) -> Request:
    return Request(code, facts_of(pid), names, "", {}, asked_at, asked_at + LIFE)


def codes(found: list[Request]) -> list[str]:
    return [one.code for one in found]


def filled(*requests_: Request) -> RequestTable:
    table = RequestTable()
    for one in requests_:
        assert table.add(one) == []
    return table


def test_the_same_keys_or_some_of_them_are_the_same_request() -> None:
    asked = request("AAAA", names=("K", "L"))
    table = filled(asked)
    assert table.find(tree(20), ["K", "L"]) is asked
    assert table.find(tree(20), ["L", "K"]) is asked
    assert table.find(tree(20), ["L"]) is asked


def test_more_keys_or_another_tree_are_another_request() -> None:
    table = filled(request("AAAA", names=("K", "L")))
    assert table.find(tree(20), ["K", "M"]) is None
    assert table.find(tree(21), ["K"]) is None


def test_a_recycled_pid_is_another_tree() -> None:
    table = filled(request("AAAA"))
    assert table.find(ProcessId(20, 201), ["K"]) is None


def test_one_tree_has_few_requests_at_a_time() -> None:
    table = filled(*(request(f"A{n}", names=(f"K{n}",)) for n in range(MOST_OF_TREE)))
    with pytest.raises(LimitError) as caught:
        table.add(request("B", names=("L",)))
    assert caught.value.reason == "too-many-requests"
    assert len(table) == MOST_OF_TREE
    table.add(request("C", pid=21))


def test_a_full_table_gives_way_where_it_is_fullest() -> None:
    table = RequestTable()
    table.add(request("QUIET", pid=1000))
    for number in range(MOST - 1):
        table.add(request(f"F{number}", pid=20 + number // MOST_OF_TREE, names=(f"K{number}",)))
    assert len(table) == MOST
    gone = [one for number in range(8) for one in table.add(request(f"N{number}", pid=2000))]
    # The last of each tree that has the most, which in the end is the newcomer's own.
    fullest = [f"F{number}" for number in (247, 239, 231, 223, 215, 207, 199)]
    assert codes(gone) == [*fullest, "N6"]
    assert len(table) == MOST
    assert table.get("QUIET") is not None


def test_a_flood_of_many_trees_pushes_out_nobody_who_waits() -> None:
    table = RequestTable()
    for number in range(MOST):
        asked = request(f"F{number}", pid=1000 + number, asked_at=number)
        asked.waiting = int(number != MOST // 2)
        table.add(asked)
    # Whoever does not wait makes room, and after that there is none.
    assert codes(table.add(request("N0", pid=10, asked_at=MOST))) == [f"F{MOST // 2}"]
    newcomer = table.get("N0")
    assert newcomer is not None
    newcomer.waiting = 1
    with pytest.raises(LimitError) as caught:
        table.add(request("N1", pid=11, asked_at=MOST))
    assert caught.value.reason == "too-many-requests"
    assert table.get("N1") is None
    assert len(table) == MOST


INIT = ProcessFacts(tree(1), 0, 1, 0, 0, manager=True)
SSHD = ProcessFacts(tree(2), 1, 2, 0, 0)


def orphan(pid: int, unit: str | None = None) -> PeerFacts:
    return PeerFacts(1000, 1000, (ProcessFacts(tree(pid), 1, pid, 0, 1000, unit=unit), INIT))


def in_terminal(pid: int, server: int, unit: str | None = None) -> PeerFacts:
    """Return a program that was started by the shell of a terminal that a server opened."""
    return PeerFacts(
        1000,
        1000,
        (
            ProcessFacts(tree(pid), pid + 1, pid + 1, 7, 1000),
            ProcessFacts(tree(pid + 1), server, pid + 1, 7, 1000),
            ProcessFacts(tree(server), 1, server, 0, 1000, unit=unit),
            INIT,
        ),
    )


def over_ssh(pid: int) -> PeerFacts:
    shell = ProcessFacts(tree(pid + 1), 2, pid + 1, 7, 1000, unit="session-1.scope")
    return PeerFacts(
        1000, 1000, (ProcessFacts(tree(pid), pid + 1, pid + 1, 7, 1000), shell, SSHD, INIT)
    )


def waits(code: str, facts: PeerFacts, *, asked_at: float = 0.0) -> Request:
    asked = replace(request(code, asked_at=asked_at), facts=facts)
    asked.waiting = 1
    return asked


def flooded(unit: str | None) -> RequestTable:
    """Return a table that orphans have filled, each of them waiting."""
    return filled(*(waits(f"F{n}", orphan(1000 + n, unit), asked_at=float(n)) for n in range(MOST)))


@pytest.mark.parametrize(
    ("unit", "honest"),
    [
        (None, in_terminal(500, 400)),
        ("session-1.scope", in_terminal(500, 400, "session-1.scope")),
        ("session-1.scope", over_ssh(500)),
        ("session-1.scope", orphan(500, "backup.service")),
    ],
    ids=["without units", "same unit", "same session over ssh", "another unit"],
)
def test_a_flood_of_orphans_keeps_nobody_else_out(unit: str | None, honest: PeerFacts) -> None:
    table = flooded(unit)
    asked = waits("HONEST", honest, asked_at=MOST)
    assert codes(table.add(asked)) == [f"F{MOST - 1}"]
    with pytest.raises(LimitError):
        table.add(waits("MORE", orphan(5000, unit), asked_at=MOST + 1))
    assert table.get("HONEST") is asked
    # Nor does it bury it: the first of its crowd comes before the second of the flood.
    assert codes(table.shown())[:3] == ["F0", "HONEST", "F1"]


def test_nobody_is_pushed_out_by_a_crowd_as_large_as_its_own() -> None:
    sizes = {"b": MOST // 2, "a": MOST // 2 - 1, "c": 1}
    approvals = [
        waits(f"{unit}{number}", orphan(1000 * place + number, unit))
        for place, (unit, size) in enumerate(sizes.items(), 1)
        for number in range(size)
    ]
    with pytest.raises(LimitError):
        filled(*approvals).add(waits("MORE", orphan(5000, "a")))


def test_a_crowd_of_few_gives_way_to_nobody() -> None:
    honest = [waits(f"H{n}", in_terminal(500 + 2 * n, 400), asked_at=0.0) for n in range(FEW)]
    others = [
        waits(f"F{n}", in_terminal(5000 + 2 * n, 3000 + n, f"{n}.scope"), asked_at=1.0)
        for n in range(MOST - FEW)
    ]
    table = filled(*honest, *others)
    with pytest.raises(LimitError):
        table.add(waits("MORE", in_terminal(9000, 8000, "more.scope"), asked_at=2.0))


def test_a_code_is_found_in_either_case_and_with_blanks() -> None:
    asked = request("AB2C")
    table = filled(asked)
    assert table.get(" ab2c\n") is asked
    assert table.get("AB2D") is None


def test_the_oldest_of_each_tree_is_shown_first() -> None:
    flood = [request(f"F{n}", pid=20, names=(f"K{n}",), asked_at=n) for n in range(5)]
    table = filled(*flood, request("L1", pid=30, asked_at=10), request("L2", pid=31, asked_at=9))
    assert codes(table.shown()) == ["F0", "L2", "L1", "F1", "F2", "F3", "F4"]


def test_a_request_ends_when_nobody_has_waited_for_a_while() -> None:
    table = filled(request("AAAA"), request("BBBB", pid=21, asked_at=5))
    assert table.expire(LIFE - 1) == ([], LIFE)
    ended, coming = table.expire(LIFE)
    assert (codes(ended), coming) == (["AAAA"], LIFE + 5)
    assert table.get("AAAA") is None


def test_a_request_that_is_waited_for_does_not_end_by_itself() -> None:
    asked = request("AAAA")
    asked.waiting = 1
    assert filled(asked).expire(LIFE * 10) == ([], None)


def test_requests_end_with_their_tree_and_no_other() -> None:
    table = filled(request("AAAA"), request("BBBB", names=("L",)), request("CCCC", pid=21))
    assert codes(table.end_tree(tree(20))) == ["AAAA", "BBBB"]
    assert table.trees() == {tree(21)}
    assert codes(table.end_all()) == ["CCCC"]
    assert len(table) == 0


def test_what_starts_everybodys_programs_cannot_be_a_root() -> None:
    chain = (
        ProcessFacts(tree(22), 21, 0, 0, 1000),
        ProcessFacts(tree(21), 20, 0, 0, 0),
        ProcessFacts(tree(20), 11, 0, 0, 1000),
        ProcessFacts(tree(11), 10, 0, 0, 1000, manager=True),
        ProcessFacts(tree(10), 1, 0, 0, 0),
        ProcessFacts(tree(1), 0, 0, 0, 0, manager=True),
    )
    asked = replace(request("AAAA"), facts=PeerFacts(1000, 1000, chain))
    assert [found.id.pid for found in asked.possible_roots] == [22, 20]
    assert asked.tree in [found.id for found in asked.possible_roots]


NAMED = Image(Answer.NAMED, 8, 4711, (0x1000, 0x7000))
PYTHON = ProcessFacts(tree(21), 20, 0, 0, 1000, "/usr/bin/python3", image=NAMED)
ASKED = PeerFacts(1000, 1000, (PYTHON, SSHD, INIT))
CLAIMED = {21: "python3 agent.py", 2: "sshd: listening"}


@pytest.mark.parametrize(
    "now",
    [
        replace(PYTHON, executable=None, image=replace(NAMED, answer=Answer.UNNAMED)),
        replace(PYTHON, image=Image(Answer.HIDDEN)),
        replace(PYTHON, image=Image(Answer.NOTHING)),
        replace(PYTHON, image=replace(NAMED, device=9)),
        replace(PYTHON, image=replace(NAMED, inode=4712)),
        replace(PYTHON, image=replace(NAMED, layout=(0x1000, 0x8000))),
        replace(PYTHON, unit="other.service"),
        replace(PYTHON, uid=0),
    ],
)
def test_whatever_the_kernel_says_otherwise_of_a_program_is_a_change(now: ProcessFacts) -> None:
    asked = replace(request("AAAA"), facts=ASKED, commands=CLAIMED)
    facts = replace(ASKED, chain=(now, SSHD, INIT))
    assert asked.differs(facts, CLAIMED)
    asked.change(facts, CLAIMED)
    assert asked.revision == 2
    assert not asked.differs(facts, CLAIMED)


@pytest.mark.parametrize("claims", [{21: "python3 other.py"}, {}])
def test_another_command_line_is_a_change_and_so_is_none(claims: dict[int, str]) -> None:
    asked = replace(request("AAAA"), facts=ASKED, commands=CLAIMED)
    assert asked.differs(ASKED, {**claims, 2: CLAIMED[2]})


def test_what_roots_services_write_into_their_command_lines_is_no_change() -> None:
    asked = replace(request("AAAA"), facts=ASKED, commands=CLAIMED)
    assert not asked.differs(ASKED, {**CLAIMED, 2: "sshd: somebody [priv]"})


def test_a_process_that_has_ended_is_no_change_and_keeps_its_claim() -> None:
    asked = replace(request("AAAA"), facts=ASKED, commands=CLAIMED)
    ended = replace(ASKED, chain=(replace(PYTHON, image=Image(Answer.ENDED)), SSHD, INIT))
    asked.change(ended, {**CLAIMED, 21: "another with its number"})
    assert asked.revision == 1
    assert asked.commands == CLAIMED
    assert asked.facts.process.image.answer is Answer.ENDED
