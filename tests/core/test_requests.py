"""Requests that wait and what answers left: one question a task, and no tree hides another's."""

from dataclasses import replace

import pytest

from backpackd.core import requests
from backpackd.core.errors import LimitError
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.core.grants import Grant
from backpackd.core.requests import LIFE, MOST, MOST_OF_TREE, Answers, Request, RequestTable
from backpackd.core.selectors import parse


def tree(pid: int) -> ProcessId:
    return ProcessId(pid, pid * 10)


def facts_of(pid: int) -> PeerFacts:
    return PeerFacts(1000, 1000, (ProcessFacts(tree(pid), 1, 0, 0, 1000),))


def request(
    code: str, pid: int = 20, names: tuple[str, ...] = ("K",), *, asked_at: float = 0.0
) -> Request:
    return Request(code, facts_of(pid), names, "", {}, asked_at, asked_at + LIFE)


def consent(grant_id: str = "c", pid: int = 20, patterns: tuple[str, ...] = ("K",)) -> Grant:
    selector = replace(parse(f"tree:{pid}"), process=tree(pid), boot_id="boot")
    return Grant(grant_id, patterns, selector, 60, None, None, 1, "", consent=True)


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
    assert codes(gone) == [f"F{number}" for number in (0, 8, 16, 24, 32, 40, 48, 56)]
    assert len(table) == MOST
    assert table.get("QUIET") is not None


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
    assert [found.id.pid for found in asked.possible_roots] == [22, 21, 20]
    assert asked.tree in [found.id for found in asked.possible_roots]


def test_a_refusal_is_remembered_for_its_tree_and_keys() -> None:
    answers = Answers()
    answers.refuse(tree(20), ["K"])
    assert answers.refused(tree(20), ["K", "L"])
    assert not answers.refused(tree(20), ["L"])
    assert not answers.refused(tree(21), ["K"])
    assert answers.trees() == {tree(20)}


def test_a_consent_after_a_refusal_is_the_later_word() -> None:
    answers = Answers()
    answers.refuse(tree(20), ["K", "L"])
    answers.consent(consent(), tree(20))
    assert not answers.refused(tree(20), ["K"])
    assert answers.refused(tree(20), ["L"])


def test_a_consent_to_another_root_also_takes_the_refusal_of_the_tree_that_asked_back() -> None:
    answers = Answers()
    answers.refuse(tree(20), ["K"])
    answers.consent(consent(pid=10), tree(20))
    assert not answers.refused(tree(20), ["K"])


def test_a_withdrawal_ends_consents_of_that_tree_to_those_keys() -> None:
    answers = Answers()
    for one in (consent("own"), consent("own-l", patterns=("L",)), consent("other", pid=21)):
        answers.consent(one, tree(20))
    assert [one.id for one in answers.withdraw(tree(20), ["K"], ())] == ["own"]
    assert {one.id for one in answers.consents()} == {"own-l", "other"}
    assert answers.withdrawn(tree(20), "K")
    assert not answers.withdrawn(tree(20), "L")
    assert not answers.withdrawn(tree(21), "K")


def test_a_withdrawal_ends_what_the_lease_rested_on_whoever_is_its_root() -> None:
    answers = Answers()
    answers.consent(consent("shell", pid=10), tree(20))
    assert [one.id for one in answers.withdraw(tree(20), ["K"], ("shell",))] == ["shell"]


def test_a_consent_is_set_aside_by_a_later_withdrawal_only() -> None:
    answers = Answers()
    answers.consent(consent("before", pid=10), tree(20))
    answers.withdraw(tree(20), ["K"], ())
    answers.consent(consent("after", pid=10), tree(20))
    assert answers.withdrawn(tree(20), "K", since="before")
    assert not answers.withdrawn(tree(20), "K", since="after")
    answers.withdraw(tree(20), ["K"], ())
    assert answers.withdrawn(tree(20), "K", since="after")


def test_uses_of_a_consent_are_counted() -> None:
    answers = Answers()
    answers.consent(replace(consent(), uses_left=2), tree(20))
    assert [answers.use("c") for _ in range(3)] == [True, True, False]
    assert not answers.use("unknown")


def test_everything_about_a_tree_ends_with_its_root() -> None:
    answers = Answers()
    answers.refuse(tree(20), ["K"])
    answers.withdraw(tree(20), ["L"], ())
    answers.consent(consent(patterns=("M",)), tree(20))
    answers.refuse(tree(21), ["K"])
    assert [one.id for one in answers.end_tree(tree(20))] == ["c"]
    assert answers.trees() == {tree(21)}
    assert answers.consents() == []


def test_clearing_forgets_everything() -> None:
    answers = Answers()
    answers.refuse(tree(20), ["K"])
    answers.withdraw(tree(20), ["L"], ())
    answers.consent(consent(patterns=("M",)), tree(20))
    answers.clear()
    assert answers.trees() == set()
    assert answers.consents() == []
    assert answers._given == {}


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests, "MOST_REMEMBERED", 3)
    answers = Answers()
    answers.refuse(tree(20), ["A", "B", "C"])
    answers.refuse(tree(20), ["A"])
    answers.refuse(tree(20), ["D"])
    assert [answers.refused(tree(20), [name]) for name in "ABCD"] == [True, False, True, True]
