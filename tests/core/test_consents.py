"""What people's answers left behind: consents, refusals and revocations."""

from dataclasses import replace

import pytest

from backpackd.core.access import consents as module
from backpackd.core.access.consents import EVERY_KEY, Consents
from backpackd.core.access.grants import Grant
from backpackd.core.access.revocations import Revocations
from backpackd.core.access.selectors import parse
from backpackd.core.peer_facts import ProcessId


def tree(pid: int) -> ProcessId:
    return ProcessId(pid, pid * 10)


def consent(grant_id: str = "c", pid: int = 20, patterns: tuple[str, ...] = ("K",)) -> Grant:
    selector = replace(parse(f"tree:{pid}"), process=tree(pid), boot_id="boot")
    return Grant(grant_id, patterns, selector, 60, None, None, 1, "", consent=True)


def test_a_refusal_is_remembered_for_its_tree_and_keys() -> None:
    consents = Consents()
    consents.refuse(tree(20), ["K"])
    assert consents.refused(tree(20), ["K", "L"])
    assert not consents.refused(tree(20), ["L"])
    assert not consents.refused(tree(21), ["K"])
    assert consents.trees() == {tree(20)}


def test_a_consent_after_a_refusal_is_the_later_word() -> None:
    consents = Consents()
    consents.refuse(tree(20), ["K", "L"])
    consents.consent(consent(), tree(20))
    assert not consents.refused(tree(20), ["K"])
    assert consents.refused(tree(20), ["L"])


def test_a_consent_to_another_root_also_takes_the_refusal_of_the_tree_that_asked_back() -> None:
    consents = Consents()
    consents.refuse(tree(20), ["K"])
    consents.consent(consent(pid=10), tree(20))
    assert not consents.refused(tree(20), ["K"])


def test_a_withdrawal_ends_consents_of_that_tree_to_those_keys() -> None:
    consents = Consents()
    for one in (consent("own"), consent("own-l", patterns=("L",)), consent("other", pid=21)):
        consents.consent(one, tree(20))
    assert [one.id for one in consents.withdraw(tree(20), ["K"], ())] == ["own"]
    assert {one.id for one in consents.in_force()} == {"own-l", "other"}
    assert consents.withdrawn(tree(20), "K")
    assert not consents.withdrawn(tree(20), "L")
    assert not consents.withdrawn(tree(21), "K")


def test_a_withdrawal_ends_what_the_lease_rested_on_whoever_is_its_root() -> None:
    consents = Consents()
    consents.consent(consent("shell", pid=10), tree(20))
    assert [one.id for one in consents.withdraw(tree(20), ["K"], ("shell",))] == ["shell"]


def test_a_consent_is_set_aside_by_a_later_withdrawal_only() -> None:
    consents = Consents()
    consents.consent(consent("before", pid=10), tree(20))
    consents.withdraw(tree(20), ["K"], ())
    consents.consent(consent("after", pid=10), tree(20))
    assert consents.withdrawn(tree(20), "K", since="before")
    assert not consents.withdrawn(tree(20), "K", since="after")
    consents.withdraw(tree(20), ["K"], ())
    assert consents.withdrawn(tree(20), "K", since="after")


def test_uses_of_a_consent_are_counted() -> None:
    consents = Consents()
    consents.consent(replace(consent(), uses_left=2), tree(20))
    assert [consents.use("c") for _ in range(3)] == [True, True, False]
    assert not consents.use("unknown")


def test_everything_about_a_tree_ends_with_its_root() -> None:
    consents = Consents()
    consents.refuse(tree(20), ["K"])
    consents.withdraw(tree(20), ["L"], ())
    consents.consent(consent(patterns=("M",)), tree(20))
    consents.refuse(tree(21), ["K"])
    assert [one.id for one in consents.end_tree(tree(20))] == ["c"]
    assert consents.trees() == {tree(21)}
    assert consents.in_force() == []


def test_a_lock_forgets_everything_but_from_whom_something_was_revoked() -> None:
    consents = Consents()
    consents.refuse(tree(20), ["K"])
    consents.withdraw(tree(21), ["L"], ())
    consents.consent(consent(patterns=("M",)), tree(20))
    consents.lock()
    assert consents.trees() == {tree(21)}
    assert consents.in_force() == []
    assert consents._given == {}
    # No name is kept, so it is every key from then on, until a person consents anew.
    assert "L" not in repr(vars(consents._withdrawn))
    assert consents.withdrawn(tree(21), "ANOTHER")
    consents.consent(consent("after", pid=21), tree(21))
    assert not consents.withdrawn(tree(21), "L", since="after")


def test_every_key_can_be_revoked_from_a_tree() -> None:
    consents = Consents()
    consents.consent(consent(pid=20), tree(20))
    assert [one.id for one in consents.withdraw(tree(20), [EVERY_KEY], ())] == ["c"]
    assert consents.withdrawn(tree(20), "K")
    assert not consents.withdrawn(tree(21), "K")


def test_what_is_kept_of_revocations_holds_again_for_every_key() -> None:
    consents, other = Consents(), Consents()
    assert consents.revocations("boot") == Revocations()
    consents.withdraw(tree(20), ["K"], ())
    consents.withdraw(tree(21), ["L"], ())
    kept = consents.revocations("boot")
    assert kept == Revocations("boot", frozenset({tree(20), tree(21)}))
    for each in kept.trees:
        other.restore(each)
    assert other.withdrawn(tree(20), "L")
    assert not other.withdrawn(tree(22), "L")
    assert other.revocations("boot") == kept


def test_too_many_trees_to_keep_are_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TREES", 1)
    consents, other = Consents(), Consents()
    consents.withdraw(tree(20), ["K"], ())
    consents.withdraw(tree(21), ["K"], ())
    kept = consents.revocations("boot")
    assert kept == Revocations("boot", everybody=True)
    other.restore(None)
    assert other.withdrawn(tree(22), "L")
    assert other.revocations("boot") == kept


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    consents = Consents()
    consents.refuse(tree(20), ["A", "B", "C"])
    consents.refuse(tree(20), ["A"])
    consents.refuse(tree(20), ["D"])
    assert [consents.refused(tree(20), [name]) for name in "ABCD"] == [True, False, True, True]


def test_a_revocation_is_never_forgotten_for_others_that_came_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Otherwise a tree could have its own keys revoked until the daemon forgot what was revoked
    # from it before.
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    consents = Consents()
    consents.consent(consent("before", pid=10), tree(20))
    consents.withdraw(tree(20), ["K"], ())
    consents.withdraw(tree(21), ["A", "B", "C"], ())
    assert consents.withdrawn(tree(20), "K")
    assert consents.withdrawn(tree(20), "K", since="before")
    # It cannot be told any more of whom that was, so it is of everybody; later consents count.
    assert consents.withdrawn(tree(22), "D")
    consents.consent(consent("after"), tree(20))
    assert not consents.withdrawn(tree(20), "K", since="after")
    consents.lock()
    assert consents.withdrawn(tree(22), "D")
